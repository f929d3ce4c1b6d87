"""The trainer: the motivated loop and all that surrounds it."""

import contextlib
import itertools
import math
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState, is_initialized
from accelerate.utils import DataLoaderConfiguration
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader

from seeking.conditions import Condition, Never, parse
from seeking.errors import RunError, SeekingError
from seeking.matching import match
from seeking.pair import Pair
from seeking.training.config import TrainConfig
from seeking.training.cost import Cost, count_flops
from seeking.training.folder import RunFolder
from seeking.training.optim import MakeOptimizer, MakeSchedule, check_shareable, make_optimizer, make_schedule
from seeking.training.recalibrate import recalibrate
from seeking.verify import verify
from seeking.weights_map import WeightsMap, tensors_in

LossFn = Callable[[nn.Module, Any], Tensor]
"""From a model and a batch to the mean loss, a tensor of one element."""

Row = dict[str, Any]
Listener = Callable[[Row], None]


@dataclass
class Learner:
    """A model and what trains it. ``model`` is as prepared for the devices, ``module`` as the user made it."""

    module: nn.Module
    model: nn.Module
    optimizer: Optimizer
    schedule: LRScheduler
    seconds: float = 0.0


@dataclass
class Result:
    """What a run gave.

    Attributes:
        metrics: of each model, on the evaluation data, after the last epoch; ``loss`` and, for classification,
            ``accuracy`` (a share).
        best: the same at each model's own best epoch (highest accuracy, else lowest loss), with the ``epoch``.
        cost: FLOPs.
        seconds: of training, evaluation left out, for each model and in ``total``.
        history: every row of ``metrics.jsonl``.
    """

    metrics: dict[str, dict[str, float]]
    best: dict[str, dict[str, float]]
    cost: Cost
    seconds: dict[str, float]
    history: list[Row] = field(repr=False)

    def summary(self) -> dict[str, Any]:
        """Everything but the history, as JSON-serialisable values, and the versions it was made with."""
        return {
            "metrics": self.metrics,
            "best": self.best,
            "cost": self.cost.report(),
            "seconds": self.seconds,
            "versions": {"seeking": version("seeking"), "torch": torch.__version__},
        }


