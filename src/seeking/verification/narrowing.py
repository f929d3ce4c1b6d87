"""The motivated model's own norms, with their statistics over the base's channels alone."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from seeking.internals import PassingMode
from seeking.matching.operation import short_name
from seeking.matching.statistics import LOSSES, REDUCTIONS, SUMS, VOTES, Reduction
from seeking.verification.positions import Positions

BasePositions = Mapping[int, list[int]]
"""For dimensions that are reduced, the positions that are the base's."""

Plan = dict[int, BasePositions]
"""What is narrowed, by the place of the reduction among all of a forward pass."""


class DivergedError(Exception):
    """A forward pass reduces other tensors than the one that was traced."""


class OutvotedError(Exception):
    """Entries that are not the base's decide, though they are zero; the message says where."""


def narrowings(reductions: Sequence[Reduction], positions: Positions) -> tuple[Plan, Plan]:
    """The reductions over channels of which the base has only a part: those of norms, and the others."""
    plans: tuple[Plan, Plan] = {}, {}
    for place, reduction in enumerate(reductions):
        channels = {dim: part for dim, axis in reduction.axes.items() if (part := positions.left_out(axis)) is not None}
        if channels:
            plans[not reduction.normalizes()][place] = channels
    return plans


class Narrowed(PassingMode):
    """Runs the reductions of a plan over the base's channels alone.

    Args:
        reductions: of the pass that was traced.
        plan: what is narrowed.
        as_means: whether sums and root sums of squares grow as if they were over all channels. What is divided by the
            number of channels, or its root, is then a mean.
        votes: reductions over channels of which the base has only a part. Where these are votes, what the others say
            must not matter.
        strict: whether the pass must reduce what the traced one did even where nothing is narrowed.
    """

    def __init__(
        self,
        reductions: Sequence[Reduction],
        plan: Plan,
        *,
        as_means: bool,
        votes: Plan,
        strict: bool,
    ) -> None:
        super().__init__()
        self._reductions = reductions
        self._plan = plan
        self._as_means = as_means
        self._votes = votes
        self._strict = strict
        self._place = 0

    def finish(self) -> None:
        """Note that the pass is over.

        Raises:
            DivergedError: it reduced less than the traced one did.
        """
        if self._strict and self._place != len(self._reductions):
            raise DivergedError

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = short_name(func)
        if name not in REDUCTIONS or (name == "max" and func.name().endswith(".other")):
            return func(*args, **kwargs)
        place, self._place = self._place, self._place + 1
        traced = self._reductions[place] if place < len(self._reductions) else None
        alike = traced is not None and (name, tuple(args[0].shape)) == (traced.name, traced.shape)
        if not alike and (self._strict or place in self._plan):
            raise DivergedError
        if alike and name in VOTES and place in self._votes:
            _check_vote(name, args[0], self._votes[place])
        if place not in self._plan:
            return func(*args, **kwargs)
        channels = {dim: torch.tensor(part, device=args[0].device) for dim, part in self._plan[place].items()}
        if name in NARROWED:
            return NARROWED[name](func, channels, *args, **kwargs)
        x = args[0]
        for dim, part in channels.items():
            x = x.index_select(dim, part)
        output = func(x, *args[1:], **kwargs)
        if self._as_means and name in SUMS:
            order = 1 if name in ("sum", "nansum") else args[1] if len(args) > 1 and args[1] is not None else 2
            output = output * (args[0].numel() / x.numel()) ** (1 / order)
        return output


def _check_vote(name: str, x: Tensor, channels: BasePositions) -> None:
    """Make sure that entries which are not the base's leave a vote to the base's, whatever those say.

    Raises:
        OutvotedError: they do not.
    """
    extra = torch.zeros(x.shape, dtype=torch.bool, device=x.device)
    for dim, part in channels.items():
        own = torch.zeros(x.shape[dim], dtype=torch.bool, device=x.device)
        own[part] = True
        extra |= ~own.view([-1 if each == dim % x.ndim else 1 for each in range(x.ndim)])
    votes = x[extra] != 0
    if not votes.all() if name == "all" else votes.any():
        raise OutvotedError(
            f"{name} is over more channels in the motivated model, of which those that the base does not have decide, "
            "too, though they are zero"
        )


def _over_last(func: Any, channels: dict[int, Tensor], x: Tensor, shape: Sequence[int], *rest: Any) -> Any:
    """Layer norm and RMS norm: over the last dimensions, which the weights have, too."""
    first = x.ndim - len(shape)
    parts = [channels.get(dim, torch.arange(x.shape[dim], device=x.device)) for dim in range(first, x.ndim)]
    mesh = torch.meshgrid(*parts, indexing="ij")
    rest = tuple(value[mesh] if isinstance(value, Tensor) else value for value in rest)
    place: Any = (..., *mesh)
    narrowed, *statistics = func(x[place], mesh[0].shape, *rest)
    output = torch.zeros_like(x)
    output[place] = narrowed
    return output, *statistics


def _over_groups(
    func: Any,
    channels: dict[int, Tensor],
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    samples: int,
    size: int,
    pixels: int,
    groups: int,
    eps: float,
) -> Any:
    """Group norm: over each group that holds channels of the base."""
    part = channels[1]
    held = part // (size // groups)
    runs = torch.unique_consecutive(held)
    if len(runs) != len(held.unique()) or not torch.equal(held, runs.repeat_interleave(len(held) // len(runs))):
        return func(x, weight, bias, samples, size, pixels, groups, eps)
    own = [value if value is None else value[part] for value in (weight, bias)]
    narrowed, *statistics = func(x[:, part], *own, samples, len(part), pixels, len(runs), eps)
    output = torch.zeros_like(x)
    output[:, part] = narrowed
    return output, *statistics


def _over_all(func: Any, channels: dict[int, Tensor], x: Tensor, target: Tensor, *rest: Any, **kwargs: Any) -> Any:
    """A loss of two tensors."""
    for dim, part in channels.items():
        x, target = x.index_select(dim, part), target.index_select(dim, part)
    return func(x, target, *rest, **kwargs)


NARROWED: dict[str, Callable[..., Any]] = {
    "native_layer_norm": _over_last,
    "_fused_rms_norm": _over_last,
    "native_group_norm": _over_groups,
    **dict.fromkeys(LOSSES, _over_all),
}
"""Operations that put out as many channels as they take, or take several tensors."""
