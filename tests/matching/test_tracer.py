import warnings
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from checks import assert_exact
from torch import Tensor, nn
from torch.nn import functional as F
from zoo import Sizes
from zoo_images import PICTURES, Images
from zoo_tokens import WORDS, Tokens

from seeking import MatchWarning, Pair, match, verify
from seeking.matching import tracer
from seeking.matching.axes import Axis
from seeking.matching.op_rules import OP_RULES, OpCall, broadcast, op_rule
from seeking.matching.op_rules import base as base_of_rules
from seeking.weights_map import tensors


class Branching(nn.Module):
    """Does something with its activations."""

    def __init__(self, width: int, how: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.second, self.how = nn.Linear(4, width), nn.Linear(width, 1), how

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.second(self.how(self, self.first(x)))
        return y


def _chosen(model: Any, x: Tensor) -> Tensor:
    chosen = torch.where(model.second(x)[:, 0] > 0)[0]
    return x.index_add(0, chosen, model.second(x[chosen]).expand(-1, x.shape[1]))


def _neighbors(model: Any, x: Tensor) -> Tensor:
    means = torch.sparse.mm((torch.ones(len(x), len(x), dtype=x.dtype) / len(x)).to_sparse(), x)
    return torch.cat([x, means], -1).view(len(x), 2, -1).sum(1)


@pytest.mark.parametrize(
    "how", [lambda _, x: x if x.sum() > 0 else x.relu(), _chosen, _neighbors], ids=["branch", "index", "sparse"]
)
def test_a_model_that_depends_on_its_activations_is_traced_with_them(how: Callable[[Any, Tensor], Tensor]) -> None:
    base, motivated = Branching(3, how), Branching(5, how)
    batch = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    with pytest.warns(MatchWarning, match=r"Branching: .* one forward pass of each model shows.* other branches"):
        weights_map = match(base, motivated, batch=batch)
    assert {entry.origin for entry in weights_map.entries.values()} == {"structure"}
    assert verify(base, motivated, weights_map, batch)
    with pytest.warns(MatchWarning, match="one forward pass"):
        assert Pair(base, motivated, batch=batch).map == weights_map


def test_without_numbers_such_a_model_is_matched_by_names() -> None:
    with torch.device("meta"):
        base, motivated = (Branching(width, lambda _, x: x if x.sum() > 0 else x.relu()) for width in (3, 5))
    with pytest.warns(MatchWarning, match=r"Branching: the channel spaces are unknown.*meta tensors.*verify"):
        weights_map = match(base, motivated, batch=torch.randn(2, 4))
    assert weights_map.entries["first.weight"].origin == "name"


SMALL = Sizes()
LARGE = Sizes(width=7, hidden=9, heads=5, per_group=3, depth=3, words=13)


@pytest.mark.parametrize("models", [(Tokens, "grouped", WORDS), (Images, "groups", PICTURES)], ids=["tokens", "images"])
def test_in_a_callers_inference_mode_the_map_is_the_same(models: tuple[type[nn.Module], str, Tensor]) -> None:
    make, branch, batch = models
    more = [nn.LayerNorm] if make is Tokens else []
    base, motivated = make(SMALL, [branch], *more), make(LARGE, [branch], *more)
    with torch.inference_mode():
        inside = match(base, motivated, batch=batch, width="even")
    assert inside == match(base, motivated, batch=batch, width="even")


VECTORS = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))


