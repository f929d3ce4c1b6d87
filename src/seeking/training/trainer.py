"""The trainer: an algorithm, batch by batch, and all that a run needs around it."""

import functools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from torch import nn

from seeking.checkpointing.resume import Stateful
from seeking.checkpointing.run_dir import RunFolder
from seeking.conditions import Condition
from seeking.copies import copied_function
from seeking.distributed.processes import from_first_process
from seeking.report.showing import Display, make_showing
from seeking.training import budget, build, data
from seeking.training.batches import last_size, rest_of_epoch, set_epoch
from seeking.training.config import TrainConfig, options
from seeking.training.cost import Cost
from seeking.training.evaluation import Evaluator, Scores, first_batch, peek
from seeking.training.failures import first_step, in_batch, saved_on_error
from seeking.training.held_out import HeldOut
from seeking.training.interrupts import Requests, Stopped, listening
from seeking.training.losses import make_objective, warn_of_untrained, with_gradients
from seeking.training.metrics import Best, Predict, UserMetrics
from seeking.training.nonfinite import NonFiniteGuard
from seeking.training.objective import LossFn, Objective
from seeking.training.one_pass import make_prefix
from seeking.training.optim import MakeOptimizer, MakeSchedule, check_makers
from seeking.training.parts import collect_parts
from seeking.training.precision import make_accelerator
from seeking.training.preflight import check_gradients, check_pair, measure_cost
from seeking.training.progress import Progress
from seeking.training.record import Listener, Record, Row, check_listeners
from seeking.training.result import Result
from seeking.training.rng import RandomState, RunRandomState
from seeking.training.run import Algorithm, Run, roll_back
from seeking.training.saving import Save
from seeking.training.stream import position_of
from seeking.weights_map import WeightsMap


