"""Both models measured on the evaluation data."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from seeking.copies import copied
from seeking.errors import ProcessError, SeekingError, add_detail
from seeking.training.batches import draw, set_epoch
from seeking.training.config import TrainConfig
from seeking.training.data import NO_BATCH, Loaders
from seeking.training.interrupts import Requests
from seeking.training.learner import Learner
from seeking.training.lending import Lending
from seeking.training.loaders import Loader
from seeking.training.metrics import Best, UserMetrics
from seeking.training.modes import evaluating
from seeking.training.objective import Metrics, Objective, summarized
from seeking.training.recalibration import recalibrate
from seeking.training.record import Record
from seeking.training.rng import RandomState
from seeking.training.run import Run
from seeking.training.samples import sample_count
from seeking.training.targets import IGNORED_LABEL
from seeking.weights_map import in_double


@torch.no_grad()
def measure(
    learner: Learner,
    loader: Loader,
    objective: Objective,
    user_metrics: UserMetrics,
    accelerator: Accelerator,
    requests: Requests,
) -> Metrics:
    """The mean of each metric over all samples of the evaluation data, and the user's own metrics of all samples.

    Args:
        learner: the model.
        loader: the prepared loader.
        objective: that says what is measured.
        user_metrics: the user's own metrics.
        accelerator: to sum over all processes.
        requests: to stop. All processes stop at the same batch; so they do if one of them fails.

    Raises:
        LoadingError: a batch cannot be loaded.
        ProcessError: another process has failed.
    """
    values: dict[str, list[Tensor]] = {}
    counts: dict[str, float] = {}
    user_metrics.start()
    lending = Lending()
    with evaluating(learner.model) as model:
        try:
            for part in requests.waits(draw(loader, accelerator.device)):
                with lending.lent(part.batch, f"{learner.name} model") as batch:
                    metrics = objective.evaluate(model, batch)
                if user_metrics:
                    with lending.lent(part.batch, f"{learner.name} model's metrics") as batch:
                        user_metrics.update(model, batch, split=part.copies == 1, first=accelerator.is_main_process)
                requests.stop_now()
                for name, each in metrics.items():
                    values.setdefault(name, []).append(in_double(each) / part.copies)
                    counts[name] = counts.get(name, 0.0) + len(each) / part.copies
            if not values:
                raise SeekingError("the evaluation data yield no batch")
        except ProcessError:
            raise
        except Exception as error:
            add_detail(error, f"in the evaluation of the {learner.name} model")
            requests.stop_now(failed=True)
            raise
    sums = torch.stack([torch.cat(parts).sum() for parts in values.values()])
    totals = torch.stack([sums, sums.new_tensor([*counts.values()])])
    totals = accelerator.reduce(totals)
    if not totals[1].all():
        raise SeekingError(
            f"in the evaluation of the {learner.name} model no sample counts, since all labels are {IGNORED_LABEL}"
        )
    means: Tensor = torch.div(*totals)
    return {**summarized(objective, dict(zip(values, means.tolist(), strict=True))), **user_metrics.compute()}


def recalibrated_samples(
    learner: Learner, loader: Loader, batches: int, objective: Objective, accelerator: Accelerator, requests: Requests
) -> int:
    """Re-estimate a model's norm statistics on so many training batches; the samples that it took."""
    samples = 0

    def counted() -> Iterator[Any]:
        nonlocal samples
        for batch in requests.waits(peek(loader, batches, accelerator.device)):
            samples += sample_count(batch) * accelerator.num_processes
            yield copied(batch)

    recalibrate(learner.model, counted(), objective.loss)
    return samples


def peek(loader: Loader, count: int, device: torch.device) -> Iterator[Any]:
    """The first few batches, without any effect on the random state once they have been taken."""
    with RandomState(device, loader).preserved():
        yield from (part.batch for part in draw(loader, device, first=count))


def first_batch(loader: Loader, device: torch.device) -> Any:
    """The first training batch, taken as by ``peek``.

    Raises:
        SeekingError: there is none, or it has no sample.
    """
    batches = [*peek(loader, 1, device)]
    if not batches:
        raise SeekingError(NO_BATCH)
    if not sample_count(batches[0]):
        raise SeekingError(
            "the first batch of the training data has no sample, as a filter or a collate_fn may make it; leave it out"
        )
    return batches[0]


