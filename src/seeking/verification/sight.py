"""What the trace of a motivated model tells of the base's positions in its forward pass."""

import contextlib
import functools
from dataclasses import dataclass

from seeking.matching.statistics import VOTES
from seeking.matching.tracer import Trace
from seeking.verification.compare import Channels
from seeking.verification.decisions import Decisions, deciding
from seeking.verification.narrowing import Narrowed, Plan, narrowings
from seeking.verification.positions import Positions
from seeking.verification.running import Picked, those_picked
from seeking.weights_map import WeightsMap


@dataclass(frozen=True)
class Sight:
    """A trace of the motivated model, read by a weights map.

    Attributes:
        view: the trace; None if the model cannot be traced.
        weights_map: of the base in the motivated model.
    """

    view: Trace | None
    weights_map: WeightsMap

    @functools.cached_property
    def _positions(self) -> Positions:
        return Positions(self.weights_map, self.view.axes if self.view else {})

    @functools.cached_property
    def _plans(self) -> tuple[Plan, Plan]:
        return narrowings(self.view.reductions, self._positions) if self.view else ({}, {})

    @property
    def norms(self) -> Plan:
        """The statistics of norms over channels of which the base has only a part."""
        return self._plans[0]

    @property
    def others(self) -> list[str]:
        """Names of the other reductions over such channels."""
        reductions = self.view.reductions if self.view else []
        names = {reductions[place].name for place in self._plans[1]} - VOTES
        return sorted(name.strip("_") for name in names)

    def narrowed(self, *, as_means: bool, others: bool, strict: bool) -> Narrowed:
        """A mode that runs the norms, or all reductions, over the base's channels alone; see ``Narrowed``."""
        norms, rest = self._plans
        return Narrowed(
            self.view.reductions if self.view else [],
            {**norms, **rest} if others else norms,
            as_means=as_means,
            votes=rest,
            strict=strict and self.view is not None,
        )

    def deciding(self, decisions: Decisions) -> contextlib.AbstractContextManager[None]:
        """A mode that records what decides, at the base's channels."""
        return deciding(decisions, self.view.decisions, self._positions) if self.view else deciding(decisions)

    def channels(self, picked: Picked | None) -> Channels:
        """For each tensor that is put out and picked, the base's positions in each dimension, where they are known."""
        if not self.view:
            return []
        outputs = self.view.outputs
        axes_of_picked = (those_picked(outputs, picked) if picked else None) or [*outputs.values()]
        return [[self._positions.left_out(axis) for axis in axes] for axes in axes_of_picked]
