"""What is no pair is refused, with advice that works when it is followed."""

import copy
import functools
import typing
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from families import SMALL_FAMILIES
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import seeking
from seeking import Pair, SeekingError, match, verify


def test_a_parameter_that_is_frozen_in_one_model_alone_is_refused() -> None:
    base, motivated = SMALL_FAMILIES[0].make()
    base.fc.bias.requires_grad_(False)
    with pytest.raises(SeekingError, match=r"fc\.bias is frozen in the base and fc\.bias is not"):
        Pair(base, motivated)
    motivated.fc.bias.requires_grad_(False)
    Pair(base, motivated)


class Tying(nn.Module):
    """A language model in the small, whose head may be its embedding."""

    def __init__(self, width: int, tied: bool) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(7, width), nn.Linear(width, 7, bias=False)
        if tied:
            self.head.weight = self.embedding.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.embedding(x))


def test_weights_tied_in_one_model_alone_are_refused_and_tied_in_both_are_kept() -> None:
    messages = {True: "are one tensor in the base and two", False: "are two tensors in the base and lie in"}
    for tied, message in messages.items():
        with pytest.raises(SeekingError, match=rf"embedding\.weight and head\.weight {message}"):
            Pair(Tying(4, tied), Tying(4, not tied))
    pair = Pair(Tying(4, True), Tying(6, True))
    assert verify(pair.base, pair.motivated_model, pair.map, torch.arange(7))
    with pair.motivated() as model, torch.no_grad():
        model.embedding.weight.fill_(3.0)
    assert pair.base.head.weight is pair.base.embedding.weight
    assert (pair.base.head.weight == 3.0).all()


def test_a_map_of_other_models_is_refused() -> None:
    base, motivated = SMALL_FAMILIES[0].make()
    other = SMALL_FAMILIES[1].make()
    with pytest.raises(SeekingError, match="where the map has"):
        Pair(*other, match(base, motivated))


@pytest.mark.parametrize("shared", [nn.Linear(3, 2), nn.BatchNorm1d(3)], ids=["weights", "statistics"])
def test_models_that_hold_one_layer_are_refused_and_share_copies_of_it_until_they_separate(shared: nn.Module) -> None:
    first, second = nn.Linear(3, 3), nn.Linear(3, 3)
    with pytest.raises(SeekingError, match=r"1\.weight of the base and 1\.weight of .* are one parameter; .*deepcopy"):
        Pair(nn.Sequential(first, shared), nn.Sequential(second, shared))
    pair = Pair(nn.Sequential(first, shared), nn.Sequential(second, copy.deepcopy(shared)))
    assert pair.base[1].weight.data_ptr() == pair.motivated_model[1].weight.data_ptr()
    pair.separate()
    with torch.no_grad():
        pair.base[1].weight.zero_()
    assert pair.motivated_model[1].weight.any()


@pytest.mark.parametrize("given", ["map.json", {}, torch.ones(2, 3)], ids=["path", "mapping", "batch"])
def test_something_else_in_the_place_of_a_map_is_told(given: Any) -> None:
    base, motivated = (nn.Sequential(nn.Linear(3, width), nn.ReLU(), nn.Linear(width, 2)) for width in (4, 6))
    for function in (Pair, seeking.embed, seeking.extract, functools.partial(verify, batch=torch.ones(2, 3))):
        models = (motivated, base) if function is seeking.extract else (base, motivated)
        with pytest.raises(SeekingError, match=rf"the weights map is a {type(given).__name__}; .*WeightsMap\.load"):
            function(*models, given)


