"""Are two solutions connected? The loss along the line between them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from seeking.errors import SeekingError
from seeking.option_types import check_least
from seeking.weights_map import tensors


@dataclass(frozen=True)
class Point:
    """A point between two solutions.

    Attributes:
        position: 0 at the first solution, 1 at the second.
        losses: losses by name.
    """

    position: float
    losses: Mapping[str, float]


def losses_along_line(
    model: nn.Module,
    start: Mapping[str, Tensor],
    end: Mapping[str, Tensor],
    measure: Callable[[nn.Module], Mapping[str, float]],
    points: int = 11,
) -> list[Point]:
    """Measure losses at evenly spaced points on the line between two sets of weights.

    Running statistics of batch normalization are not those of weights in between; ``measure`` should re-estimate them
    (``seeking.recalibrate``).

    Args:
        model: a model of this architecture; its weights are replaced, by those of the second solution in the end.
        start: parameters and buffers of the first solution, by name.
        end: likewise of the second one.
        measure: the losses of a model, by name.
        points: number of points, at least 2.

    Raises:
        SeekingError: the names or shapes of the tensors differ, or there are fewer than two points.
    """
    check_least("points", points, 2)
    own = tensors(model)
    for name in sorted(own.keys() | start.keys() | end.keys()):
        shapes = [list(side[name].shape) if name in side else "missing" for side in (own, start, end)]
        if len({str(shape) for shape in shapes}) > 1:
            raise SeekingError(
                f"{name} is {shapes[0]} in the model, {shapes[1]} in the first solution and {shapes[2]} in the second "
                "one; both must be of this architecture"
            )
    start, end = ({name: tensor.detach().clone() for name, tensor in side.items()} for side in (start, end))
    solutions = []
    for number in range(points):
        position = number / (points - 1)
        with torch.no_grad():
            for name, tensor in own.items():
                first, last = start[name].to(tensor.device), end[name].to(tensor.device)
                tensor.copy_(torch.lerp(first, last, position) if tensor.is_floating_point() else first)
        solutions.append(Point(position, dict(measure(model))))
    return solutions


def barrier(points: Sequence[Point], loss: str) -> float:
    """How far the loss rises above the straight line between its ends, at most; 0 if it does not.

    Source: Frankle et al., "Linear Mode Connectivity and the Lottery Ticket Hypothesis", arXiv 1912.05671.
    """
    first, last = points[0].losses[loss], points[-1].losses[loss]
    return max(point.losses[loss] - (1 - point.position) * first - point.position * last for point in points)
