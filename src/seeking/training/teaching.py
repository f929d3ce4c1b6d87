"""Whether an objective lets a model learn from the logits of another."""

from typing import Any

import torch
from torch import Tensor, nn

from seeking.copies import copied, copied_function, inspecting, random_state_preserved, scratch_copy
from seeking.training.custom_loss import CustomLoss
from seeking.training.objective import Objective


def ignores_teacher(objective: Objective, model: nn.Module, batch: Any) -> bool:
    """Whether the loss is the same whatever logits of a teacher it is given.

    Args:
        objective: left as it is.
        model: that would be taught; left as it is.
        batch: of the training data.
    """

    def run(method: Any, *teacher_logits: Tensor) -> Any:
        twin = scratch_copy(model)
        with inspecting(twin), random_state_preserved(0):
            return copied_function(method)(twin, copied(batch), *teacher_logits)

    logits = run(objective.logits)
    if not isinstance(logits, Tensor) or not logits.is_floating_point() or isinstance(objective, CustomLoss):
        return False  # A loss_fn takes none: what it gets is added to its loss, if a label of the batch counts.
    with random_state_preserved(0):
        teacher = torch.randn_like(logits)
    # Of these two, the classes with the highest logits differ, too; and a student that puts out zeros alone, as a new
    # head may, is not as far from both, as it is from a teacher of two classes or of values and its negative.
    return torch.equal(run(objective.loss, teacher), run(objective.loss, -2 * teacher))
