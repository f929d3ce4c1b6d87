"""What conditions need of a run, checked before it begins."""

from dataclasses import dataclass

from seeking.conditions import Condition
from seeking.errors import SeekingError
from seeking.training.config import TrainConfig


@dataclass(frozen=True, kw_only=True)
class Given:
    """What a run has for its conditions.

    Attributes:
        budget: whether its FLOPs are limited.
        held_out: whether there are training data that no step trains on.
        epoch_length: whether the number of batches in an epoch is known.
        grad_norm: whether the norm of the base's gradient is.
        early: why the motivated model's condition decides before the base's step, as in "with one_pass it"; empty if it
            does not.
    """

    budget: bool
    held_out: bool = True
    epoch_length: bool = True
    grad_norm: bool = True
    early: str = ""

    @classmethod
    def by(cls, config: TrainConfig, *, held_out: bool = True, epoch_length: bool = True) -> "Given":
        """What a run of the Trainer has by its options, and by its data."""
        early = "with a base that is taught (teach) it" if config.teach and config.student != "motivated" else ""
        return cls(
            budget=config.budget is not None,
            held_out=held_out,
            epoch_length=epoch_length,
            grad_norm=not config.one_pass,
            early="with one_pass it" if config.one_pass else early,
        )

    def check(self, condition: Condition, option: str = "condition") -> None:
        """Check that there is what a condition needs, which an option is: ``condition`` or ``base_condition``.

        Raises:
            SeekingError: something is missing.
        """
        if not condition.decides():
            raise SeekingError(
                f"{option} is {condition}, in which a class has neither decide(signals) nor holds(loss, **signals); "
                "define one of them"
            )
        if condition.needs_budget and not self.budget:
            raise SeekingError(f"{option} is {condition}, which spends a budget, and the run has none; set budget")
        if condition.needs_held_out and not self.held_out:
            raise SeekingError(
                f"{option} is {condition}, which measures the loss on held-out training data, and there are none; give "
                f"the Trainer some (held_out=...; on the command line: --held-out 256), or change {option}"
            )
        if condition.needs_grad_norm and not self.grad_norm:
            raise SeekingError(
                f"{option} is {condition}, which needs the norm of the base's gradient, and that is not known where "
                f"one pass serves both models; leave one_pass out, or change {option}"
            )
        if condition.needs_epoch_length and not self.epoch_length:
            raise SeekingError(
                f"{option} is {condition}, which needs the number of batches in an epoch, and the training data have "
                "no length; give the condition one, such as MatchedCount(..., epoch_length=1000), give the data a "
                f"__len__, or change {option}"
            )
        early = "the base's condition" if option == "base_condition" else self.early
        if condition.needs_gradients and early:
            raise SeekingError(
                f"{option} is {condition}, which needs the gradient of the base's step, and {early} decides before "
                "that step; use another condition, or leave the option out"
            )
