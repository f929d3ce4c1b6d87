"""Whether a run can meet its budget, and whether it has."""

import warnings

from seeking.errors import RunWarning, SeekingError
from seeking.training.config import TrainConfig
from seeking.training.cost import Cost


def check_budget(config: TrainConfig, cost: Cost) -> None:
    """Check that the budget can be met: by the base on its own at least, by both models on every batch at most.

    Raises:
        SeekingError: it cannot.
    """
    if config.budget is None or not (cost.base_flops and cost.motivated_flops):
        return
    share = cost.base_flops / cost.motivated_flops
    if config.base_condition == "always" and config.budget < share:
        raise SeekingError(
            f"budget is {config.budget}, but a base that steps on every batch costs {share:.2f} of training the "
            "motivated model alone; give a greater budget, or a base_condition"
        )
    if config.budget > 1 + share:
        raise SeekingError(
            f"budget is {config.budget}, but steps of both models on every batch cost {1 + share:.2f} of training the "
            "motivated model alone; give a smaller budget, or none"
        )


def check_steps_taken(config: TrainConfig, cost: Cost) -> None:
    """Warn at the end of a run if its budget was not met by 2 %, or its base has not taken a step."""
    report = cost.report()
    spent = report.get("of_motivated_alone")
    if config.budget is not None and spent is not None and abs(spent / config.budget - 1) > 0.02:
        warnings.warn(
            f"the run took {spent:.2f} of training the motivated model alone, and its budget was {config.budget}: the "
            "conditions, few batches, another number of epochs or recalibration kept it from being met",
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
