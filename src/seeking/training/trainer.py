"""The trainer: the motivated loop and all that surrounds it."""

import contextlib
import itertools
import math
import operator
import signal
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from accelerate.state import AcceleratorState, is_initialized
from accelerate.utils import DataLoaderConfiguration
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader

from seeking.conditions import Condition, Never, parse
from seeking.errors import MISFITS, DivergedError, LoadingError, RunError, RunWarning, SeekingError
from seeking.matching import match
from seeking.pair import Pair
from seeking.processes import this_process
from seeking.sharding import reshard, shard
from seeking.training import checkpoint, run_state
from seeking.training.batches import draw
from seeking.training.config import TrainConfig
from seeking.training.cost import Cost, count_flops
from seeking.training.folder import RunFolder
from seeking.training.optim import (
    MakeOptimizer,
    MakeSchedule,
    check_shareable,
    make_optimizer,
    make_schedule,
    skips_by_itself,
    step_if_finite,
)
from seeking.training.random_state import RandomState, apart
from seeking.training.reading import Reading
from seeking.training.recalibrate import recalibrate
from seeking.training.saving import Saver
from seeking.training.speed import checkpoint_activations, compile_in_place, precision, to_channels_last
from seeking.training.stopping import SAVED_BY_SIGTERM, Stopped, StopRequest, stop_requests
from seeking.verification import verify
from seeking.weights_map import WeightsMap, tensors_in

LossFn = Callable[[nn.Module, Any], Tensor]
"""From a model and a batch to the mean loss, a tensor of one element."""

Row = dict[str, Any]
Listener = Callable[[Row], None]


MOST_FAILURES = 10
"""Steps in a row that may be skipped, and roll-backs to one checkpoint, before a run is given up."""


@dataclass
class Learner:
    """A model and what trains it. ``model`` is as prepared for the devices, ``module`` as the user made it."""

    name: str
    module: nn.Module
    model: nn.Module
    optimizer: Optimizer
    schedule: LRScheduler
    seconds: float = 0.0
    failures: int = 0
    """Steps in a row that were not finite."""

    def __post_init__(self) -> None:
        self.parameters = [*self.module.parameters()]
        self._places = [(module._buffers, name) for module in self.module.modules() for name in module._buffers]
        self._buffers: list[Tensor | None] = []
        self._values: list[Tensor] = []

    @property
    def prefix(self) -> str:
        """What the model's columns begin with in the rows of the metrics."""
        return "" if self.name == "base" else "motivated_"

    def keep_buffers(self) -> None:
        """Remember the buffers as they are before a forward pass."""
        now = [buffers[name] for buffers, name in self._places]
        tensors = [tensor for tensor in now if tensor is not None]
        if len(now) == len(self._buffers) and all(map(operator.is_, now, self._buffers)):
            if tensors:
                torch._foreach_copy_(self._values, tensors)
        else:  # At first, and whenever the model has put another tensor in a buffer's place.
            self._buffers, self._values = now, [tensor.clone() for tensor in tensors]

    @torch.no_grad()
    def give_back_buffers(self) -> None:
        """Undo what forward passes have done to the buffers since."""
        values = iter(self._values)
        for (buffers, name), tensor in zip(self._places, self._buffers, strict=True):
            buffers[name] = tensor.copy_(next(values)) if tensor is not None else None


