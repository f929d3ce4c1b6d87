"""What conditions need of a run, checked before it begins."""

from dataclasses import dataclass

from seeking.conditions import Condition
from seeking.errors import SeekingError


@dataclass(frozen=True, kw_only=True)
class Given:
    """What a run has for its conditions.

    Attributes:
        budget: whether its FLOPs are limited.
        held_out: whether there are training data that no step trains on.
        epoch_length: whether the number of batches in an epoch is known.
        grad_norm: whether the norm of the base's gradient is.
    """

    budget: bool
    held_out: bool = True
    epoch_length: bool = True
    grad_norm: bool = True

    def check(self, *conditions: Condition) -> None:
        """Check that there is what these conditions need.

        Raises:
            SeekingError: something is missing.
        """
        for condition in conditions:
            if condition.needs_budget and not self.budget:
                raise SeekingError(f"the condition {condition} spends a budget, and the run has none; set budget")
            if condition.needs_held_out and not self.held_out:
                raise SeekingError(
                    f"the condition {condition} measures the loss on held-out training data, and there are none; give "
                    "the Trainer held_out batches (on the command line: --held-out 256), or change the condition"
                )
            if condition.needs_grad_norm and not self.grad_norm:
                raise SeekingError(
                    f"the condition {condition} needs the norm of the base's gradient, which is not known where one "
                    "pass serves both models; leave one_pass out, or change the condition"
                )
            if condition.needs_epoch_length and not self.epoch_length:
                raise SeekingError(
                    f"the condition {condition} needs the number of batches in an epoch, and the training data have no "
                    "length; give the condition one, such as MatchedCount(..., epoch_length=1000), give the data a "
                    "__len__, or change the condition"
                )
