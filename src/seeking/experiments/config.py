"""Options of a run: the models, the data and the training."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from seeking.choices import DepthPolicy, WidthPolicy
from seeking.data.config import DataConfig
from seeking.option_types import GivenAnew, check_least
from seeking.training.config import TrainConfig


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The two models, and how the map is derived."""

    base: str = "resnet8"
    """The smaller model: resnet8, 14, 20, 32, 44, 56 or 110 (for small images), or a model of timm. For text:
    gpt2-LAYERSxWIDTH or llama-LAYERSxWIDTH, such as gpt2-4x128. For tabular: mlp-WIDTH."""
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
    pretrained: GivenAnew[bool] = False
    """Start from timm's pretrained weights, of both models unless --start-from names one."""
    start_from: GivenAnew[tuple[str, ...]] = ()
    """Weights to start from: base or motivated (the pretrained weights of that model), base=FILE, motivated=FILE, or a
    FILE whose weights fit one of them. A head for another number of classes starts anew."""
    output: GivenAnew[Path | None] = None
    """Folder for weights, metrics, summary and figure; runs/NAMES-TIME if not given."""

    def __post_init__(self) -> None:
        TrainConfig.__post_init__(self)
        DataConfig.__post_init__(self)
        check_least("batch_size", self.batch_size)
