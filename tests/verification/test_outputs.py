"""What is compared of the outputs."""

import dataclasses
from collections import OrderedDict
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from checks import assert_exact
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from seeking import Index, NotContainedError, Override, SeekingError, WeightsMap, match, verify


def test_outputs_of_different_shapes_are_said() -> None:
    base, motivated = nn.Sequential(nn.Linear(3, 2)), nn.Sequential(nn.Linear(3, 2), nn.Unflatten(1, (2, 1)))
    verdict = verify(base, motivated, match(base, motivated), torch.randn(2, 3))
    assert not verdict
    assert "different shapes" in verdict.reason
    with pytest.raises(NotContainedError, match=r"2 in the base, 4 .* length of the output must be the same"):
        match(base, nn.Sequential(nn.Linear(3, 4)))


def test_wider_hidden_states_among_the_outputs_are_judged_by_what_they_hold() -> None:
    class Both(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.hidden, self.out = nn.Linear(3, width), nn.Linear(width, 2)

        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            hidden = self.hidden(x)
            return {"logits": self.out(hidden), "hidden": hidden + 1 if x.shape[-1] == self.out.in_features else hidden}

    base, motivated = Both(4), Both(7)
    weights_map = match(base, motivated, batch=torch.randn(5, 3))
    assert verify(base, motivated, weights_map, torch.randn(5, 3))
    assert not verify(Both(3), motivated, match(Both(3), motivated, batch=torch.randn(5, 3)), torch.randn(5, 3))


class Named(nn.Module):
    """Puts out its parts under names, in some order; wider hidden states, numbers and integers are among them."""

    def __init__(self, width: int, order: list[str], kind: Callable[..., Any], swapped: bool = False) -> None:
        super().__init__()
        self.hidden, self.out = nn.Linear(3, width), nn.Linear(width, 2)
        self.order, self.kind, self.swapped = order, kind, swapped

    def forward(self, x: Tensor) -> Any:
        hidden = self.hidden(x)
        out = self.out(hidden)
        first, second = (-out, out) if self.swapped else (out, -out)
        parts = {
            "aa": 3 * out,
            "a": first,
            "b": second,
            "layer_9": hidden,
            "layer_10": 2 * hidden,
            "count": 4,
            "size": 0.5,
        }
        inner = self.kind(**{name: parts[name] for name in self.order})
        return inner if self.order[0] < "c" else {"within": [inner, x]}


NAMES = ["a", "b", "layer_9", "layer_10", "count", "size"]


@settings(max_examples=10)
@given(
    orders=st.tuples(st.permutations(NAMES), st.permutations(NAMES[:2])),
    kind=st.sampled_from([dict, SimpleNamespace, OrderedDict]),
    swapped=st.booleans(),
    more=st.booleans(),
    picks=st.booleans(),
)
def test_outputs_are_compared_by_their_names(
    orders: tuple[list[str], list[str]], kind: Callable[..., Any], swapped: bool, more: bool, picks: bool
) -> None:
    first, second = orders
    # The first name decides how they are nested.
    other = [first[0], *reversed(first[1:])] if first[0] > "c" else [*second, *reversed(NAMES[2:])]
    # What the motivated model puts out besides does not matter.
    other.insert(1, "aa") if more else None
    base, motivated, batch = Named(4, first, kind), Named(6, other, kind, swapped), torch.randn(5, 3)

    def forward(model: nn.Module, x: Tensor) -> Any:
        put_out = model(x)
        inner = put_out["within"][0] if isinstance(put_out, dict) and "within" in put_out else put_out
        named = dict(inner) if isinstance(inner, dict) else vars(inner)
        return named["b"] + named["layer_10"].sum() if picks else put_out

    verdict = verify(base, motivated, match(base, motivated, batch=batch, forward=forward), batch, forward=forward)
    assert verdict.exact != swapped, verdict.reason


def test_what_the_motivated_model_puts_out_besides_does_not_matter() -> None:
    class Several(nn.Module):
        def __init__(self, width: int, form: Callable[[Tensor, Tensor], Any]) -> None:
            super().__init__()
            self.hidden, self.out, self.form = nn.Linear(3, width), nn.Linear(width, 2), form

        def forward(self, x: Tensor) -> Any:
            hidden = self.hidden(x)
            return self.form(self.out(hidden), hidden)

    batch, base = torch.randn(5, 3), Several(4, lambda out, hidden: out)
    for form, contained in [
        (lambda out, hidden: (out, hidden), True),
        (lambda out, hidden: {"logits": out, "z": hidden}, True),
        (lambda out, hidden: (2 * out, hidden), False),
    ]:
        motivated = Several(6, form)
        verdict = verify(base, motivated, match(base, motivated, batch=batch), batch)
        assert verdict.exact == contained, verdict.reason


def test_a_loss_hides_nothing_of_the_output() -> None:
    class Turned(nn.Module):
        def __init__(self, turned: bool) -> None:
            super().__init__()
            self.out, self.turn = nn.Linear(3, 2), nn.Flatten(0) if turned else nn.Identity()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.out(x)
            return x if isinstance(self.turn, nn.Identity) else x.flip(-1)

    base, motivated = Turned(False), Turned(True)
    forward = lambda model, x: model(x).sum()  # noqa: E731
    weights_map = match(base, motivated)
    assert not verify(base, motivated, weights_map, torch.randn(5, 3), forward=forward)
    assert verify(base, base, weights_map, torch.randn(5, 3), forward=forward)


VECTORS = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))


