"""Whether an objective lets a model learn from the logits of another."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from seeking.copies import copied, copied_function, inspecting, random_state_preserved, scratch_copy
from seeking.training.custom_loss import CustomLoss, check_same_shape
from seeking.training.objective import Objective


def check_teaching(objective: CustomLoss, models: Sequence[nn.Module], batch: Any) -> None:
    """Check on a batch of the training data that one of two models can learn from the other's logits by a ``loss_fn``.

    Raises:
        SeekingError: the ``loss_fn`` gives one of them no logits that its loss is computed from, or each another shape.
    """
    check_same_shape(*(_tried(objective.logits, model, batch) for model in models))


def ignores_teacher(objective: Objective, model: nn.Module, batch: Any) -> bool:
    """Whether the loss is the same whatever logits of a teacher it is given.

    Args:
        objective: left as it is.
        model: that would be taught; left as it is.
        batch: of the training data.
    """
    logits = _tried(objective.logits, model, batch)
    if not isinstance(logits, Tensor) or not logits.is_floating_point():
        return False
    with random_state_preserved(0):
        teacher = torch.randn_like(logits)
    # Of these two, the classes with the highest logits differ, too; and a student that puts out zeros alone, as a new
    # head may, is not as far from both, as it is from a teacher of two classes or of values and its negative.
    return torch.equal(*(_tried(objective.loss, model, batch, each) for each in (teacher, -2 * teacher)))


def _tried(method: Any, model: nn.Module, batch: Any, *teacher_logits: Tensor) -> Any:
    """What a method of an objective gives; it, the model and the batch are left as they are."""
    twin = scratch_copy(model)
    with inspecting(twin), random_state_preserved(0):
        return copied_function(method)(twin, copied(batch), *teacher_logits)
