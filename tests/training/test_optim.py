"""Optimizers: fused kernels do what the others do, and all parameters of a model are trained."""

import contextlib
import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from runs import PLAIN, batches, steps, stop_at, two_models
from safetensors.torch import load_file
from torch import nn

from seeking import TrainConfig, Trainer
from seeking.errors import RunWarning
from seeking.training.optim import FUSED, make_optimizer


@settings(max_examples=10)
@given(
    optimizer=st.sampled_from(["sgd", "momentum", "adamw", "adagrad"]),
    momentum=st.sampled_from([0.0, 0.9]),
    reached=st.lists(st.sets(st.integers(0, 2), min_size=1), min_size=1, max_size=4),
)
def test_fused_steps_are_those_of_other_kernels_whatever_a_batch_reaches(
    optimizer: str, momentum: float, reached: list[set[int]]
) -> None:
    """Layers may get no gradient at first, such as experts, layers with layer drop and layers that are frozen."""
    assume(momentum or optimizer != "sgd")  # Nesterov's needs it.
    weights = []
    for fused in (False, True):
        torch.manual_seed(0)
        model = nn.ModuleList(nn.Linear(3, 2) for _ in range(3))
        config = dataclasses.replace(PLAIN, optimizer=optimizer, momentum=momentum, weight_decay=0.01)
        trained = make_optimizer(model, config, fused)
        assert bool(trained.defaults.get("fused")) == fused
        for layers in reached:
            sum(model[layer](torch.ones(4, 3)).square().sum() for layer in layers).backward()
            trained.step()
            trained.zero_grad()
        weights.append(nn.utils.parameters_to_vector(model.parameters()))
    torch.testing.assert_close(*weights)


@pytest.mark.parametrize("name", ["momentum", "adam", "adamw", "adagrad"])
def test_complex_parameters_are_trained_with_the_default_options(name: str) -> None:
    model = nn.ParameterList([torch.ones(3, dtype=torch.cfloat), torch.ones(3)])
    optimizer = make_optimizer(model, TrainConfig(optimizer=name), fused=TrainConfig().fused)
    assert isinstance(optimizer, FUSED)
    (model[0].abs().sum() + model[1].sum()).backward()
    optimizer.step()
    assert not any(torch.equal(parameter, torch.ones_like(parameter)) for parameter in model)


@pytest.mark.parametrize("schedule", ["cosine", "onecycle", "wsd"])
@settings(max_examples=2)
@given(lr=st.floats(1e-3, 0.1), base_lr=st.floats(1e-3, 0.1))
def test_each_model_is_trained_at_its_own_learning_rate(schedule: Any, lr: float, base_lr: float) -> None:
    """In a pair, each model is what it is if trained alone at its rate, as far as the other one leaves it alone."""
    config = dataclasses.replace(PLAIN, epochs=1, schedule=schedule, lr=lr, base_lr=base_lr)
    base, motivated = two_models()
    for model, rate in ((base, base_lr), (motivated, lr)):
        Trainer(model, **batches(), config=dataclasses.replace(config, lr=rate, base_lr=None)).fit()

    again = two_models()[0]
    Trainer(again, **batches(), config=config).fit()
    assert_same(again, base)

    pair = two_models()
    Trainer(*pair, **batches(), config=dataclasses.replace(config, condition="never")).fit()
    assert_same(pair[0], base)

    pair = two_models()
    late = {"base_condition": "after:0.5", "condition": "always", "finish": "private", "finish_at": 0.5}
    result = Trainer(*pair, **batches(), config=dataclasses.replace(config, shared_from="motivated", **late)).fit()
    assert_same(pair[1], motivated)
    for row in steps(result):
        if {"loss", "motivated_loss"} <= row.keys() and row["lr"]:
            assert row.get("motivated_lr", row["lr"]) / row["lr"] == pytest.approx(lr / base_lr)


