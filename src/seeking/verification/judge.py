"""Compare what two models put out, layer by layer and at the end."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from seeking.verification.compare import Channels, at_base_channels, compare_outputs, relative_difference
from seeking.verification.diagnose import (
    constant_factor,
    differing_count,
    differing_setting,
    more_recurrent_layers,
    obstacle,
)
from seeking.verification.extra import extra_modules
from seeking.verification.recording import Records
from seeking.verification.verdict import Verification
from seeking.weights_map import WeightsMap, has_nan


@dataclass(frozen=True)
class Divergence:
    """Where two models begin to differ, if anywhere.

    Attributes:
        problem: what differs; empty if no layer does.
        layer: of the base, the first that differs.
        cause: why, as far as this layer tells.
        end: number of records of the motivated model before it.
        agreeing: the last layer of the base before it that agrees; empty if there is none.
        agreeing_place: of its counterpart in the records of the motivated model.
    """

    problem: str
    layer: str | None
    cause: str
    end: int
    agreeing: str
    agreeing_place: int


@dataclass(frozen=True)
class Judge:
    """Compares what two models have computed.

    Attributes:
        base: the smaller model.
        motivated: the larger model.
        weights_map: the map to be proven.
        small: what was recorded of the base.
        large: what was recorded of the motivated model.
        tolerance: greatest relative difference that counts as none.
    """

    base: nn.Module
    motivated: nn.Module
    weights_map: WeightsMap
    small: Records
    large: Records
    tolerance: float

    def verdict(self, channels: Channels) -> Verification:
        """Whether all layers and, at these channels, the outputs agree, and if not, where and why."""
        outputs = self.small[-1][1], self.large[-1][1]
        difference, problem = compare_outputs(*outputs, channels)
        found = self.first_divergence()
        if not found.problem and difference <= self.tolerance:
            return Verification(True, difference, None, f"exact: greatest relative difference {difference:.1e}")
        reason = found.problem or problem
        reason += f"; {found.agreeing}, run before it, agrees" if found.agreeing else "; it is the first layer compared"
        cause = self._cause(found)
        if cause:
            reason += f": {cause}"
        elif has_nan(outputs[1]) and not has_nan(outputs[0]):
            # Other neutral weights might do, of which nothing is known here.
            reason += ": the motivated model computes NaN where its extra weights are zero, as a division by them gives"
        return Verification(False, difference, found.layer, reason, contained=not cause)

    def first_divergence(self) -> Divergence:
        """The first layer of the base, in the order in which they ran, that differs from its counterpart."""
        layers = compared_layers(self.weights_map)
        runs: dict[str, list[tuple[int, Any]]] = {}
        for place, (name, output) in enumerate(self.large):
            runs.setdefault(name, []).append((place, output))
        agreeing: tuple[str, int] = "", -1
        unjudged: list[str] = []  # Layers since the one that agrees, of which the outputs say nothing by themselves.
        for name, small_output in self.small:
            if not name or not isinstance(small_output, Tensor):
                continue
            counterpart = layers[name]
            if not runs.get(counterpart):
                problem = f"{name}: its counterpart {counterpart} is not run"
                return Divergence(problem, name, "", len(self.large), *agreeing)
            place, large_output = runs[counterpart].pop(0)
            weight = self.weights_map.entries[f"{name}.weight"]
            mapped = at_base_channels(self.base.get_submodule(name), small_output, large_output, weight)
            if mapped is None:
                unjudged.append(name)
                continue
            difference = relative_difference(small_output, mapped)
            if difference > self.tolerance:
                problem = f"{name} in the base and {counterpart} in the motivated model differ by {difference:.1e}"
                suspects = [at for at in (agreeing[0], *unjudged, name) if at]
                settings = (differing_setting(self.base, self.motivated, at, layers[at]) for at in suspects)
                cause = next(filter(None, settings), constant_factor(small_output, mapped, self.tolerance))
                return Divergence(problem, name, cause, place, *agreeing)
            agreeing = name, place
            unjudged.clear()
        return Divergence("", None, "", len(self.large), *agreeing)

    def _cause(self, found: Divergence) -> str:
        """Why no map could make the models agree; empty if nothing tells that."""
        layers = compared_layers(self.weights_map)
        extra = set(extra_modules(self.motivated, self.weights_map))
        before = [(place, record) for place, record in enumerate(self.large[: found.end]) if record[0] in extra]
        # Suspect are the extra modules that ran in between and, as there may be a shortcut, those in the same block.
        block = layers.get(found.agreeing, "").rpartition(".")[0] + "."
        suspects = [
            record
            for place, record in before
            if place > found.agreeing_place or (block != "." and record[0].startswith(block))
        ]
        return (
            obstacle(self.motivated, suspects, self.tolerance)
            or found.cause
            # What another part of the model computes may have come in by another way.
            or obstacle(self.motivated, [record for _, record in before], self.tolerance)
            or differing_count(layers, [name for name, _ in self.small], [name for name, _ in self.large])
            or more_recurrent_layers(self.base, self.motivated, self.weights_map)
        )


def compared_layers(weights_map: WeightsMap) -> dict[str, str]:
    """For each base module that owns a ``weight``, the module that owns its target."""
    return {
        name.rpartition(".")[0]: entry.target.rpartition(".")[0]
        for name, entry in weights_map.entries.items()
        if name.rpartition(".")[2] == "weight" and "." in name
    }
