"""Copies of models run on weights of their own, whatever holds these."""

import functools
import gc
import threading
import weakref
from collections.abc import Callable
from typing import Any, NoReturn

import pytest
import torch
from torch import Tensor, nn
from watched_models import Ends, mlp, pair_of, state, unlike

import seeking
from seeking.copies import copied_function, scratch_copy
from seeking.errors import SeekingError
from seeking.matching import Override


def test_a_forward_that_finds_its_model_as_a_variable_of_its_module_is_copied_with_it() -> None:
    """As in a notebook."""
    script = "old = model.forward\nmodel.forward = lambda x: old(x) * head(x).tanh() + shift"
    models = []
    for width in (2, 4):
        model = nn.Sequential(Ends(width), nn.Linear(2, 2))
        model[0].forward = lambda x, own=model[0]: own.leave(own.enter(x).relu())
        exec(script, {"model": model, "head": model[0], "shift": model[1].bias})
        models.append(model)
    x = torch.randn(4, 3)
    twin = scratch_copy(models[0])
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
        assert not twin(x).any() and models[0](x).any()
    verdict = seeking.verify(*models, seeking.match(*models, batch=x), x)
    assert verdict, verdict.reason


class Holder:
    """An object that is no module."""

    def __init__(self, held: Any) -> None:
        self.held = held


HOLDS_VALUES = (dict, weakref.WeakValueDictionary)