class Scores:
    """The latest metrics of both models, and each one's best.

    Args:
        order: says what is better.
    """

    def __init__(self, order: Best) -> None:
        self.latest: dict[str, dict[str, float]] = {}
        self.step: int | None = None
        """At which the latest metrics were measured."""
        self.best: dict[str, dict[str, float]] = {}
        self._order = order

    def update(self, epoch: float) -> list[str]:
        """Compare the latest metrics with the best ones; the names of the models that have never been better."""
        better = [
            name
            for name, metrics in self.latest.items()
            if name not in self.best or self._order.is_better(metrics, self.best[name])
        ]
        for name in better:
            self.best[name] = {"epoch": epoch, **self.latest[name]}
        return better

    def restore_best(self, best: Mapping[str, Mapping[str, float]]) -> None:
        """Continue from these best metrics, if they are those that are measured."""
        self.best = {name: dict(metrics) for name, metrics in best.items() if self._comparable(metrics)}

    def _comparable(self, metrics: Mapping[str, float]) -> bool:
        try:
            self._order.is_better(metrics, metrics)
        except (LookupError, SeekingError):
            return False
        return True

    def state_dict(self) -> dict[str, Any]:
        """The latest metrics; the best ones are in the files of the best weights."""
        return {"latest": self.latest, "step": self.step}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from these.

        Raises:
            ValueError: they are not metrics.
        """
        latest, step = state["latest"], state["step"]
        if not all(type(value) in (int, float) for metrics in latest.values() for value in metrics.values()):
            raise ValueError(f"the metrics are not numbers: {latest}")
        if type(step) not in (int, type(None)):
            raise ValueError(f"the step of the metrics is {step!r}")
        self.latest, self.step = latest, step


@dataclass(frozen=True)
class Evaluator:
    """Evaluates both models at the end of an epoch, or at steps between.

    Attributes:
        run: whose models are evaluated.
        scores: updated.
        record: of the run.
        loaders: of the run.
        config: options.
        generators: whose states are left as they are.
        requests: to stop.
        user_metrics: the user's own metrics.
    """

    run: Run
    scores: Scores
    record: Record
    loaders: Loaders
    config: TrainConfig
    generators: RandomState
    requests: Requests
    user_metrics: UserMetrics

    @property
    def due_at_step(self) -> bool:
        """Whether the models are to be evaluated at this step, between epochs, and have not been."""
        every, step = self.config.eval_every_steps, self.run.progress.step
        return bool(every and step and step % every == 0 and self.scores.step != step)

    @property
    def due_at_end_of_epoch(self) -> bool:
        """Whether the models are to be evaluated at the end of this epoch."""
        progress = self.run.progress
        if self.config.eval_every_steps:
            return progress.in_last_epoch and self.scores.step != progress.step
        return progress.in_last_epoch or (progress.epoch + 1) % self.config.eval_every == 0

    @property
    def unfinished(self) -> bool:
        """Whether the run has been cut off between its last step and the evaluation at its end."""
        progress = self.run.progress
        within = progress.max_steps is not None and progress.done and progress.step_in_epoch > 0
        return within and self.scores.step != progress.step

    @property
    def overdue(self) -> bool:
        """Whether the models have not been evaluated at the end of the run, since it was to end later before."""
        if self.loaders.evaluation is None:
            return False
        behind = bool(self.config.eval_every_steps) and self.scores.step != self.run.progress.step
        return behind or not self.scores.latest

    def __call__(self, epoch: int) -> list[str]:
        """Measure the models as they are in an epoch; the names of those that have never been better."""
        run, accelerator = self.run, self.run.stepper.accelerator
        samples = 0
        with self.generators.preserved():
            for name, learner in run.learners.items():
                # Loaders that shuffle or read ahead count their passes, which a resumed run has not made.
                set_epoch(epoch, self.loaders.train, self.loaders.evaluation)
                with run.evaluated(name):
                    if name == "motivated" and self.config.norm == "recalibrated":
                        samples = recalibrated_samples(
                            learner,
                            self.loaders.train,
                            self.config.recalibration_batches,
                            run.objective,
                            accelerator,
                            self.requests,
                        )
                    if (data := self.loaders.evaluation) is not None:
                        self.scores.latest[name] = measure(
                            learner, data, run.objective, self.user_metrics, accelerator, self.requests
                        )
        self.scores.step = run.progress.step
        number = self._epochs_so_far(epoch)
        better = self.scores.update(number)
        run.cost.recalibration_samples += samples
        position = {"epoch": number, "step": run.progress.step, "flops": run.cost.total}
        self.record.log({"kind": "eval", **position, **self.scores.latest})
        return better

    def _epochs_so_far(self, epoch: int) -> float:
        """Number of epochs that the models have been trained for; with a fraction if they are evaluated between."""
        progress, config = self.run.progress, self.config
        if not progress.epoch_length or not (config.eval_every_steps or config.max_steps):
            return epoch + 1
        number = round(progress.epoch + progress.step_in_epoch / progress.epoch_length, 3)
        return int(number) if number == int(number) else number
