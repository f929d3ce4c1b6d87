import copy
import functools
import typing
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from families import SMALL_FAMILIES, Family
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.optim import create_optimizer_v2
from torch import nn
from torch.nn.utils import prune

import seeking
from seeking import Pair, SeekingError, match, recalibrate, verify
from seeking.errors import RunWarning
from seeking.pair import NORM_STATISTICS
from seeking.shared_tensors import MAX_BLOCKS
from seeking.weights_map import tensors

families = pytest.mark.parametrize("family", SMALL_FAMILIES, ids=str)
OPTIMIZERS = {
    "sgd": lambda model: torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3),
    "adamw": lambda model: torch.optim.AdamW(model.parameters(), lr=1e-3),
    # Counts its steps in plain integers.
    "adabelief": lambda model: create_optimizer_v2(model.parameters(), "adabelief", lr=1e-3),
}


def train(pair: Pair, optimizer: str, *, share: bool, size: int, steps: int = 12) -> list[float]:
    """The three-line loop, motivated at every third step and on the way with dropout-free models."""
    optimizers = OPTIMIZERS[optimizer](pair.base), OPTIMIZERS[optimizer](pair.motivated_model)
    generator = torch.Generator().manual_seed(1)
    losses = []

    def step(model: nn.Module, of: torch.optim.Optimizer) -> None:
        of.zero_grad()
        loss = F.cross_entropy(model.train()(images), labels)
        loss.backward()
        of.step()
        losses.append(loss.item())

    for number in range(steps):
        images = torch.randn(8, 3, size, size, generator=generator)
        labels = torch.randint(10, (8,), generator=generator)
        step(pair.base, optimizers[0])
        if number % 3 == 1:
            with pair.motivated(optimizers if share else None) as model:
                step(model, optimizers[1])
    return losses


# Every two of them together.
@pytest.mark.parametrize(
    ("norm", "optimizer", "share"),
    [
        ("shared", "sgd", False),
        ("private", "sgd", True),
        ("private", "adamw", False),
        ("shared", "adamw", True),
        ("shared", "adabelief", False),
        ("private", "adabelief", True),
    ],
)
@families
def test_tied_equals_copied_bit_for_bit(family: Family, norm: str, optimizer: str, share: bool) -> None:
    base, motivated = family.make()
    tied = Pair(*copy.deepcopy((base, motivated)), norm=norm)
    copied = Pair(*copy.deepcopy((base, motivated)), norm=norm, tie=False)
    runs = [train(pair, optimizer, share=share, size=family.size) for pair in (tied, copied)]
    assert runs[0] == runs[1]
    for pair in (tied, copied):
        with pair.motivated():
            pass
    for ours, theirs in ((tied.base, copied.base), (tied.motivated_model, copied.motivated_model)):
        assert all(torch.equal(t, tensors(theirs)[n]) for n, t in tensors(ours).items())


@families
def test_inside_the_base_is_in_the_motivated_model_and_outside_it_has_its_steps(family: Family) -> None:
    pair = Pair(*family.make(), norm="shared")
    with torch.no_grad():
        for parameter in pair.base.parameters():
            parameter.add_(1)
    with pair.motivated() as model:
        assert model is pair.motivated_model
        inside = pair.map.extract(tensors(model))
        assert all(torch.equal(t, inside[n]) for n, t in tensors(pair.base).items())
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(2)
    outside = pair.map.extract(tensors(pair.motivated_model))
    assert all(torch.equal(p, outside[n]) for n, p in pair.base.named_parameters())
    assert all(torch.equal(p, 2 * inside[n]) or pair.map.entries[n].whole for n, p in pair.base.named_parameters())


def test_whole_tensors_use_one_storage_and_sliced_ones_do_not() -> None:
    pair = Pair(*SMALL_FAMILIES[1].make())
    ours, theirs = dict(pair.base.named_parameters()), dict(pair.motivated_model.named_parameters())
    for name, parameter in ours.items():
        entry = pair.map.entries[name]
        assert (parameter.data_ptr() == theirs[entry.target].data_ptr()) == entry.whole
        assert parameter is not theirs[entry.target], "gradients stay apart"


@families
def test_an_exception_leaves_the_motivated_state_with_the_shared_part_copied_back(family: Family) -> None:
    pair = Pair(*family.make())

    def body() -> None:
        with pair.motivated() as model, torch.no_grad():
            for parameter in model.parameters():
                parameter.fill_(3.0)
            raise RuntimeError("in the body")

    with pytest.raises(RuntimeError, match="in the body"):
        body()
    assert all((parameter == 3.0).all() for parameter in pair.base.parameters())


def test_private_norms_stay_apart_and_shared_ones_do_not() -> None:
    family = SMALL_FAMILIES[1]
    for norm, same in (("shared", True), ("private", False), ("recalibrated", False)):
        pair = Pair(*family.make(), norm=norm)
        train(pair, "sgd", share=False, size=family.size, steps=6)
        with pair.motivated():
            inside = pair.map.extract(tensors(pair.motivated_model))
        statistics = {n: b for n, b in pair.base.named_buffers() if n.endswith(NORM_STATISTICS[:2])}
        assert all(torch.equal(b, inside[n]) == same for n, b in statistics.items())


