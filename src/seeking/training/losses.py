"""The objective of a run: the user's own, or by the option ``loss``."""

import warnings
from collections.abc import Iterable, Mapping
from types import FunctionType
from typing import Any

from torch import nn
from torch.optim import Optimizer

from seeking.errors import RunWarning, SeekingError
from seeking.training.config import TrainConfig
from seeking.training.custom_loss import CustomLoss
from seeking.training.objective import Classification, LossFn, Objective
from seeking.training.regression import Regression
from seeking.verification.settings import closed_over


def make_objective(
    objective: Objective | None, loss_fn: LossFn | None, config: TrainConfig, *, pair: bool, evaluated: bool
) -> Objective:
    """The objective, or one for the ``loss_fn``, or that of the options: classification by default.

    Args:
        objective: what the user has given, if anything.
        loss_fn: likewise.
        config: options.
        pair: whether there are two models.
        evaluated: whether there are evaluation data.

    Raises:
        SeekingError: several are given, a ``loss_fn`` is to teach sharded models, or the objective lacks a method.
    """
    if objective and loss_fn:
        raise SeekingError("objective and loss_fn contradict each other; give one of them")
    if loss_fn and config.loss != "cross_entropy":
        raise SeekingError(f"loss {config.loss} and a loss_fn contradict each other; give one of them")
    if loss_fn and pair and config.teach and config.shard:
        raise SeekingError("teach with a loss_fn cannot be combined with shard; give an objective instead")
    if objective:
        _check_methods(objective, pair, evaluated)
        return objective
    teaching: Mapping[str, Any] = {"teacher_weight": config.teach, "temperature": 1.0} if config.teach else {}
    if loss_fn:
        return CustomLoss(loss_fn, **teaching, teaches=pair and config.teach > 0)
    if config.loss == "mse":
        return Regression(teacher_weight=config.teach)
    return Classification(config.label_smoothing, **teaching)


def _check_methods(objective: object, pair: bool, evaluated: bool) -> None:
    """Check that a custom objective has the methods that the run calls, and is no class."""
    if isinstance(objective, type):
        raise SeekingError(f"objective is the class {objective.__name__}; give an object of it")
    needed = ["loss", *(["model_inputs"] if pair else []), *(["evaluate", "is_better"] if evaluated else [])]
    if missing := [method for method in needed if not callable(getattr(objective, method, None))]:
        raise SeekingError(
            f"objective is a {type(objective).__name__} without {' and '.join(missing)}; give it "
            f"{'these methods' if len(missing) > 1 else 'this method'}, or the Trainer a loss_fn instead"
        )


def with_gradients(trial: Objective) -> list[str]:
    """The names of the parameters of a loss that has been run, backward as well, which have gradients."""
    return [name for name, parameter in _parameters_of(trial).items() if parameter.grad is not None]


def warn_of_untrained(loss: Objective, used: Iterable[str], optimizers: Iterable[Optimizer]) -> None:
    """Warn of parameters of a loss that get gradients, which no optimizer of the run takes.

    Args:
        loss: an objective.
        used: the names of its parameters that get gradients.
        optimizers: of the run.
    """
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    taken = {id(parameter) for group in groups for parameter in group["params"]}
    own = _parameters_of(loss)
    if names := [name for name in used if name in own and id(own[name]) not in taken]:
        warnings.warn(
            "the loss has parameters that no optimizer of the run takes, so that they stay as they are: "
            f"{', '.join(names)}; make them parts of both models, or give them to the optimizers as well "
            "(Trainer(optimizer=...))",
            RunWarning,
            stacklevel=3,
        )


def _parameters_of(loss: object) -> dict[str, nn.Parameter]:
    """The parameters of the modules that a loss is, holds, has closed over or finds in its module."""
    if isinstance(loss, CustomLoss):
        loss = loss.loss_fn
    if isinstance(loss, nn.Module):
        return dict(loss.named_parameters())
    if isinstance(loss, FunctionType):
        shared = {name: loss.__globals__[name] for name in loss.__code__.co_names if name in loss.__globals__}
        parts = {**shared, **{name: value for name, value, _ in closed_over(loss)}}
    else:
        parts = getattr(getattr(loss, "__self__", loss), "__dict__", {})
    modules = [(name, part) for name, part in parts.items() if isinstance(part, nn.Module)]
    return {f"{name}.{inner}": each for name, module in modules for inner, each in module.named_parameters()}
