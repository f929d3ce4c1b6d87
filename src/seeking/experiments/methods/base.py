"""What a method is: the runs that it takes, and how each of them begins."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from seeking.checkpointing.weights import load_matching_weights
from seeking.experiments.run import Role, RunConfig


@dataclass(frozen=True)
class Stage:
    """One training run of a method.

    Attributes:
        name: of the stage.
        role: what is trained.
        cost: FLOPs of an epoch, those of the larger model alone being 1.
        share: of the method's FLOPs that go into this run.
        after: name of the stage that this one begins from or learns from.
        gives: the models whose results are the method's.
        conditional: whether a condition chooses batches, so that there is evidence on it.
    """

    name: str
    role: Role
    cost: float = field(compare=False)  # It follows from the pair, and the same run may serve several.
    share: float = field(default=1.0, compare=False)
    after: str | None = None
    gives: tuple[str, ...] = ()
    conditional: bool = False


@dataclass(frozen=True)
class Start:
    """What a run may begin from.

    Attributes:
        stage: that begins.
        config: options of the run.
        models: both models, with fresh weights.
        knobs: of the arm.
        before: folder of the run that goes before, if any.
        image_shape: channels, height and width.
    """

    stage: Stage
    config: RunConfig
    models: Mapping[str, nn.Module]
    knobs: Mapping[str, Any]
    before: Path | None
    image_shape: tuple[int, int, int]


def load_previous(start: Start) -> dict[str, Any]:
    """Begin from the weights of the pair that was trained before, where there is one."""
    if start.before:
        for name in start.models if start.stage.role == "pair" else (start.stage.role,):
            load_matching_weights(start.models[name], start.before / f"{name}.last.safetensors")
    return {}


@dataclass(frozen=True)
class Method:
    """A way to train two sizes.

    Attributes:
        name: in recipes.
        stages: from the base's FLOPs over the larger model's and the arm's knobs to the runs.
        begin: changes the models' weights to what a run begins with; returns arguments of its ``Trainer``.
        knobs: what an arm may set besides the options of its runs, with defaults.
        searched_apart: whether a search chooses each model's options by that model alone.
    """

    name: str
    stages: Callable[[float, Mapping[str, Any]], tuple[Stage, ...]]
    begin: Callable[[Start], dict[str, Any]] = load_previous
    knobs: Mapping[str, Any] = field(default_factory=dict)
    searched_apart: bool = False