class Trainer:
    """Trains a base model and, now and then, the motivated model that contains it.

    Any model that maps a batch to a loss works. Without ``loss_fn`` the models are taken for classifiers, the batches
    for pairs ``(inputs, labels)``, and accuracy is measured as well. Devices, mixed precision and several processes
    are accelerate's matter: the trainer runs as it is under ``torchrun`` and ``accelerate launch``; a batch of the
    loader is then split over the processes, and all of them take the same decision, on the mean loss.

    Args:
        base: the smaller model.
        motivated: the larger model; None trains the base alone in the ordinary way.
        train_loader: training batches.
        eval_loader: evaluation batches; without it nothing is evaluated.
        config: options.
        condition: a condition made already, instead of ``config.condition``.
        loss_fn: ``loss_fn(model, batch)``, the mean loss.
        optimizer: makes a model's optimizer, instead of ``config.optimizer``.
        schedule: makes an optimizer's schedule for a number of batches, instead of ``config.schedule``.
        weights_map: where the base lies in the motivated model; derived if not given.
        output: folder for weights, metrics and summary; must not hold anything yet. Without it nothing is written.
        listeners: called with every row of the metrics as it comes.
        accelerator: your own, instead of one with ``config.precision``.

    Raises:
        NotContainedError: the motivated model cannot contain the base.
        SeekingError: options, models and data that do not go together: the base is no sub-network of the motivated
            model under the map, a model refuses the data, the output folder holds something.
    """

    def __init__(
        self,
        base: nn.Module,
        motivated: nn.Module | None = None,
        *,
        train_loader: DataLoader[Any],
        eval_loader: DataLoader[Any] | None = None,
        config: TrainConfig | None = None,
        condition: Condition | None = None,
        loss_fn: LossFn | None = None,
        optimizer: MakeOptimizer | None = None,
        schedule: MakeSchedule | None = None,
        weights_map: WeightsMap | None = None,
        output: RunFolder | str | Path | None = None,
        listeners: Sequence[Listener] = (),
        accelerator: Accelerator | None = None,
    ) -> None:
        self.config = config = config or TrainConfig()
        self.accelerator = accelerator or _accelerator(config.precision)
        try:
            batches = len(train_loader)
        except TypeError as error:
            raise SeekingError(
                "train_loader has no length, and schedules count the run's batches; give it a __len__"
            ) from error
        if not batches:
            raise SeekingError("the training data make no batch: fewer samples than the batch size, or none")
        if eval_loader is not None and not len(eval_loader):
            raise SeekingError("the evaluation data make no batch")
        try:
            self.train_loader = self.accelerator.prepare(train_loader)
            self.eval_loader = self.accelerator.prepare(eval_loader) if eval_loader is not None else None
        except ValueError as error:  # Such as a batch that the processes cannot share out evenly.
            raise SeekingError(f"the loaders cannot be prepared: {error}") from error
        self.epoch_length = math.ceil(len(self.train_loader) / config.accumulate)
        self.classifies = loss_fn is None
        self.loss_fn = loss_fn or self._classification_loss
        self.folder = None
        if output is not None and self.accelerator.is_main_process:
            self.folder = output if isinstance(output, RunFolder) else RunFolder(output)
        self.listeners = listeners

        device = self.accelerator.device
        base.to(device)
        (batch,) = self._peek(self.train_loader, 1)
        self.pair = None
        if motivated is not None:
            motivated.to(device)
            if weights_map is None:
                inputs, forward = self._judged(batch)
                weights_map = match(base, motivated, batch=inputs, forward=forward)
            self.pair = Pair(base, motivated, weights_map, norm=config.norm)
        self.condition = condition or (parse(config.condition, config.seed) if self.pair else Never())

        if config.optimizer_state == "shared":
            check_shareable(optimizer or (lambda module: make_optimizer(module, config)))
        # Before accelerate patches mixed precision into the models: the proof is one of full precision.
        self.cost = self._prove(base, motivated, batch)

        def learner(module: nn.Module) -> Learner:
            made = optimizer(module) if optimizer else make_optimizer(module, config)
            steps = config.epochs * self.epoch_length
            scheduled = schedule(made, steps) if schedule else make_schedule(made, config, steps)
            return Learner(module, self.accelerator.prepare(module), self.accelerator.prepare(made), scheduled)

        self.learners = {"base": learner(base)}
        if motivated is not None:
            self.learners["motivated"] = learner(motivated)

        self.epoch = self.step = 0
        self.history: list[Row] = []
        self.metrics: dict[str, dict[str, float]] = {}
        self.best: dict[str, dict[str, float]] = {}
        self._held = False

    def train_epoch(self) -> None:
        """One pass over the training data: the algorithm of the paper."""
        base, motivated = self.learners["base"], self.learners.get("motivated")
        for batches in _groups(self.train_loader, self.config.accumulate):
            loss, motivated_loss = self._train_step(base, batches), None

            held_before = self._held
            self._held = self.condition.update(loss, epoch_length=self.epoch_length, learning_rate=self._learning_rate)

            if motivated and self.pair and (self._held if self.config.on == "same" else held_before):
                with self.pair.motivated(self._shared_optimizers()):
                    motivated_loss = self._train_step(motivated, batches)

            self._advance(loss, motivated_loss)

    def fit(self) -> Result:
        """Train to the end.

        Raises:
            SeekingError: the output folder cannot be written.
            RunError: a loss stopped being finite.
        """
        if self.folder:
            self.folder.create(asdict(self.config), self.pair.map if self.pair else None)
        self._emit({"kind": "start", "epochs": self.config.epochs, "epoch_length": self.epoch_length})
        try:
            with warnings.catch_warnings():
                # Schedules count batches: the motivated model's may rightly go on before its optimizer has stepped.
                warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step", UserWarning)
                while self.epoch < self.config.epochs:
                    # With several processes accelerate tells the sampler alone; augmentation must know, too.
                    for one in (self.train_loader, getattr(self.train_loader, "dataset", None)):
                        if one is not None and hasattr(one, "set_epoch"):
                            one.set_epoch(self.epoch)
                    self.train_epoch()
                    self.epoch += 1
                    self._evaluate()
        except KeyboardInterrupt:
            for name, learner in self.learners.items():
                with self._ready(name):
                    self._save(name, learner, "last")
            raise
        seconds = {name: learner.seconds for name, learner in self.learners.items()}
        seconds["total"] = sum(seconds.values())
        result = Result(self.metrics, self.best, self.cost, seconds, self.history)
        if self.folder:
            self.folder.write_json("summary.json", result.summary())
        return result

    def _judged(self, batch: Any) -> tuple[Any, LossFn | None]:
        """What of a batch the models take, and how."""
        return (batch[0], None) if self.classifies else (batch, self.loss_fn)

    def _prove(self, base: nn.Module, motivated: nn.Module | None, batch: Any) -> Cost:
        """Try everything that could be refused on one batch; what a sample costs."""
        held_out = list(self._peek(self.eval_loader, 1)) if self.eval_loader is not None else []
        samples = _samples(batch)
        flops = []
        for name, module in (("base", base), ("motivated", motivated)):
            if module is None:
                continue
            kind = "training"
            try:
                flops.append([count / samples for count in count_flops(module, self.loss_fn, batch)])
                kind = "evaluation"
                for unseen in held_out:
                    with torch.no_grad():
                        self.loss_fn(module.eval(), unseen)
            except Exception as error:
                raise SeekingError(
                    f"the {name} model ({type(module).__name__}) refuses the {kind} data: "
                    f"{type(error).__name__}: {error}"
                ) from error
        if not self.pair:
            return Cost(base_flops=flops[0][1])
        if self.config.verify:
            inputs, forward = self._judged(batch)
            found = verify(base, self.pair.motivated_model, self.pair.map, inputs, forward=forward)
            if not found:
                raise SeekingError(
                    f"the base is not a sub-network of the motivated model under this weights map: {found.reason}. "
                    "Correct the map, or set verify to false to train all the same"
                )
        return Cost(base_flops=flops[0][1], motivated_flops=flops[1][1], motivated_forward_flops=flops[1][0])

    def _train_step(self, learner: Learner, batches: Sequence[Any]) -> float:
        """One optimizer step on the mean loss of the batches, which it gives (the mean over all processes)."""
        start = time.perf_counter()
        learner.model.train()
        total = torch.zeros((), device=self.accelerator.device)
        for number, batch in enumerate(batches, start=1):
            last = number == len(batches)
            with contextlib.nullcontext() if last else self.accelerator.no_sync(learner.model):
                loss = self.loss_fn(learner.model, batch) / len(batches)
                self.accelerator.backward(loss)
            total += loss.detach()
        if self.config.clip_grad is not None:
            self.accelerator.clip_grad_norm_(learner.model.parameters(), self.config.clip_grad)
        mean = float(self.accelerator.reduce(total, "mean"))
        if not math.isfinite(mean):  # Before the step: what is wrong must not get into the weights.
            self._stop_on_nonfinite(learner, mean)
        learner.optimizer.step()
        learner.optimizer.zero_grad()
        learner.seconds += time.perf_counter() - start

        samples = sum(map(_samples, batches)) * self.accelerator.num_processes
        if learner is self.learners["base"]:
            self.cost.batches += 1
            self.cost.samples += samples
        else:
            self.cost.motivated_batches += 1
            self.cost.motivated_samples += samples
        return mean

    @property
    def _learning_rate(self) -> float:
        return float(self.learners["base"].schedule.get_last_lr()[0])

    def _shared_optimizers(self) -> tuple[Optimizer, Optimizer] | None:
        if self.config.optimizer_state == "separate":
            return None
        # accelerate wraps optimizers; the state is with the one inside.
        base, motivated = (getattr(one.optimizer, "optimizer", one.optimizer) for one in self.learners.values())
        return base, motivated

    def _advance(self, loss: float, motivated_loss: float | None) -> None:
        """Close a batch: both schedules go on, whichever models were trained on it."""
        row: Row = {"kind": "step", "epoch": self.epoch, "step": self.step, "loss": loss}
        row["lr"] = self._learning_rate
        if motivated_loss is not None:
            row["motivated_loss"] = motivated_loss
        for learner in self.learners.values():
            learner.schedule.step()
        self.step += 1
        self._emit(row)

    def _evaluate(self) -> None:
        """Measure both models, keep their weights."""
        for name, learner in self.learners.items():
            with self._ready(name):
                if name == "motivated" and self.config.norm == "recalibrated":
                    self._recalibrate(learner)
                if self.eval_loader is not None:
                    found = self._measure(learner)
                    self.metrics[name] = found
                    if name not in self.best or _better(found, self.best[name]):
                        self.best[name] = {"epoch": self.epoch, **found}
                        self._save(name, learner, "best")
                self._save(name, learner, "last")
        self._emit({"kind": "eval", "epoch": self.epoch, "step": self.step, **self.metrics})

    def _ready(self, name: str) -> contextlib.AbstractContextManager[object]:
        """Inside, the model holds all that was trained: the motivated model the base's latest weights, too."""
        return self.pair.motivated() if self.pair and name == "motivated" else contextlib.nullcontext()

    @torch.no_grad()
    def _measure(self, learner: Learner) -> dict[str, float]:
        from torchmetrics import MeanMetric  # Slow to import, and only needed here.

        learner.model.eval()
        loss, accuracy = (MeanMetric(sync_on_compute=False).to(self.accelerator.device) for _ in range(2))
        for batch in self.eval_loader or ():
            if self.classifies:
                inputs, labels = batch
                logits, labels = self.accelerator.gather_for_metrics((learner.model(inputs), labels))
                loss.update(F.cross_entropy(logits.float(), labels, reduction="none"))
                accuracy.update((logits.argmax(-1) == labels).float())
            else:
                each = self.loss_fn(learner.model, batch).detach().float().repeat(_samples(batch))
                loss.update(self.accelerator.gather_for_metrics(each))
        found = {"loss": float(loss.compute())}
        return found | {"accuracy": float(accuracy.compute())} if self.classifies else found

    def _recalibrate(self, learner: Learner) -> None:
        def counted(batches: Iterator[Any]) -> Iterator[Any]:
            for batch in batches:
                self.cost.recalibration_samples += _samples(batch) * self.accelerator.num_processes
                yield batch

        batches = self._peek(self.train_loader, self.config.recalibration_batches)
        recalibrate(learner.model, counted(batches), self.loss_fn)

    def _peek(self, batches: Iterable[Any], count: int) -> Iterator[Any]:
        """The first few batches, without any effect on the random state once they have been taken."""
        with torch.random.fork_rng([self.accelerator.device] if self.accelerator.device.type == "cuda" else []):
            yield from itertools.islice(batches, count)

    def _classification_loss(self, model: nn.Module, batch: Any) -> Tensor:
        inputs, labels = batch
        return F.cross_entropy(model(inputs), labels, label_smoothing=self.config.label_smoothing)

    def _stop_on_nonfinite(self, learner: Learner, loss: float) -> NoReturn:
        name = "base" if learner is self.learners["base"] else "motivated"
        kept = "nothing was saved"
        if self.folder and self.epoch:
            kept = f"weights of epoch {self.epoch} are in {self.folder.path}"
        raise RunError(
            f"the {name} model's loss became {loss} at step {self.step} (epoch {self.epoch + 1}, learning rate "
            f"{self._learning_rate:.3g}); {kept}. Try a lower lr, a warm-up, or clip_grad"
        )

    def _save(self, name: str, learner: Learner, which: str) -> None:
        if self.folder:
            self.folder.save_weights(learner.module, name, which)

    def _emit(self, row: Row) -> None:
        self.history.append(row)
        if self.folder:
            self.folder.append(row)
        for listener in self.listeners:
            listener(row)


