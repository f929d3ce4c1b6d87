"""Which files of weights are loaded into a model, and which are refused."""

import argparse
import contextlib
import copy
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, load_model, save_file
from timm.utils import CheckpointSaver, ModelEmaV3
from tiny import TINY, Network
from torch import nn

from seeking import SeekingError, Trainer
from seeking.checkpointing.weights import load_matching_weights, load_weights, save_weights, shapes_of_weights
from seeking.errors import RunWarning


def test_weights_of_another_dtype_are_refused(tmp_path: Path, finished: Path) -> None:
    weights = load_file(finished / "base.best.safetensors")
    save_file({name: value.half() for name, value in weights.items()}, tmp_path / "half.safetensors")
    torch.save({name: value.double() for name, value in weights.items()}, tmp_path / "double.pt")
    for name, dtype in (("half.safetensors", "float16"), ("double.pt", "float64")):
        with pytest.raises(SeekingError, match=rf"torch.{dtype} in the file, torch.float32 in this Network"):
            load_weights(Network(3), tmp_path / name)


@pytest.mark.parametrize(
    "content", [[1, 2], torch.zeros(2), {"state_dict": [1]}, {"model": 3}, {1: torch.zeros(2)}, {"a": {"model": {}}}]
)
def test_what_are_no_tensors_by_name_is_told(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "weights.pt")
    with pytest.raises(
        SeekingError, match=r"weights.pt: not a file of weights: it holds a \w+( of \w+)?, not tensors by name"
    ):
        load_weights(Network(3), tmp_path / "weights.pt")


@pytest.mark.parametrize("name", ["weights", "weights.st", "weights.pt", "weights.safetensors"])
def test_weights_that_were_saved_are_loaded_whatever_the_name_of_their_file(name: str, tmp_path: Path) -> None:
    saved, loaded = Network(3), Network(3)
    save_weights(saved, tmp_path / name)
    load_weights(loaded, tmp_path / name)
    assert all(torch.equal(loaded.state_dict()[key], value) for key, value in saved.state_dict().items())


KEYS = ("state_dict", "model_state_dict", "model_state", "model", "net", "module", "params")


@settings(max_examples=30)
@given(keys=st.lists(st.sampled_from(KEYS), max_size=3))
def test_weights_are_found_beside_what_else_a_loop_has_saved(keys: list[str]) -> None:
    saved, loaded = Network(3), Network(3)
    content: dict[str, Any] = saved.state_dict()
    for key in keys:
        content = {"epoch": 3, key: content, "optimizer_state_dict": {}}
    with tempfile.TemporaryDirectory() as folder:
        torch.save(content, Path(folder) / "weights.pt")
        load_weights(loaded, Path(folder) / "weights.pt")
    assert all(torch.equal(*pair) for pair in zip(saved.parameters(), loaded.parameters(), strict=True))


def test_what_a_file_nests_is_looked_through_in_bounded_time(tmp_path: Path) -> None:
    content: dict[str, Any] = {}
    for _ in range(50):
        content = dict.fromkeys(KEYS, content)
    endless: dict[str, Any] = {}
    endless.update(model=endless, net=endless)
    for nested in (content, endless):
        torch.save(nested, tmp_path / "weights.pt")
        with pytest.raises(SeekingError, match="not tensors by name"):
            load_weights(Network(3), tmp_path / "weights.pt")


@pytest.mark.parametrize("key", KEYS[1:])
def test_a_parameter_may_be_called_as_the_weights_of_a_loop_are(key: str, tmp_path: Path) -> None:
    saved, loaded = (nn.ParameterDict({key: torch.randn(3)}) for _ in range(2))
    torch.save(saved.state_dict(), tmp_path / "weights.pt")
    load_weights(loaded, tmp_path / "weights.pt")
    assert torch.equal(saved[key], loaded[key])


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize(
    "averages", ["state_dict_ema", "model_ema", "ema_state_dict", "ema_model", "ema", "params_ema", "ema.module"]
)
def test_averages_are_taken_if_a_checkpoint_has_some(key: str, averages: str, tmp_path: Path) -> None:
    model, averaged, loaded = Network(3), Network(3), Network(3)
    for expected, saved in ((averaged, averaged.state_dict()), (model, None), (model, {}), (model, 0.999)):
        outer, _, inner = averages.partition(".")
        torch.save({key: model.state_dict(), outer: {inner: saved} if inner else saved}, tmp_path / "weights.pt")
        load_weights(loaded, tmp_path / "weights.pt")
        assert all(torch.equal(*pair) for pair in zip(expected.parameters(), loaded.parameters(), strict=True))


class Evil:
    def __reduce__(self) -> Any:
        return print, ("executed",)


