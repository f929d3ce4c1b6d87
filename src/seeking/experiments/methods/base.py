"""A method: the runs it consists of, and how each of them starts."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from seeking.checkpointing.weights import load_matching_weights
from seeking.choices import Role
from seeking.experiments.config import RunConfig
from seeking.experiments.tasks import TaskData


@dataclass(frozen=True)
class Stage:
    """One training run of a method.

    Attributes:
        name: name of the stage.
        role: what is trained.
        cost: FLOPs of an epoch, relative to the larger model alone.
        share: share of the method's FLOPs that this run gets.
        length: its epochs or steps, over those of the options.
        after: name of the stage that this one starts from or learns from.
        outputs: the models that this run contributes to the method's results.
        conditional: whether a condition chooses batches, so that there is evidence on it.
    """

    name: str
    role: Role
    cost: float = field(compare=False)  # Depends on the pair, and several pairs may share a run.
    share: float = field(default=1.0, compare=False)
    length: float = field(default=1.0, compare=False)
    after: str | None = None
    outputs: tuple[str, ...] = ()
    conditional: bool = False


@dataclass(frozen=True)
class Start:
    """What a run may start from.

    Attributes:
        stage: the stage that starts.
        config: options of the run.
        models: both models, with their initial weights.
        settings: settings of the method.
        previous: folder of the previous run, if any.
        data: of the run.
    """

    stage: Stage
    config: RunConfig
    models: Mapping[str, nn.Module]
    settings: Mapping[str, Any]
    previous: Path | None
    data: TaskData


def load_previous(start: Start) -> dict[str, Any]:
    """Load the weights of the previous run, if there is one."""
    if start.previous:
        for name in start.models if start.stage.role == "pair" else (start.stage.role,):
            load_matching_weights(start.models[name], start.previous / f"{name}.last.safetensors")
    return {}


@dataclass(frozen=True)
class Method:
    """A way to train two sizes.

    Attributes:
        name: name in recipes.
        stages: maps the FLOPs of the base over those of the larger model, and the arm's settings, to the stages.
        begin: sets the initial weights of a run; returns additional arguments for its ``Trainer``.
        settings: settings of the method that an arm may override, with their defaults.
        searched_separately: whether the search chooses options for each model on its own.
    """

    name: str
    stages: Callable[[float, Mapping[str, Any]], tuple[Stage, ...]]
    begin: Callable[[Start], dict[str, Any]] = load_previous
    settings: Mapping[str, Any] = field(default_factory=dict)
    searched_separately: bool = False