class Remembering(nn.Module):
    """Keeps a table once made, a running mean, and writes into its batch."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.enter, self.leave = nn.Linear(8, width), nn.Linear(width, 2)
        self.table: Tensor | None = None
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("state", torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        x.mul_(2)
        x = self.enter(x)
        if self.table is None:
            self.table = torch.linspace(0, 1, len(x), device=x.device)[:, None]
            self.register_buffer("late", torch.ones(1, device=x.device), persistent=False)
        self.mean = 0.9 * self.mean + 0.1 * x.detach().mean(0)
        self.state.mul_(0.5).add_(x.detach().mean(0))
        return self.leave(x * self.table + self.state)


def test_what_a_forward_remembers_is_not_disturbed() -> None:
    base, motivated = Remembering(4), Remembering(6)
    before = [{n: (id(t), t.clone()) for n, t in tensors(model).items()} for model in (base, motivated)]
    batch = VECTORS.clone()
    weights_map = match(base, motivated, batch=batch)
    verdict = verify(base, motivated, weights_map, batch)
    assert verdict, verdict.reason
    assert torch.equal(batch, VECTORS)
    for model, was in zip((base, motivated), before, strict=True):
        assert model.table is None
        now = tensors(model)
        assert now.keys() == was.keys()
        assert all(id(now[name]) == i and torch.equal(now[name], t) for name, (i, t) in was.items())
        model(VECTORS.clone())


def through(function: Callable[[Tensor], Tensor], width: int) -> nn.Module:
    """Two layers with a function between them."""

    class Through(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.enter, self.leave = nn.Linear(8, width), nn.Linear(width, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.leave(function(self.enter(x)))

    return Through()


def test_operations_on_channels_that_are_assumed_to_be_elementwise_are_told_once() -> None:
    def function(x: Tensor) -> Tensor:
        return torch.renorm(x, 2, 0, 5.0) + twice(x)

    with pytest.warns(MatchWarning) as warned:
        match(through(function, 4), through(function, 6), batch=VECTORS)
    (warning,) = warned
    names = "aten::renorm, seeking_tests::twice"
    assert str(warning.message) == f"treated as elementwise: {names}; seeking.verify tells whether rightly"
    assert warning.filename == __file__


def test_nothing_is_told_of_pointwise_operations_or_where_no_channels_are_left_out() -> None:
    def pointwise(x: Tensor) -> Tensor:
        return F.gelu(x).clamp_(-1, 1).masked_fill_(x > 1, 0) * torch.atan2(x, x.detach()) + x.tril()

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        match(through(pointwise, 4), through(pointwise, 6), batch=VECTORS)
        match(through(torch.fft.fft, 4), through(torch.fft.fft, 4), batch=VECTORS)
        first = lambda x: x + x[:, :1].cumsum(0)  # noqa: E731
        match(through(first, 4), through(first, 6), batch=VECTORS)


def test_a_bug_in_a_rule_surfaces(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(call: OpCall) -> list[list[Axis]]:
        return [call.axes(call["self"])[9]]

    monkeypatch.setitem(OP_RULES, "aten::relu", broken)
    with pytest.raises(IndexError) as raised:
        match(through(torch.relu, 4), through(torch.relu, 6), batch=VECTORS)
    assert raised.value.__notes__ == ["in the rule of aten::relu"]


def test_a_rule_for_a_custom_operation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base_of_rules, "OP_RULES", dict(OP_RULES))
    monkeypatch.setattr(tracer, "OP_RULES", base_of_rules.OP_RULES)
    op_rule("seeking_tests::twice")(broadcast)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_exact(through(twice, 4), through(twice, 6), VECTORS, width="even")


@torch.library.custom_op("seeking_tests::twice", mutates_args=())
def twice(x: Tensor) -> Tensor:
    return 2 * x


@twice.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


class Masked(nn.Module):
    """Looks at a mask that it makes, and at one channel for its shape alone."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.words, self.leave = nn.Embedding(9, width), nn.Linear(width, 2)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.words(tokens)
        mask = torch.ones(tokens.shape, device=x.device).to(device=x.device, dtype=torch.bool)
        if not mask.all():
            x = x * mask[..., None]
        places = torch.arange(x[:, :, -1].shape[1], device=x.device)
        y: Tensor = self.leave(x + places[None, :, None])
        return y


def test_masks_that_a_forward_makes_and_shapes_of_channels_are_no_obstacle() -> None:
    tokens = torch.arange(8).view(2, 4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        weights_map = match(Masked(3), Masked(5), batch=tokens)
    assert {entry.origin for entry in weights_map.entries.values()} == {"structure"}
    assert verify(Masked(3), Masked(5), weights_map, tokens)


@pytest.mark.parametrize("told", [{"num_channels": 3}, {}])
def test_configurations_that_do_not_tell_the_input_are_no_error(told: dict[str, int]) -> None:
    class Configured(nn.Module):
        main_input_name = "pixel_values"

        def __init__(self, width: int) -> None:
            super().__init__()
            self.config = SimpleNamespace(**told)
            self.enter, self.leave = nn.Conv2d(3, width, 3), nn.Conv2d(width, 2, 1)

        def forward(self, pixel_values: Tensor) -> Tensor:
            y: Tensor = self.leave(self.enter(pixel_values))
            return y

    with warnings.catch_warnings(record=True) as told_of:
        warnings.simplefilter("always")
        assert match(Configured(3), Configured(5)).entries
    assert bool(told_of) == (not told)


@pytest.mark.filterwarnings("ignore::seeking.MatchWarning")
@pytest.mark.parametrize("cuts", [(2, 3), (3, 2), (2, 2)])
@pytest.mark.parametrize("mixed", [False, True])
def test_a_table_that_is_cut_by_numbers_is_whole_however_it_is_cut(cuts: tuple[int, int], mixed: bool) -> None:
    class Cut(nn.Module):
        def __init__(self, width: int, reach: int) -> None:
            super().__init__()
            self.enter, self.leave = nn.Linear(6, width), nn.Linear(width, 2)
            self.table, self.reach = nn.Parameter(torch.randn(20, 3)), nn.Parameter(torch.tensor(float(reach)))

        def forward(self, x: Tensor) -> Tensor:
            reach = 1 + int(self.reach.abs().item())
            part = self.table[10 - reach : 10 + reach + 1]
            part = part.flatten()[1:].view(2, -1).T if mixed else part
            out: Tensor = self.leave(self.enter(x)) + part.tanh().sum()
            return out

    models = Cut(4, cuts[0]), Cut(6, cuts[1])
    batch = torch.randn(4, 6)
    verdict = verify(*models, match(*models, batch=batch), batch)
    assert verdict, verdict.reason