def test_a_checkpoint_of_timm_is_loaded_and_nothing_in_its_options_is_executed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved, loaded = Network(3), Network(3)
    averages, optimizer = ModelEmaV3(saved), torch.optim.SGD(saved.parameters())
    with torch.no_grad():
        averages.module[0].weight.add_(1)
    args = argparse.Namespace(model="network", lr=0.1, mean=(0.5, 0.5), data=None)
    CheckpointSaver(saved, optimizer, args, averages, checkpoint_dir=str(tmp_path)).save_checkpoint(0, 1.0)
    allowed = torch.serialization.get_safe_globals()
    load_weights(loaded, tmp_path / "last.pth.tar")
    assert all(torch.equal(*pair) for pair in zip(averages.module.parameters(), loaded.parameters(), strict=True))
    torch.save({"state_dict": saved.state_dict(), "args": argparse.Namespace(lr=Evil())}, tmp_path / "evil.pt")
    with pytest.raises(SeekingError, match=r"evil.pt: not a file of weights: it holds a print, and nothing in it"):
        load_weights(loaded, tmp_path / "evil.pt")
    assert not capsys.readouterr().out and torch.serialization.get_safe_globals() == allowed
    with torch.serialization.safe_globals([argparse.Namespace]):
        load_weights(loaded, tmp_path / "last.pth.tar")
        assert argparse.Namespace in torch.serialization.get_safe_globals()


@pytest.mark.parametrize(("key", "hint"), [("model_ema", "before other weights"), ("state_dict", "")])
def test_an_error_names_the_key_of_weights_that_do_not_fit(key: str, hint: str, tmp_path: Path) -> None:
    torch.save({"model": Network(3).state_dict(), key: Network(4).state_dict()}, tmp_path / "weights.pt")
    with pytest.raises(SeekingError, match=rf"^{key} in \S+weights.pt: not weights of this Network: .*{hint}"):
        load_weights(Network(3), tmp_path / "weights.pt")


class Counting(Network):
    """It has an extra state, which must be of one form."""

    steps = 0

    def get_extra_state(self) -> dict[str, int]:
        return {"steps": self.steps}

    def set_extra_state(self, state: dict[str, int]) -> None:
        (self.steps,) = state.values()


NAMES = sorted(Counting(3).state_dict())


@settings(max_examples=20)
@given(
    wrong=st.dictionaries(st.sampled_from(NAMES), st.sampled_from((None, torch.zeros(3, 1))), min_size=1)
    | st.just({"more": torch.zeros(1)})
)
def test_weights_that_do_not_fit_change_nothing_of_a_model(wrong: dict[str, torch.Tensor | None]) -> None:
    """Names that are missing, in excess or of another form."""
    saved, model = Counting(3), Counting(3)
    saved.steps = 3
    before, state = copy.deepcopy(model.state_dict()), {**saved.state_dict(), **wrong}
    with tempfile.TemporaryDirectory() as folder:
        torch.save({name: value for name, value in state.items() if value is not None}, Path(folder) / "weights.pt")
        with pytest.raises(SeekingError):
            load_weights(model, Path(folder) / "weights.pt")
    assert model.steps == 0 and all(torch.equal(value, before[name]) for name, value in model.named_parameters())


WRAPPED: dict[str, Callable[[nn.Module], nn.Module]] = {
    "DataParallel": nn.DataParallel,
    "averages": torch.optim.swa_utils.AveragedModel,
    "compiled": lambda model: cast(nn.Module, torch.compile(model)),
    "compiled in DataParallel": lambda model: nn.DataParallel(cast(nn.Module, torch.compile(model))),
}


