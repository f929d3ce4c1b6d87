"""Training options: one dataclass defines the command-line flags, the keys of a YAML file and the Python API."""

import json
import math
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, Self

from seeking.choices import Extra, Loss, Model, NormPolicy, Student, Tracker
from seeking.errors import SeekingError
from seeking.option_types import (
    CHANGEABLE,
    LOCATING,
    Changeable,
    GivenAnew,
    Harmless,
    Ranges,
    Repeated,
    check_ranges,
    check_types,
    check_word,
    marked,
)

Timing = Literal["same", "next"]
OptimizerState = Literal["separate", "inherit", "shared"]
ScheduleName = Literal["cosine", "onecycle", "step", "wsd", "constant"]
Finish = Literal["tied", "private"]
Update = Literal["separate", "joint"]
Precision = Literal["auto", "no", "bf16", "fp16"]
CompileMode = Literal["no", "default", "reduce-overhead", "max-autotune"]
BestMode = Literal["max", "min"]
NonFinitePolicy = Literal["stop", "skip", "rollback"]

RANGES: Ranges = (
    (lambda value: value >= 1, "must be 1 or more", ("epochs", "max_steps", "accumulate", "keep_checkpoints")),
    (lambda value: value >= 1, "must be 1 or more", ("eval_every", "eval_every_steps", "recalibration_batches")),
    (lambda value: value >= 0, "must be 0 or more", ("seed", "warmup_steps")),
    (lambda value: value < 1 << 63, "must be below 2 to the power of 63", ("seed",)),
    (
        lambda value: 0 <= value < math.inf,
        "must be a finite number, 0 or more",
        ("lr", "base_lr", "weight_decay", "warmup_epochs", "momentum"),
    ),
    (lambda value: 0 <= value < 1, "must be in [0, 1)", ("label_smoothing", "ema")),
    (lambda value: 0 <= value <= 1, "must be in [0, 1]", ("teach",)),
    (lambda value: 0 < value < 1, "is a share of the run, between 0 and 1", ("finish_at", "decay", "rewarm_share")),
    (lambda value: 0 < value < 1, "is a share, between 0 and 1", ("base_weight",)),
    (lambda value: 0 < value < math.inf, "must be a finite number above 0", ("budget", "rewarm")),
    (lambda value: value > 0, "must be above 0", ("clip_grad",)),
)


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Training options."""

    epochs: Changeable[int] = 20
    """Passes over the training data."""
    max_steps: Changeable[int | None] = None
    """Length of the run in steps, instead of epochs. Data without a length, such as a stream, need it."""
    condition: Harmless[str] = "decrease:2"
    """When to be motivated: decrease:N, random:P, matched(CONDITION), always, never, every:K, after:STEP, before:STEP
    (a number of batches or, below 1, a share of the run), affordable, smoothed:N, below_trend:DEVIATIONS,
    grad_norm:DEVIATIONS, held_out:K, exp3:LIMIT, agreement:COSINE, the import path of a custom condition
    (package.module.Class:1,2), or a composition of these with & | ~ and parentheses."""
    base_condition: Harmless[str] = "always"
    """When the base takes a step; on other batches it rests. Always, as in the paper, or a condition on the batch."""
    budget: float | None = None
    """FLOPs of the run over those of training the motivated model alone. The condition is then kept within it, and
    holds more often if it would not be spent."""
    finish: Finish = "tied"
    """Whether both models share weights to the end (tied, as in the paper), or each has its own for the last part of
    the run (private); the base is then no longer contained in the motivated model."""
    finish_at: float | None = 0.77
    """Share of the run after which a private finish begins; None begins it with the base's first step."""
    teach: float = 0.0
    """Weight of one model's outputs in the loss of the other one, on batches on which both take a step; with 1, the
    other one learns from these alone, and not from the labels."""
    student: Student = "base"
    """The model that is taught: the base by the motivated model, the motivated model by the base, or both by each
    other."""
    update: Update = "separate"
    """On batches on which both take a step: an optimizer step of each model (as in the paper), or one joint step on the
    weighted sum of both gradients."""
    base_weight: float = 0.5
    """Weight of the base's loss in a joint update; the motivated model's has the rest."""
    one_pass: bool = False
    """Take joint updates in one pass where the base is the first layers of the motivated model (seeking map tells)."""
    extra: Extra = "own"
    """Initialization of the extra capacity: the model's own (as in the paper), neutral (function-preserving: the
    motivated model starts with the base's function, as closely as possible), or copied (models that differ in depth
    alone: each extra block is a copy of the base's block before it, taken at the first motivated step)."""
    own: Harmless[tuple[str, ...]] = ()
    """Tensors of the base that each model keeps for itself, though they could be shared: patterns of their names or of
    modules, such as norm* head. The base is then no longer exactly inside the motivated model."""
    rewarm: float | None = None
    """Factor of the learning rate of the extra capacity alone, such as 1.3, to which it rises and from which it falls
    back after the first motivated step."""
    rewarm_share: float = 0.1
    """Share of the run that the re-warming takes."""
    on: Timing = "same"
    """Batch of the motivated step: the same one at which the condition held, or the next one."""
    shared_from: Changeable[Model | None] = None  # The checkpoints of a run have the weights that it started from.
    """Model whose weights the shared part starts from. If not given, the one that starts from weights (--pretrained,
    --start-from), else the base; in Python, the base."""
    norm: NormPolicy = "private"
    """Running statistics of batch normalization: shared by both models (as in the paper), private to each, or
    recalibrated (private, and re-estimated for the motivated model on training batches before each evaluation)."""
    recalibration_batches: int = 20
    """Number of training batches for --norm recalibrated."""
    optimizer: Harmless[str] = "sgd"
    """Name of one of timm's optimizers: sgd (Nesterov momentum), momentum, adamw, lion, …"""
    optimizer_state: OptimizerState = "separate"
    """Optimizer state (such as momentum): separate for each model (as in the paper); separate, but the motivated model
    takes the base's at its first step (inherit); or shared through the map."""
    lr: float = 0.05
    """Peak learning rate."""
    base_lr: float | None = None
    """Peak learning rate of the base model, if it differs from that of the motivated model (lr)."""
    momentum: float = 0.9
    """Momentum, for optimizers that have it."""
    weight_decay: float = 5e-4
    """Weight decay; not applied to biases and norm scales."""
    schedule: ScheduleName = "cosine"
    """Learning rate schedule, counted in batches for both models: cosine (to zero), onecycle, step (divided by ten at
    one half and three quarters of the run), wsd (warm-up, stable, decay: constant, then linear to zero) or constant."""
    decay: float = 0.23
    """Share of the run in which the schedule wsd decays."""
    warmup_epochs: float = 0.0
    """Epochs of linear warm-up before the schedule; it begins with the first step of any model. For onecycle, the
    epochs of its rise (0: 30 % of the run)."""
    warmup_steps: int = 0
    """The same in steps, instead of epochs."""
    ema: float | None = None
    """Decay, with every batch, of an exponential moving average of each model's weights, such as 0.999. The averages
    are evaluated and saved in place of the weights."""
    loss: Loss = "cross_entropy"
    """Loss: cross_entropy (of classes), or mse (mean squared error, for targets that are values). Of the command line's
    data, tables may have values; in Python, any data."""
    label_smoothing: float = 0.0
    """Label smoothing of the classification loss."""
    clip_grad: float | None = None
    """Maximum norm of a model's gradient."""
    accumulate: int = 1
    """Gradient accumulation: batches of the loader that make one step. The condition, the schedule and the motivated
    step treat them as one batch."""
    device: Harmless[str | None] = None
    """A torch device, such as cpu, cuda or cuda:1; if not given, the accelerator if there is one."""
    precision: Precision = "auto"
    """Mixed precision: no (float32), bf16, fp16, or auto (bf16 if the hardware supports it, which GPUs since Ampere and
    CPUs with AMX do; else no)."""
    channels_last: bool = True
    """Use the channels_last memory format for convolutions, if the models support it."""
    fused: bool = True
    """Use fused optimizer kernels, if PyTorch has one for the optimizer."""
    compile: CompileMode = "no"
    """Compile both models with torch.compile in this mode: default, reduce-overhead (CUDA graphs) or max-autotune
    (searches for the fastest kernels)."""
    checkpoint_activations: bool = False
    """Activation checkpointing: recompute activations in the backward pass. Less memory, about a third more work."""
    shard: Changeable[bool] = False
    """Shard both models and their optimizer states over all processes (FSDP2), for pairs that do not fit a device. The
    models may differ in depth only."""
    seed: int = 0
    """Seed of the initial weights, the data order, the augmentation and random conditions."""
    eval_every: Changeable[int] = 1
    """Evaluate every this many epochs, and after the last one."""
    eval_every_steps: Changeable[int | None] = None
    """Evaluate every this many steps instead, and after the last one."""
    best: Harmless[str | None] = None
    """Metric by which the best weights are kept; if not given, accuracy for classification, else the loss."""
    best_mode: BestMode | None = None
    """Whether the highest (max) or the lowest (min) value of that metric is best; if not given, as the metric says."""
    save_every: Changeable[Harmless[str]] = "10m"
    """Interval between checkpoints in steps (500) or minutes (10m). Every epoch also ends with one."""
    keep_checkpoints: Changeable[int] = 2
    """Number of most recent checkpoints to keep. The best weights are kept separately."""
    on_nonfinite: Changeable[NonFinitePolicy] = "stop"
    """What to do if a loss or gradient is NaN or infinite: stop with a report, skip the model's step on this batch, or
    rollback (restore both models from the newest checkpoint and continue with the next batch)."""
    accept_changed_data: GivenAnew[bool] = False
    """Resume a run although its data have changed. Moved data are known by their content, and need not be accepted."""
    tracker: Changeable[Repeated[tuple[Tracker, ...]]] = ()
    """Experiment trackers that get the metrics: tensorboard, wandb, mlflow, trackio."""
    verify: Changeable[bool] = True
    """Refuse to train unless the base is proven to be a sub-network of the motivated model."""

    def __post_init__(self) -> None:
        for name in ("condition", "base_condition"):
            if callable(getattr(getattr(self, name), "update", None)):
                raise SeekingError(
                    f"{name} is a {type(getattr(self, name)).__name__}; give its text, such as 'decrease:2'"
                    + (", or give the object to the Trainer: Trainer(condition=...)" if name == "condition" else "")
                )
        check_types(self, type(self), skip=frozenset({"save_every"}))  # Which may be a number, too.
        for name in ("own", "tracker"):
            texts = getattr(self, name)
            texts = (texts,) if isinstance(texts, str) else texts
            if not isinstance(texts, Iterable) or not all(isinstance(text, str) for text in texts):
                raise SeekingError(f"{name} is {texts!r}; it must be text, or several texts")
            object.__setattr__(self, name, tuple(dict.fromkeys(texts)))
        for tracker in self.tracker:
            check_word("tracker", tracker, Tracker)
        check_ranges(self, RANGES)
        self.save_interval()
        self._check_combinations()
        self._check_warmup()

    def _check_combinations(self) -> None:
        if self.label_smoothing and self.loss != "cross_entropy":
            raise SeekingError(
                f"label_smoothing is {self.label_smoothing}, but loss {self.loss} has no labels; leave it out"
            )
        if self.finish == "private" and (self.shard or self.optimizer_state == "shared"):
            option = "shard" if self.shard else "optimizer_state shared"
            raise SeekingError(f"finish private cannot be combined with {option}")
        unsharded = {
            "ema": self.ema is not None,
            "rewarm": self.rewarm is not None,
            "extra copied": self.extra == "copied",
            "optimizer_state inherit": self.optimizer_state == "inherit",
            "update joint": self.update == "joint",
            "own": bool(self.own),
        }
        if self.shard and any(unsharded.values()):
            raise SeekingError(f"{next(name for name, on in unsharded.items() if on)} cannot be combined with shard")
        if self.one_pass and self.update != "joint":
            raise SeekingError("one_pass serves joint updates alone; set update to joint")
        if self.one_pass and self.teach and self.student != "base":
            raise SeekingError(
                f"one_pass cannot be combined with student {self.student}, since the motivated model goes first"
            )
        of_one_pass = {"update joint": self.update == "joint", "student both": self.student == "both"}
        if self.precision == "fp16" and any(of_one_pass.values()):
            name = next(name for name, on in of_one_pass.items() if on)
            raise SeekingError(f"{name} cannot be combined with precision fp16; use bf16 or no")
        if self.extra != "own" and self.shared_from == "motivated":
            raise SeekingError(
                f"extra {self.extra} lets the motivated model start from the base, and shared_from motivated from its "
                "own weights; set extra to own, or shared_from to base"
            )
        if self.best_mode and not self.best:
            raise SeekingError(f"best_mode is {self.best_mode}, but there is no best; name the metric")
        if self.eval_every_steps and self.norm == "recalibrated":
            raise SeekingError(
                "norm recalibrated reads training data for each evaluation, which can be done between epochs only; "
                "leave out eval_every_steps, or use norm private"
            )

    def _check_warmup(self) -> None:
        if self.warmup_steps and self.warmup_epochs:
            raise SeekingError(
                f"warmup_epochs is {self.warmup_epochs} and warmup_steps {self.warmup_steps}; give one of them"
            )
        if self.max_steps is not None and self.warmup_steps >= self.max_steps:
            raise SeekingError(f"warmup_steps is {self.warmup_steps} of {self.max_steps} steps; it must be less")
        if self.max_steps is None and self.warmup_epochs >= self.epochs:
            raise SeekingError(
                f"warmup_epochs is {self.warmup_epochs} of {self.epochs} epochs; it must be less than epochs"
            )

    @classmethod
    def from_recipe(cls, recipe: str | Path, **options: Any) -> Self:
        """The options of a recipe, as ``--recipe`` takes them, and others that override them.

        Args:
            recipe: one of the library's by its name, such as ``best``, or the path of a YAML file.
            options: by name.

        Raises:
            SeekingError: there is no such recipe, or it has options that these are not, such as the names of models.
        """
        from seeking.options import recipe_options  # It is part of the command line.

        given, names = recipe_options(str(recipe)), {field.name for field in fields(cls)}
        if others := sorted(given.keys() - names):
            raise SeekingError(
                f"recipe {recipe} has the options {', '.join(others)}, which {cls.__name__} has not; models and data "
                "are arguments of the Trainer"
            )
        return cls(**{**given, **options})

    def lr_of(self, model: str) -> float:
        """Peak learning rate of a model, ``base`` or ``motivated``."""
        return self.lr if self.base_lr is None or model == "motivated" else self.base_lr

    def recorded(self) -> dict[str, Any]:
        """The options as JSON-serializable values, as stored in the run folder."""
        options: dict[str, Any] = json.loads(json.dumps(asdict(self), default=_as_plain))
        return options

    @classmethod
    def changeable(cls) -> frozenset[str]:
        """Names of the options that may change when a run is resumed; its schedule is then that of the new length."""
        return marked(cls, CHANGEABLE)

    @classmethod
    def locating(cls) -> frozenset[str]:
        """Names of the options that may also change then if the data have a fingerprint: they say where these are."""
        return marked(cls, LOCATING)

    def save_interval(self) -> tuple[int | None, float | None]:
        """``save_every`` as a number of steps or of seconds; the other is None.

        Raises:
            SeekingError: the value is neither.
        """
        match = re.fullmatch(r"(\d{1,9})(\.\d{1,9})?\s*(m|min|minutes)?", str(self.save_every).strip())
        if not match or not float(match[1] + (match[2] or "")) or (match[2] and not match[3]):
            raise SeekingError(
                f"save_every is {self.save_every!r}; give a number of steps, such as 500, or of minutes, such as 10m"
            )
        return (None, float(match[1] + (match[2] or "")) * 60) if match[3] else (int(match[1]), None)


def options(config: TrainConfig | None) -> TrainConfig:
    """These options, or the defaults if none are given.

    Raises:
        SeekingError: they are something else.
    """
    if isinstance(config, TrainConfig | None):
        return config or TrainConfig()
    raise SeekingError(f"config is a {type(config).__name__}; give a TrainConfig, such as TrainConfig(epochs=2)")


def _as_plain(value: Any) -> Any:
    """A number of NumPy as one of Python, and anything else as text."""
    return value.item() if hasattr(value, "item") else str(value)