def test_a_rate_of_the_base_that_own_optimizers_do_not_use_is_told_of() -> None:
    def optimizer(model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD(model.parameters(), lr=0.1)

    config = dataclasses.replace(PLAIN, base_lr=0.01)
    with pytest.warns(RunWarning, match="base_lr is 0.01, which has no effect"):
        Trainer(*two_models(), **batches(), config=config, optimizer=optimizer)


def assert_same(model: nn.Module, other: nn.Module) -> None:
    torch.testing.assert_close(model.state_dict(), other.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize("clip_grad", [None, 0.05])
def test_what_is_unfrozen_during_a_run_is_trained_as_if_it_had_waited(clip_grad: float | None) -> None:
    """Its gradients do not add up while nothing takes them."""

    def frozen(base: nn.Module, motivated: nn.Module, freeze: bool) -> None:
        for model in (base, motivated):
            next(model.parameters()).requires_grad_(not freeze)

    ends = []
    for own in (False, True):
        models = two_models()
        frozen(*models, freeze=True)

        def unfreeze(row: Any, models: Any = models) -> None:
            if row["kind"] == "step" and row["step"] == 2:
                frozen(*models, freeze=False)

        config = dataclasses.replace(PLAIN, clip_grad=clip_grad, optimizer="momentum", weight_decay=0.0, fused=False)

        def all_of(model: nn.Module, config: TrainConfig = config) -> torch.optim.Optimizer:
            return torch.optim.SGD(model.parameters(), lr=config.lr, momentum=config.momentum)

        before = next(models[0].parameters()).detach().clone()
        Trainer(*models, **batches(), config=config, listeners=[unfreeze], optimizer=all_of if own else None).fit()
        assert not torch.equal(next(models[0].parameters()), before)
        ends.append([parameter.detach() for model in models for parameter in model.parameters()])
    torch.testing.assert_close(*ends)


def test_gradients_that_no_optimizer_takes_do_not_add_up() -> None:
    norms = []
    for freeze in (False, True):
        models = two_models()
        for model in models:
            next(model.parameters()).requires_grad_(not freeze)

        def rest(model: nn.Module) -> torch.optim.Optimizer:
            return torch.optim.SGD([*model.parameters()][1:], lr=0.01)

        with contextlib.nullcontext() if freeze else pytest.warns(RunWarning, match="leaves out 1 of"):
            trainer = Trainer(*models, **batches(), config=PLAIN, optimizer=rest)
        norms.append([row["grad_norm"] for row in steps(trainer.fit())])
    assert all(with_it < 10 * without for with_it, without in zip(*norms, strict=True))
    assert all(parameter.grad is None for model in models for parameter in model.parameters())


class Bag(nn.Sequential):
    def __init__(self, width: int, sparse: bool = True) -> None:
        super().__init__(nn.EmbeddingBag(9, width, sparse=sparse), nn.Linear(width, 3))


WORDS = [(torch.randint(9, (4, 5)), torch.randint(3, (4,))) for _ in range(4)]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"optimizer": "adamw", "weight_decay": 0.1, "accumulate": 2},
        {"update": "joint"},
        {"optimizer_state": "inherit", "base_condition": "before:0.5", "condition": "after:0.5"},
        {"optimizer_state": "shared", "clip_grad": 0.01},
        {"condition": "agreement:0"},
    ],
)
def test_models_with_sparse_gradients_end_as_those_with_dense_ones(options: dict[str, Any], tmp_path: Path) -> None:
    config = dataclasses.replace(PLAIN, epochs=2, **{"optimizer": "momentum", "condition": "every:2", **options})
    ends = []
    for sparse in (True, False):
        torch.manual_seed(0)
        models = Bag(4, sparse), Bag(8, sparse)
        Trainer(*models, train_loader=WORDS, config=config, output=tmp_path / str(sparse)).fit()
        ends.append([model.state_dict() for model in models])
    torch.testing.assert_close(*ends)


def test_optimizers_of_ones_own_get_sparse_gradients_as_they_are(tmp_path: Path) -> None:
    def both(model: nn.Module) -> torch.optim.Optimizer:
        embedding, head = model.children()
        assert isinstance(embedding, nn.EmbeddingBag)
        return torch.optim.SGD([*embedding.parameters(), *head.parameters()], lr=0.1, momentum=0.9)

    def run(output: Path, **kwargs: Any) -> Trainer:
        torch.manual_seed(0)
        config = dataclasses.replace(PLAIN, epochs=2, condition="every:2")
        kwargs |= {"train_loader": WORDS, "config": config, "optimizer": both}
        return Trainer(Bag(4), Bag(8), output=output, resume=True, **kwargs)

    run(tmp_path / "whole").fit()
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "parts", listeners=[stop_at(3)]).fit()
    resumed = run(tmp_path / "parts")
    state = resumed.learners["base"].optimizer.state_dict()["state"]
    assert state[0]["momentum_buffer"].is_sparse
    resumed.fit()
    for name in ("base", "motivated"):
        weights = [load_file(tmp_path / folder / f"{name}.last.safetensors") for folder in ("whole", "parts")]
        torch.testing.assert_close(*weights, rtol=0, atol=0)
