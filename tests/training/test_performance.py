"""Accelerations change no more than they must."""

import dataclasses
import importlib.util
import warnings
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from runs import CONFIG, PLAIN, batches, hand_written_loop, regression, run, steps, two_models
from torch import Tensor, nn

from seeking import SeekingError, Trainer
from seeking.errors import RunWarning
from seeking.internals import reset_accelerator
from seeking.training import Result
from seeking.training.precision import resolve_precision
from seeking.weights_map import tensors


def test_the_accelerated_run_is_the_accelerated_hand_written_loop() -> None:
    config = dataclasses.replace(CONFIG, schedule="constant", weight_decay=0.0, optimizer="momentum", precision="bf16")
    base, expected = two_models()[0], two_models()[0].to(memory_format=torch.channels_last)
    result = Trainer(base, train_loader=batches()["train_loader"], config=config).fit()
    optimizer = torch.optim.SGD(expected.parameters(), lr=0.05, momentum=0.9, fused=True)
    losses = hand_written_loop(expected, optimizer, bf16=True)
    assert [row["loss"] for row in steps(result)] == losses
    assert all(torch.equal(t, tensors(base)[n]) for n, t in tensors(expected).items())


@pytest.mark.parametrize("change", ["channels_last", "fused"])
def test_they_round_differently_and_no_more(change: str) -> None:
    results = [run(dataclasses.replace(PLAIN, condition="every:2", **{change: on})) for on in (False, True)]
    alike(*results)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_compiled_models_round_differently_and_no_more() -> None:
    alike(*(regression(16, condition="every:2", compile=mode) for mode in ("no", "default")))


def alike(first: tuple[Trainer, Result], other: tuple[Trainer, Result]) -> None:
    for ours, theirs in zip(steps(first[1]), steps(other[1]), strict=True):
        assert ours.keys() == theirs.keys()
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-3)
    for role, learner in first[0].learners.items():
        others = tensors(other[0].learners[role].module)
        for name, tensor in tensors(learner.module).items():
            torch.testing.assert_close(tensor, others[name], rtol=1e-2, atol=1e-3)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_switching_between_the_models_compiles_nothing_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each model once for training, and once for each shape that is evaluated. (Nothing is made of the graphs here.)"""
    compile_model = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda model, mode=None: compile_model(model, backend="eager"))
    graphs: list[int] = []

    def listen(row: dict[str, Any]) -> None:
        if row["kind"] == "eval":
            graphs.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])

    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    trainer, result = run(
        dataclasses.replace(CONFIG, condition="every:2", epochs=4, compile="default"), listeners=[listen]
    )
    assert result.cost.motivated_batches == 12
    assert all(learner.model._compiled_call_impl is not None for learner in trainer.learners.values())
    assert graphs[0] > 2
    assert len(set(graphs)) == 1


def test_a_model_that_cannot_be_compiled_runs_uncompiled(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any, **options: Any) -> Any:
        raise torch._dynamo.exc.InternalTorchDynamoError("no compiler\nand so on")

    def compile_nothing(self: nn.Module, **options: Any) -> None:
        self._compiled_call_impl = refuse

    monkeypatch.setattr(nn.Module, "compile", compile_nothing)
    with pytest.warns(RunWarning, match=r"OneStage cannot be compiled \(no compiler\) and runs uncompiled") as warned:
        _, result = run(dataclasses.replace(CONFIG, compile="default"))
    assert len(warned) == 2
    assert result.history == run()[1].history


class Viewing(nn.Module):
    """Fails on channels_last tensors."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv, self.out = nn.Conv2d(3, width, 3), nn.Linear(36 * width, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x).relu()
        return self.out(x.view(len(x), -1))


def test_a_model_that_refuses_channels_last_keeps_them_first() -> None:
    with pytest.warns(RunWarning, match="Viewing does not support channels_last tensors .*view"):
        trainer = Trainer(Viewing(4), Viewing(6), **batches(), config=CONFIG)
    assert all(learner.module.conv.weight.is_contiguous() for learner in trainer.learners.values())
    assert len(steps(trainer.fit())) == 12
    trainer, _ = run()
    weight = trainer.pair.base.layer1[0].conv1.weight
    assert weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.slow
def test_checkpointed_activations_give_the_same_gradients() -> None:
    from seeking.models import create

    options = {"img_size": 8, "patch_size": 4, "num_classes": 4}
    results = []
    for checkpoint_activations in (False, True):
        torch.manual_seed(0)
        models = [create(name, **options, depth=2) for name in ("vit_tiny_patch16_224", "vit_small_patch16_224")]
        config = dataclasses.replace(PLAIN, checkpoint_activations=checkpoint_activations)
        results.append(Trainer(*models, **batches(), config=config).fit())
    # The FLOPs are not the same: activations are computed twice.
    ours, theirs = ([{**row, "flops": 0} for row in result.history] for result in results)
    assert ours == theirs
    assert results[1].cost.base_flops > results[0].cost.base_flops
    with pytest.raises(SeekingError, match=r"the base model \(Viewing\) has neither .* turn"):
        Trainer(Viewing(4), **batches(), config=config)


def test_an_accelerator_of_the_users_gets_no_other_precision_in_silence() -> None:
    def trainer(precision: str, **options: Any) -> Trainer:
        return Trainer(*two_models(), **batches(), config=dataclasses.replace(CONFIG, precision=precision), **options)

    with warnings.catch_warnings():
        warnings.simplefilter("error", RunWarning)
        for precision in ("no", "bf16", "no"):
            trainer(precision)
        reset_accelerator()
        own = Accelerator(cpu=True, mixed_precision="bf16")
        trainer("bf16")
        trainer("bf16", accelerator=own)
    with pytest.warns(RunWarning, match="has mixed precision bf16; it is no from now"):
        trainer("no")


def test_precision_that_the_hardware_has_not(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    with pytest.raises(SeekingError, match="precision is fp16, which needs an accelerator"):
        run(dataclasses.replace(CONFIG, precision="fp16"))
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    assert resolve_precision("auto", cpu) == "no"
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    assert resolve_precision("auto", cpu) == "bf16"
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")
    assert resolve_precision("auto", torch.device("cuda")) == "no"
    with pytest.raises(SeekingError, match="precision is bf16, which Tesla T4 does not support; use fp16 or no"):
        resolve_precision("bf16", torch.device("cuda"))


def test_steps_look_for_nothing_on_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """As accelerate's backward and its optimizers do, for packages."""
    find, looks = importlib.util.find_spec, 0
    seen: list[int] = []

    def counted(*given: Any) -> Any:
        nonlocal looks
        looks += 1
        return find(*given)

    def listen(row: dict[str, Any]) -> None:
        if row["kind"] == "step" and row["epoch"] == 0:
            seen.append(looks)

    monkeypatch.setattr(importlib.util, "find_spec", counted)
    run(dataclasses.replace(CONFIG, condition="every:2", epochs=1), listeners=[listen])
    assert len(seen) > 2
    assert seen[0] == seen[-1]


def test_more_processes_than_accelerators(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    AcceleratorState._reset_state(reset_partial_state=True)
    with pytest.raises(SeekingError, match="4 processes were started on a machine with 2 accelerators; start 2"):
        run()