class Unfollowed(nn.Module):
    """Its forward depends on numbers, so that it cannot be traced."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))

    def forward(self, numbers: object) -> torch.Tensor:
        raise NotImplementedError


@pytest.mark.filterwarnings("ignore::seeking.matching.MatchWarning")
def test_a_sliced_map_that_is_only_guessed_is_not_taken_unasked() -> None:
    narrow, wide = Unfollowed(3, 2), Unfollowed(5, 2)
    with pytest.raises(SeekingError, match=r"layers\.0\.weight.*names and shapes alone"):
        Pair(narrow, wide)
    assert Pair(narrow, wide, match(narrow, wide)).map.entries
    assert Pair(Unfollowed(3, 2), Unfollowed(3, 4)).map.entries


class Rows(torch.nn.Module):
    """Parameters of its own, so that nothing tells what it takes, and buffers of all kinds."""

    def __init__(self, width: int, length: int, value: float, unused: str) -> None:
        super().__init__()
        self.enter, self.head = nn.Parameter(torch.randn(width, 6)), nn.Parameter(torch.randn(3, width))
        self.register_buffer("mask", torch.tril(torch.ones(length, length)))
        self.register_buffer("mean", torch.full((width,), value))
        self.register_buffer("table", torch.full((width,), value) if unused == "buffer" else None)
        self.token = nn.Parameter(torch.zeros(width)) if unused == "parameter" else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.mask[: x.shape[1], : x.shape[1]] @ (x @ self.enter.T)
        if self.training:
            self.mean.lerp_(x.detach().mean((0, 1)), 0.1)
        return (x - self.mean) @ self.head.T


@settings(max_examples=15)
@given(
    widths=st.tuples(st.integers(1, 3), st.integers(0, 2)),
    lengths=st.tuples(st.integers(4, 5), st.integers(0, 2)),
    values=st.tuples(*[st.sampled_from([0.0, 0.5])] * 2),
    unused=st.sampled_from(["", "buffer", "parameter"]),
)
def test_advice_works_when_it_is_followed(
    widths: tuple[int, int], lengths: tuple[int, int], values: tuple[float, float], unused: str
) -> None:
    x = torch.randn(2, 4, 6)
    base, motivated = (
        Rows(sum(widths[: number + 1]), sum(lengths[: number + 1]), values[number], unused) for number in (0, 1)
    )
    advice: dict[str, Callable[[], Pair]] = {
        "Give Pair a batch": lambda: Pair(base, motivated, batch=x),
        "Pair(base, motivated, weights_map, batch=batch)": lambda: Pair(
            base, motivated, match(base, motivated, batch=x), batch=x
        ),
    }

    def follow(pair: Callable[[], Pair]) -> Pair:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            try:
                paired = pair()
                warned = any("give a batch" in str(warning.message) for warning in told)
                return follow(advice.pop("Give Pair a batch")) if warned else paired
            except SeekingError as error:
                return follow(advice.pop(next(text for text in advice if text in str(error))))

    pair = follow(lambda: Pair(base, motivated))
    assert verify(base, motivated, pair.map, x)
    assert "mean" not in pair.constants
    with pair.motivated() as model:
        model(x)
    assert torch.equal(base.mean, motivated.mean[: widths[0]])


@pytest.mark.filterwarnings("ignore::seeking.errors.MatchWarning")
def test_modules_without_a_forward_are_paired_when_it_is_told_how_they_run() -> None:
    class Module(nn.Module):  # As many LightningModules are.
        def __init__(self, width: int) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 2))

    models, x = (Module(8), Module(16)), torch.randn(2, 4)
    with pytest.raises(SeekingError, match=r"Module has no forward\. Give Pair a batch"):
        Pair(*models)
    with pytest.raises(SeekingError, match=r"\(Module\) does not run on the batch, .*\n.*such as forward="):
        Pair(*models, batch=x)
    pair = Pair(*models, batch=x, forward=lambda module, x: module.net(x))
    assert verify(*models, pair.map, x, forward=lambda module, x: module.net(x))


def literal_arguments() -> Iterator[tuple[str, str, bool]]:
    for name in seeking.__all__:
        function = getattr(seeking, name)
        if callable(function) and not issubclass(function if isinstance(function, type) else int, BaseException):
            hints = typing.get_type_hints(function.__init__ if isinstance(function, type) else function)
            for argument, hint in hints.items():
                if "Literal" in str(hint):
                    yield name, argument, type(None) in typing.get_args(hint)


@pytest.mark.parametrize(("name", "argument", "optional"), [*literal_arguments()])
def test_an_argument_that_is_one_of_a_few_words_is_no_other(name: str, argument: str, optional: bool) -> None:
    models = () if name == "TrainConfig" else (nn.Linear(2, 2), nn.Linear(2, 2))
    more = {"weights_map": None} if name == "embed" else {}
    for value in ("Shared", "", None, 3):
        if value is not None or not (optional or name == "TrainConfig"):
            with pytest.raises(SeekingError, match=f"unknown .*'{value}'|must be"):
                getattr(seeking, name)(*models, **more, **{argument: value})