def test_a_pretrained_base_brings_its_norm_statistics_whatever_the_policy() -> None:
    base, motivated = SMALL_FAMILIES[0].make()
    base.train()(torch.randn(8, 3, 16, 16))
    pair = Pair(base, motivated, norm="private")
    assert torch.equal(pair.motivated_model.bn1.running_mean, base.bn1.running_mean)
    assert pair.motivated_model.bn1.running_mean.data_ptr() != base.bn1.running_mean.data_ptr()


def test_models_that_move_after_pairing_are_tied_again() -> None:
    pair = Pair(*SMALL_FAMILIES[1].make(), norm="shared")
    pair.base.double()
    with pytest.raises(SeekingError, match=r"float64 on cpu.*float32 on cpu; move both"), pair.motivated():
        pass
    pair.motivated_model.double()
    with torch.no_grad():
        pair.base.fc.bias.fill_(7.0)
        pair.base.conv1.weight.fill_(5.0)
    with pair.motivated() as model:
        assert (model.fc.bias == 7).all()
        assert (model.conv1.weight[:8] == 5).all()
        assert model.fc.bias.data_ptr() == pair.base.fc.bias.data_ptr()


@families
def test_a_graph_of_the_base_from_before_a_motivated_step_is_refused(family: Family) -> None:
    pair = Pair(*family.make())
    loss = pair.base(torch.randn(4, 3, family.size, family.size)).sum()
    with pair.motivated() as model, torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("tie", [True, False])
def test_within_itself_the_motivated_state_is_the_same_state(tie: bool) -> None:
    pair = Pair(*SMALL_FAMILIES[1].make(), tie=tie)
    with pair.motivated() as model, torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(2.0)
        with pair.motivated() as again:
            assert again is model
    assert all((parameter == 2.0).all() for parameter in pair.base.parameters())


def test_a_module_replaced_after_pairing_is_noticed() -> None:
    pair = Pair(*SMALL_FAMILIES[0].make())
    pair.base.fc = nn.Linear(64, 10)
    with pytest.raises(SeekingError, match="replaced after they were paired"), pair.motivated():
        pass


@pytest.mark.parametrize("tie", [True, False])
@pytest.mark.parametrize("role", ["base", "motivated model"])
def test_a_parameter_that_is_computed_from_another_one_after_pairing_is_noticed(role: str, tie: bool) -> None:
    """What is copied into it would be lost in the next forward pass."""
    pair = Pair(*SMALL_FAMILIES[0].make(), tie=tie)
    model = pair.base if role == "base" else pair.motivated_model
    prune.l1_unstructured(model.conv1, "weight", 0.5)
    with pytest.raises(SeekingError, match=rf"conv1\.weight is no parameter or buffer of the {role} any more.*pruning"):
        pair.motivated().__enter__()


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


