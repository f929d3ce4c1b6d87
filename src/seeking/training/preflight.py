"""Checks on one batch before anything is trained or written."""

import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from seeking.copies import copied, inspecting, scratch_copy
from seeking.errors import RunWarning, SeekingError
from seeking.forward import call_with_one
from seeking.internals import refuses_arguments
from seeking.pair import Pair
from seeking.supported import check_models, check_numbers
from seeking.training.config import TrainConfig
from seeking.training.cost import Cost, count_flops
from seeking.training.custom_loss import CustomLoss, describe_objective
from seeking.training.metrics import Best, UserMetrics
from seeking.training.objective import Metrics, Objective, check_loss, check_metrics, summarized
from seeking.training.samples import first_sample, sample_count
from seeking.training.teaching import check_teaching, ignores_teacher
from seeking.verification import verify
from seeking.weights_map import has_nan, in_double

PROOF_SAMPLES = 8
"""A map is verified on as many samples of a batch, in double precision."""


def check_gradients() -> None:
    """Make sure that PyTorch computes gradients.

    Raises:
        SeekingError: they are switched off, for all models at once.
    """
    if not torch.is_grad_enabled():
        raise SeekingError(
            "gradients are switched off, as inside torch.no_grad() and torch.inference_mode(), and training needs "
            "them; make and fit the Trainer outside"
        )


def measure_cost(
    models: Mapping[str, nn.Module],
    objective: Objective,
    batch: Any,
    evaluation_batches: Iterable[Any],
    user_metrics: UserMetrics,
    best: Best,
    last_size: int | None,
) -> Cost:
    """Run each model on training and evaluation data.

    Args:
        models: the models by name.
        objective: loss and metrics.
        batch: a training batch.
        evaluation_batches: evaluation batches.
        user_metrics: the user's own metrics.
        best: which metrics are the best.
        last_size: samples in the last training batch of an epoch, if that is known.

    Returns:
        The cost per sample.

    Raises:
        SeekingError: a model holds NaN or fails on the data, the objective returns something else than a loss or
            metrics, or a model does not train on a last batch of one sample.
    """
    if len(models) == 2:
        check_models(*models.values())
    for name, model in models.items():
        check_numbers(model, f"{name} model")
    if user_metrics and not evaluation_batches:
        raise SeekingError("metrics are measured on evaluation data, of which there are none; give an eval_loader")
    flops = {
        name: _measure(name, model, objective, batch, evaluation_batches, last_size, user_metrics, best)
        for name, model in models.items()
    }
    none = (0.0, 0.0)
    base_forward, base = flops.get("base", none)
    motivated_forward, motivated = flops.get("motivated", none)
    return Cost(
        base_flops=base,
        base_forward_flops=base_forward,
        motivated_flops=motivated,
        motivated_forward_flops=motivated_forward,
    )


def check_pair(pair: Pair, objective: Objective, batch: Any, config: TrainConfig) -> None:
    """Verify on a training batch that the base is a sub-network, and that the objective teaches if it is to.

    Raises:
        SeekingError: it is not, or does not.
    """
    if config.teach and isinstance(objective, CustomLoss):
        check_teaching(objective, (pair.base, pair.motivated_model), batch)
    elif config.teach and ignores_teacher(objective, pair.base, batch):
        raise SeekingError(
            f"teach is {config.teach}, but {describe_objective(objective, 'loss')} puts out the same whatever "
            "teacher_logits it gets; let it use them, or set teach to 0"
        )
    if config.verify:
        _check_map(pair, objective, batch)


def _measure(
    name: str,
    model: nn.Module,
    objective: Objective,
    batch: Any,
    evaluation_batches: Iterable[Any],
    last_size: int | None,
    user_metrics: UserMetrics,
    best: Best,
) -> tuple[float, float]:
    """Run a model on a training batch and on evaluation batches; the FLOPs per sample of a forward pass and of a step.

    Raises:
        SeekingError: the model fails, or the objective returns something else than a loss or metrics.
    """
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise SeekingError(
            f"the {name} model ({type(model).__name__}) has no parameter to train: there is none, or all are frozen; "
            "set requires_grad of some, alike in both models"
        )
    source = describe_objective(objective, "loss")

    def checked_loss(model: nn.Module, batch: Any) -> Tensor:
        loss = objective.loss(model, batch)
        check_loss(loss, source)
        return loss

    data, hint = "training data", ""
    try:
        forward, both = count_flops(model, checked_loss, batch)
        samples = sample_count(batch)
        if last_size == 1 < samples:
            data = "training data, whose last batch has a single sample"
            hint = "; give the loader drop_last=True, or another batch size"
            count_flops(model, checked_loss, first_sample(batch))
        data, hint = "evaluation data", ""
        _check_evaluation(model, objective, evaluation_batches, user_metrics, best)
    except SeekingError:
        raise
    except Exception as error:
        if refuses_arguments(error) and objective.model_inputs(batch)[1] is call_with_one:
            hint += (
                "; it is called with the first part of a batch. If it takes more, give the Trainer a loss_fn, such as "
                "lambda model, batch: F.cross_entropy(model(*batch[0]), batch[1])"
            )
        hint = "; ".join([hint, *getattr(error, "__notes__", [])])
        raise SeekingError(
            f"the {name} model ({type(model).__name__}) fails on the {data}: {type(error).__name__}: {error}{hint}"
        ) from error
    return forward / samples, both / samples


def _check_evaluation(
    model: nn.Module, objective: Objective, batches: Iterable[Any], user_metrics: UserMetrics, best: Best
) -> None:
    if not batches:
        return
    model_copy = scratch_copy(model)
    with inspecting(model_copy):
        for batch in batches:
            metrics = objective.evaluate(model_copy, copied(batch))
            check_metrics(metrics, describe_objective(objective, "evaluate"))
            means = {name: float(in_double(each).mean()) for name, each in metrics.items()}
            measured = summarized(objective, means)
            best.check({**measured, **_measured_by_user(user_metrics, model_copy, copied(batch), measured)})


def _check_map(pair: Pair, objective: Objective, batch: Any) -> None:
    """Verify that the base is a sub-network of the motivated model; warn of what the batch does not reach."""
    inputs, forward = objective.model_inputs(batch)
    if isinstance(inputs, Tensor) and inputs.layout == torch.strided and not inputs.is_nested:  # Others have no slices.
        inputs = inputs[:PROOF_SAMPLES]
    if has_nan(inputs):
        raise SeekingError(
            "there is NaN in the first batch of the training data, on which the weights map is verified; correct the "
            "data, or set verify to false, and on_nonfinite to skip to go on without such batches"
        )
    verdict = verify(pair.base, pair.motivated_model, pair.map, inputs, forward=forward)
    if not verdict:
        raise SeekingError(
            f"the base is not a sub-network of the motivated model under this weights map: {verdict.reason}. "
            "Correct the map, or set verify to false to train anyway"
        )
    if verdict.not_judged or verdict.settings_not_judged:
        warnings.warn(f"the weights map: {verdict.reason}", RunWarning, stacklevel=4)


def _measured_by_user(user_metrics: UserMetrics, model: nn.Module, batch: Any, metrics: Mapping[str, Any]) -> Metrics:
    """The user's own metrics of a batch.

    Raises:
        SeekingError: one has the name of a metric of the objective.
    """
    user_metrics.start()
    user_metrics.update(model, batch, split=False)
    results = user_metrics.compute()
    if twice := [name for name in results if name in metrics]:
        raise SeekingError(f"metric {twice[0]}: the objective measures one of that name; choose another name")
    return results
