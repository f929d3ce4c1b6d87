"""The parts of a run made from its options: accelerator, loaders, models as prepared for training, learners."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from accelerate.state import AcceleratorState, is_initialized
from accelerate.utils import DataLoaderConfiguration
from torch import nn
from torch.utils.data import DataLoader

from seeking.checkpointing.run_dir import RunFolder
from seeking.checkpointing.saver import Saver
from seeking.conditions import Condition, Next, parse
from seeking.copies import scratch_copy
from seeking.distributed.processes import this_process
from seeking.distributed.sharding import reshard, shard
from seeking.errors import INCOMPATIBLE_STATE_ERRORS, SeekingError
from seeking.internals import reset_accelerator
from seeking.matching import match
from seeking.pair import Pair
from seeking.training.config import TrainConfig
from seeking.training.learner import Learner
from seeking.training.objective import Objective
from seeking.training.optim import (
    MakeOptimizer,
    MakeSchedule,
    check_shareable,
    make_optimizer,
    make_schedule,
)
from seeking.training.performance import checkpoint_activations, compile_in_place, to_channels_last
from seeking.training.precision import resolve_precision
from seeking.training.rng import RandomState, derive_seed
from seeking.weights_map import WeightsMap


def make_accelerator(config: TrainConfig) -> Accelerator:
    """An accelerator with the options' device and precision."""
    process = this_process(config.device)
    mixed = resolve_precision(config.precision, process.device)
    if is_initialized() and AcceleratorState().mixed_precision != mixed:
        reset_accelerator()  # An earlier trainer of this process has set another precision for good.
    # One batch of the loader is one batch of the run, however many processes share it. A single process takes loaders
    # that come without a batch size, too. Loaders that shuffle do so by the seed and the epoch, in any number of
    # processes.
    loading = DataLoaderConfiguration(
        split_batches=process.num_processes > 1,
        use_seedable_sampler=True,
        data_seed=derive_seed(config.seed),
    )
    return Accelerator(mixed_precision=mixed, cpu=process.device.type == "cpu", dataloader_config=loading)


def make_saver(
    output: RunFolder | str | Path | None,
    resume: bool,
    config: TrainConfig,
    accelerator: Accelerator,
    models: Sequence[str],
) -> Saver:
    """What saves a run of these models in its folder, if it has one.

    Raises:
        SeekingError: the folder holds something else, or there is none and an option needs one.
    """
    if config.on_nonfinite == "rollback" and output is None:
        raise SeekingError("on_nonfinite rollback needs an output folder, to have checkpoints to roll back to")
    if resume and output is None:
        raise SeekingError("resume needs the output folder of the run to be resumed")
    folder = output if isinstance(output, RunFolder | None) else RunFolder(output, resume=resume)
    steps, seconds = config.save_interval()
    return Saver(folder, accelerator, models, every_steps=steps, every_seconds=seconds, keep=config.keep_checkpoints)


def make_pair(
    base: nn.Module,
    motivated: nn.Module,
    weights_map: WeightsMap | None,
    objective: Objective,
    batch: Any,
    config: TrainConfig,
) -> Pair:
    """The pair under this map; one is derived with this batch if it is None.

    Raises:
        NotContainedError: the motivated model cannot contain the base.
        SeekingError: the map is not one of these models.
    """
    if weights_map is None:
        inputs, forward = objective.model_inputs(batch)
        weights_map = match(base, motivated, batch=inputs, forward=forward)
    return Pair(base, motivated, weights_map, norm=config.norm)


def make_condition(condition: Condition | None, config: TrainConfig) -> Condition:
    """When to be motivated: this condition, or the options', on the batch that the options say.

    Raises:
        SeekingError: the options' condition does not parse.
    """
    condition = condition or parse(config.condition, config.seed)
    return Next(condition) if config.on == "next" else condition


class Loaders(NamedTuple):
    """Both loaders as accelerate has prepared them, and the number of steps in an epoch."""

    train: Any
    evaluation: Any | None
    epoch_length: int


def prepare_loaders(
    accelerator: Accelerator, train: DataLoader[Any], evaluation: DataLoader[Any] | None, accumulate: int
) -> Loaders:
    """Have accelerate share the batches out over the processes.

    Raises:
        SeekingError: a loader is empty, has no length, or cannot be prepared.
    """
    try:
        batches = len(train)
    except TypeError as error:
        raise SeekingError(
            "train_loader has no length, and schedules count the run's batches; give it a __len__"
        ) from error
    if not batches:
        raise SeekingError("the training data make no batch: fewer samples than the batch size, or none")
    if evaluation is not None and not len(evaluation):
        raise SeekingError("the evaluation data make no batch")
    try:
        prepared = accelerator.prepare(train)
        prepared_evaluation = accelerator.prepare(evaluation) if evaluation is not None else None
    except ValueError as error:  # Such as a batch that the processes cannot share out evenly.
        raise SeekingError(f"the loaders cannot be prepared: {error}") from error
    return Loaders(prepared, prepared_evaluation, math.ceil(len(prepared) / accumulate))