@pytest.mark.parametrize("wrapper", WRAPPED)
def test_weights_of_a_wrapped_model_are_those_of_the_model(wrapper: str, tmp_path: Path) -> None:
    model, loaded = Network(3), Network(3)
    wrapped = WRAPPED[wrapper](model)
    torch.save(wrapped.state_dict(), tmp_path / "weights.pt")
    load_weights(loaded, tmp_path / "weights.pt")
    assert all(torch.equal(*pair) for pair in zip(model.parameters(), loaded.parameters(), strict=True))
    assert shapes_of_weights(tmp_path / "weights.pt") == {n: tuple(t.shape) for n, t in model.state_dict().items()}
    other = WRAPPED[wrapper](Network(3))
    load_weights(other, tmp_path / "weights.pt")
    assert all(torch.equal(*pair) for pair in zip(model.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("prefix", ["_fsdp_wrapped_module.", "_checkpoint_wrapped_module.", "module._orig_mod."])
def test_what_wraps_all_names_is_left_out(prefix: str, tmp_path: Path) -> None:
    saved, loaded = Network(3), Network(3)
    torch.save({prefix + name: value for name, value in saved.state_dict().items()}, tmp_path / "weights.pt")
    load_weights(loaded, tmp_path / "weights.pt")
    assert all(torch.equal(*pair) for pair in zip(saved.parameters(), loaded.parameters(), strict=True))


def test_a_file_with_nothing_of_the_model_is_told_by_what_it_holds(tmp_path: Path) -> None:
    torch.save({"optimizer": {}, "epoch": torch.tensor(3)}, tmp_path / "weights.pt")
    with pytest.raises(SeekingError, match=r"nothing of the model's, such as 0\.bias, but optimizer, epoch; give"):
        load_weights(Network(3), tmp_path / "weights.pt")


@pytest.mark.parametrize("name", ["weights.pt", "weights.safetensors"])
def test_an_empty_file_is_called_empty(name: str, tmp_path: Path) -> None:
    (tmp_path / name).touch()
    with pytest.raises(SeekingError, match=rf"{name}: not a file of weights: it is empty"):
        load_weights(Network(3), tmp_path / name)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_of_torch_is_loaded_if_it_is_called_safetensors(zipped: bool, tmp_path: Path) -> None:
    saved, loaded = Network(3), Network(3)
    path = tmp_path / "weights.safetensors"
    torch.save(saved.state_dict(), path, _use_new_zipfile_serialization=zipped)
    load_weights(loaded, path)
    assert all(torch.equal(*pair) for pair in zip(saved.parameters(), loaded.parameters(), strict=True))


def test_weights_of_a_part_of_another_model_are_told(tmp_path: Path) -> None:
    torch.save(nn.ModuleDict({"net": Network(3), "head": nn.Linear(2, 2)}).state_dict(), tmp_path / "weights.pt")
    with pytest.raises(SeekingError, match=r"begin with 'net\.', as of a part of another model"):
        load_weights(Network(3), tmp_path / "weights.pt")


@pytest.mark.parametrize("words", [5, 7])
def test_weights_of_the_same_shapes_are_loaded_and_tied_ones_with_them(words: int, tmp_path: Path) -> None:
    """As those of a language model, whose head is its embedding, for as many words or for others."""

    def model(words: int) -> nn.Module:
        embedding, inner, head = nn.Embedding(words, 3), nn.Linear(3, 3), nn.Linear(3, words, bias=False)
        head.weight = embedding.weight
        return nn.Sequential(embedding, inner, head)

    saved, loaded = model(5), model(words)
    save_weights(saved, tmp_path / "weights.safetensors")
    with pytest.warns(RunWarning, match="not loaded: 0.weight, 2") if words != 5 else contextlib.nullcontext():
        load_matching_weights(loaded, tmp_path / "weights.safetensors")
    same = {name: torch.equal(loaded.state_dict()[name], value) for name, value in saved.state_dict().items()}
    assert same == {"0.weight": words == 5, "1.weight": True, "1.bias": True, "2.weight": words == 5}


class Words(nn.Module):
    """Its head is its embedding."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(4, width), nn.Linear(width, 4, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        return cast(torch.Tensor, self.head(self.embedding(words)))


@settings(max_examples=20)
@given(first=st.lists(st.floats(width=32), min_size=12, max_size=12), changed=st.none() | st.integers(0, 11))
def test_two_tensors_for_a_tied_one_are_loaded_if_they_are_equal(first: list[float], changed: int | None) -> None:
    """As those of a language model with a head of its own, for one whose head is its embedding."""
    weight, model = torch.tensor(first).view(4, 3), Words(3)
    other, before = weight.clone(), model.embedding.weight.detach().clone()
    if changed is not None:
        other.view(-1)[changed] = other.view(-1)[changed].nan_to_num(0, 0, 0) / 2 + 1.5
    differ = not torch.equal(weight.nan_to_num(3e38), other.nan_to_num(3e38))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.safetensors"
        save_file({"embedding.weight": weight, "head.weight": other}, path)
        told = r"embedding.weight and head.weight are one tensor in the model, and two that differ in the file; make"
        with pytest.raises(SeekingError, match=told) if differ else contextlib.nullcontext():
            load_weights(model, path)
    assert torch.equal(model.head.weight.nan_to_num(), (before if differ else weight).nan_to_num())


def test_weights_of_a_run_load_without_this_library(tmp_path: Path) -> None:
    data = [(torch.arange(4), torch.arange(4).roll(1))] * 4
    models = {"base": Words(3), "motivated": Words(5)}
    trainer = Trainer(*models.values(), train_loader=data, config=TINY, output=tmp_path / "run")
    trainer.fit()
    for name, model in models.items():
        loaded, file = Words(model.head.in_features), tmp_path / "run" / f"{name}.last.safetensors"
        assert load_model(loaded, file) == (set(), [])
        with trainer.pair.motivated():
            assert torch.equal(loaded(torch.arange(4)), model(torch.arange(4)))
