"""What classification is trained towards: numbers of classes, or their probabilities. All else is refused."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from seeking.errors import SeekingError

IGNORED_LABEL = -100
"""The label that ``cross_entropy`` leaves out."""

NAMES = ("labels", "label", "target", "targets")
"""Under which names the targets of a batch are looked for, if it is a mapping."""

VALUES = "set loss to mse, in Python TrainConfig(loss='mse')"
SEVERAL_LABELS = "lambda model, batch: F.binary_cross_entropy_with_logits(model(batch[0]), batch[1].float())"


def targets_in(batch: Any) -> Any:
    """The targets of a batch ``(inputs, targets)``, or of a mapping with ``labels``; None if it has another form.

    What follows the targets is no matter if they are a tensor.
    """
    if isinstance(batch, tuple | list):
        return batch[1] if len(batch) == 2 or (len(batch) > 2 and isinstance(batch[1], Tensor)) else None
    return next((batch[name] for name in NAMES if name in batch), None) if isinstance(batch, Mapping) else None


def counted_targets(batch: Any) -> int | None:
    """How many targets of a batch cross-entropy takes the mean over: those that are not -100.

    Returns:
        None if the batch has no targets that are integers.
    """
    targets = targets_in(batch)
    if not isinstance(targets, Tensor) or targets.is_floating_point() or targets.is_complex() or not targets.ndim:
        return None
    return int((targets != IGNORED_LABEL).sum()) if targets.dtype.is_signed else targets.numel()


def class_targets(targets: Tensor, logits: Any) -> Tensor:
    """Targets as cross-entropy takes them: numbers of classes, or probabilities of all classes.

    Args:
        targets: of a batch.
        logits: that the model puts out for it, of shape ``[samples, classes]``, with further dimensions at will.

    Raises:
        SeekingError: they are neither, so that cross-entropy would fail or mean nothing.
    """
    if not isinstance(logits, Tensor):
        raise SeekingError(
            f"the model puts out a {type(logits).__name__}, not a tensor of logits; give the Trainer a loss_fn, such "
            "as lambda model, batch: F.cross_entropy(model(batch[0]).logits, batch[1])"
        )
    given = f"the targets are {str(targets.dtype).removeprefix('torch.')} of shape {list(targets.shape)}"
    if logits.ndim < 2:
        return targets
    if logits.shape[1] == 1:
        raise SeekingError(
            f"{given}, and the model has one output, for which cross-entropy is always 0; for values, {VALUES}; for "
            f"yes or no, give the Trainer a loss_fn, such as {SEVERAL_LABELS}"
        )
    usual = [*logits.shape[:1], *logits.shape[2:]]
    given += f", where cross-entropy takes numbers of classes, integers of shape {usual}"
    if not targets.is_floating_point():
        if list(targets.shape) == usual:
            return targets.long()
        if targets.shape == logits.shape:
            raise SeekingError(
                f"{given}; if they are one-hot, give targets.argmax(1); for several labels a sample, give the Trainer "
                f"a loss_fn, such as {SEVERAL_LABELS}"
            )
        raise SeekingError(f"{given}; give these, such as by squeeze(1), or give the Trainer a loss_fn")
    if targets.shape != logits.shape:
        raise SeekingError(
            f"{given}; if they are classes, convert them by long(); for values, {VALUES}, or give the Trainer a loss_fn"
        )
    sums = targets.float().sum(1)
    if (targets < 0).any() or not torch.allclose(sums, torch.ones_like(sums), atol=0.01):
        raise SeekingError(
            f"{given}, or probabilities of the classes, which sum to 1; for several labels a sample, give the Trainer "
            f"a loss_fn, such as {SEVERAL_LABELS}"
        )
    return targets
