"""Joint steps in one pass, where the base is the first layers of the motivated model."""

import dataclasses
import math
import warnings
from collections.abc import Mapping
from typing import Any

from accelerate import Accelerator
from torch import Tensor, nn

from seeking.choices import MODELS
from seeking.conditions import Outcome
from seeking.copies import copied, copied_function, random_state_preserved, scratch_copy
from seeking.errors import RunWarning
from seeking.internals import flop_counter, tree_map_only
from seeking.pair import Pair
from seeking.prefix import Prefix, find_prefix
from seeking.training.config import TrainConfig
from seeking.training.cost import Cost, attention_counted
from seeking.training.modes import set_modes, training_modes
from seeking.training.objective import Objective
from seeking.training.run import Batch, Run
from seeking.training.samples import sample_count
from seeking.training.step import Loss


def make_prefix(
    pair: Pair | None, objective: Objective, batch: Any, config: TrainConfig, accelerator: Accelerator, cost: Cost
) -> Prefix | None:
    """The prefix of a pair that is to take joint steps in one pass; a warning says why there is none.

    Args:
        pair: the two models.
        objective: loss and metrics.
        batch: a training batch.
        config: options.
        accelerator: that knows the processes.
        cost: of the run; gets the FLOPs that one pass saves.
    """
    if pair is None or not config.one_pass:
        return None
    reasons = {
        "there are several processes": accelerator.num_processes > 1,
        "the models are compiled": config.compile != "no",
        "activations are recomputed": config.checkpoint_activations,
    }
    reason = next((text for text, holds in reasons.items() if holds), "")
    inputs, forward = objective.model_inputs(batch)
    prefix = None if reason else find_prefix(pair.base, pair.motivated_model, pair.map, inputs, forward)
    if prefix is None:
        reason = reason or "the base is not the first layers of the motivated model"
        warnings.warn(f"one_pass: {reason}, so that joint steps take two passes", RunWarning, stacklevel=3)
        return None
    cost.prefix_flops = cost.base_flops - _flops_of_the_rest(prefix, pair, objective, batch)
    return prefix


def _flops_of_the_rest(prefix: Prefix, pair: Pair, objective: Objective, batch: Any) -> float:
    """FLOPs of a forward and backward pass of the base without its prefix, per sample."""
    small, large = scratch_copy(pair.base), scratch_copy(pair.motivated_model)
    for model in (small, large):
        set_modes(training_modes(model))
    counter, objective = flop_counter(), copied_function(objective)
    with random_state_preserved():
        with prefix.recorded(large) as outputs:
            objective.loss(large, copied(batch))
        leaves = tree_map_only(Tensor, lambda t: t.detach().requires_grad_(t.is_floating_point()), outputs)
        with attention_counted(small), counter, prefix.replayed(small, leaves):
            objective.loss(small, copied(batch)).backward()
    return counter.get_total_flops() / sample_count(batch)


def gradients_of_one_pass(
    run: Run, prefix: Prefix, batch: Batch, losses: Mapping[str, Loss | None], base_weight: float
) -> tuple[Outcome, Outcome]:
    """Compute the gradient of the weighted sum of both losses, the shared layers run once; an update must follow.

    Call this inside ``run.pair.motivated()``.

    Args:
        run: the run.
        prefix: of its pair.
        batch: the batch.
        losses: of each model; the objective's where it is None.
        base_weight: weight of the base's loss, in (0, 1); the motivated model's has the rest.

    Returns:
        What is known of the base, and of the motivated model.
    """
    smaller, larger = (losses[name] or run.objective.loss for name in MODELS)
    micro_batches = run.micro_batches(batch)
    weights = iter(micro_batches.weights)
    means = [0.0, 0.0]

    def both(model: nn.Module, micro_batch: Any) -> Tensor:
        with run.stepper.lending.lent(micro_batch, "base model") as lent:
            with prefix.recorded(run.motivated.module) as outputs:
                loss = larger(model, micro_batch)
            with prefix.replayed(run.base.module, outputs):
                base_loss = smaller(run.base.train_mode(), lent)
        weight = next(weights)
        for number, value in enumerate((base_loss, loss)):
            means[number] += weight * float(value.detach())
        return base_weight * base_loss + (1 - base_weight) * loss

    outcome = run.gradient(run.motivated, micro_batches, both, also=(run.base,))
    run.cost.one_pass_samples += micro_batches.samples
    flops = outcome.flops - micro_batches.samples * run.cost.prefix_flops
    base = Outcome(loss=means[0], grad_norm=math.nan, flops=0.0)
    return base, dataclasses.replace(outcome, loss=means[1], flops=flops)
