"""The options of each command: a dataclass defines the flags, the help texts and the keys of a YAML file."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tyro.conf import Positional

from seeking.choices import Extra
from seeking.experiments.config import ModelConfig, RunConfig
from seeking.option_types import Changeable, GivenAnew


@dataclass(frozen=True, kw_only=True)
class RunOptions(RunConfig):
    """Options of commands that train."""

    config: GivenAnew[Path | None] = None
    """YAML file of options; flags override it."""
    recipe: GivenAnew[str | None] = None
    """Options to start from, which --config and flags override: best or base-first (a schedule for each model, within a
    budget), paper (the paper's), or the path of a YAML file. If not given, best, unless --condition or --base-condition
    is given; None starts from the defaults of TrainConfig. Help shows the defaults of what it is called with, such as
    --recipe paper --help."""
    overwrite: GivenAnew[bool] = False
    """Replace an existing run in the output folder."""
    resume: GivenAnew[bool] = False
    """Resume the run in the output folder from its newest intact checkpoint, with its options; start a new run if there
    is none. Most options cannot be changed; the number of epochs and how the run is saved can."""


@dataclass(frozen=True, kw_only=True)
class Train(RunOptions):
    """Train a base and a motivated model together. Without arguments: resnet8 in resnet14 on digits, by recipe best."""


@dataclass(frozen=True, kw_only=True)
class Compare(RunOptions):
    """Train the pair, by default by recipe best, and each of its models alone, with the same seeds; compare them."""

    seeds: Changeable[int] = 3
    """Number of seeds, starting from --seed."""


@dataclass(frozen=True, kw_only=True)
class Reproduce:
    """Run an experiment from a recipe: the paper's, ablations or baselines. Resumes an unfinished experiment."""

    recipe: Positional[str]
    """ablation, conditions, front, front-cifar100, switches, pareto, cifar10-resnet, cifar100-efficientnet,
    cifar100-vit, imagenet, transfer, text, tabular, or a YAML file."""
    scale: str = "quick"
    """quick (minutes on 2 cores), small (hours), long (longer runs) or full (the size of the paper, on a GPU), if the
    recipe has it."""
    arms: tuple[str, ...] | None = None
    """Arms to run, by name; all if not given. What the folder has of others stays in the results."""
    seeds: int | None = None
    """Number of seeds; the recipe's if not given. More seeds can be added later."""
    data: str | None = None
    """Data set to train on instead of the recipe's: a name on the hub or a folder; for text, a file."""
    source: str | None = None
    """Data set to pretrain on, for transfer."""
    output: Path | None = None
    """Folder for runs, tables and figures; runs/RECIPE-SCALE if not given."""
    jobs: int | None = None
    """Runs in parallel, one process each; if not given, the number of cores, or 4 on an accelerator."""
    device: str | None = None
    """A torch device, as for seeking train."""
    set: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Options that override the recipe's in every run, such as epochs=5."""


@dataclass(frozen=True, kw_only=True)
class Analyze:
    """Analyze a run of a pair from its checkpoints: agreement of the gradients, effect of a step, sharpness."""

    run: Positional[Path]
    """The run folder. Nothing in it is changed. Train with --keep-checkpoints 100 to analyze the whole run."""
    against: Path | None = None
    """Run folder with the same base trained alone, to measure the loss between the two."""
    samples: int = 512
    """Training samples for gradients, and evaluation samples for losses."""
    steps: int = 8
    """Greatest number of batches of these samples from which a step of each model is taken, at each checkpoint."""
    iterations: int = 20
    """Greatest number of power iterations for the sharpness."""
    data: str | None = None
    """Where the data of the run are now, if they have moved."""
    base: str | None = None
    """The base, as for seeking train: needed if it is loaded from a folder or the hub, which a run folder, maybe of a
    stranger, cannot ask for."""
    motivated: str | None = None
    """The motivated model; as for base."""
    device: str | None = None
    """A torch device, as for seeking train."""
    output: Path | None = None
    """Folder for analysis.json and analysis.png; the tables are only printed if not given."""


@dataclass(frozen=True, kw_only=True)
class Show:
    """Show a run: the options that were changed, progress, results, and whether its files are intact; or list runs."""

    run: Positional[Path]
    """The run folder, or a folder of run folders. Nothing in it is executed or changed."""


@dataclass(frozen=True, kw_only=True)
class TwoModelsOptions(ModelConfig):
    """Options of commands that take two models."""

    base: Positional[str] = dataclasses.field()
    """Name of the smaller model."""
    motivated: Positional[str] = dataclasses.field()
    """Name of the larger model."""


@dataclass(frozen=True, kw_only=True)
class NewModelsOptions(TwoModelsOptions):
    """Options of commands that take two models without weights."""

    in_chans: int = 3
    """Number of image channels; of models for tables, number of columns."""
    num_classes: int = 10
    """Number of classes of both models; those for text have one for each byte."""


@dataclass(frozen=True, kw_only=True)
class Map(NewModelsOptions):
    """Print the weights map of two models: which part of the motivated model is the base."""

    own: tuple[str, ...] = ()
    """Tensors of the base that each model keeps for itself: patterns of their names or of modules, such as norm*."""
    details: bool = False
    """Print one line for each tensor instead of each block."""
    save: Path | None = None
    """Save the map to this file."""


@dataclass(frozen=True, kw_only=True)
class Verify(NewModelsOptions):
    """Verify that the base is a sub-network of the motivated model. Exit code 0 if it is, 1 if not."""

    map: Path | None = None
    """File of a saved map; derived from the models if not given."""
    image_size: int | None = None
    """Side of the random input images in pixels; the input size of the base if not given."""
    tolerance: float = 1e-9
    """Largest relative difference of the outputs that counts as exact."""


@dataclass(frozen=True, kw_only=True)
class TransferOptions(TwoModelsOptions):
    """Options of commands that initialize one model from the other."""

    weights: Path
    """Weights to start from: a safetensors file, a state_dict saved with torch.save, or a folder of Hugging Face."""
    in_chans: int | None = None
    """Number of image channels; of models for tables, number of columns; if not given, that of the weights."""
    num_classes: int | None = None
    """Number of classes of both models; if not given, that of the weights."""
    output: Path
    """Safetensors file to write."""
    map: Path | None = None
    """File of a saved map; derived from the models if not given."""
    overwrite: bool = False
    """Replace an existing output file."""
    seed: int = 0
    """Seed of all other initial weights."""


@dataclass(frozen=True, kw_only=True)
class Extract(TransferOptions):
    """Extract the base from a trained motivated model. --weights are those of the motivated model."""


@dataclass(frozen=True, kw_only=True)
class Embed(TransferOptions):
    """Initialize a motivated model from a trained base. --weights are those of the base."""

    extra: Extra = "neutral"
    """Initialization of the extra capacity: neutral (function-preserving, if possible), copied (each extra block from
    the base's block before it) or the model's own."""
