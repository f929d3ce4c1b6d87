"""The options of each command: one dataclass is its flags, its help and the fields of an options file."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tyro.conf import Positional

from seeking.experiments.run import ModelConfig, RunConfig
from seeking.initialization import Extra


@dataclass(frozen=True, kw_only=True)
class RunOptions(RunConfig):
    """Options of commands that train."""

    config: Path | None = None
    """YAML file of the same options; flags win over it."""
    overwrite: bool = False
    """Replace the run that the output folder holds."""
    resume: bool = False
    """Go on with the run in the output folder from its newest whole checkpoint, with its options; begin it if there is
    none. Options given again must be the run's, but for the number of epochs and how it is saved."""


@dataclass(frozen=True, kw_only=True)
class Train(RunOptions):
    """Train a base and a motivated model together. Without arguments: resnet8 in resnet14 on handwritten digits."""


@dataclass(frozen=True, kw_only=True)
class Compare(RunOptions):
    """Train the pair and, under the same settings and seeds, each of its models alone; show them side by side."""

    seeds: int = 3
    """Runs of each, with seeds from --seed on."""


@dataclass(frozen=True, kw_only=True)
class Reproduce:
    """Run an experiment from a recipe: the paper's, its ablations, its rivals; go on where it was cut off."""

    recipe: Positional[str]
    """ablation, pareto, cifar10-resnet, cifar100-efficientnet, cifar100-vit, imagenet, transfer, or a YAML file."""
    scale: str = "quick"
    """quick (minutes on 2 cores), small (hours) or full (as the paper has it, on a GPU), where the recipe has it."""
    seeds: int | None = None
    """How many; the recipe's own number if not given. More may be added later."""
    data: str | None = None
    """Data set to train on, where it is not the recipe's: a name on the hub or a folder."""
    source: str | None = None
    """Data set of the training that goes before, for transfer."""
    output: Path | None = None
    """Folder for runs, tables and figures; runs/RECIPE-SCALE if not given."""
    jobs: int | None = None
    """Runs at a time, each in a process of its own; one for each core, on an accelerator 4, if not given."""
    device: str | None = None
    """As for seeking train."""
    set: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Options of every run that are to be others than the recipe's, such as epochs=5."""


@dataclass(frozen=True, kw_only=True)
class Show:
    """Show a run folder: its options, how far it is, its results, and whether its checkpoints are whole."""

    run: Positional[Path]
    """The run's folder. Nothing in it is executed or changed."""


@dataclass(frozen=True, kw_only=True)
class TwoModelsOptions(ModelConfig):
    """Options of commands on two models."""

    base: Positional[str] = dataclasses.field()
    """The smaller model, by name."""
    motivated: Positional[str] = dataclasses.field()
    """The larger model, by name."""
    num_classes: int = 10
    """Length of both models' output."""
    in_chans: int = 3
    """Channels of the images."""


@dataclass(frozen=True, kw_only=True)
class Map(TwoModelsOptions):
    """Print the weights map of two models: which part of the motivated model is the base."""

    details: bool = False
    """A line for each tensor instead of each block."""
    save: Path | None = None
    """Write the map to this file."""


@dataclass(frozen=True, kw_only=True)
class Verify(TwoModelsOptions):
    """Prove that the base is a sub-network of the motivated model. Exit code 0 if it is, 1 if not."""

    map: Path | None = None
    """A map saved before, instead of the derived one."""
    image_size: int | None = None
    """Side of the random input images; the size that the base was made for if not given."""
    tolerance: float = 1e-5
    """Greatest relative difference of the outputs that counts as exact."""


@dataclass(frozen=True, kw_only=True)
class TransferOptions(TwoModelsOptions):
    """Options of commands that start one model from the other."""

    weights: Path
    """File of the weights to start from: safetensors, or a state_dict of torch.save."""
    output: Path
    """The safetensors file to write."""
    map: Path | None = None
    """A map saved before, instead of the derived one."""
    overwrite: bool = False
    """Replace the output file if it exists."""
    seed: int = 0
    """Of fresh weights."""


@dataclass(frozen=True, kw_only=True)
class Extract(TransferOptions):
    """Cut the base out of a trained motivated model. --weights are the motivated model's."""


@dataclass(frozen=True, kw_only=True)
class Embed(TransferOptions):
    """Start a motivated model from a trained base. --weights are the base's."""

    extra: Extra = "neutral"
    """Extra capacity: neutral (the motivated model begins as the base's function where that is possible), or its own
    initialisation."""
