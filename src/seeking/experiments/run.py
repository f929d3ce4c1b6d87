"""Build the models, the map and the trainer of a run from its options."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from seeking import matching
from seeking.checkpointing.run_dir import RunFolder
from seeking.choices import Role
from seeking.conditions import parse
from seeking.errors import SeekingError, unknown
from seeking.experiments.config import ModelConfig, RunConfig
from seeking.experiments.start import (
    ModelArguments,
    check_given_again,
    initial_models,
    share_weights,
    shared_from,
    sources,
    warn_of_other_data,
)
from seeking.experiments.tasks import TaskData, task
from seeking.files import read_yaml
from seeking.matching import Override
from seeking.matching.match import aligned
from seeking.models import arguments_for, check_arguments, check_model_name, check_task, task_of
from seeking.option_types import check_least
from seeking.report.showing import Display
from seeking.training.needs import Given
from seeking.training.optim import check_optimizer_options
from seeking.training.record import Listener
from seeking.training.trainer import Trainer
from seeking.weights_map import WeightsMap


def arguments(config: ModelConfig, common: Mapping[str, Any]) -> ModelArguments:
    """How both models are made, with these arguments of both that options may replace.

    Raises:
        SeekingError: a number of classes or channels is too small, or the models are for different kinds of data.
    """
    kinds = task_of(config.base), task_of(config.motivated)
    if kinds[0] != kinds[1]:
        raise SeekingError(
            f"{config.base} is a model of task {kinds[0]}, {config.motivated} one of task {kinds[1]}; give two of one "
            "task"
        )
    for name, least in (("num_classes", 0), ("in_chans", 1)):  # Models of timm without classes have no head.
        check_least(name, common.get(name), least)
    common = {**common, **config.model_kwargs}
    return ModelArguments(
        names={"base": config.base, "motivated": config.motivated},
        arguments={"base": {**common, **config.base_kwargs}, "motivated": {**common, **config.motivated_kwargs}},
    )


def check_names(config: RunConfig) -> None:
    """Check what can be checked before data are loaded: models, the optimizer, metrics, conditions, overrides.

    Raises:
        NotContainedError: a stage of the base is longer than the motivated model's, or a module is missing there.
        SeekingError: one of them, or the loss, does not exist, cannot be parsed or read, or is for other data than the
            task's; or a model rejects its arguments.
    """
    for name in (config.base, config.motivated):
        check_model_name(name)
        check_task(name, config.task)
    task(config.task).metric(config.loss)
    measured = task(config.task).measured[config.loss]
    if config.best and config.best not in measured:
        raise unknown("metric in best", config.best, measured)
    plan, made = arguments(config, {}), []
    for model, name in plan.names.items():
        others = arguments_for(name, 10, config.channels or 3)
        if config.task == "text":
            others["sequence_length"] = config.sequence_length
        made.append(check_arguments(name, plan.arguments[model], others))
    check_optimizer_options(config)
    for option in ("condition", "base_condition"):
        Given.by(config).check(parse(getattr(config, option), option=option), option)
    overrides = read_overrides(config.overrides) if config.overrides else {}
    base, motivated = made
    if base and motivated:
        aligned(base, motivated, config.depth, overrides)


def models(config: ModelConfig, common: Mapping[str, Any], seed: int = 0) -> dict[str, nn.Module]:
    """The base and the motivated model, made with these arguments of both, such as ``num_classes``.

    Each is initialized from the seed, independently of the other.
    """
    return initial_models(arguments(config, common), seed, {})


def weights_map(config: ModelConfig, base: nn.Module, motivated: nn.Module, batch: Tensor | None = None) -> WeightsMap:
    """Derive the map with the options' policies and overrides, on this batch if it is given."""
    overrides = read_overrides(config.overrides) if config.overrides else None
    return matching.match(base, motivated, batch=batch, depth=config.depth, width=config.width, overrides=overrides)


def trainer(
    config: RunConfig,
    data: TaskData,
    role: Role = "pair",
    output: RunFolder | None = None,
    listeners: Sequence[Listener] = (),
    *,
    progress: Display = False,
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
        progress: how the run is shown, as for the ``Trainer``.
        initial: models with their initial weights; created from the seed by default.
        extra_arguments: further arguments of the ``Trainer``, such as an algorithm.

    Raises:
        SeekingError: bad input; nothing has been written.
    """
    resume = output is not None and output.holds_run
    continues = output is not None and resume and bool(output.list_checkpoints())
    if initial is not None and (config.start_from or config.pretrained):
        raise SeekingError(
            "an experiment sets the weights that its runs start from itself; leave out start_from and pretrained"
        )
    plan = arguments(config, data.model_arguments)
    origins = {} if continues else sources(config.start_from, config.pretrained, plan)
    if output is not None and resume and not continues and not origins:
        check_given_again(output.path)
    shared = shared_from(origins, config.shared_from, config.extra)
    both = initial or initial_models(plan, config.seed, origins)
    if data.train_samples < config.batch_size:
        raise SeekingError(
            f"{data.name}: {data.train_samples} training {data.unit} are fewer than one batch of {config.batch_size}; "
            "give a smaller batch_size"
        )
    loaders = data.loaders(config)
    warn_of_other_data(origins, getattr(loaders.train.dataset, "preparation", {}))
    derived = None
    if (role == "pair" or origins) and not continues:  # A checkpoint contains its map.
        derived = weights_map(config, both["base"], both["motivated"], data.example)
    if derived is not None and shared and role != "pair":
        share_weights(both, derived, shared, config.extra)
    torch.manual_seed(config.seed)
    return Trainer(
        both["base"] if role != "motivated" else None,
        both["motivated"] if role != "base" else None,
        train_loader=loaders.train,
        eval_loader=loaders.evaluation,
        held_out=loaders.held_out,
        config=dataclasses.replace(config, shared_from=shared),
        weights_map=derived if role == "pair" else None,
        output=output,
        resume=resume,
        listeners=listeners,
        progress=progress,
        **{"objective": data.objective(config), **extra_arguments},
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
