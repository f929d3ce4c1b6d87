"""The budget of a run: what it leaves for steps, whether it can be met, and whether it was."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from seeking.errors import RunWarning, SeekingError
from seeking.training.config import TrainConfig
from seeking.training.cost import Cost
from seeking.training.loaders import Loader
from seeking.training.progress import Progress
from seeking.training.recalibration import norms_with_statistics


@dataclass(frozen=True)
class Budget:
    """The FLOPs of a run, over those of training the motivated model alone.

    Attributes:
        share: the budget.
        recalibrations: loader batches of a recalibration of norm statistics, over those of a step; 0 without them.
        eval_every: epochs between evaluations, each of which recalibrates.
    """

    share: float
    recalibrations: float
    eval_every: int

    def for_steps(self, progress: Progress, cost: Cost, samples: float) -> float:
        """FLOPs of the whole run but for recalibrations and measurements of conditions that are to come.

        Args:
            progress: of the run.
            cost: FLOPs per sample.
            samples: mean number of samples in a batch.
        """
        recalibration = 0.0
        if self.recalibrations:
            recalibration = self._evaluations(progress) * self.recalibrations * cost.motivated_forward_flops
        measured = cost.held_out_samples * cost.base_forward_flops  # For conditions, and so on in the steps to come.
        measurements = measured * (progress.steps / (progress.step + 1) - 1)
        return samples * (self.share * progress.steps * cost.motivated_flops - recalibration) - measurements

    def _evaluations(self, progress: Progress) -> int:
        """Evaluations to come: one every so many epochs, and one at the end."""
        ended, epochs = progress.epoch, int(progress.plan()["epochs"])
        return epochs // self.eval_every - ended // self.eval_every + (epochs % self.eval_every > 0 and ended < epochs)


def make_budget(config: TrainConfig, models: Mapping[str, nn.Module], loader: Loader) -> Budget | None:
    """The budget of the options, if there is one."""
    if config.budget is None:
        return None
    recalibrates = (
        config.norm == "recalibrated" and "motivated" in models and norms_with_statistics(models["motivated"])
    )
    batches = min(config.recalibration_batches, loader.length or 0) if recalibrates else 0
    return Budget(config.budget, batches / config.accumulate, config.eval_every)


def check_budget(config: TrainConfig, cost: Cost, budget: Budget | None, progress: Progress) -> None:
    """Check that the budget can be met: by the base on its own at least, by both models on every batch at most.

    Args:
        config: options.
        cost: FLOPs per sample.
        budget: the budget.
        progress: of the run, before its first step.

    Raises:
        SeekingError: it cannot.
    """
    if budget is None or config.budget is None or not (cost.base_flops and cost.motivated_flops):
        return
    recalibration = config.budget - budget.for_steps(progress, cost, 1.0) / (progress.steps * cost.motivated_flops)
    share = cost.base_flops / cost.motivated_flops + recalibration
    more = " with its recalibrations" if budget.recalibrations else ""
    if config.base_condition == "always" and config.budget < share:
        raise SeekingError(
            f"budget is {config.budget}, but a base that steps on every batch costs {share:.2f} of training the "
            f"motivated model alone{more}; give a greater budget, or a base_condition"
        )
    if config.budget > 1 + share:
        raise SeekingError(
            f"budget is {config.budget}, but steps of both models on every batch cost {1 + share:.2f} of training the "
            f"motivated model alone{more}; give a smaller budget, or none"
        )


def check_steps_taken(config: TrainConfig, cost: Cost) -> None:
    """Warn at the end of a run if its budget was not met by 2 %, or its base has not taken a step."""
    report = cost.report()
    spent = report.get("of_motivated_alone")
    if config.budget is not None and spent is not None and abs(spent / config.budget - 1) > 0.02:
        warnings.warn(
            f"the run took {spent:.2f} of training the motivated model alone, and its budget was {config.budget}: the "
            "conditions, few batches or another number of epochs kept it from being met",
            RunWarning,
            stacklevel=3,
        )
    if config.base_condition != "always" and cost.base_flops and cost.run_samples and not cost.samples:
        warnings.warn(
            f"the base has not taken a step: base_condition {config.base_condition} held on no batch; a condition on "
            "the loss never holds before the first step",
            RunWarning,
            stacklevel=3,
        )
