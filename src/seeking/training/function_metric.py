"""A metric that is a function of all samples."""

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from seeking.errors import SeekingError


class FunctionMetric(Metric):
    """Collects the outputs and targets of all samples, over all processes, and calls a function with them.

    Args:
        function: maps outputs and targets, both tensors, to a number, or to numbers by name.
    """

    full_state_update = False
    outputs: Any
    targets: Any

    def __init__(self, function: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        self._function = function
        for name in ("outputs", "targets"):
            self.add_state(name, default=[], dist_reduce_fx="cat")

    def update(self, outputs: Any, targets: Any) -> None:
        """Add a batch.

        Raises:
            SeekingError: the outputs or targets are no tensors, or cannot be joined to those of earlier batches.
        """
        for name, value, kept in (("outputs", outputs, self.outputs), ("targets", targets, self.targets)):
            if not isinstance(value, Tensor) or not value.ndim:
                raise SeekingError(
                    f"its {name} are a {type(value).__name__}, not a tensor with one entry for each sample"
                )
            if kept and kept[0].shape[1:] != value.shape[1:]:
                raise SeekingError(
                    f"its {name} are of shape {list(value.shape)} after {list(kept[0].shape)}, so that they cannot be "
                    "joined for a function; give a metric of torchmetrics, which takes one batch after another"
                )
            kept.append(value)

    def compute(self) -> Any:
        """What the function makes of all samples."""
        return self._function(dim_zero_cat(self.outputs), dim_zero_cat(self.targets))