def place_models(
    models: Mapping[str, nn.Module],
    config: TrainConfig,
    device: torch.device,
    objective: Objective,
    batch: Any,
    generators: RandomState,
) -> None:
    """Move the models to the device, in the memory format and with the activation checkpointing that is asked for."""
    for name, module in models.items():
        module.to(device)
        if config.checkpoint_activations:
            checkpoint_activations(module, name)
    if config.channels_last and not config.shard:  # FSDP2 takes contiguous parameters only.
        with torch.no_grad(), generators.preserved():
            to_channels_last(tuple(models.values()), lambda module: objective.loss(scratch_copy(module).eval(), batch))


def shard_models(
    models: Mapping[str, nn.Module],
    pair: Pair | None,
    accelerator: Accelerator,
    objective: Objective,
    batch: Any,
    generators: RandomState,
) -> None:
    """Shard the models over all processes, and find out whether they work like that.

    Raises:
        SeekingError: they do not.
    """
    if accelerator.num_processes == 1:
        raise SeekingError("shard is on and there is one process; start several (torchrun), or turn it off")
    if accelerator.scaler is not None:
        raise SeekingError("precision is fp16, which sharded models do not take; use bf16 or no, or turn shard off")
    # Weights that autocast had cast would stay, all of them, until the backward pass.
    dtype = torch.bfloat16 if accelerator.mixed_precision == "bf16" else None
    with torch.no_grad(), generators.preserved(), accelerator.autocast():
        for name, model in models.items():
            try:
                shard(model, accelerator.device, dtype)
                objective.loss(model.eval(), batch)
            except INCOMPATIBLE_STATE_ERRORS as error:
                raise SeekingError(
                    f"the {name} model ({type(model).__name__}) cannot be sharded ({type(error).__name__}: {error}); "
                    "turn shard off"
                ) from error
            reshard(model)
    if pair:
        with pair.motivated():  # A pair that cannot be sharded is refused now.
            pass


def check_optimizer(config: TrainConfig, optimizer: MakeOptimizer | None) -> None:
    """Make sure that the optimizer's state can be shared or sharded, if that is asked for.

    Raises:
        SeekingError: it cannot.
    """
    trial = optimizer or (lambda module: make_optimizer(module, config, fused=False))
    if config.optimizer_state == "shared":
        check_shareable(trial, "shared through the map", "set optimizer_state to separate")
    if config.shard:
        check_shareable(trial, "sharded", "turn shard off")


def make_learner(
    name: str,
    module: nn.Module,
    accelerator: Accelerator,
    config: TrainConfig,
    optimizer: MakeOptimizer | None,
    schedule: MakeSchedule | None,
    *,
    steps: int,
) -> Learner:
    """A model, prepared for the devices, with its optimizer and schedule.

    Args:
        name: ``base`` or ``motivated``.
        module: the model.
        accelerator: that prepares it.
        config: options.
        optimizer: makes the optimizer; the options' if not given.
        schedule: makes the schedule; the options' if not given.
        steps: of the whole run.
    """
    # PyTorch's kernel for momentum expects all parameters of a model to have it, or none, leaves it undefined where
    # the scaler skips the first step, and takes no shards.
    separate = config.optimizer_state == "separate" and not config.shard
    fused = config.fused and accelerator.scaler is None and separate
    made_optimizer = optimizer(module) if optimizer else make_optimizer(module, config, fused)
    if isinstance(made_optimizer, AcceleratedOptimizer):  # The loop does itself what that is for.
        made_optimizer = made_optimizer.optimizer
    made_schedule = schedule(made_optimizer, steps) if schedule else make_schedule(made_optimizer, config, steps)
    # What is sharded needs no wrapper; for evaluation, a model gets mixed precision and none.
    model = accelerator.prepare_model(module, evaluation_mode=config.shard)
    if config.compile != "no":
        compile_in_place(model, config.compile)
    return Learner(
        name,
        module,
        model,
        made_optimizer,
        made_schedule,
        planned_steps=steps,
        custom_schedule=schedule is not None,
    )