@dataclass
class Result:
    """What a run gave.

    Attributes:
        metrics: of each model, on the evaluation data, after the last epoch; ``loss`` and, for classification,
            ``accuracy`` (a share).
        best: the same at each model's own best epoch (highest accuracy, else lowest loss), with the ``epoch``.
        cost: FLOPs.
        seconds: of training, evaluation left out, for each model and in ``total``.
        history: every row of ``metrics.jsonl`` (in processes but the first, those since the run was resumed).
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
        output: folder for weights, metrics, checkpoints and summary; must not hold anything yet. Without it nothing is
            written.
        resume: go on from the newest whole checkpoint in ``output``; begin where there is none.
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
        resume: bool = False,
        listeners: Sequence[Listener] = (),
        accelerator: Accelerator | None = None,
    ) -> None:
        self.config = config = config or TrainConfig()
        self.accelerator = accelerator or _accelerator(config)
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
        self.listeners = listeners
        if config.on_nonfinite == "rollback" and output is None:
            raise SeekingError("on_nonfinite rollback needs an output folder, to have checkpoints to roll back to")
        if resume and output is None:
            raise SeekingError("resume needs the output folder of the run to be resumed")
        self.folder = None
        if output is not None:
            self.folder = output if isinstance(output, RunFolder) else RunFolder(output, resume=resume)
        self.saver = Saver(self.folder, config) if self.folder and self.accelerator.is_main_process else None
        saved = self._saved(condition is not None) if self.folder and self.folder.holds_run else None
        if saved and weights_map is None and saved["map"]:
            weights_map = WeightsMap.from_dict(saved["map"])

        device = self.accelerator.device
        (batch,) = self._peek(self.train_loader, 1)
        models = {"base": base} if motivated is None else {"base": base, "motivated": motivated}
        for name, module in models.items():
            module.to(device)
            if config.checkpoint_activations:
                checkpoint_activations(module, name)
        if config.channels_last and not config.shard:  # FSDP2 takes contiguous parameters only.
            with torch.no_grad(), RandomState(device, *models.values(), loss_fn).preserved():
                to_channels_last(tuple(models.values()), lambda module: self.loss_fn(module.eval(), batch))
        self.pair = None
        if motivated is not None:
            if weights_map is None:
                inputs, forward = self._judged(batch)
                weights_map = match(base, motivated, batch=inputs, forward=forward)
            self.pair = Pair(base, motivated, weights_map, norm=config.norm)
        self.condition = condition or (parse(config.condition, config.seed) if self.pair else Never())

        trial = optimizer or (lambda module: make_optimizer(module, config, fused=False))
        if config.optimizer_state == "shared":
            check_shareable(trial, "shared through the map", "set optimizer_state to separate")
        if config.shard:
            check_shareable(trial, "sharded", "turn shard off")
        # Before accelerate patches mixed precision into the models: the proof is one of full precision. A run that is
        # resumed has passed it.
        self.cost = Cost(base_flops=0) if saved else self._prove(base, motivated, batch)

        self.own_schedule = schedule is not None
        if config.shard:
            self._shard(models, batch)

        # PyTorch's kernel for momentum expects all parameters of a model to have it, or none, leaves it undefined where
        # the scaler skips the first step, and takes no shards.
        apart = config.optimizer_state == "separate" and not config.shard
        fused = config.fused and self.accelerator.scaler is None and apart

        def learner(name: str, module: nn.Module) -> Learner:
            made = optimizer(module) if optimizer else make_optimizer(module, config, fused)
            if isinstance(made, AcceleratedOptimizer):  # The loop does itself what that is for.
                made = made.optimizer
            steps = config.epochs * self.epoch_length
            scheduled = schedule(made, steps) if schedule else make_schedule(made, config, steps)
            # What is sharded needs no wrapper; for evaluation, a model gets mixed precision and none.
            model = self.accelerator.prepare_model(module, evaluation_mode=config.shard)
            if config.compile != "no":
                compile_in_place(model, config.compile)
            return Learner(name, module, model, made, scheduled)

        self.learners = {name: learner(name, module) for name, module in models.items()}

        self.epoch = self.step = 0
        self.place = 0
        """Steps taken of this epoch."""
        self.history: list[Row] = []
        self.metrics: dict[str, dict[str, float]] = {}
        self.best: dict[str, dict[str, float]] = {}
        self.held = False
        """Whether the condition held at the last batch."""
        self.rollbacks: dict[str, int] = {}
        """How often the run has been rolled back to each step."""
        self.random = RandomState(device, base, motivated, self.train_loader, self.eval_loader, loss_fn)
        self.epoch_random = self.random.capture()
        """The random states at the beginning of this epoch."""
        self._row: Row = {}
        self._rows: list[Row] = []
        # On a GPU the host runs ahead: it does not wait for the gradient norm before the step, but the step for it.
        self._deferred = device.type == "cuda" and self.accelerator.scaler is None and not config.shard
        self._failed: Learner | None = None
        self._stop = StopRequest()
        self._asked = {"stop": False, "save": False}
        self._begun = False
        self._resumed_bytes: int | None = None
        self._untried: set[str] = set()
        """Models that have taken no step since the run was resumed."""
        if saved and self.folder:
            try:
                run_state.give_back(self, saved)
            except SeekingError as error:
                raise SeekingError(f"{self.folder.path} cannot be resumed: {error}") from error
            self._resumed_bytes, self._untried = saved["metrics_bytes"], set(self.learners)

    def train_epoch(self) -> None:
        """One pass over the training data, or the rest of it: the algorithm of the paper."""
        base, motivated = self.learners["base"], self.learners.get("motivated")
        for batches in self._batches():
            loss = self._train_step(base, batches)

            held_before = self.held
            self.held = self.condition.update(loss, epoch_length=self.epoch_length, learning_rate=self._learning_rate)

            if motivated and self.pair and (self.held if self.config.on == "same" else held_before):
                with self.pair.motivated(self._shared_optimizers()):
                    self._train_step(motivated, batches)

            self._advance()

    def fit(self) -> Result:
        """Train to the end.

        SIGTERM and the first Ctrl-C let the step be finished and saved; then ``SystemExit(75)`` and
        ``KeyboardInterrupt`` are raised. A second Ctrl-C interrupts at once. Called again after that, it goes on.

        Raises:
            SeekingError: the output folder cannot be written, or another program trains in it or has since this
                trainer was made.
            DivergedError: a loss or a gradient stopped being finite.
            RunError: the disk refuses what must be saved.
            LoadingError: the next batch cannot be loaded; the run has been saved.
        """
        try:
            with stop_requests(self.accelerator.num_processes) as self._stop, warnings.catch_warnings():
                # Schedules count batches: the motivated model's may rightly go on before its optimizer has stepped.
                warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step", UserWarning)
                try:
                    self._begin()
                    while self.epoch < self.config.epochs:
                        self._epoch()
                    if not self.metrics and self.eval_loader is not None:  # Resumed, to end earlier than before.
                        self._save(weights={"best": self._evaluate(self.epoch - 1)})
                    self._wait()
                except Stopped:
                    self._save(weights={"last": tuple(self.learners)})
                    self._wait()
                    path = str(self.folder.path) if self.folder else ""
                    self._tell({"kind": "stopped", "step": self.step, "path": path})
                    if self._stop.signal == signal.SIGTERM:
                        raise SystemExit(SAVED_BY_SIGTERM) from None
                    raise KeyboardInterrupt from None
                except LoadingError as error:
                    if not self.saver or self.accelerator.num_processes > 1:
                        raise  # The others do not know, and saving needs all of them.
                    self._save(weights={"last": tuple(self.learners)})
                    raise LoadingError(f"{error}; the run is saved at step {self.step}, to be resumed") from error
        except Exception:
            with contextlib.suppress(RunError):
                self._wait()  # What is being written may be all that is left.
            raise
        finally:
            if self.folder:
                self.folder.close()
        seconds = {name: learner.seconds for name, learner in self.learners.items()}
        seconds["total"] = sum(seconds.values())
        result = Result(self.metrics, self.best, self.cost, seconds, self.history)
        if self.saver:
            self.saver.folder.finish(result.summary())
        return result

    def _epoch(self) -> None:
        """An epoch, or the rest of it: train, evaluate, save."""
        _set_epoch(self.epoch, self.train_loader)
        try:
            self.train_epoch()
        except MISFITS as error:
            if not self.folder or not self._untried:
                raise
            raise SeekingError(
                f"{self.folder.path}: the first step after resuming fails ({type(error).__name__}: {error})"
            ) from error
        if self.place < self.epoch_length:
            warnings.warn(
                f"epoch {self.epoch + 1} had {self.place} steps; going by the length of the loader, schedules and "
                f"conditions count on {self.epoch_length}",
                RunWarning,
                stacklevel=2,
            )
        ended = self.epoch + 1
        self.metrics = {}
        due = ended % self.config.eval_every == 0 or ended == self.config.epochs
        better = self._evaluate(self.epoch) if due else []
        self.epoch, self.place = ended, 0
        self._save(weights={"last": tuple(self.learners), "best": better})

    def _begin(self) -> None:
        """Open the run's record, or go on with the one that there is."""
        start: Row = {"kind": "start", "epochs": self.config.epochs, "epoch_length": self.epoch_length}
        resumed, self._resumed_bytes = self._resumed_bytes, None
        goes_on, self._begun = self._begun or resumed is not None, True
        if self.saver and goes_on:
            folder = self.saver.folder
            folder.lock()
            there = checkpoint.found(folder.checkpoints)
            if not there or there[0].name != checkpoint.name(self.step):
                raise SeekingError(
                    f"{folder.path}: this trainer is at step {self.step}, and the newest checkpoint is "
                    f"{there[0].name if there else 'gone'}; make a new Trainer with resume=True"
                )
        if resumed is not None:
            if self.saver:
                self.history = self.saver.folder.go_on(run_state.options(self), resumed)
                self.saver.saved_step = self.step
                # By the files that hold them.
                found = {name: self.saver.folder.best(name) for name in self.learners}
                self.best = {name: one for name, one in found.items() if one and ("accuracy" in one) == self.classifies}
            self.best = run_state.gathered(self.best, self.accelerator)[0]
        if goes_on:
            self._tell({**start, "step": self.step})
            self._tell({"kind": "note", "text": f"resumed at step {self.step}"})
            return
        if self.saver:
            self.saver.folder.create(run_state.options(self), self.pair.map if self.pair else None)
        self._emit(start)
        self._save()
        self._wait()  # What cannot be saved is found now; and there is always a checkpoint to go back to.

    def _wait(self) -> None:
        if self.saver:
            self.saver.wait()

    def _saved(self, own_condition: bool) -> dict[str, Any] | None:
        """What the newest checkpoint in the output folder holds, if this run can go on from it."""
        assert self.folder
        try:
            with self.folder if self.saver else contextlib.nullcontext():
                saved = run_state.newest(self.folder, self.accelerator)
            if saved:
                run_state.check_options(self, saved, frozenset({"condition"} if own_condition else ()))
        except SeekingError as error:
            raise SeekingError(f"{self.folder.path} cannot be resumed: {error}") from error
        return saved

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

    def _shard(self, models: Mapping[str, nn.Module], batch: Any) -> None:
        """Shard the models over all processes, and find out whether they work like that."""
        if self.accelerator.num_processes == 1:
            raise SeekingError("shard is on and there is one process; start several (torchrun), or turn it off")
        if self.accelerator.scaler is not None:
            raise SeekingError("precision is fp16, which sharded models do not take; use bf16 or no, or turn shard off")
        # Weights that autocast had cast would stay, all of them, until the backward pass.
        dtype = torch.bfloat16 if self.accelerator.mixed_precision == "bf16" else None
        random = RandomState(self.accelerator.device, *models.values(), self.loss_fn)
        with torch.no_grad(), random.preserved(), self.accelerator.autocast():
            for name, model in models.items():
                try:
                    shard(model, self.accelerator.device, dtype)
                    self.loss_fn(model.eval(), batch)
                except MISFITS as error:
                    what = f"{name} model ({type(model).__name__})"
                    why = f"{type(error).__name__}: {error}"
                    raise SeekingError(f"the {what} cannot be sharded ({why}); turn shard off") from error
                reshard(model)
        if self.pair:
            with self.pair.motivated():  # A pair that cannot be sharded is refused now.
                pass

    def _batches(self) -> Iterator[list[Any]]:
        """The rest of this epoch's batches, in groups of those that make one step."""
        skip = self.place * self.config.accumulate
        if self.place >= self.epoch_length:
            return
        if not skip:
            self.epoch_random = self.random.capture()
            batches = draw(self.train_loader, self.accelerator.device)
        else:
            now = self.random.capture()
            self.random.restore(self.epoch_random)
            self._tell({"kind": "note", "text": f"finding batch {skip} of epoch {self.epoch + 1}"})
            batches = draw(self.train_loader, self.accelerator.device, skip)
            self.random.restore(now)
        while self.place < self.epoch_length and (group := list(itertools.islice(batches, self.config.accumulate))):
            yield group

    def _train_step(self, learner: Learner, batches: Sequence[Any], loss_fn: LossFn | None = None) -> float:
        """One optimizer step on the mean loss of the batches, which it gives (the mean over all processes)."""
        loss_fn = loss_fn or self.loss_fn
        start, scaler = time.perf_counter(), self.accelerator.scaler
        learner.model.train()
        learner.keep_buffers()
        total = torch.zeros((), device=self.accelerator.device)
        for number, batch in enumerate(batches, start=1):
            last = number == len(batches)
            with contextlib.nullcontext() if last else self.accelerator.no_sync(learner.model):
                loss = loss_fn(learner.model, batch) / len(batches)
                total += loss.detach()
                if last:
                    reading = self._read(total)
                # accelerate's own backward, like its optimizers, looks for a package on the disk each time.
                (loss if scaler is None else scaler.scale(loss)).backward()
        norm = self._gradient_norm(learner)
        mean = self._agreed(reading)
        measured: float | Reading
        if math.isfinite(mean) and self._deferred and skips_by_itself(learner.optimizer):
            step_if_finite(learner.optimizer, norm)
            measured = Reading(norm.reshape(1))
        else:
            measured = float(norm)
            if not self._sound(mean, measured):
                learner.give_back_buffers()
                if scaler is not None:  # It has unscaled the gradients, and waits for a step.
                    scaler.update(scaler.get_scale())
                self._not_finite(learner, self.step, mean, measured)
            elif scaler is not None:
                scaler.step(learner.optimizer)
                scaler.update()
            else:
                learner.optimizer.step()
        learner.optimizer.zero_grad()
        self._untried.discard(learner.name)
        learner.seconds += time.perf_counter() - start

        samples = sum(map(_samples, batches)) * self.accelerator.num_processes
        if learner.name == "base":
            self.cost.batches += 1
            self.cost.samples += samples
            self._row = {"loss": mean, "grad_norm": measured, "lr": self._learning_rate}
        else:
            self.cost.motivated_batches += 1
            self.cost.motivated_samples += samples
            self._row |= {"motivated_loss": mean, "motivated_grad_norm": measured}
        return mean

    def _sound(self, loss: float, norm: float) -> bool:
        """Whether a step may get into the weights. (Gradients that overflow under fp16 are the scaler's matter.)"""
        return math.isfinite(loss) and (math.isfinite(norm) or self.accelerator.scaler is not None)

    def _gradient_norm(self, learner: Learner) -> Tensor:
        """The norm of the whole gradient, which is then clipped if that is asked for."""
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.unscale_(learner.optimizer)
        gradients = [p.grad for p in learner.parameters if p.grad is not None]
        norm = get_total_norm([grad.coalesce().values() if grad.is_sparse else grad for grad in gradients])
        if self.config.clip_grad is not None:
            clip_grads_with_norm_(learner.parameters, self.config.clip_grad, norm)
        return norm.full_tensor() if isinstance(norm, DTensor) else norm

    def _read(self, loss: Tensor) -> Reading:
        """Begin to read a step's loss, and whether any process has been asked to stop or to save."""
        self._asked = {
            "stop": self._stop.signal is not None,
            "save": bool(self.saver and self.saver.due(self.step + 1)),
        }
        numbers = loss.reshape(1)
        if self.accelerator.num_processes > 1:
            numbers = torch.cat([numbers, torch.tensor([*map(float, self._asked.values())], device=loss.device)])
        return Reading(numbers, self.accelerator.num_processes)

    def _agreed(self, reading: Reading) -> float:
        """The mean of the loss over all processes, which agree here on what comes next."""
        loss, *asked = reading.get()
        if asked:
            self._asked = {name: value > 0 for name, value in zip(self._asked, asked, strict=True)}
        return loss / int(self.accelerator.num_processes)

    @property
    def _learning_rate(self) -> float:
        return float(self.learners["base"].schedule.get_last_lr()[0])

    def _shared_optimizers(self) -> tuple[Optimizer, Optimizer] | None:
        if not self.pair or self.config.optimizer_state == "separate":
            return None
        base, motivated = (learner.optimizer for learner in self.learners.values())
        return base, motivated

    def _advance(self) -> None:
        """Close a batch: both schedules go on, whichever models were trained on it."""
        self._rows.append({"kind": "step", "epoch": self.epoch, "step": self.step, **self._row})
        self._settle(leave=1)
        if self._failed and self.config.on_nonfinite == "rollback":
            self._roll_back(self._failed)
        self._failed = None
        for learner in self.learners.values():
            learner.schedule.step()
        self.step += 1
        self.place += 1
        if not self._deferred:
            self._settle()
        if self._asked["save"]:
            self._asked["save"] = False
            self._save()
        self._stop_if_asked(agreed=True)

    def _settle(self, leave: int = 0) -> None:
        """Close the record of all steps but the latest few, whose gradient norms may still be on their way."""
        while len(self._rows) > leave:
            row = self._rows.pop(0)
            for learner in self.learners.values():
                if f"{learner.prefix}loss" not in row:
                    continue
                loss, norm = row[f"{learner.prefix}loss"], row[f"{learner.prefix}grad_norm"]
                if isinstance(norm, Reading):
                    (norm,) = norm.get()
                    row[f"{learner.prefix}grad_norm"] = norm
                    if not math.isfinite(norm):
                        self._not_finite(learner, row["step"], loss, norm)
                if self._sound(loss, norm):
                    learner.failures = 0
            self._emit(row)

    def _stop_if_asked(self, agreed: bool = False) -> None:
        """Unwind if any process has been asked to stop, which all must do at the same place."""
        asked = self._stop.signal is not None
        if self.accelerator.num_processes > 1:
            flag = torch.tensor(float(asked), device=self.accelerator.device)
            asked = self._asked["stop"] if agreed else bool(self.accelerator.reduce(flag, "sum") > 0)
        if asked:
            raise Stopped

    def _evaluate(self, epoch: int) -> list[str]:
        """Measure both models at this epoch's end; the names of those that have never been better."""
        self._settle()
        recalibrated = 0
        with self.random.preserved():
            for name, learner in self.learners.items():
                # Loaders that shuffle or read ahead count their passes, which a resumed run has not made.
                _set_epoch(epoch, self.train_loader, self.eval_loader)
                with self._ready(name):
                    if name == "motivated" and self.config.norm == "recalibrated":
                        recalibrated = self._recalibrate(learner)
                    if self.eval_loader is not None:
                        self.metrics[name] = self._measure(learner)
        better = [
            name for name, found in self.metrics.items() if name not in self.best or _better(found, self.best[name])
        ]
        for name in better:
            self.best[name] = {"epoch": epoch + 1, **self.metrics[name]}
        self.cost.recalibration_samples += recalibrated
        now = {"epoch": epoch + 1, "step": self.step, "flops": self.cost.total}
        self._emit({"kind": "eval", **now, **self.metrics})
        return better

    def _ready(self, name: str) -> contextlib.AbstractContextManager[object]:
        """Inside, the model holds all that was trained: the motivated model the base's latest weights, too."""
        return self.pair.motivated() if self.pair and name == "motivated" else contextlib.nullcontext()

    @torch.no_grad()
    def _measure(self, learner: Learner) -> dict[str, float]:
        learner.model.eval()
        losses: list[Tensor] = []
        hits: list[Tensor] = []
        for batch in self.eval_loader or ():
            self._stop_if_asked()
            if self.classifies:
                inputs, labels = batch
                logits, labels = self.accelerator.gather_for_metrics((learner.model(inputs), labels))
                losses.append(F.cross_entropy(logits.float(), labels, reduction="none"))
                hits.append(logits.argmax(-1) == labels)
            else:
                each = self.loss_fn(learner.model, batch).detach().float().repeat(_samples(batch))
                losses.append(self.accelerator.gather_for_metrics(each))
        found = {"loss": float(torch.cat(losses).double().mean())}
        return found | {"accuracy": float(torch.cat(hits).double().mean())} if self.classifies else found

    def _recalibrate(self, learner: Learner) -> int:
        """Re-estimate the model's norm statistics; how many samples that took."""
        samples = 0

        def counted() -> Iterator[Any]:
            nonlocal samples
            for batch in self._peek(self.train_loader, self.config.recalibration_batches):
                samples += _samples(batch) * self.accelerator.num_processes
                yield batch

        recalibrate(learner.model, counted(), self.loss_fn)
        return samples

    def _peek(self, loader: Any, count: int) -> Iterator[Any]:
        """The first few batches, without any effect on the random state once they have been taken."""
        with RandomState(self.accelerator.device, loader).preserved():
            yield from itertools.islice(draw(loader, self.accelerator.device), count)

    def _classification_loss(self, model: nn.Module, batch: Any) -> Tensor:
        inputs, labels = batch
        return F.cross_entropy(model(inputs), labels, label_smoothing=self.config.label_smoothing)

    def _not_finite(self, learner: Learner, step: int, loss: float, norm: float) -> None:
        """Do as ``on_nonfinite`` says with a step whose loss or gradient is not finite; it is not taken in any case."""
        learner.failures += 1
        self._failed = learner
        what = f"loss became {loss}" if not math.isfinite(loss) else f"gradient has the norm {norm}"
        text = f"the {learner.name} model's {what} at step {step} (epoch {self.epoch + 1}, learning rate "
        text += f"{self._learning_rate:.3g})"
        if self.config.on_nonfinite == "stop" or learner.failures >= MOST_FAILURES:
            raise DivergedError(f"{text}{self._post_mortem(learner)}")
        done = {"skip": "its step on this batch is skipped", "rollback": "both models are rolled back"}
        self._emit({"kind": "nonfinite", "step": step, "model": learner.name, "action": self.config.on_nonfinite})
        warnings.warn(f"{text}; {done[self.config.on_nonfinite]}", RunWarning, stacklevel=2)

    def _post_mortem(self, learner: Learner) -> str:
        """What is left of the run, its last steps, and what to try."""
        kept = "nothing was saved"
        if self.folder:
            with contextlib.suppress(RunError):
                self._wait()
            there = checkpoint.found(self.folder.checkpoints)
            kept = f"the newest checkpoint is {there[0]}" if there else f"there is no checkpoint in {self.folder.path}"
            if self.epoch:
                kept = f"weights of epoch {self.epoch} are in {self.folder.path}, {kept}"
        again = ""
        if learner.failures > 1 or self.rollbacks:
            again = f", after {learner.failures - 1} such steps in a row and {sum(self.rollbacks.values())} roll-backs"
        prefix = learner.prefix
        last = [row for row in self.history if row["kind"] == "step" and f"{prefix}loss" in row][-5:]
        lines = [
            f"  {row['step']:>8}  {row[f'{prefix}loss']:>12.5g}  {row[f'{prefix}grad_norm']:>13.5g}  {row['lr']:.3g}"
            for row in last
        ]
        table = ["", "      step          loss  gradient norm  learning rate", *lines] if lines else []
        hint = "Try a lower lr, a warm-up, or clip_grad; or on_nonfinite skip or rollback"
        return "\n".join([f"{again}; {kept}. {hint}", *table])

    def _save(self, weights: Mapping[str, Sequence[str]] | None = None) -> None:
        """Save the run as it is after this step.

        Args:
            weights: files of weights to write, too: ``last`` and ``best``, each for these models.
        """
        self._settle()
        if not self.folder:
            return
        with contextlib.ExitStack() as stack:
            if self.pair:  # Inside, the motivated model holds the base's latest weights, too.
                stack.enter_context(self.pair.motivated(self._shared_optimizers()))
            state = run_state.take(self)
            if self.saver:
                known = {"epoch": self.epoch, "step": self.step}
                files = {
                    f"{name}.{which}.safetensors": (name, self.best[name] if which == "best" else known)
                    for which, names in (weights or {}).items()
                    for name in names
                }
                self.saver.save(self.step, state, files)
                self._tell({"kind": "saving", "step": self.step, "path": str(self.folder.path)})

    def _roll_back(self, failed: Learner) -> None:
        """Take the weights of the newest checkpoint again; time goes on."""
        assert self.folder
        if self.saver:
            with contextlib.suppress(RunError):
                self.saver.wait()
        saved = run_state.newest(self.folder, self.accelerator)
        if saved is None:
            raise RunError(f"{self.folder.path}: there is no checkpoint to roll back to")
        to = str(saved["place"]["step"])
        self.rollbacks[to] = self.rollbacks.get(to, 0) + 1
        if self.rollbacks[to] > MOST_FAILURES:
            raise DivergedError(f"the {failed.name} model fails again and again{self._post_mortem(failed)}")
        run_state.roll_back(self, saved)
        self._tell({"kind": "note", "text": f"rolled back to the weights of step {to}"})

    def _emit(self, row: Row) -> None:
        """Add a row to the record of the run."""
        self.history.append(row)
        if self.saver:
            self.saver.folder.append(row)
        self._tell(row)

    def _tell(self, row: Row) -> None:
        for listener in self.listeners:
            listener(row)


