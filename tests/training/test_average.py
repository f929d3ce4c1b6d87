"""Moving averages of both models' weights: evaluated and saved, and of no effect on the training."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from runs import CONFIG, assert_equal, batches, interrupted, run, two_models
from safetensors.torch import load_file
from test_scheduled import BEST
from torch import Tensor, nn

from seeking import SeekingError, TrainConfig, Trainer
from seeking.checkpointing.weights import load_weights
from seeking.training.moving_average import Average
from seeking.weights_map import tensors

EMA = dataclasses.replace(CONFIG, ema=0.9, epochs=3, condition="every:2")


def averages(trainer: Trainer) -> dict[str, dict[str, Tensor]]:
    return {name: average.state_dict()["model"]["tensors"] for name, average in trainer.run.averages.items()}


@settings(max_examples=20)
@given(decay=st.floats(0, 0.999), count=st.integers(1, 25), tied=st.booleans())
def test_an_average_is_exponential_and_begins_with_a_smaller_decay(decay: float, count: int, tied: bool) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Linear(3, 3)).double()
    if tied:
        model[2].weight = model[0].weight
    average = Average(model, decay)
    expected = {name: tensor.clone() for name, tensor in tensors(model).items()}
    for number in range(count):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter))
        model(torch.randn(4, 3).double())
        average.update()
        now = min(decay, (1 + number) / (10 + number))
        for name, tensor in tensors(model).items():
            floating = tensor.is_floating_point()
            expected[name] = expected[name] * now + tensor.detach() * (1 - now) if floating else tensor.clone()
    own = {name: tensor.detach().clone() for name, tensor in tensors(model).items()}
    with average.applied():
        for name, tensor in tensors(model).items():
            torch.testing.assert_close(tensor.detach(), expected[name])
    assert all(torch.equal(tensor, own[name]) for name, tensor in tensors(model).items())


@pytest.mark.slow
def test_the_training_is_the_same_with_averages() -> None:
    plain = run(dataclasses.replace(EMA, ema=None))[0]
    assert_equal(plain, run(EMA)[0])


def test_with_a_decay_of_zero_the_average_is_the_model() -> None:
    (plain, first), (zero, second) = run(dataclasses.replace(EMA, ema=None)), run(dataclasses.replace(EMA, ema=0.0))
    assert first.metrics == second.metrics
    for name, learner in plain.learners.items():
        with plain.run.synced(name):
            assert all(torch.equal(t, averages(zero)[name][key]) for key, t in tensors(learner.module).items())


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{"norm": "recalibrated", "recalibration_batches": 3}, {"norm": "shared"}])
def test_what_is_saved_is_what_was_evaluated(changes: dict[str, Any], tmp_path: Path) -> None:
    trainer, result = run(dataclasses.replace(EMA, **changes), output=tmp_path / "run")
    for name, fresh in zip(trainer.learners, two_models(), strict=True):
        load_weights(fresh, tmp_path / "run" / f"{name}.last.safetensors")
        fresh.eval()
        data = [*batches()["eval_loader"]]
        correct = sum(int((fresh(part[0]).argmax(-1) == part[1]).sum()) for part in data)
        assert correct / sum(len(part[1]) for part in data) == pytest.approx(result.metrics[name]["accuracy"])
        own = tensors(trainer.learners[name].module)
        assert any(not torch.equal(tensor, own[key]) for key, tensor in fresh.named_parameters())
        with trainer.run.evaluated(name) as model:
            assert all(torch.equal(tensor, tensors(model)[key]) for key, tensor in tensors(fresh).items())


def test_the_average_of_the_base_is_contained_in_the_other() -> None:
    """Whoever steps when: both averages have taken in the shared weights of every batch."""
    config = dataclasses.replace(EMA, base_condition="every:3", condition="after:4", norm="shared")
    trainer, _ = run(config)
    averaged = averages(trainer)
    for name, tensor in trainer.pair.map.extract(averaged["motivated"]).items():
        torch.testing.assert_close(tensor, averaged["base"][name], rtol=1e-6, atol=1e-7)


@pytest.mark.slow
def test_averages_resume_bit_for_bit(tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, save_every="1", ema=0.95, **BEST)

    def make(**more: Any) -> Trainer:
        return Trainer(*two_models(), **batches(), config=config, **more)

    whole = make(output=tmp_path / "whole")
    whole.fit()
    resumed = interrupted(make, tmp_path / "run", [1, 9])
    assert_equal(whole, resumed)
    for name, values in averages(whole).items():
        assert all(torch.equal(tensor, averages(resumed)[name][key]) for key, tensor in values.items())
    for file in ("base.last", "motivated.last", "base.best", "motivated.best"):
        ours, theirs = (load_file(tmp_path / folder / f"{file}.safetensors") for folder in ("whole", "run"))
        assert all(torch.equal(tensor, theirs[key]) for key, tensor in ours.items())


def test_a_model_alone_has_an_average_as_well() -> None:
    base, _ = two_models()
    trainer = Trainer(base, **batches(), config=EMA)
    result = trainer.fit()
    assert averages(trainer).keys() == {"base"} == result.metrics.keys()


@pytest.mark.parametrize(
    ("options", "message"),
    [({"ema": 1.0}, "ema is 1.0; it must be in"), ({"ema": 0.9, "shard": True}, "ema cannot be combined with shard")],
)
def test_options_that_do_not_go_together(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SeekingError, match=message):
        TrainConfig(**options)
