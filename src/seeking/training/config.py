"""The options of a run: one dataclass is the flags of the command line, the fields of a file and the Python API."""

import json
import re
from dataclasses import asdict, dataclass
from typing import Any, Literal

from seeking.errors import SeekingError
from seeking.pair import NormPolicy

Timing = Literal["same", "next"]
OptimizerState = Literal["separate", "shared"]
ScheduleName = Literal["cosine", "onecycle", "step", "constant"]
Precision = Literal["auto", "no", "bf16", "fp16"]
CompileMode = Literal["no", "default", "reduce-overhead", "max-autotune"]
NonFinitePolicy = Literal["stop", "skip", "rollback"]

CHANGEABLE_ON_RESUME = frozenset(
    {
        *(
            "epochs",
            "eval_every",
            "save_every",
            "keep_checkpoints",
            "on_nonfinite",
            "verify",
            "in_memory",
            "workers",
            "shard",
        ),
        *("output", "config", "overwrite", "resume"),
    }
)
"""Options that a run may be resumed with other values of. With other epochs, the schedule is that of the new length."""


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
    device: str | None = None
    """cpu, cuda, cuda:1 or what else torch knows; if not given, the accelerator, where there is one."""
    precision: Precision = "auto"
    """Mixed precision: no (float32), bf16, fp16, or auto: bf16 where the hardware multiplies matrices in it (GPUs since
    Ampere, CPUs with AMX), else no."""
    channels_last: bool = True
    """Store the weights of convolutions with the channels last, where the models take it."""
    fused: bool = True
    """Optimizer steps in one kernel, where PyTorch has one for the optimizer."""
    compile: CompileMode = "no"
    """Compile both models: in torch.compile's default mode, with CUDA graphs (reduce-overhead), or with a search for
    the fastest kernels (max-autotune)."""
    checkpoint_activations: bool = False
    """Compute activations again in the backward pass instead of keeping them: less memory, a third more work."""
    shard: bool = False
    """Shard both models and what trains them over all processes (FSDP2), instead of keeping them whole in each: for
    pairs that differ in depth only and do not fit a device."""
    seed: int = 0
    """Of the weights, the order of the data, augmentation and conditions of chance."""
    eval_every: int = 1
    """Epochs from one evaluation to the next; the last epoch always ends with one."""
    save_every: str = "10m"
    """How often a checkpoint is written, next to the end of every epoch: a number of steps (500), or minutes (10m)."""
    keep_checkpoints: int = 2
    """How many checkpoints are kept, the newest ones. (The best weights are kept beside them.)"""
    on_nonfinite: NonFinitePolicy = "stop"
    """When a loss or a gradient is not finite: stop with a report, skip that model's step on the batch, or roll both
    models back to the newest checkpoint and go on with the next batch."""
    verify: bool = True
    """Refuse to train unless the base is proven to be a sub-network of the motivated model."""

    def __post_init__(self) -> None:
        for name, least in (
            ("epochs", 1),
            ("accumulate", 1),
            ("eval_every", 1),
            ("recalibration_batches", 1),
            ("seed", 0),
            ("keep_checkpoints", 1),
        ):
            if getattr(self, name) < least:
                raise SeekingError(f"{name} is {getattr(self, name)}; it must be {least} or more")
        for name in ("lr", "weight_decay", "warmup_epochs", "momentum"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise SeekingError(f"{name} is {getattr(self, name)}; it must be a finite number, 0 or more")
        if not 0 <= self.label_smoothing < 1:
            raise SeekingError(f"label_smoothing is {self.label_smoothing}; it must be in [0, 1)")
        if self.clip_grad is not None and not self.clip_grad > 0:
            raise SeekingError(f"clip_grad is {self.clip_grad}; it must be above 0")
        self.save_interval()
        if self.warmup_epochs >= self.epochs:
            raise SeekingError(f"warmup_epochs is {self.warmup_epochs} of {self.epochs} epochs; nothing would be left")

    def recorded(self) -> dict[str, Any]:
        """The options as they are recorded, JSON-serialisable."""
        options: dict[str, Any] = json.loads(json.dumps(asdict(self), default=str))
        return options

    def save_interval(self) -> tuple[int | None, float | None]:
        """``save_every`` as a number of steps or of seconds; the other is None.

        Raises:
            SeekingError: it is neither.
        """
        found = re.fullmatch(r"(\d{1,9})(\.\d{1,9})?\s*(m|min|minutes)?", str(self.save_every).strip())
        if not found or not float(found[1] + (found[2] or "")) or (found[2] and not found[3]):
            raise SeekingError(
                f"save_every is {self.save_every!r}; give a number of steps, such as 500, or of minutes, such as 10m"
            )
        return (None, float(found[1] + (found[2] or "")) * 60) if found[3] else (int(found[1]), None)