def _accelerator(config: TrainConfig) -> Accelerator:
    process = this_process(config.device)
    mixed = precision(config.precision, process.device)
    if is_initialized() and AcceleratorState().mixed_precision != mixed:
        # An earlier trainer of this process has set another precision for good.
        AcceleratorState._reset_state()
    # One batch of the loader is one batch of the run, however many processes share it. A single process takes loaders
    # that come without a batch size, too.
    # Loaders that shuffle do so by the seed and the epoch, in any number of processes.
    loading = DataLoaderConfiguration(
        split_batches=process.num_processes > 1,
        use_seedable_sampler=True,
        data_seed=apart(config.seed),
    )
    return Accelerator(mixed_precision=mixed, cpu=process.device.type == "cpu", dataloader_config=loading)


def _set_epoch(epoch: int, *loaders: Any) -> None:
    thing: Any
    for loader in loaders:
        # With several processes accelerate tells the sampler alone; augmentation must know, too.
        for thing in (loader, getattr(loader, "dataset", None)):
            if hasattr(thing, "set_epoch"):
                thing.set_epoch(epoch)


def _samples(batch: Any) -> int:
    """Length of the first tensor of a batch; 1 where there is none."""
    return next((len(tensor) for tensor in tensors_in(batch) if tensor.ndim), 1)


def _better(found: Mapping[str, float], best: Mapping[str, float]) -> bool:
    if "accuracy" in found:
        return found["accuracy"] > best["accuracy"]
    return not found["loss"] >= best["loss"]  # Anything is better than what is not a number.
