"""The objective of a run: the user's own, or by the option ``loss``."""

from seeking.errors import SeekingError
from seeking.training.config import TrainConfig
from seeking.training.objective import Classification, CustomLoss, LossFn, Objective
from seeking.training.regression import Regression


def make_objective(objective: Objective | None, loss_fn: LossFn | None, config: TrainConfig) -> Objective:
    """The objective, or one for the ``loss_fn``, or that of the options: classification by default.

    Raises:
        SeekingError: several are given, or the ``loss_fn`` cannot be taught.
    """
    if objective and loss_fn:
        raise SeekingError("objective and loss_fn contradict each other; give one of them")
    if loss_fn and config.loss != "cross_entropy":
        raise SeekingError(f"loss {config.loss} and a loss_fn contradict each other; give one of them")
    if loss_fn and config.teach:
        raise SeekingError(
            f"teach is {config.teach}, but a loss_fn takes no logits of a teacher; give an objective instead"
        )
    if objective:
        return objective
    if loss_fn:
        return CustomLoss(loss_fn)
    if config.loss == "mse":
        return Regression(teacher_weight=config.teach)
    if config.teach:
        return Classification(config.label_smoothing, teacher_weight=config.teach, temperature=1.0)
    return Classification(config.label_smoothing)