def _accelerator(precision: str) -> Accelerator:
    if is_initialized() and AcceleratorState().mixed_precision != precision:
        # An earlier trainer of this process has set another precision for good.
        AcceleratorState._reset_state()
    # Told that there is nothing but CPUs, accelerate makes one run of several processes on them, else it would not.
    cpu = not torch.accelerator.is_available()
    # One batch of the loader is one batch of the run, however many processes share it. A single process takes loaders
    # that come without a batch size, too.
    loading = DataLoaderConfiguration(split_batches=PartialState(cpu=cpu).num_processes > 1)
    return Accelerator(mixed_precision=precision, cpu=cpu, dataloader_config=loading)


def _groups(batches: Iterable[Any], size: int) -> Iterator[list[Any]]:
    iterator = iter(batches)
    while group := list(itertools.islice(iterator, size)):
        yield group


def _samples(batch: Any) -> int:
    """Length of the first tensor of a batch; 1 where there is none."""
    return next((len(tensor) for tensor in tensors_in(batch) if tensor.ndim), 1)


def _better(found: Mapping[str, float], best: Mapping[str, float]) -> bool:
    if "accuracy" in found:
        return found["accuracy"] > best["accuracy"]
    return not found["loss"] >= best["loss"]  # Anything is better than what is not a number.
