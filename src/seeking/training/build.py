"""Build the parts of a run from its options: saver, pair, condition, algorithm, prepared models, learners."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from torch import nn

from seeking.algorithms import Scheduled, alone, motivated
from seeking.checkpointing.functions import qualified_name
from seeking.checkpointing.run_dir import RunFolder
from seeking.checkpointing.saver import Saver
from seeking.conditions import Condition, Never, Next, WithinBudget, parse
from seeking.copies import copied, copied_function, scratch_copy
from seeking.distributed.sharding import reshard, shard
from seeking.errors import INCOMPATIBLE_STATE_ERRORS, RunWarning, SeekingError
from seeking.initialization import embed
from seeking.matching import match
from seeking.pair import Pair
from seeking.pretrained import warn_of_overwritten
from seeking.training.budget import base_condition
from seeking.training.config import TrainConfig
from seeking.training.data import Loaders
from seeking.training.interrupts import Requests
from seeking.training.joining import Joining
from seeking.training.learner import Learner
from seeking.training.modes import evaluating
from seeking.training.moving_average import Average
from seeking.training.needs import Given
from seeking.training.no_effect import warn_of_no_effect
from seeking.training.objective import Objective
from seeking.training.optim import (
    MAKERS,
    MakeOptimizer,
    MakeSchedule,
    check_elementwise_state,
    check_steppable,
    check_trains,
    made,
    make_optimizer,
    make_schedule,
    warmup_of,
)
from seeking.training.performance import checkpoint_activations, compile_in_place, to_channels_last
from seeking.training.progress import Progress
from seeking.training.rng import RandomState
from seeking.training.run import Algorithm
from seeking.training.standing_in import StandIn
from seeking.training.step import Stepper
from seeking.weights_map import WeightsMap

AS_IN_PAPER = {"base_condition": "always", "finish": "tied", "update": "separate", "teach": 0.0}
"""Options with which the paper's algorithm trains a pair."""


def make_saver(
    output: RunFolder | str | Path | None,
    resume: bool,
    config: TrainConfig,
    accelerator: Accelerator,
    models: Sequence[str],
    loaders: Loaders,
    functions: Mapping[str, Any],
) -> Saver:
    """Create the saver of a run on the data of these loaders, which writes to the run folder if there is one.

    A run that is resumed with another of these functions is told so; None stands for what the options choose.

    Raises:
        SeekingError: the folder holds something else, or an option needs a folder and none is given.
    """
    if config.on_nonfinite == "rollback" and output is None:
        raise SeekingError("on_nonfinite rollback needs an output folder, to have checkpoints to roll back to")
    if type(resume) is not bool:
        raise SeekingError(
            f"resume is {resume!r}; it is True or False, and continues the run in output: give output={str(resume)!r} "
            "and resume=True"
        )
    if resume and output is None:
        raise SeekingError("resume needs the output folder of the run to resume")
    folder = output if isinstance(output, RunFolder | None) else RunFolder(output, resume=resume)
    steps, seconds = config.save_interval()
    data = {"training data": loaders.train, "evaluation data": loaders.evaluation}
    return Saver(
        folder,
        accelerator,
        models,
        every_steps=steps,
        every_seconds=seconds,
        keep=config.keep_checkpoints,
        data={name: loader.fingerprint if loader else {} for name, loader in data.items()} if folder else None,
        functions={
            role: "that of the options" if each is None else qualified_name(each) for role, each in functions.items()
        },
    )


def make_pair(
    base: nn.Module | None,
    motivated: nn.Module | None,
    weights_map: WeightsMap | None,
    objective: Objective,
    batch: Any,
    config: TrainConfig,
    resumed: bool,
) -> Pair | None:
    """Create the pair, if there are two models; the map is derived on this batch if it is None.

    The extra capacity is initialized at the beginning.

    Raises:
        NotContainedError: the motivated model cannot contain the base.
        SeekingError: the map does not fit the models, they cannot be initialized so, or the objective does not tell
            what they take.
    """
    if base is None or motivated is None:
        return None
    given = objective.model_inputs(batch)
    if type(given) is not tuple or len(given) != 2:
        raise SeekingError(
            f"{type(objective).__name__}.model_inputs returned a {type(given).__name__}, not what the models take and "
            "a function that runs them, or None; return both, such as (batch[0], None)"
        )
    inputs, forward = given
    if weights_map is None:
        weights_map = match(base, motivated, batch=inputs, forward=forward)
    if config.extra != "own" and not resumed:
        warn_of_overwritten(base, motivated, weights_map, config.shared_from)
        embed(base, motivated, weights_map, extra=config.extra, batch=inputs, forward=forward)
    return Pair(
        base,
        motivated,
        weights_map,
        norm=config.norm,
        batch=inputs,
        forward=forward,
        own=config.own,
        shared_from="base" if resumed else config.shared_from,  # All weights are restored.
    )


