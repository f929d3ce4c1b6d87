"""The budget of a run: what it leaves for steps, whether it can be met, and whether it was."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from seeking.conditions import Always, Condition, Never, OnePass, Signals, parse
from seeking.conditions.budget import WithinBudget
from seeking.errors import RunWarning, SeekingError
from seeking.training.config import TrainConfig
from seeking.training.cost import Cost
from seeking.training.loaders import Loader
from seeking.training.progress import Progress
from seeking.training.recalibration import norms_with_statistics

TOLERANCE = 0.02
"""A budget that is missed by more is told of."""


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


def base_condition(config: TrainConfig) -> Condition:
    """The condition of the base, with other draws than the motivated model's.

    Raises:
        SeekingError: it cannot be parsed.
    """
    return parse(config.base_condition, -1 - config.seed, option="base_condition")


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
    """Check that the budget can be met: by the base on its own at least, by the motivated model on every batch at most.

    How often the base steps is known if it steps on every batch, or by a schedule. The FLOPs per sample of a run that
    is resumed are not known yet, and nothing is checked.

    Args:
        config: options.
        cost: FLOPs per sample.
        budget: the budget.
        progress: of the run, before its first step.

    Raises:
        SeekingError: it cannot; a base that rests and cannot spend all of it is warned of.
    """
    if budget is None or config.budget is None or not (cost.base_flops and cost.motivated_flops):
        return
    planned, alone = budget.for_steps(progress, cost, 1.0), progress.steps * cost.motivated_flops
    recalibration = config.budget - planned / alone
    more = " with its recalibrations" if budget.recalibrations else ""
    costs = f"of training the motivated model alone{more}"
    always = config.base_condition == "always"
    if not always and not base_condition(config).is_schedule:
        return
    tolerance = 0.0 if always else TOLERANCE
    least, most = (
        _flops_of_steps(config, cost, planned, progress, joined) / alone + recalibration for joined in (False, True)
    )
    base = "a base that steps on every batch" if always else f"a base with base_condition {config.base_condition}"
    if config.budget < least * (1 - tolerance):
        raise SeekingError(
            f"budget is {config.budget}, but {base} costs {least:.2f} {costs}; give a greater budget, or "
            f"{'a' if always else 'another'} base_condition"
        )
    if config.budget > most * (1 + tolerance):
        if always:
            raise SeekingError(
                f"budget is {config.budget}, but steps of both models on every batch cost {most:.2f} {costs}; give a "
                "smaller budget, or none"
            )
        warnings.warn(
            f"budget is {config.budget}, but {base}, and the motivated model on every batch, cost {most:.2f} {costs}, "
            "which is all that this run will take; give a smaller budget, or a base_condition that holds more often",
            RunWarning,
            stacklevel=3,
        )


def _flops_of_steps(config: TrainConfig, cost: Cost, planned: float, progress: Progress, joined: bool) -> float:
    """FLOPs of all steps of a run by its base's schedule, the motivated model stepping on every batch or on none.

    Args:
        config: options.
        cost: FLOPs per sample; a batch has one sample here.
        planned: FLOPs of the steps by the budget.
        progress: of the run, before its first step.
        joined: whether the motivated model steps.
    """
    condition, steps = base_condition(config), progress.steps
    saved = cost.prefix_flops if joined and config.finish == "tied" else 0.0  # By one pass, until the models part.
    of_base_step = cost.base_flops - saved
    if isinstance(condition, Always):
        return steps * (of_base_step + joined * cost.motivated_flops)
    base_steps, spent = 0, 0.0
    for step in range(steps):
        signals = Signals(
            loss=0.0,
            step=step,
            steps=steps,
            epoch_length=progress.epoch_length,
            flops_spent=spent,
            flops_planned=planned,
            base_flops=cost.base_flops,
            motivated_flops=cost.motivated_flops,
            one_pass=OnePass(flops=saved, until=steps),
        )
        base_steps += condition.update(0.0, signals)
        spent = base_steps * of_base_step + joined * (step + 1) * cost.motivated_flops
    return spent


def check_steps_taken(config: TrainConfig, cost: Cost, condition: Condition | None) -> None:
    """Warn at the end of a run if its budget was not met by 2 %, or one of its models has not taken a step.

    Args:
        config: options.
        cost: of the run.
        condition: of the motivated model in a pair; None for a model that is trained alone.
    """
    report = cost.report()
    spent = report.get("of_motivated_alone")
    if config.budget is not None and spent is not None and abs(spent / config.budget - 1) > TOLERANCE:
        warnings.warn(
            f"the run took {spent:.2f} of training the motivated model alone, and its budget was {config.budget}: the "
            "conditions, few batches or another number of epochs kept it from being met",
            RunWarning,
            stacklevel=3,
        )
    if config.base_condition != "always" and cost.base_flops and cost.run_samples and not cost.samples:
        by_loss = not base_condition(config).is_schedule
        warnings.warn(
            f"the base has not taken a step: base_condition {config.base_condition} held on no batch of "
            f"{cost.batches:,}{'; a condition on the loss never holds before the first step' if by_loss else ''}",
            RunWarning,
            stacklevel=3,
        )
    if condition is not None and not isinstance(condition, Never) and cost.run_samples and not cost.motivated_samples:
        within, more = "", ""
        if isinstance(condition, WithinBudget):
            within, more = f" within the budget of {config.budget}", "with a greater budget, "
            condition = condition.inner
        warnings.warn(
            f"the motivated model has not taken a step: condition {condition} held on no batch of {cost.batches:,}"
            f"{within}; {_trained_by_base(config, cost)}; train longer, {more}or with a condition that holds more "
            "often",
            RunWarning,
            stacklevel=3,
        )


def _trained_by_base(config: TrainConfig, cost: Cost) -> str:
    """What of a motivated model that has taken no step the steps of the base have trained."""
    if not cost.samples:
        return "nothing of it is trained"
    if config.finish == "private":  # A base that has stepped after that alone has trained nothing of it.
        until = "its first step" if config.finish_at is None else f"finish_at {config.finish_at}"
        return f"no more of it is trained than what it shared with the base until {until}"
    return "only what it shares with the base is trained"
