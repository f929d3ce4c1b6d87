"""Analyze a run: open its checkpoints, and measure."""

import dataclasses
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import Subset

from seeking.analysis import agreement, losses_along_line, sharpness
from seeking.analysis.line import barrier
from seeking.analysis.steps import changes_by_a_step, put_back
from seeking.checkpointing import run_files, snapshot
from seeking.checkpointing.fingerprint import differences, fingerprint
from seeking.checkpointing.resume import State, read_state
from seeking.checkpointing.weights import load_weights
from seeking.choices import MODELS
from seeking.data.batched import in_batches
from seeking.distributed.processes import this_process
from seeking.errors import DamagedError, RunWarning, SeekingError
from seeking.experiments.compare import spread
from seeking.experiments.config import RunConfig
from seeking.experiments.run import models
from seeking.experiments.tasks import TaskData, task
from seeking.experiments.tasks.base import Samples
from seeking.option_types import check_least
from seeking.training.evaluation import peek
from seeking.training.held_out import HeldOut
from seeking.training.learner import Learner
from seeking.training.modes import evaluating
from seeking.training.recalibration import recalibrate
from seeking.training.samples import sample_count
from seeking.training.trainer import Trainer
from seeking.weights_map import WeightsMap, tensors


def analyze(
    run: Path,
    config: RunConfig,
    *,
    against: Path | None = None,
    samples: int = 512,
    steps: int = 8,
    iterations: int = 20,
    notify: Callable[[str], object] = str,
) -> dict[str, Any]:
    """Analyze a run from its checkpoints; nothing in its folder is changed.

    Args:
        run: the run folder.
        config: options of the run; ``data`` and ``device`` may differ.
        against: the folder of a run in which the base was trained alone.
        samples: training samples for gradients, and evaluation samples for losses.
        steps: greatest number of batches of these samples from which a step is taken at each checkpoint.
        iterations: greatest number of power iterations for the sharpness.
        notify: called with what is being measured.

    Returns:
        JSON-serializable: ``checkpoints``, ``ends`` and, with ``against``, the ``line`` and its ``barrier``.

    Raises:
        SeekingError: this is not a run of a pair, or it has no intact checkpoint.
    """
    for name, value in (("samples", samples), ("steps", steps), ("iterations", iterations)):
        check_least(name, value)
    if this_process(config.device).num_processes > 1:
        raise SeekingError("seeking analyze runs in one process; start it without a launcher")
    config = _plain(config)
    bench: Bench | None = None
    checkpoints = []
    for state in _states(run):
        notify(f"checkpoint of step {state['step']}")
        if bench is None:
            data = task(config.task).load(config, 1, config.loss)
            bench = Bench(_trainer(config, data, state["map"], samples))
            _check_data(run, state.get("data"), data, config)
        checkpoints.append({"step": state["step"], **bench.checkpoint(state["parts"], steps)})
    if bench is None:
        raise SeekingError(f"{run}: there is no intact checkpoint of a run; name the folder of one run")
    ends: dict[str, dict[str, Any]] = {}
    for name in MODELS:
        notify(f"sharpness of the {name} model")
        ends[name] = bench.end(bench.run.learners[name], iterations)
    result: dict[str, Any] = {"run": str(run), "samples": samples, "checkpoints": checkpoints, "ends": ends}
    if against is not None:
        notify("the line to the base trained alone")
        base = bench.run.base
        start = _copies(base.module)
        load_weights(base.module, against / "base.last.safetensors")
        ends["base alone"] = bench.end(base, iterations)
        points = losses_along_line(base.module, start, _copies(base.module), lambda model: bench.losses(base))
        line = [{"position": point.position, **point.losses} for point in points]
        barriers = {name: barrier(points, name) for name in points[0].losses}
        result |= {"against": str(against), "line": line, "barrier": barriers}
    return result


