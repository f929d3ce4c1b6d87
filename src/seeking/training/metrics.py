"""Metrics of the user's own, over all samples of the evaluation data and all processes; and what is best."""

import contextlib
import copy
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from seeking.errors import SeekingError, unknown
from seeking.forward import call
from seeking.training.config import BestMode
from seeking.training.next_byte import NextByte
from seeking.training.objective import Classification, Metrics, Objective
from seeking.training.regression import Regression
from seeking.training.targets import targets_in

Predict = Callable[[nn.Module, Any], tuple[Any, Any]]
"""Maps a model and a batch to outputs and targets, as the metrics take them."""

BETTER: Mapping[str, BestMode] = {**Classification.METRICS, **NextByte.METRICS, **Regression.METRICS}
"""Which way the metrics of the library's own objectives are better."""


def outputs_and_targets(model: nn.Module, batch: Any) -> tuple[Any, Any]:
    """What models put out for a batch, and its targets: for ``(inputs, targets)``, or a mapping with ``labels``.

    Raises:
        SeekingError: the batch has another form.
    """
    targets = targets_in(batch)
    if targets is None:
        raise SeekingError(
            f"it is not known what the targets are in a batch that is a {type(batch).__name__}; give the Trainer a "
            "predict_fn, such as lambda model, batch: (model(batch['image']), batch['class'])"
        )
    output = call(model, batch) if isinstance(batch, Mapping) else model(batch[0])
    return getattr(output, "logits", output), targets


class UserMetrics:
    """The user's metrics of one evaluation after another.

    Args:
        metrics: by name: a metric of torchmetrics, or a function of all outputs and targets that gives a number.
        predict: gives the outputs and targets of a batch.
        device: that models run on.

    Raises:
        SeekingError: one is neither.
    """

    def __init__(self, metrics: Mapping[str, Any] | None, predict: Predict | None, device: torch.device) -> None:
        if metrics is not None and not hasattr(metrics, "items"):  # A MetricCollection has them and is no mapping.
            raise SeekingError(f"metrics are a {type(metrics).__name__}; give them by name, such as {{'f1': ...}}")
        self._metrics = {name: _as_metric(name, metric).to(device) for name, metric in (metrics or {}).items()}
        self._predict = predict or outputs_and_targets
        self._split = False
        self._held: list[tuple[Any, Any]] = []
        for metric in self._metrics.values():
            for part in metric.modules():
                part.distributed_available_fn = self._is_split
        if predict and not metrics:
            raise SeekingError("predict_fn gives outputs and targets for metrics, and there are none; give both")

    def __bool__(self) -> bool:
        return bool(self._metrics)

    def direction(self, name: str) -> BestMode | None:
        """Whether ``max`` or ``min`` of a metric is best, if it says so itself."""
        higher = getattr(self._metrics.get(name), "higher_is_better", None)
        return None if higher is None else "max" if higher else "min"

    def start(self) -> None:
        """Begin an evaluation."""
        self._split, self._held = False, []
        for metric in self._metrics.values():
            metric.reset()

    def update(self, model: nn.Module, batch: Any, *, split: bool = True, first: bool = True) -> None:
        """Add a batch.

        Args:
            model: the model.
            batch: the samples of this process.
            split: whether other processes have other samples; else all of them have these.
            first: whether this is the first process, which adds samples that all have.
        """
        if not self._metrics:
            return
        predicted = self._predict(model, batch)
        if not isinstance(predicted, tuple | list) or len(predicted) != 2:
            raise SeekingError(
                f"predict_fn returned a {type(predicted).__name__}, not outputs and targets; return both, such as "
                "(model(x), y)"
            )
        self._split = self._split or split
        if split or first:
            self._add(*predicted)
        elif not self._split:
            self._held.append(predicted)

    def _add(self, outputs: Any, targets: Any) -> None:
        for name, metric in self._metrics.items():
            with _named(name):
                metric.update(outputs, targets)

    def _is_split(self) -> bool:
        """Whether the processes have different samples; if not, no process asks the others."""
        return self._split and torch.distributed.is_available() and torch.distributed.is_initialized()

    def compute(self) -> Metrics:
        """The metrics of all samples since the start, over all processes; all of them must call this."""
        if not self._split:  # Processes without any samples could not take part.
            for held in self._held:
                self._add(*held)
        results: Metrics = {}
        for name, metric in self._metrics.items():
            with _named(name), warnings.catch_warnings():
                # A process may have got no batch.
                warnings.filterwarnings("ignore", "The ``compute`` method", UserWarning)
                results |= dict(_numbers(name, metric.compute()))
        return results


class Best:
    """Which metrics are the best: by the objective, or by a metric that is to be as high or as low as possible.

    Args:
        objective: decides if no metric is named.
        name: of the metric.
        mode: ``max`` or ``min``; if not given, the metric's own.
        metrics: the user's.
    """

    def __init__(self, objective: Objective, name: str | None, mode: BestMode | None, metrics: UserMetrics) -> None:
        self._objective, self._name = objective, name
        self._mode = mode or BETTER.get(name or "") or metrics.direction(name or "")

    def check(self, names: Mapping[str, Any]) -> None:
        """Make sure that the metric is among these.

        Raises:
            SeekingError: it is not, or which way it is better is not known.
        """
        if self._name and self._name not in names:
            raise unknown("metric in best", self._name, names)
        if self._name and not self._mode:
            raise SeekingError(
                f"best is {self._name}, which may be better the higher or the lower; give best_mode max or min"
            )

    def is_better(self, metrics: Mapping[str, float], best: Mapping[str, float]) -> bool:
        """Whether these metrics are better than the best so far; any number is better than NaN."""
        if not self._name:
            return self._objective.is_better(metrics, best)
        self.check(metrics)
        new, old = metrics[self._name], best[self._name]
        return new == new and (old != old or (new > old if self._mode == "max" else new < old))


def _as_metric(name: str, metric: Any) -> Any:
    import torchmetrics  # Slow to import, and most runs do without.

    if isinstance(metric, torchmetrics.Metric | torchmetrics.MetricCollection):
        return copy.deepcopy(metric)
    if callable(metric) and not isinstance(metric, type | nn.Module):
        from seeking.training.function_metric import FunctionMetric

        return FunctionMetric(metric)
    kind = "the class" if isinstance(metric, type) else "a"
    described = metric.__name__ if isinstance(metric, type) else type(metric).__name__
    raise SeekingError(
        f"metric {name} is {kind} {described}; give a metric of torchmetrics, or a function of outputs and targets"
    )


@contextlib.contextmanager
def _named(name: str) -> Iterator[None]:
    try:
        yield
    except SeekingError as error:
        raise SeekingError(f"metric {name}: {error}") from error
    except Exception as error:
        raise SeekingError(
            f"metric {name}: {type(error).__name__}: {error}; a predict_fn may give it outputs and targets it takes"
        ) from error


def _numbers(name: str, value: Any) -> Iterator[tuple[str, float]]:
    if isinstance(value, Mapping):
        for key, each in value.items():
            yield from _numbers(f"{name}_{key}", each)
        return
    if isinstance(value, Tensor) and value.numel() != 1:
        raise SeekingError(
            f"it gives a tensor of shape {list(value.shape)}; give a metric of one number, such as by average='macro', "
            "or a function that gives numbers by name"
        )
    try:
        yield name, float(value)
    except (TypeError, ValueError) as error:
        raise SeekingError(f"it gives a {type(value).__name__}, not a number") from error