def test_a_constant_in_the_output_hides_nothing() -> None:
    class Masked(nn.Module):
        def __init__(self, width: int, value: float) -> None:
            super().__init__()
            self.enter, self.head, self.value = nn.Linear(8, width), nn.Parameter(torch.randn(3, width)), value

        def forward(self, x: Tensor) -> Tensor:
            y = self.enter(x) @ self.head.T
            return y.masked_fill(torch.arange(3) == 0, self.value)

    for value in (-1e9, float("-inf")):
        base, motivated = Masked(4, value), Masked(6, value)
        good = match(base, motivated, batch=VECTORS)
        verdict = verify(base, motivated, good, VECTORS)
        assert verdict, verdict.reason
        entry = good.entries["head"]
        turned = dataclasses.replace(entry, index=(entry.index[0], Index.of([3, 2, 1, 0])))
        assert not verify(base, motivated, WeightsMap({**good.entries, "head": turned}, good.motivated), VECTORS)


def test_noise_in_evaluation_is_the_same_for_both() -> None:
    class Noisy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.enter, self.leave = nn.Linear(8, 4), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = self.enter(x)
            return self.leave(F.dropout(x, 0.5, training=True).sum(-1, keepdim=True) + x)

    assert_exact(Noisy(), Noisy(), VECTORS)


def test_outputs_in_a_dataclass_are_compared() -> None:
    @dataclasses.dataclass
    class Out:
        logits: Tensor

    class Wrapped(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.enter, self.leave = nn.Linear(8, width), nn.Linear(width, 2)

        def forward(self, x: Tensor) -> Out:
            return Out(self.leave(self.enter(x)))

    assert_exact(Wrapped(4), Wrapped(6), VECTORS, width="even")


class Ended(nn.Module):
    def __init__(self, width: int, how: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.enter, self.leave, self.how = nn.Linear(8, width), nn.Linear(width, 3), how

    def forward(self, x: Tensor) -> Any:
        return self.how(self.leave(self.enter(x).relu()))


@pytest.mark.filterwarnings("ignore::seeking.MatchWarning", "ignore:.*(Sparse CSR|prototype)")
@pytest.mark.parametrize(
    "how",
    [
        Tensor.to_sparse,
        Tensor.to_sparse_csr,
        lambda x: torch.nested.nested_tensor([x[0], x[1][:2]]),
        lambda x: torch.nested.nested_tensor([x[:2], x[1:]], layout=torch.jagged),
    ],
)
def test_sparse_and_nested_outputs_are_compared(how: Any) -> None:
    models = Ended(4, how), Ended(6, how)
    weights_map = match(*models, batch=VECTORS)
    assert verify(*models, weights_map, VECTORS)
    turned = match(*models, batch=VECTORS, overrides={"leave.weight": Override(index=[None, "2:6"])})
    assert not verify(*models, turned, VECTORS)


@pytest.mark.parametrize(
    ("how", "batch"),
    [
        (lambda x: x, VECTORS[:0]),
        (lambda x: x.sum(), VECTORS[:0]),
        (lambda x: x[:0], VECTORS),
        (lambda x: x / 0, VECTORS),
        (lambda x: (x.new_full((2,), float("-inf")), x[:0]), VECTORS),
    ],
)
def test_where_nothing_is_compared_nothing_is_proven(how: Any, batch: Tensor) -> None:
    models = Ended(4, how), Ended(6, how)
    with pytest.raises(SeekingError, match=r"nothing (was|would be) compared"):
        verify(*models, match(*models, batch=batch), batch)


@pytest.mark.parametrize("failing_pass", [0, 1])
def test_the_model_is_not_blamed_for_an_error_of_what_follows_it(
    monkeypatch: pytest.MonkeyPatch, failing_pass: int
) -> None:
    models = Ended(4, torch.tanh), Ended(6, torch.tanh)
    weights_map = match(*models, batch=VECTORS)
    passes = []

    def fail(*args: Any) -> bool:
        passes.append(args)
        if len(passes) > failing_pass:
            raise ZeroDivisionError("modulo")
        return False

    monkeypatch.setattr("seeking.verification.decisions.decides", fail)
    with pytest.raises(SeekingError, match="Ended runs, but cannot be followed: ZeroDivisionError: modulo"):
        verify(*models, weights_map, VECTORS)


@pytest.mark.parametrize(
    ("how", "other", "message"),
    [
        (lambda x: (x, 1), lambda x: (x, 2), "a number in the outputs is 1 in the base, 2 in the motivated"),
        (lambda x: (x, True), lambda x: (x, False), "a number in the outputs"),
        (lambda x: (x, (x > 0).sum()), lambda x: (x, 2 * (x > 0).sum()), "integers in the outputs differ"),
        (lambda x: {"y": x, "mask": x > 0}, lambda x: {"y": x, "mask": x < 0}, "integers in the outputs differ"),
    ],
)
def test_integers_among_the_outputs_are_compared(how: Any, other: Any, message: str) -> None:
    models = Ended(4, how), Ended(6, how), Ended(6, other)
    assert verify(*models[:2], match(*models[:2], batch=VECTORS), VECTORS)
    verdict = verify(models[0], models[2], match(models[0], models[2], batch=VECTORS), VECTORS)
    assert not verdict
    assert message in verdict.reason


def test_what_cannot_be_verified_is_said() -> None:
    models = Ended(4, torch.tanh), Ended(6, torch.tanh)
    with pytest.raises(SeekingError, match="the weights map is a NoneType"):
        verify(*models, None, VECTORS)  # type: ignore[arg-type]
    with pytest.raises(SeekingError, match="the batch is on the meta device"):
        verify(*models, match(*models, batch=VECTORS), VECTORS.to("meta"))