class Bench:
    """What measures the models of a run, on a fixed sample.

    Before each loss is measured, the statistics of batch normalization are re-estimated for the weights as they are:
    otherwise these would lag behind.

    Args:
        trainer: of the run, with the sample as its data.
    """

    def __init__(self, trainer: Trainer) -> None:
        self.run, loaders, accelerator = trainer.run, trainer.loaders, trainer.accelerator
        assert loaders.evaluation and loaders.epoch_length
        self._batches = [*peek(loaders.train, loaders.epoch_length, accelerator.device)]
        self._held_out = HeldOut(loaders.evaluation, accelerator, trainer.random.generators)

    def checkpoint(self, parts: State, steps: int) -> dict[str, Any]:
        """Agreement of the gradients at a checkpoint, and what a step of each model does to the base's held-out loss.

        Args:
            parts: the states of its parts, by name.
            steps: number of batches to step on.
        """
        torch.manual_seed(0)  # Of dropout.
        run = self.run
        put_back(run, parts)
        with run.synced("motivated"):
            base, motivated = run.base.module, run.motivated.module
            agreements = agreement(base, motivated, run.pair.map.shared, self._batches, run.objective.loss)
        changes = changes_by_a_step(run, parts, self._batches[:steps], lambda: self._held_out_loss(run.base))
        return {
            "learning_rate": float(run.base.optimizer.param_groups[0]["lr"]),
            "agreement": agreements.sample,
            "batch_agreement": spread(agreements.batches),
            **{f"{name}_step": spread(changes[name]) for name in MODELS},
        }

    def end(self, learner: Learner, iterations: int) -> dict[str, Any]:
        """Losses and sharpness of a model as it is."""
        with self.run.synced(learner.name):
            losses = self.losses(learner)
            measured = sharpness(learner.module, self._batches, self.run.objective.loss, iterations=iterations)
        return {**losses, "sharpness": dataclasses.asdict(measured)}

    def losses(self, learner: Learner) -> dict[str, float]:
        """The losses on training and evaluation data, in evaluation mode."""
        objective = self.run.objective
        held_out_loss = self._held_out_loss(learner)
        counts = [sample_count(batch) for batch in self._batches]
        with evaluating(learner.module) as model, torch.no_grad():
            each = [float(objective.loss(model, batch)) for batch in self._batches]
        total = sum(loss * count for loss, count in zip(each, counts, strict=True))
        return {"training_loss": total / sum(counts), "held_out_loss": held_out_loss}

    def _held_out_loss(self, learner: Learner) -> float:
        recalibrate(learner.module, self._batches, self.run.objective.loss)
        return self._held_out.loss(learner, self.run.objective)


SERVING = ("finish_at", "student", "update", "base_weight", "one_pass")
"""Options that serve those by which both models step on one batch."""


def _plain(config: RunConfig) -> RunConfig:
    """The options of a run without what decides who steps when; in float32, since differences of losses are small."""
    plain = {"precision": "no", "compile": "no", "checkpoint_activations": False, "channels_last": False}
    alone = {"condition": "never", "base_condition": "always", "budget": None, "finish": "tied", "teach": 0.0}
    alone |= {name: getattr(RunConfig(), name) for name in SERVING}
    other = {"output": None, "on_nonfinite": "stop", "verify": False, "shard": False, "accumulate": 1}
    return dataclasses.replace(config, **plain, **alone, **other)  # type: ignore[arg-type]


def _states(run: Path) -> Iterator[State]:
    """The states of a run's intact checkpoints, the oldest first.

    Raises:
        SeekingError: one is not of a pair.
    """
    for path in reversed(snapshot.list_checkpoints(run / run_files.CHECKPOINTS)):
        try:
            state = read_state(path, MODELS)
        except DamagedError as error:
            warnings.warn(f"{error}; it is left out", RunWarning, stacklevel=2)
            continue
        if not state["map"] or not {*MODELS} <= state["parts"].keys():
            raise SeekingError(f"{run}: one model was trained alone; name the folder of a run of a pair")
        yield state


def _check_data(run: Path, saved: Any, data: TaskData, config: RunConfig) -> None:
    """Warn of data that are not those of the run, whose fingerprint was saved."""
    loaders = data.loaders(config)
    current = fingerprint({"training data": loaders.train, "evaluation data": loaders.evaluation})
    if differing := differences(saved, current):
        told = "; ".join(map(str, differing))
        warnings.warn(
            f"{run}: {config.data} does not hold the data of the run ({told}); give those in data",
            RunWarning,
            stacklevel=3,
        )


def _trainer(config: RunConfig, data: TaskData, weights_map: Mapping[str, Any], samples: int) -> Trainer:
    """A trainer whose data are a random sample of the run's, without augmentation."""
    both = models(config, data.model_arguments, config.seed)
    train, test = data.parts()
    size = min(config.batch_size, samples, data.train_samples)
    count = min(samples, data.train_samples) // size * size
    return Trainer(
        both["base"],
        both["motivated"],
        train_loader=in_batches(_sample(train, count), size),
        eval_loader=in_batches(_sample(test, samples), max(256, size)),
        config=config,
        weights_map=WeightsMap.from_dict(weights_map),
        objective=data.objective(config),
    )


def _sample(data: Samples, count: int) -> Samples:
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))[:count]  # type: ignore[arg-type]
    return Subset(data, order.tolist())


def _copies(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in tensors(model).items()}
