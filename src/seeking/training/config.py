"""The options of a run: one dataclass is the flags of the command line, the fields of a file and the Python API."""

from dataclasses import dataclass
from typing import Literal

from seeking.errors import SeekingError
from seeking.pair import NormPolicy

Timing = Literal["same", "next"]
OptimizerState = Literal["separate", "shared"]
ScheduleName = Literal["cosine", "onecycle", "step", "constant"]
Precision = Literal["no", "bf16", "fp16"]


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How to train."""

    epochs: int = 20
    """Passes over the training data."""
    condition: str = "decrease:2"
    """When to be motivated: decrease:N, random:P, matched(CONDITION), always, never, every:K, after:STEP, the import
    path of your own (package.module.Class:1,2), and their compositions with & | ~ and parentheses."""
    on: Timing = "same"
    """Batch of a motivated step: the same at which the condition held, or the next one."""
    norm: NormPolicy = "private"
    """Whose the statistics of batch normalisation are: shared by both models (as in the paper), private to each, or
    private and, for the motivated model, re-estimated on training batches before each evaluation."""
    recalibration_batches: int = 20
    """Training batches for norm recalibrated."""
    optimizer: str = "sgd"
    """Any of timm's optimizers by name: sgd (Nesterov momentum), momentum, adamw, lion, …"""
    optimizer_state: OptimizerState = "separate"
    """Whether momentum and the like are kept apart for the two models (as in the paper) or shared through the map."""
    lr: float = 0.05
    """Highest learning rate."""
    momentum: float = 0.9
    """Of the optimizers that have one."""
    weight_decay: float = 5e-4
    """Of all parameters but biases and the scales of norms."""
    schedule: ScheduleName = "cosine"
    """Course of the learning rate, counted in batches for both models: cosine to zero, onecycle, step (a tenth at
    half and at three quarters of the run) or constant."""
    warmup_epochs: float = 0.0
    """Epochs of linear warm-up before the schedule. For onecycle, the length of its rise (0: three tenths)."""
    label_smoothing: float = 0.0
    """For the classification loss."""
    clip_grad: float | None = None
    """Greatest norm of a model's gradient."""
    accumulate: int = 1
    """Batches of the loader whose gradients are accumulated into one step; together they are one batch to the
    condition, the schedule and the motivated step."""
    precision: Precision = "no"
    """Mixed precision: no (float32), bf16 or fp16."""
    seed: int = 0
    """Of the weights, the order of the data, augmentation and conditions of chance."""
    verify: bool = True
    """Refuse to train unless the base is proven to be a sub-network of the motivated model."""

    def __post_init__(self) -> None:
        for name, least in (("epochs", 1), ("accumulate", 1), ("recalibration_batches", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise SeekingError(f"{name} is {getattr(self, name)}; it must be {least} or more")
        for name in ("lr", "weight_decay", "warmup_epochs", "momentum"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise SeekingError(f"{name} is {getattr(self, name)}; it must be a finite number, 0 or more")
        if not 0 <= self.label_smoothing < 1:
            raise SeekingError(f"label_smoothing is {self.label_smoothing}; it must be in [0, 1)")
        if self.clip_grad is not None and not self.clip_grad > 0:
            raise SeekingError(f"clip_grad is {self.clip_grad}; it must be above 0")
        if self.warmup_epochs >= self.epochs:
            raise SeekingError(f"warmup_epochs is {self.warmup_epochs} of {self.epochs} epochs; nothing would be left")