def make_joining(pair: Pair | None, progress: Progress, config: TrainConfig) -> Joining | None:
    """What happens when the motivated model takes its first step; None if nothing does."""
    copied, inherit = config.extra == "copied", config.optimizer_state == "inherit"
    if pair is None or not (copied or inherit or config.rewarm is not None):
        return None
    return Joining(pair, progress, copied, inherit, config.rewarm, config.rewarm_share)


def make_averages(learners: Mapping[str, Learner], config: TrainConfig) -> dict[str, Average]:
    """The average of each model's weights; none if the options want none."""
    decay = config.ema
    return {} if decay is None else {name: Average(learner.module, decay) for name, learner in learners.items()}


def make_condition(condition: Condition | None, config: TrainConfig, pair: bool, given: Given) -> Condition:
    """The motivation condition: this one, or the one of the options; delayed by a batch for ``on="next"``.

    A budget has the last word, on the batch on which it is spent.

    Args:
        condition: a custom condition, if any.
        config: options.
        pair: whether there are two models; it never holds if not.
        given: what the run has for conditions.

    Raises:
        SeekingError: the condition of the options cannot be parsed, or needs what the run has not.
    """
    if not pair:
        return Never()
    if condition is None:
        condition = parse(config.condition, config.seed)
    if not isinstance(condition, Condition):
        raise SeekingError(
            f"condition is {condition!r}, a {type(condition).__name__}; give a seeking.Condition, such as "
            "seeking.ConsecutiveDecrease(2), or its text as TrainConfig(condition=...)"
        )
    given.check(condition)
    condition = Next(condition) if config.on == "next" else condition
    return condition if config.budget is None else WithinBudget(condition)


def make_algorithm(
    algorithm: Algorithm | None,
    config: TrainConfig,
    condition: Condition,
    pair: bool,
    given: Given,
    progress: Progress,
) -> Algorithm:
    """How a batch trains the models: the paper's algorithm, unless the options give the base a condition of its own.

    Args:
        algorithm: a custom algorithm, if any.
        config: options.
        condition: of the motivated model.
        pair: whether there are two models.
        given: what the run has for conditions.
        progress: of the run, for its length.

    Raises:
        SeekingError: the condition of the base cannot be parsed or needs what the run has not, or options contradict a
            custom algorithm.
    """
    changed = [name for name, value in AS_IN_PAPER.items() if getattr(config, name) != value]
    if algorithm:
        for name in changed:
            raise SeekingError(
                f"{name} is {getattr(config, name)!r}, which the algorithm that was given decides itself; leave {name} "
                f"at {AS_IN_PAPER[name]!r}"
            )
        return algorithm
    if not pair:
        return alone
    of_base = base_condition(config)
    given.check(of_base, "base_condition")
    warn_of_no_effect(config, of_base, condition, given, progress)
    if not changed:
        return motivated
    return Scheduled(
        of_base,
        student=config.student if config.teach else None,
        separate_at=config.finish_at if config.finish == "private" else 1.0,
        base_weight=config.base_weight if config.update == "joint" else None,
        one_pass=config.one_pass,
    )


def named_models(base: object, motivated: object) -> dict[str, nn.Module]:
    """The models that are given, by name.

    Raises:
        SeekingError: there is none, or one is no module.
    """
    models: dict[str, nn.Module] = {}
    for name, model in (("base", base), ("motivated", motivated)):
        if isinstance(model, Pair):
            raise SeekingError(
                f"{name} is a Pair; the Trainer makes its own: "
                "Trainer(pair.base, pair.motivated_model, weights_map=pair.map, ...)"
            )
        if isinstance(model, nn.Module):
            models[name] = model
        elif model is not None:
            raise SeekingError(f"{name} is a {type(model).__name__}, not a torch.nn.Module")
    if not models:
        raise SeekingError("there is no model; give the Trainer a base, a motivated model, or both")
    return models


def place_models(
    models: Mapping[str, nn.Module],
    config: TrainConfig,
    device: torch.device,
    objective: Objective,
    batch: Any,
    generators: RandomState,
) -> None:
    """Move the models to the device; set the memory format and activation checkpointing of the options."""
    for name, module in models.items():
        module.to(device)
        if config.checkpoint_activations:
            checkpoint_activations(module, name)
    if config.channels_last and not config.shard:  # FSDP2 takes contiguous parameters only.
        with torch.no_grad(), generators.preserved():
            to_channels_last(
                tuple(models.values()),
                lambda module: objective.loss(scratch_copy(module).eval(), copied(batch)),
            )