class Repeating(nn.Module):
    """The same layer twice, under two names."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.stem, self.body, self.head = nn.Linear(3, width), nn.Linear(width, width), nn.Linear(width, 2)
        self.again = self.body

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.again(self.body(self.stem(x)).relu()).relu())


@pytest.mark.parametrize("width", [4, 6])
def test_a_module_under_two_names_is_one_module(width: int) -> None:
    pair = Pair(Repeating(4), Repeating(width))
    assert verify(pair.base, pair.motivated_model, pair.map, torch.randn(5, 3))
    with pair.motivated() as model, torch.no_grad():
        model.body.weight.fill_(3.0)
    assert (pair.base.again.weight == 3.0).all()


def test_many_blocks_move_by_index() -> None:
    base, motivated = SMALL_FAMILIES[1].make()
    scattered = match(base, motivated, width="even")
    pair = Pair(base, motivated, scattered)
    assert scattered.entries["layer3.0.conv2.weight"].block_count() > MAX_BLOCKS
    with torch.no_grad():
        base.layer3[0].conv2.weight.normal_()
    with pair.motivated() as model:
        assert torch.equal(scattered.extract(tensors(model))["layer3.0.conv2.weight"], base.layer3[0].conv2.weight)


def test_a_map_of_other_models_is_refused() -> None:
    base, motivated = SMALL_FAMILIES[0].make()
    other = SMALL_FAMILIES[1].make()
    with pytest.raises(SeekingError, match="where the map has"):
        Pair(*other, match(base, motivated))


def test_recalibrated_statistics_are_the_means_over_the_batches() -> None:
    model = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(4, momentum=0.3)).train()
    batches = [torch.randn(16, 4) + 3 for _ in range(5)]
    before = torch.get_rng_state()
    recalibrate(model, batches)
    assert torch.equal(torch.get_rng_state(), before)
    norm = model[1]
    torch.testing.assert_close(norm.running_mean, torch.stack([b.mean(0) for b in batches]).mean(0))
    torch.testing.assert_close(norm.running_var, torch.stack([b.var(0) for b in batches]).mean(0))
    assert (norm.momentum, norm.training, model.training) == (0.3, True, True)


@pytest.mark.parametrize("state", ["separate", "shared"])
def test_after_separation_each_model_learns_by_itself(state: str) -> None:
    base, motivated = (nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 2)) for width in (3, 5))
    pair = Pair(base, motivated, match(base, motivated, batch=torch.zeros(1, 4)))
    optimizers = [torch.optim.AdamW(model.parameters(), lr=0.1) for model in (base, motivated)]
    pair.optimizers = tuple(optimizers) if state == "shared" else None
    x = torch.randn(8, 4)

    def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        model(x).square().sum().backward()
        optimizer.step()

    step(base, optimizers[0])
    with pair.motivated():
        step(motivated, optimizers[1])
    step(base, optimizers[0])
    pair.separate()
    mapped = pair.map.extract(tensors(motivated))
    assert all(torch.equal(mapped[name], tensor) for name, tensor in tensors(base).items())
    before = {name: tensor.clone() for name, tensor in tensors(base).items()}
    counts = [optimizers[0].state[parameter]["step"].item() for parameter in base.parameters()]
    step(motivated, optimizers[1])
    assert all(torch.equal(before[name], tensor) for name, tensor in tensors(base).items())
    assert counts == [optimizers[0].state[parameter]["step"].item() for parameter in base.parameters()]
    with pytest.raises(SeekingError, match="the pair was separated"), pair.motivated():
        pass


@pytest.mark.parametrize("tie", [True, False])
def test_a_change_of_the_base_that_is_lost_is_told(tie: bool) -> None:
    models = [nn.Sequential(nn.Linear(3, width), nn.ReLU(), nn.Linear(width, 2)) for width in (4, 6)]
    pair = Pair(*models, match(*models, batch=torch.ones(2, 3)), tie=tie)
    with pytest.warns(RunWarning, match="changed inside motivated"), pair.motivated(), torch.no_grad():
        pair.base[0].weight.add_(1)
    with warnings.catch_warnings(), pair.motivated(), torch.no_grad():
        warnings.simplefilter("error")
        pair.motivated_model[0].weight.add_(1)
        pair.base(torch.ones(1, 3))


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
    with pytest.raises(SeekingError, match=r"\(Module\) does not run on the batch: .*\n.*such as forward="):
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


@pytest.mark.parametrize("width", [8, 16])
def test_a_step_of_the_motivated_model_outside_is_told_of_where_it_is_lost(width: int) -> None:
    base, motivated = (nn.Sequential(nn.Linear(6, w), nn.ReLU(), nn.Linear(w, 3)) for w in (8, width))
    pair = Pair(base, motivated)
    optimizers = [torch.optim.SGD(model.parameters(), 0.1) for model in (base, motivated)]

    def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        model(torch.randn(4, 6)).pow(2).sum().backward()
        optimizer.step()

    def enter() -> list[str]:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            with pair.motivated() as model:
                step(model, optimizers[1])
        return [str(warning.message) for warning in caught]

    with torch.no_grad():
        for parameter in motivated.parameters():
            parameter.copy_(parameter.clone())  # As DDP does when it wraps a model.
    step(base, optimizers[0])
    assert not enter()
    pair = Pair(base, motivated)
    step(motivated, optimizers[1])
    assert len(enter()) == (width > 8)
    for _ in range(2):
        step(base, optimizers[0])
        assert not enter()
    states = [copy.deepcopy(model.state_dict()) for model in (base, motivated)]
    step(base, optimizers[0])
    for model, state in zip((base, motivated), states, strict=True):
        model.load_state_dict(state)
    assert not enter()
    step(motivated, optimizers[1])
    told = enter()
    assert len(told) == (width > 8) and all("changed outside motivated()" in text for text in told)


@pytest.mark.parametrize(("dtype", "value", "change"), [(torch.float16, 20.0, 1.0), (torch.bfloat16, 1.0, 2**-7)])
def test_changes_before_the_first_motivated_step_are_seen_in_half_precision(
    dtype: torch.dtype, value: float, change: float
) -> None:
    """The sum of the squares is beyond what float16 has, or changes by less than bfloat16 tells apart."""
    base, motivated = (nn.Sequential(nn.Linear(300, width), nn.ReLU(), nn.Linear(width, 2)) for width in (8, 16))
    for parameter in (*base.parameters(), *motivated.parameters()):
        nn.init.constant_(parameter, value)
    pair = Pair(base.to(dtype), motivated.to(dtype))
    with torch.no_grad():
        motivated[0].weight[0, 0] += change
    with pytest.warns(RunWarning, match=r"changed outside motivated\(\)"), pair.motivated():
        pass


def test_a_pair_says_what_it_is() -> None:
    def network(width: int) -> nn.Module:
        return nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 2))

    pair = Pair(network(3), network(8))
    assert repr(pair) == "Pair(Sequential of 23 in Sequential of 58 parameters; 1 tensor tied, 3 copied)"
    pair.separate()
    assert repr(pair) == "Pair(Sequential of 23 in Sequential of 58 parameters; separated)"
    assert "0 tensors tied, 4 copied" in repr(Pair(network(3), network(8), tie=False))
