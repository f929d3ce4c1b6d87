"""The first step of the motivated model: what its extra capacity and its optimizer start with."""

import contextlib
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch

from seeking.block_copies import copy_blocks
from seeking.errors import RunWarning
from seeking.pair import Pair
from seeking.training.learner import Learner
from seeking.training.progress import Progress


@dataclass
class Joining:
    """What happens when the motivated model takes its first step.

    Attributes:
        pair: the two models.
        progress: of the run.
        copied: whether extra blocks become copies of the base's, as it has trained them.
        inherit: whether the motivated model's optimizer takes the state of the base's for what they share.
        rewarm: factor of the learning rate of the extra capacity alone, to which it rises and from which it falls back;
            None leaves the rate as it is.
        share: share of the run's batches that this takes.
        step: of the run at which the motivated model took its first step; None before.
    """

    pair: Pair
    progress: Progress
    copied: bool
    inherit: bool
    rewarm: float | None
    share: float
    step: int | None = None

    def begin(self, base: Learner, motivated: Learner) -> None:
        """Call this before every step of the motivated model, which holds the base's weights."""
        if self.step is not None:
            return
        self.step = self.progress.step
        if self.copied:
            copy_blocks(self.pair.motivated_model, self.pair.map)
        if self.inherit and not base.optimizer.state:
            warnings.warn(
                "optimizer_state is inherit, which has no effect: when the motivated model takes its first step (step "
                f"{self.step} of the run), the base's optimizer keeps no state",
                RunWarning,
                stacklevel=2,
            )
        elif self.inherit:
            self.pair.inherit_state(base.optimizer, motivated.optimizer)

    @property
    def factor(self) -> float:
        """Of the learning rate of the extra capacity: linearly from 1 up for half of the time, then down again."""
        length = self.share * self.progress.steps
        if self.rewarm is None or self.step is None or self.progress.step >= self.step + length:
            return 1.0
        return 1 + (self.rewarm - 1) * (1 - abs(2 * (self.progress.step - self.step) / length - 1))

    @contextlib.contextmanager
    def rewarming(self) -> Iterator[None]:
        """Inside, the motivated model's optimizer takes a step.

        What the step adds to the extra capacity is multiplied by the factor, which is a step at a rate so much higher
        with every optimizer whose steps are proportional to the rate.
        """
        factor = self.factor
        if factor == 1:
            yield
            return
        shared = {entry.target: entry for entry in self.pair.map.shared.entries.values()}
        changing = [
            (parameter, parameter.detach().clone(), shared.get(name))
            for name, parameter in self.pair.motivated_model.named_parameters()
            if name not in shared or not shared[name].whole
        ]
        yield
        with torch.no_grad():
            for parameter, before, entry in changing:
                scaled = torch.lerp(before, parameter, factor)
                if entry is not None:
                    mesh = entry.mesh(parameter.device)
                    scaled[mesh] = parameter[mesh]
                parameter.copy_(scaled)

    def state_dict(self) -> dict[str, int | None]:
        """When the motivated model took its first step."""
        return {"step": self.step}

    def load_state_dict(self, state: Mapping[str, int | None]) -> None:
        """Continue from there."""
        step = state["step"]
        self.step = step if step is None else int(step)