def called(run: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    return run(x)


def weakly_entered(model: Any) -> Callable[[Tensor], Tensor]:
    own = weakref.ref(model)
    return lambda x: own().entered(x)


WAYS = ["plain", "list", "mapping", "partial", "argument", "method", "object", "weak", "weak method"]
WAYS += ["weak in an object", "weak in a closure", "weak values", "weak keys", "weak set"]


class Branches(Ends):
    """A layer that is reached by functions only."""

    def __init__(self, width: int, how: str) -> None:
        super().__init__(width)
        self.norm = nn.BatchNorm1d(width)
        run = lambda x: self.norm(self.enter(x))  # noqa: E731
        within: list[Any] = [self]
        within.append(within)
        self.run = {
            "plain": run,
            "list": [run, within],
            "mapping": {"a": (run, 1)},
            "partial": functools.partial(run),
            "argument": functools.partial(called, run),
            "method": self.entered,
            "object": Holder(run),
            "weak": weakref.ref(self),
            "weak method": weakref.WeakMethod(self.entered),
            "weak in an object": Holder(weakref.ref(self)),
            "weak in a closure": weakly_entered(self),
            "weak values": weakref.WeakValueDictionary(own=self),
            "weak keys": weakref.WeakKeyDictionary({self: 0}),
            "weak set": weakref.WeakSet([self]),
        }[how]

    def entered(self, x: Tensor) -> Tensor:
        return self.norm(self.enter(x))

    def forward(self, x: Tensor) -> Tensor:
        run: Any = self.run
        while not callable(run) or isinstance(run, weakref.ref):
            if isinstance(run, weakref.ref):
                run = run()
            elif isinstance(run, Holder):
                run = run.held
            else:
                run = next(iter(run.values() if isinstance(run, HOLDS_VALUES) else run))
        y: Tensor = self.leave((run.entered if isinstance(run, Branches) else run)(x).relu())
        return y


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("how", WAYS)
def test_copies_run_on_weights_of_their_own(how: str, compiled: bool) -> None:
    x = torch.randn(4, 3)
    models = [Branches(width, how).train() for width in (4, 6)]
    if compiled:
        models = [torch.compile(model, backend="eager") for model in models]
    before = [state(model) for model in models]
    twin = scratch_copy(models[0])
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    assert not twin(x).any()
    weights_map = seeking.match(*models, batch=x)
    verdict = seeking.verify(*models, weights_map, x)
    assert verdict and not verdict.not_judged, verdict.reason
    seeking.embed(models[0], scratch_copy(models[1]), weights_map, batch=x)
    assert [unlike(*each) for each in zip(before, map(state, models), strict=True)] == [[], []]


def doubled(x: Tensor) -> Tensor:
    return 2 * x


@pytest.mark.filterwarnings("ignore:.*torch.jit.script")
def test_scripted_functions_are_no_obstacle() -> None:
    class Scripted(Ends):
        def __init__(self, width: int) -> None:
            super().__init__(width)
            self.function = torch.jit.script(doubled)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.leave(self.function(self.enter(x)))
            return y

    x = torch.randn(4, 3)
    base, motivated = pair_of(Scripted)
    assert seeking.verify(base, motivated, seeking.match(base, motivated, batch=x), x)


def test_modules_of_python_are_no_obstacle() -> None:
    class Habit(Ends):
        def __init__(self, width: int) -> None:
            super().__init__(width)
            self.functional = nn.functional

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.leave(self.functional.relu(self.enter(x)))
            return y

    x = torch.randn(4, 3)
    base, motivated = pair_of(Habit)
    assert seeking.verify(base, motivated, seeking.match(base, motivated, batch=x), x)
    assert scratch_copy(base).functional is nn.functional


PARTS: dict[int, nn.Module] = {}


class Registered(Ends):
    """Finds a part of itself outside."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        PARTS[width] = self.enter

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.leave(PARTS[self.leave.in_features](x).relu())
        return y


def test_a_part_that_a_copy_would_share_with_its_model_is_named() -> None:
    x = torch.randn(4, 3)
    base, motivated = pair_of(Registered)
    with pytest.raises(SeekingError, match=r"Registered: its forward pass reaches enter\.weight by another way"):
        seeking.verify(base, motivated, seeking.match(base, motivated, batch=x), x)
    PARTS.clear()


def test_layers_inside_vmap_are_judged_by_what_comes_after_them() -> None:
    class Mapped(Ends):
        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = torch.vmap(lambda row: self.leave(self.enter(row).tanh()))(x)
            return y

    x = torch.randn(4, 3)
    weights_map = seeking.match(*pair_of(Mapped), batch=x)
    assert seeking.verify(*pair_of(Mapped), weights_map, x)
    turned = {"leave.bias": Override(index=["1, 0"])}
    assert not seeking.verify(*pair_of(Mapped), seeking.match(*pair_of(Mapped), batch=x, overrides=turned), x)


def test_nested_tensors_are_compared() -> None:
    class Ragged(Ends):
        def forward(self, x: Tensor) -> Tensor:
            ragged = torch.nested.nested_tensor([x[0], x[1][:2]], layout=torch.jagged)
            y: Tensor = self.leave(self.enter(ragged)).to_padded_tensor(0.0)
            return y

    x = torch.randn(2, 5, 3)
    base, motivated = pair_of(Ragged)
    assert seeking.verify(base, motivated, seeking.match(base, motivated, batch=x), x)


def test_traced_modules_are_copied() -> None:
    x = torch.randn(4, 3)
    base, motivated = pair_of(lambda width: torch.fx.symbolic_trace(mlp(width)))
    assert seeking.verify(base, motivated, seeking.match(base, motivated, batch=x), x)


def test_an_object_that_releases_something_when_it_is_deleted_is_shared() -> None:
    """A copy would release it, too."""
    released = []

    class Owner:
        def __init__(self) -> None:
            self.lock = threading.Lock()

        def __del__(self) -> None:
            released.append(getattr(self, "lock", None))

    holder = Holder([Owner(), {}])
    twin = copied_function(holder)
    assert twin.held[0] is holder.held[0] and twin.held[1] is not holder.held[1]
    del twin
    gc.collect()
    assert not any(released)


def test_what_cannot_be_copied_is_named() -> None:
    base, motivated = pair_of(mlp)
    base[0].stream = (number for number in range(3))
    with pytest.raises(SeekingError, match=r"0\.stream cannot be copied"):
        seeking.match(base, motivated, batch=torch.randn(2, 3))

    class Unique(nn.Sequential):
        def __deepcopy__(self, memo: object) -> NoReturn:
            raise RuntimeError("there is but one")

    base, motivated = pair_of(lambda width: Unique(nn.Linear(3, width)))
    with pytest.raises(SeekingError, match=r"Unique cannot be copied.*there is but one.*deepcopy\(model\) must work"):
        seeking.match(base, motivated, batch=torch.randn(2, 3))
