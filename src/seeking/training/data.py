"""The data of a run: training, evaluation and held-out batches."""

import math
import warnings
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from accelerate import Accelerator

from seeking.distributed.alike import check_alike
from seeking.errors import RunWarning, SeekingError
from seeking.training.config import TrainConfig
from seeking.training.loaders import Loader, prepare
from seeking.training.needs import Given
from seeking.training.rng import derive_seed
from seeking.training.stream import check_stream

NO_BATCH = "the training data yield no batch: fewer samples than the batch size, or none"


class Loaders(NamedTuple):
    """The prepared loaders, and the number of steps in an epoch."""

    train: Loader
    evaluation: Loader | None
    held_out: Loader | None
    epoch_length: int | None
    """None if the training data have no length."""
    given: Given
    """What the run has for its conditions."""


def prepare_loaders(
    accelerator: Accelerator,
    train: Iterable[Any],
    evaluation: Iterable[Any] | None,
    held_out: Iterable[Any] | None,
    config: TrainConfig,
) -> Loaders:
    """Prepare the loaders for this process, between which each batch is split.

    Raises:
        SeekingError: a loader is empty, has no length which options need, or can be gone through once only.
    """
    where = derive_seed(config.seed), accelerator.num_processes, accelerator.process_index
    prepared = prepare(train, "train_loader", *where)
    prepared_evaluation = prepare(evaluation, "eval_loader", *where) if evaluation is not None else None
    prepared_held_out = prepare(held_out, "held_out", *where) if held_out is not None else None
    batches = prepared.length
    if batches is None:
        check_stream(config)
    elif not batches:
        raise SeekingError(NO_BATCH)
    if prepared_evaluation is not None and prepared_evaluation.length == 0:
        raise SeekingError("the evaluation data yield no batch")
    given = Given.by(config, held_out=held_out is not None, epoch_length=batches is not None)
    steps = None if batches is None else math.ceil(batches / config.accumulate)
    if steps and config.max_steps and (warmup := round(config.warmup_epochs * steps)) >= config.max_steps:
        warnings.warn(
            f"warmup_epochs is {config.warmup_epochs}, {warmup} steps, and the run has {config.max_steps}: it ends "
            "while the learning rate rises",
            RunWarning,
            stacklevel=2,
        )
    return Loaders(prepared, prepared_evaluation, prepared_held_out, steps, given)


def check_processes(loaders: Loaders, config: TrainConfig, output: bool, resume: bool) -> None:
    """Check that all processes have the same options, as many batches, and the same data where these are split.

    Args:
        loaders: of this process.
        config: options; of trackers and devices, each process may have its own.
        output: whether there is a run folder.
        resume: whether the run in it is resumed.

    Raises:
        SeekingError: they have not.
    """
    same = {name: value for name, value in config.recorded().items() if name not in ("device", "tracker")}
    check_alike({**same, "whether there is an output": output, "resume": resume})
    facts: dict[str, Any] = {}
    for name, loader in (("train_loader", loaders.train), ("eval_loader", loaders.evaluation)):
        facts[f"the number of batches of {name}"] = loader.length if loader else None
        if loader and loader.splits:
            facts |= {f"the data set of {name} ({key})": value for key, value in loader.fingerprint.items()}
    check_alike(
        facts,
        "give all processes the same loader, whose batches are split between them, or each a loader of its own part of "
        "the data with a DistributedSampler and as many batches",
    )


def preparation(loader: Loader) -> dict[str, Any]:
    """What the run's summary says of how to prepare new samples as those of a data set.

    That is the ``preparation`` of the data set, a mapping that JSON has; nothing if it has none.
    """
    preparation = getattr(loader.dataset, "preparation", None)
    return {"preparation": preparation} if isinstance(preparation, Mapping) else {}
