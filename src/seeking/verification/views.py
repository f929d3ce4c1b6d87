"""What is seen of the models before they are compared: their forward passes, traced in both modes."""

from collections import Counter
from collections.abc import Container, Iterable
from typing import Any

from torch import nn

from seeking.forward import Forward
from seeking.matching.axes import terminal
from seeking.matching.model_axes import axes_by_rule
from seeking.matching.module_rules import RULES
from seeking.matching.op_rules.choices import COMPETING
from seeking.matching.parts import BOUNDS, OF_INTEGERS, THRESHOLDS
from seeking.matching.tracer import Trace, UntraceableError, trace
from seeking.verification.positions import Positions
from seeking.weights_map import WeightsMap

SIZE_MATTERS = THRESHOLDS | {
    "_to_copy",
    "signbit",
    "sgn",
    "fix",
    "heaviside",
    "copysign",
    "floor_divide",
    "remainder",
    "fmod",
}
"""Operations that may decide alike on all numbers of one size."""

Views = tuple[Trace | None, Trace | None]
"""Traces of the base and of the motivated model; None in place of one where the model cannot be traced."""


def follow(base: nn.Module, motivated: nn.Module, batch: Any, run: Forward) -> dict[bool, Views]:
    """Both models' traces, by whether they train; those in training mode only where something is different there.

    Args:
        base: the smaller model.
        motivated: the larger model.
        batch: one input, as ``run`` takes it.
        run: runs a model on the batch.
    """
    views = {
        training: (
            traced(base, batch, run, training=training),
            traced(motivated, batch, run, training=training),
        )
        for training in (False, True)
    }
    if all(map(_alike, views[False], views[True])):
        del views[True]
    return views


def traced(
    model: nn.Module, batch: Any, run: Forward, *, training: bool = False, numbers: bool = False
) -> Trace | None:
    """A trace, with numbers if it takes them; None if the forward pass fails."""
    known = {name: axes for name, (_, axes) in axes_by_rule(model, RULES).items()}
    for with_numbers in (numbers, True):
        try:
            return trace(model, batch, run, known, training=training, numbers=with_numbers)
        except UntraceableError:
            continue
    return None


def _alike(evaluation: Trace | None, training: Trace | None) -> bool:
    return evaluation is not None and training is not None and evaluation.operations == training.operations


def competition(weights_map: WeightsMap, view: Trace) -> str:
    """A sentence on an operation in which extra entries compete with the base's; empty if there is none."""
    positions = Positions(weights_map, view.axes)
    for name, entry in weights_map.entries.items():
        for dim, axis in enumerate(view.axes.get(entry.target, ())):
            for space in terminal(axis):
                if space.fixed.startswith(COMPETING) and (part := positions.left_out((space,))) is not None:
                    return (
                        f"{name}, dimension {dim}: {len(part)} in the base, {space.size} in the motivated model; the "
                        f"{space.fixed} must be the same in both, since extra ones compete, though they are zero"
                    )
    return ""


def more_parts(base: Trace | None, motivated: Trace | None, names: Container[str]) -> str:
    """A sentence on the first of these operations over joined parts that are more in the motivated model, or empty."""
    if not base or not motivated:
        return ""
    # The output of a single layer is no part of a join.
    single = [(name, 1) for name, _ in motivated.joined]
    for (name, small), (other, large) in zip(base.joined or single, motivated.joined, strict=False):
        if name != other:
            break
        if small != large and name in names:
            return f"{name.strip('_')} over {large} joined parts, such as the outputs of layers, {small} in the base"
    return ""


def differing_numbers(base: Trace | None, motivated: Trace | None, of: str = "") -> str:
    """A sentence on the first number in arithmetic that is another in the motivated model; empty if there is none.

    Args:
        base: a trace.
        motivated: a trace of the motivated model.
        of: what the operations must have in their texts, such as ``OF_INTEGERS``.
    """
    small, large = (
        Counter(text for text in (view.operations if view else ()) if of in text) for view in (base, motivated)
    )
    ours, others = ([text for text in counts if " by " in text] for counts in (small - large, large - small))
    for text in ours:
        name = text.partition(" by ")[0]
        other = next((candidate for candidate in others if candidate.startswith(f"{name} by ")), "")
        if other and other not in small and text not in large:
            return f"{text} in the base is {other} in the motivated model"
    return ""


def computes_otherwise(base: Trace | None, motivated: Trace | None) -> bool:
    """Whether one model runs operations that the other does not, or bounds of others: they may show in few numbers."""
    if not base or not motivated:
        return False
    small, large = (
        {
            text if name in BOUNDS else name
            for text in view.operations
            if (name := text.partition(" ")[0]) not in BOUNDS or OF_INTEGERS not in text
        }
        for view in (base, motivated)
    )
    return small != large


def depends_on_size(view: Trace | None) -> bool:
    """Whether a forward pass may compute something else for numbers of another size, which it compares or reads."""
    if view is None or view.numbers or "nan_to_num" in view.operations:
        return True
    return any(decision.name.rstrip("_") in SIZE_MATTERS for decision in view.decisions)


def unreached(weights_map: WeightsMap, views: Iterable[Trace | None]) -> tuple[str, ...]:
    """The base's tensors that no forward pass of the motivated model reaches; constants that are whole go without."""
    reached: set[str] = set()
    for view in views:
        if view is None:
            return ()
        reached.update(view.axes)
    return tuple(
        name
        for name, entry in weights_map.entries.items()
        if entry.target not in reached and not (entry.whole and entry.target in weights_map.buffers)
    )


def in_mode(reason: str, training: bool) -> str:
    """A reason, with the mode if it is not evaluation."""
    return f"in training mode, {reason}" if training else reason