def shard_models(
    models: Mapping[str, nn.Module],
    pair: Pair | None,
    accelerator: Accelerator,
    objective: Objective,
    batch: Any,
    generators: RandomState,
) -> None:
    """Shard the models over all processes, and run each of them once.

    Raises:
        SeekingError: they cannot be sharded.
    """
    if accelerator.num_processes == 1:
        raise SeekingError("shard is on, but there is only one process; start several with torchrun, or turn shard off")
    if accelerator.scaler is not None:
        raise SeekingError("precision is fp16, which sharded models do not support; use bf16 or no, or turn shard off")
    # FSDP casts block by block; autocast would keep all cast weights until the backward pass.
    dtype = torch.bfloat16 if accelerator.mixed_precision == "bf16" else None
    trial: Objective = copied_function(objective)
    with torch.no_grad(), generators.preserved(), accelerator.autocast():
        for name, model in models.items():
            try:
                shard(model, accelerator.device, dtype)
                with evaluating(model):
                    trial.loss(model, copied(batch))
            except INCOMPATIBLE_STATE_ERRORS as error:
                raise SeekingError(
                    f"the {name} model ({type(model).__name__}) cannot be sharded ({type(error).__name__}: {error}); "
                    "turn shard off"
                ) from error
            reshard(model)
    if pair:
        with pair.motivated():  # Fails now if the pair cannot be sharded.
            pass


def make_stepper(accelerator: Accelerator, config: TrainConfig, requests: Requests) -> Stepper:
    """What takes optimizer steps. A process can stand in for its failed loss if the others wait in its backward pass.

    Sharded models wait for each other in the forward pass, too; compiled ones take no hooks.
    """
    several = accelerator.num_processes > 1 and not config.shard and config.compile == "no"
    return Stepper(accelerator, config.clip_grad, requests, StandIn(accelerator) if several else None)


def check_optimizer(config: TrainConfig, optimizer: MakeOptimizer | None) -> None:
    """Check that the optimizer's state can be shared or sharded, if an option requires it; warn of an unused rate.

    Raises:
        SeekingError: it cannot.
    """
    if optimizer and config.base_lr is not None:
        warnings.warn(
            f"base_lr is {config.base_lr}, which has no effect: the function for the optimizers (optimizer) sets their "
            "rates; let it give the base another one",
            RunWarning,
            stacklevel=3,
        )
    trial = optimizer or (lambda module: make_optimizer(module, config, fused=False))
    if config.optimizer_state != "separate":
        check_elementwise_state(trial, "shared through the map", "set optimizer_state to separate")
    if config.shard:
        check_elementwise_state(trial, "sharded", "turn shard off")


def make_learners(
    models: Mapping[str, nn.Module],
    pair: Pair | None,
    accelerator: Accelerator,
    config: TrainConfig,
    optimizer: MakeOptimizer | None,
    schedule: MakeSchedule | None,
    progress: Progress,
) -> dict[str, Learner]:
    """Prepare the models, each with its optimizer and schedule; their states are shared if the options say so."""
    # PyTorch's fused SGD needs momentum buffers for all parameters or none, leaves them uninitialized if the scaler
    # skips the first step, and does not support sharded parameters.
    partly = config.own and config.update == "joint"  # Such an update is a step of the base's own tensors alone.
    separate = config.optimizer_state == "separate" and not config.shard and not partly
    fused = config.fused and accelerator.scaler is None and separate
    learners = {}
    for name, module in models.items():
        own = made("optimizer", optimizer, module) if optimizer else make_optimizer(module, config, fused, name)
        if isinstance(own, AcceleratedOptimizer):  # The training loop does the work of this wrapper.
            own = own.optimizer
        check_steppable("optimizer", own)
        if optimizer:
            check_trains(own, module, name)
        own_schedule = (
            made("schedule", schedule, own, progress.steps)
            if schedule
            else make_schedule(own, config, progress.steps, progress.epoch_length)
        )
        check_steppable("schedule", own_schedule)
        if getattr(own_schedule, "optimizer", own) is not own:
            raise SeekingError(
                f"schedule gives one of another optimizer than that of the {name} model; make it of the optimizer that "
                f"the function gets, such as {MAKERS['schedule']}"
            )
        # A sharded model needs no DDP wrapper; in evaluation mode, prepare_model only adds mixed precision.
        model = accelerator.prepare_model(module, evaluation_mode=config.shard)
        if config.compile != "no":
            compile_in_place(model, config.compile)
        learners[name] = Learner(
            name,
            module,
            model,
            own,
            own_schedule,
            planned_steps=progress.steps,
            warmup=0 if schedule else warmup_of(config, progress.steps, progress.epoch_length),
            custom_optimizer=optimizer is not None,
            custom_schedule=schedule is not None,
        )
    if pair and config.optimizer_state == "shared":
        pair.optimizers = learners["base"].optimizer, learners["motivated"].optimizer
    return learners