class Trainer:
    """Trains a base model and, now and then, the motivated model that contains it.

    Any model that maps a batch to a loss works. Without ``loss_fn`` or ``objective`` the batches are taken for pairs
    ``(inputs, labels)``, and the models for classifiers, or as ``config.loss`` says. Devices, mixed precision and
    several processes are accelerate's matter: the trainer runs as it is under ``torchrun`` and ``accelerate
    launch``; a batch is then split over the processes, and all of them take the same decision, on the mean loss.

    Args:
        base: the smaller model; None trains the motivated model alone in the ordinary way.
        motivated: the larger model; None trains the base alone in the ordinary way.
        train_loader: training batches; a ``DataLoader``, or anything that starts anew for each epoch; without a length,
            ``config.max_steps`` is needed.
        eval_loader: evaluation batches; without it nothing is evaluated.
        held_out: training batches that no step trains on, for conditions on the held-out loss; loaded once.
        config: options.
        condition: a condition made already, instead of ``config.condition``.
        algorithm: how a batch trains the models; motivated training for two models, ordinary training for one.
        objective: what is minimized and measured.
        loss_fn: ``loss_fn(model, batch)``, the mean loss, or an output that holds it; instead of an objective.
        metrics: the user's own, by name: metrics of torchmetrics, or functions of all outputs and targets.
        predict_fn: ``predict_fn(model, batch)``, the outputs and targets that metrics take.
        optimizer: makes a model's optimizer, instead of ``config.optimizer``.
        schedule: makes an optimizer's schedule for a number of batches, instead of ``config.schedule``.
        weights_map: where the base lies in the motivated model; derived if not given.
        output: folder for weights, metrics, checkpoints and summary, empty at first; None writes nothing.
        resume: continue from the newest intact checkpoint in ``output``; begin where there is none.
        parts: what else must survive a restart, by name: its state is saved and restored with the run's.
        listeners: called with every row of the metrics as it comes.
        accelerator: your own, instead of one with ``config.precision``.
        progress: whether ``fit`` shows how far it is, on standard error, and draws the learning curves in ``output``.

    Attributes:
        learners: the models with their optimizers and schedules, by name.
        pair: of both models; None where one is trained alone.
        progress: how far the run is.
        save: ``save(last=..., best=...)`` saves the run as it is, and last or best weights of the models named.

    Raises:
        NotContainedError: the motivated model cannot contain the base.
        SeekingError: options, models and data that do not go together: the base is no sub-network of the motivated
            model under the map, a model refuses the data, the output folder holds something.
    """

    def __init__(
        self,
        base: nn.Module | None = None,
        motivated: nn.Module | None = None,
        *,
        train_loader: Iterable[Any],
        eval_loader: Iterable[Any] | None = None,
        held_out: Iterable[Any] | None = None,
        config: TrainConfig | None = None,
        condition: Condition | None = None,
        algorithm: Algorithm | None = None,
        objective: Objective | None = None,
        loss_fn: LossFn | None = None,
        metrics: Mapping[str, Any] | None = None,
        predict_fn: Predict | None = None,
        optimizer: MakeOptimizer | None = None,
        schedule: MakeSchedule | None = None,
        weights_map: WeightsMap | None = None,
        output: RunFolder | str | Path | None = None,
        resume: bool = False,
        parts: Mapping[str, Stateful] | None = None,
        listeners: Sequence[Listener] = (),
        accelerator: Accelerator | None = None,
        progress: Display = True,
    ) -> None:
        check_gradients()
        models = build.named_models(base, motivated)
        check_listeners(listeners)
        check_makers(optimizer, schedule)
        self.config = config = options(config)
        self.accelerator = accelerator or make_accelerator(config)
        self.loaders = data.prepare_loaders(self.accelerator, train_loader, eval_loader, held_out, config)
        data.check_processes(self.loaders, config, output is not None, resume)
        functions = {"algorithm": algorithm, "loss": loss_fn or objective}
        pair, evaluated = len(models) == 2, self.loaders.evaluation is not None
        objective = make_objective(objective, loss_fn, config, pair=pair, evaluated=evaluated)
        trial: Objective = copied_function(objective)  # What runs before training leaves no state behind.
        user_metrics = UserMetrics(metrics, predict_fn, self.accelerator.device)
        best = Best(objective, config.best, config.best_mode, user_metrics)
        self.saver = build.make_saver(output, resume, config, self.accelerator, [*models], self.loaders, functions)
        custom = frozenset({"condition"} if condition is not None else ())
        saved = self.saver.read_newest(config.recorded(), config.changeable() | custom, config.locating())
        weights_map = self.saver.map_of_run(base, motivated, weights_map)
        device = self.accelerator.device
        batch = first_batch(self.loaders.train, device)
        self.condition = build.make_condition(condition, config, pair, self.loaders.given)
        owners: list[Any] = [*models.values(), *[None] * (2 - len(models)), self.loaders.train, self.loaders.evaluation]
        generators = RandomState(device, *owners, loss_fn or objective, algorithm, self.condition)
        build.place_models(models, config, device, trial, batch, generators)
        cost = Cost()
        if not saved:  # A run that is resumed has passed these checks.
            unseen = list(peek(self.loaders.evaluation, 1, device)) if self.loaders.evaluation is not None else []
            cost = measure_cost(models, trial, batch, unseen, user_metrics, best, last_size(train_loader))
        used_by_loss = with_gradients(trial)
        del trial  # It may hold a large model, such as a teacher.
        self.pair = build.make_pair(base, motivated, weights_map, objective, batch, config, saved is not None)
        build.check_optimizer(config, optimizer)
        self.progress = Progress(self.loaders.epoch_length, config.epochs, max_steps=config.max_steps)
        spending = budget.make_budget(config, models, self.loaders.train)
        # Before accelerate patches mixed precision into the models: the proof is one of full precision.
        if self.pair and not saved:
            check_pair(self.pair, objective, batch, config)
        prefix = make_prefix(self.pair, objective, batch, config, self.accelerator, cost)
        budget.check_budget(config, cost, spending, self.progress)
        if config.shard:
            build.shard_models(models, self.pair, self.accelerator, objective, batch, generators)

        self.learners = build.make_learners(
            models, self.pair, self.accelerator, config, optimizer, schedule, self.progress
        )
        warn_of_untrained(objective, used_by_loss, [learner.optimizer for learner in self.learners.values()])
        self.record = Record(listeners, self.saver.metrics, self.saver.folder is not None)
        self.scores = Scores(best)
        self.random = RunRandomState(generators, self.accelerator)
        saver, run_progress = self.saver, self.progress  # A function that holds the trainer would keep it in memory.
        self.algorithm = build.make_algorithm(algorithm, config, self.condition, pair, self.loaders.given, run_progress)
        self._requests = Requests(self.accelerator, due=lambda: saver.due(run_progress.step + 1))
        self.run = Run(
            learners=self.learners,
            pair_or_none=self.pair,
            condition=self.condition,
            objective=objective,
            progress=self.progress,
            cost=cost,
            stepper=build.make_stepper(self.accelerator, config, self._requests),
            guard=NonFiniteGuard(config.on_nonfinite, self.record, lambda: saver.describe(run_progress.epoch)),
            budget=spending,
            held_out=HeldOut(self.loaders.held_out, self.accelerator, generators) if self.loaders.held_out else None,
            prefix=prefix,
            joining=build.make_joining(self.pair, self.progress, config),
            averages=build.make_averages(self.learners, config),
        )
        self._evaluate = Evaluator(
            self.run, self.scores, self.record, self.loaders, config, generators, self._requests, user_metrics
        )
        others = self.loaders.evaluation, self.loaders.held_out
        self._position = position_of(self.loaders.train, self.progress, self.accelerator, others)
        states = self.scores, self.random, self.accelerator.scaler, self._position
        self.parts = collect_parts(self.run, self.algorithm, loss_fn, *states, parts or {})
        self.save = Save(self.run, self.saver, self.scores, self.record, self.parts, config)
        self._begun, self._resumed = False, saved is not None
        self._shown = make_showing(progress, config, models, self.record, self.saver, self.accelerator)
        self._metrics_bytes: int | None = saved["metrics_bytes"] if saved else None
        if saved:
            self.saver.restore(self.parts, saved)

    def train_batches(self) -> None:
        """Train on the remaining batches of this epoch, without evaluating or saving at its end."""
        self._evaluate_at_step()
        where = self.progress, self.random, self._position
        batches = rest_of_epoch(self.loaders.train, self.config.accumulate, *where, self.record.note)
        for batch in self._requests.waits(batches):
            self.run.row = {}
            end_batch = functools.partial(self._end_batch, self.run.batch_samples(batch))
            with in_batch(self.run, end_batch, self.random.undo_batch):
                self.algorithm(batch, self.run)
            end_batch()
            self._evaluate_at_step()

    def _evaluate_at_step(self) -> None:
        if self._evaluate.due_at_step:
            self.save(best=self._evaluate(self.progress.epoch))

    def fit(self) -> Result:
        """Train to the end.

        SIGTERM, SIGHUP and the first Ctrl-C let the step be finished and saved; then ``SystemExit(75)`` and
        ``KeyboardInterrupt`` are raised. A second Ctrl-C interrupts at once, but for what is being written. Called
        again after that, it continues.

        Raises:
            SeekingError: the output folder cannot be written, or another program trains in it or has since this
                trainer was made.
            DivergedError: a loss or a gradient is NaN or infinite.
            RunError: a batch cannot be loaded, or the disk refuses what must be saved.
            Exception: what models, losses and listeners raise. The run is saved before.
        """
        try:
            with listening(self._requests), self._shown() as draw:
                try:
                    self.begin()
                    with saved_on_error(self.run, self.save.now):
                        while not self.progress.done or self._evaluate.unfinished:
                            self.train_epoch()
                        if self._evaluate.overdue:
                            self.save(best=self._evaluate(max(0, self.progress.epoch - 1)))
                    self.saver.wait()
                except Stopped as stopped:
                    self.save.now()
                    self.record.notify({"kind": "stopped", "step": self.progress.step, "path": self.saver.path})
                    raise stopped.exit() from None
            seconds = {name: learner.seconds for name, learner in self.learners.items()}
            result = Result(self.scores.latest, self.scores.best, self.run.cost, seconds, self.record.rows)
            draw(result)
            self.saver.finish(result.summary() | data.preparation(self.loaders.train))
            budget.check_steps_taken(self.config, self.run.cost, self.condition if self.pair else None)
            return result
        finally:
            self.saver.close()

    def begin(self) -> None:
        """Open the run's record, or continue the one that there is."""
        check_gradients()
        start: Row = self.progress.plan()
        metrics_bytes, self._metrics_bytes = self._metrics_bytes, None
        continues = self._begun or self._resumed
        if continues:
            self.saver.reopen(self.progress.step)
        if metrics_bytes is not None:
            self.record.last.extend(self.saver.rewind(self.progress.step, metrics_bytes, self.config.recorded()))
            best, lost = from_first_process(self.saver.check_weights)
            self.scores.restore_best(best)
            if lost:
                self.save(last=lost)
        if continues:
            self.record.notify({**start, "step": self.progress.step})
            self.record.note(f"resumed at step {self.progress.step}")
            return
        self.saver.create(self.config.recorded(), self.pair.map if self.pair else None)
        self._begun = True
        self.record.log(start)
        self.save()
        self.saver.wait()  # What cannot be saved is found now; and there is always a checkpoint to resume from.

    def train_epoch(self) -> None:
        """Train for one epoch, or the rest of it; evaluate and save as the options say. Call ``begin`` before."""
        progress = self.progress
        set_epoch(progress.epoch, self.loaders.train)
        with first_step(self.run, resumed=self.saver.path if self._resumed else None):
            self.train_batches()
        if not self.config.eval_every_steps:
            self.scores.latest = {}
        better = self._evaluate(progress.epoch) if self._evaluate.due_at_end_of_epoch else []
        progress.end_epoch()
        self.save(last=self.learners, best=better)

    def _end_batch(self, samples: int) -> None:
        """Close a batch: both schedules go on, whichever models were trained on it."""
        self.run.cost.add_batch(samples)
        position = {"epoch": self.progress.epoch, "step": self.progress.step, "samples": samples}
        row = {"kind": "step", **position, **self.run.row}
        if self.run.guard.rollback_due:
            roll_back(self.run, self.saver.read_for_rollback(), self.accelerator.scaler)
        self.run.average()
        for learner in self.learners.values():
            learner.step_schedule()
        self.progress.end_batch()
        self.record.log(row)
        if self._requests.save:
            self._requests.save = False
            self.save()
        self._requests.stop_after_batch()
