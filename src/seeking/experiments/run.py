"""Build the models, the map and the trainer of a run from its options."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from seeking import matching
from seeking.checkpointing.run_dir import RunFolder
from seeking.conditions import parse
from seeking.data import DataConfig, ImageData, loader
from seeking.errors import SeekingError
from seeking.files import read_yaml
from seeking.initialization import Extra, embed
from seeking.matching import Override
from seeking.matching.align import DepthPolicy, WidthPolicy
from seeking.models import check_name as check_model
from seeking.models import create
from seeking.training.budget import check_conditions
from seeking.training.config import TrainConfig
from seeking.training.optim import check_name as check_optimizer
from seeking.training.record import Listener
from seeking.training.trainer import Trainer
from seeking.weights_map import WeightsMap

Role = Literal["pair", "base", "motivated"]
"""What is trained: the pair, or one of its models alone."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The two models, and how the map is derived."""

    base: str = "resnet8"
    """The smaller model: resnet8, 14, 20, 32, 44, 56 or 110 (for small images), or a model of timm."""
    motivated: str = "resnet14"
    """The larger model, of the same family."""
    model_kwargs: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of both models' constructors, such as img_size=32 patch_size=4."""
    base_kwargs: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of the base's constructor alone."""
    motivated_kwargs: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of the motivated model's constructor alone."""
    depth: DepthPolicy = "leading"
    """Which blocks of a longer stage belong to the base: the leading ones, or evenly spread."""
    width: WidthPolicy = "leading"
    """Which channels and heads belong to the base: the leading ones, or evenly spaced."""
    overrides: Path | None = None
    """YAML file with corrections of the derived map, by tensor or module of the base: {target: NAME, index: [...],
    space: true}."""


@dataclass(frozen=True, kw_only=True)
class RunConfig(TrainConfig, DataConfig, ModelConfig):
    """Train a base and a motivated model together."""

    batch_size: int = 32
    """Batch size, summed over all processes."""
    extra: Extra = "own"
    """Initialization of the extra capacity: the model's own (as in the paper), or neutral (function-preserving: the
    motivated model starts with the base's function, as closely as possible)."""
    output: Path | None = None
    """Folder for weights, metrics, summary and figure; runs/NAMES-TIME if not given."""

    def __post_init__(self) -> None:
        TrainConfig.__post_init__(self)
        DataConfig.__post_init__(self)
        if self.batch_size < 1:
            raise SeekingError(f"batch_size is {self.batch_size}; it must be 1 or more")


def check_names(config: RunConfig) -> None:
    """Check what can be checked before data are loaded: names of models and the optimizer, conditions, overrides.

    Raises:
        SeekingError: one of them does not exist, or cannot be parsed or read.
    """
    for name in (config.base, config.motivated):
        check_model(name)
    check_optimizer(config.optimizer)
    check_conditions(config, parse(config.condition), parse(config.base_condition))
    if config.overrides:
        read_overrides(config.overrides)


def models(config: ModelConfig, num_classes: int, in_chans: int = 3, seed: int = 0) -> dict[str, nn.Module]:
    """The base and the motivated model. Each is initialized from the seed, independently of the other."""
    models_by_role = {}
    for role, name, kwargs in (
        ("base", config.base, config.base_kwargs),
        ("motivated", config.motivated, config.motivated_kwargs),
    ):
        torch.manual_seed(seed)
        arguments = {"num_classes": num_classes, "in_chans": in_chans, **config.model_kwargs, **kwargs}
        models_by_role[role] = create(name, **arguments)
    return models_by_role


def weights_map(config: ModelConfig, base: nn.Module, motivated: nn.Module, batch: Tensor | None = None) -> WeightsMap:
    """Derive the map with the options' policies and overrides, on this batch if it is given."""
    overrides = read_overrides(config.overrides) if config.overrides else None
    return matching.match(base, motivated, batch=batch, depth=config.depth, width=config.width, overrides=overrides)


def trainer(
    config: RunConfig,
    data: ImageData,
    role: Role = "pair",
    output: RunFolder | None = None,
    listeners: Sequence[Listener] = (),
    *,
    initial: Mapping[str, nn.Module] | None = None,
    **extra_arguments: Any,
) -> Trainer:
    """A trainer of the pair, or of one model alone with the same options, seed, data order and initial weights.

    Args:
        config: options of the run.
        data: data to train and evaluate on.
        role: what is trained.
        output: run folder; a run that it holds is resumed.
        listeners: called with every row of the run.
        initial: models with their initial weights; created from the seed by default.
        extra_arguments: further arguments of the ``Trainer``, such as an algorithm.

    Raises:
        SeekingError: bad input; nothing has been written.
    """
    both = initial or models(config, len(data.classes), data.shape[0], config.seed)
    train_data, test_data = data.batches(config.seed)
    train_data.classes = test_data.classes = data.classes
    if len(train_data) < config.batch_size:
        raise SeekingError(
            f"{data.name}: {len(train_data)} training images are fewer than one batch of {config.batch_size}; "
            "give a smaller batch_size"
        )
    resume = output is not None and output.holds_run
    continues = output is not None and resume and output.list_checkpoints()
    derived = None
    if role == "pair" and not continues:  # A checkpoint contains its map.
        derived = weights_map(config, both["base"], both["motivated"], torch.zeros(2, *data.shape))
        if config.extra == "neutral":
            embed(both["base"], both["motivated"], derived, batch=torch.randn(2, *data.shape))
    torch.manual_seed(config.seed)
    return Trainer(
        both["base"] if role != "motivated" else None,
        both["motivated"] if role != "base" else None,
        train_loader=loader(train_data, config.batch_size, shuffle_seed=config.seed, workers=data.workers),
        eval_loader=loader(test_data, max(256, config.batch_size), workers=data.workers),
        config=config,
        weights_map=derived,
        output=output,
        resume=resume,
        listeners=listeners,
        **extra_arguments,
    )


def read_overrides(path: Path) -> dict[str, Override]:
    """Read overrides of a map from a YAML file.

    Raises:
        SeekingError: the file cannot be read, or an entry is not valid.
    """
    content = read_yaml(path)
    overrides = {}
    for name, value in content.items():
        if not isinstance(value, Mapping) or not value.keys() <= {"target", "index", "space"}:
            raise SeekingError(f"{path}: {name} must have target, index or both, and optionally space")
        target, index, space = value.get("target"), value.get("index"), value.get("space", False)
        if not isinstance(space, bool):
            raise SeekingError(f"{path}: {name}: space must be true or false, not {space!r}")
        if not isinstance(target, str | None) or not isinstance(index, list | None):
            raise SeekingError(f"{path}: {name}: target must be a name, index a list with an item for each dimension")
        for item in index or ():
            numbers = isinstance(item, list) and all(type(number) is int and number >= 0 for number in item)
            if not (item is None or isinstance(item, str) or numbers):
                raise SeekingError(f"{path}: {name}: {item!r} is neither null, text such as 0:4, nor a list of numbers")
        overrides[str(name)] = Override(target, index, space)
    return overrides
