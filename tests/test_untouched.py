"""What the user gives is never changed by being looked at; what cannot be shared is refused by name."""

import contextlib
import functools
import random
import warnings
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import accelerate
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import seeking
from seeking.checkpointing.run_dir import RunFolder
from seeking.checkpointing.weights import load_weights, save_weights
from seeking.copies import scratch_copy
from seeking.errors import RunError, SeekingError
from seeking.matching import Override
from seeking.training.cost import count_flops
from seeking.weights_map import identity, tensors


class Layer(nn.Linear):
    """Counts its forwards, replaces a buffer, keeps its output, and merges an adapter on eval()."""

    def __init__(self, inputs: int, outputs: int, merges: bool) -> None:
        super().__init__(inputs, outputs)
        self.down, self.up = nn.Parameter(torch.randn(1, inputs)), nn.Parameter(torch.randn(outputs, 1))
        self.merges, self.merged = merges, False
        self.register_buffer("runs", torch.zeros(()))
        self.register_buffer("mask", torch.ones(3), persistent=False)
        self.history: list[int] = []

    def train(self, mode: bool = True) -> "Layer":
        if self.merges and mode == self.merged:
            self.weight.data += (-1 if mode else 1) * (self.up @ self.down)
            self.merged = not mode
        return super().train(mode)

    def forward(self, x: Tensor) -> Tensor:
        self.runs = self.runs + 1
        self.history.append(len(x))
        self.last = x
        return super().forward(x) + (0 if self.merged else x @ self.down.T @ self.up.T)


def state(model: nn.Module) -> list[Any]:
    """All that a user could see of a model, tensors by identity and value."""
    seen: list[Any] = [(name, type(module), module.training) for name, module in model.named_modules()]
    for name, tensor in tensors(model).items():
        gradient = None if tensor.grad is None else (identity(tensor.grad), tensor.grad.tolist())
        seen.append((name, id(tensor), identity(tensor), tensor.requires_grad, tensor.tolist(), gradient))
    for module in model.modules():
        for key, value in sorted(vars(module).items()):
            content = dict(value) if isinstance(value, dict) else list(value) if isinstance(value, list) else value
            seen.append((key, id(value), content if not isinstance(value, Tensor) else None))
    return seen


def unlike(before: list[Any], after: list[Any]) -> list[Any]:
    return [pair for pair in zip(before, after, strict=True) if repr(pair[0]) != repr(pair[1])]


@settings(max_examples=25)
@given(
    widths=st.tuples(st.integers(2, 4), st.integers(0, 3)),
    merges=st.booleans(),
    tied=st.booleans(),
    training=st.lists(st.booleans(), min_size=3, max_size=3),
    hooked=st.sampled_from(["", "forward", "pre", "closure"]),
    gradients=st.booleans(),
)
def test_models_come_out_as_they_went_in(
    widths: tuple[int, int], merges: bool, tied: bool, training: list[bool], hooked: str, gradients: bool
) -> None:
    x = torch.randn(4, 3)
    runs: list[int] = []
    models = []
    for width in (widths[0], sum(widths)):
        model = nn.Sequential(Layer(3, width, merges), nn.ReLU(), Layer(width, 3, merges))
        first = model[0]
        if hooked == "forward":
            first.register_forward_hook(lambda module, inputs, output: output * 2)
        elif hooked == "pre":
            first.register_forward_pre_hook(lambda module, inputs: module.runs.add_(1) and None)
        elif hooked == "closure":
            first.register_forward_hook(lambda module, inputs, output, own=model: runs.append(int(own[2].merges)))
        if tied:
            model[2].mask = first.mask
            first.bias.data = first.bias.data.clone()
        if gradients:
            model(x).sum().backward()
        for module, mode in zip(model, training, strict=True):
            module.train(mode)
        models.append(model)
    base, motivated = models
    untouched = [state(model) for model in models]
    runs_before = list(runs)
    random_state = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        weights_map = seeking.match(base, motivated, batch=x)
        with contextlib.suppress(SeekingError):
            seeking.verify(base, motivated, weights_map, x)
        for model in models:
            count_flops(model, lambda module, batch: module(batch).sum(), x)
        assert not unlike(untouched[0], state(base)) and not unlike(untouched[1], state(motivated))
        seeking.embed(base, scratch_copy(motivated), weights_map, batch=x)
        seeking.extract(motivated, scratch_copy(base), weights_map)

    assert not unlike(untouched[0], state(base)) and not unlike(untouched[1], state(motivated))
    assert runs == runs_before
    assert torch.equal(random_state[0], torch.get_rng_state()) and random_state[1] == random.getstate()
    assert random_state[2] == np.random.get_state()[1].tolist()


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


class Ends(nn.Module):
    """A first and a last layer; subclasses say what they do with them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.enter, self.leave = nn.Linear(3, width), nn.Linear(width, 2)


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


TABLES: dict[int, Tensor] = {}
LISTED: list[Tensor] = []
TABLE: Tensor | None = None


def table(width: int) -> Tensor:
    return torch.arange(width) / 4


@functools.lru_cache
def cached_table(width: int, device: torch.device) -> Tensor:
    return table(width).to(device)


class Cached(Ends):
    """Keeps a table outside of itself."""

    tables: ClassVar[dict[int, Tensor]] = {}
    last: ClassVar[Tensor | None] = None

    def __init__(self, width: int, where: str) -> None:
        super().__init__(width)
        self.where = where

    def own(self, width: int, device: torch.device) -> Tensor:
        global TABLE
        if self.where == "function":
            return cached_table(width, device)
        if self.where == "global":
            TABLE = table(width).to(device)
            return TABLE
        if self.where in ("list", "long list"):
            LISTED.append(table(width).to(device))
            return LISTED[-1]
        if self.where == "class":
            type(self).last = table(width).to(device)
            return self.last
        tables = TABLES if self.where == "mapping" else self.tables
        if width not in tables:
            tables[width] = table(width).to(device)
        return tables[width]

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        y: Tensor = self.leave(x * self.own(x.shape[-1], x.device))
        return y


@pytest.mark.parametrize("filled", [False, True])
@pytest.mark.parametrize(
    "where", ["function", "global", "list", "long list", "class", "mapping", "mapping of the class"]
)
def test_what_is_kept_outside_of_models_is_left_as_it_is(where: str, filled: bool) -> None:
    def kept() -> str:
        return repr((TABLES, LISTED, TABLE, Cached.tables, Cached.last))

    x = torch.randn(4, 3)
    base, motivated = pair_of(lambda width: Cached(width, where))
    if where == "long list":
        LISTED.extend(table(1) for _ in range(1000))
    if filled:
        base(x)
    before = kept()
    assert seeking.verify(base, motivated, seeking.match(base, motivated, batch=x), x)
    assert kept() == before
    for model in (base, motivated):  # What is kept is of the model's own precision and device.
        model(x)
    assert all(tensor.dtype == torch.float32 for tensor in (*TABLES.values(), *LISTED, *Cached.tables.values()))
    TABLES.clear()
    Cached.tables.clear()
    LISTED.clear()


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


def pair_of(make: Callable[[int], nn.Module]) -> tuple[nn.Module, nn.Module]:
    return make(4), make(6)


def mlp(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, width), nn.ReLU(), nn.Linear(width, 2))


@pytest.mark.parametrize(
    "reparametrize",
    [torch.nn.utils.parametrizations.spectral_norm, torch.nn.utils.spectral_norm],
)
@pytest.mark.filterwarnings("ignore")
def test_a_part_of_a_reparametrized_weight_is_refused_by_name(reparametrize: Callable[[nn.Module], nn.Module]) -> None:
    base, motivated = pair_of(lambda width: nn.Sequential(nn.Linear(3, width), reparametrize(nn.Linear(width, 6))))
    x = torch.randn(2, 3)
    weights_map = seeking.match(base, motivated, batch=x)
    before = [state(model) for model in (base, motivated)]
    for use in (
        lambda: seeking.Pair(base, motivated, weights_map),
        lambda: seeking.embed(base, motivated, weights_map, batch=x),
        lambda: seeking.verify(base, motivated, weights_map, x),
    ):
        with pytest.raises(SeekingError, match=r"1\..*[nN]orm"):
            use()
    assert [state(model) for model in (base, motivated)] == before


def test_weights_that_depend_on_the_mode_are_refused() -> None:
    base, motivated = pair_of(lambda width: nn.Sequential(Layer(3, width, True), Layer(width, 2, True)))
    with pytest.raises(SeekingError, match=r"0\.weight of the base is another under train"):
        seeking.Pair(base, motivated)


@pytest.mark.parametrize("how", ["data", "assign"])
def test_ties_are_of_storages(how: str) -> None:
    class Tied(nn.Module):
        def __init__(self, width: int, tied: bool = True) -> None:
            super().__init__()
            self.emb, self.head = nn.Embedding(5, width), nn.Linear(width, 5, bias=False)
            if tied and how == "data":
                self.head.weight.data = self.emb.weight.data
            elif tied:
                self.head.weight = self.emb.weight
                self.load_state_dict(self.state_dict(), assign=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.emb(x))

    with pytest.raises(SeekingError, match="weight"):
        seeking.Pair(Tied(4, tied=False), Tied(6))
    base, motivated = Tied(4), Tied(6)
    pair = seeking.Pair(base, motivated)
    with pair.motivated():
        motivated.emb.weight.data.add_(1)
    pair.separate()
    for model in (base, motivated):
        assert identity(model.emb.weight) == identity(model.head.weight)


@pytest.mark.parametrize("how", ["object", "data"])
@pytest.mark.parametrize("width", [4, 6])
def test_what_extra_blocks_share_with_the_bases_stays_shared(how: str, width: int) -> None:
    def chain(width: int, depth: int) -> nn.Module:
        blocks = [nn.Linear(width, width) for _ in range(depth)]
        for block in blocks[1:]:
            if how == "object":
                block.weight = blocks[0].weight
            else:
                block.weight.data = blocks[0].weight.data
        return nn.Sequential(nn.Linear(3, width), nn.Sequential(*blocks), nn.Linear(width, 2))

    base, motivated = chain(4, 2), chain(width, 4)
    pair = seeking.Pair(base, motivated, batch=torch.randn(2, 3))
    with pair.motivated(), torch.no_grad():
        motivated[1][3].weight.add_(1)
    assert torch.equal(base[1][0].weight, motivated[1][3].weight[:4, :4])
    pair.separate()
    for model in (base, motivated):
        assert len({identity(block.weight) for block in model[1]}) == 1
    assert identity(base[1][0].weight) != identity(motivated[1][0].weight)


def test_a_buffer_that_a_forward_replaces_is_carried_back() -> None:
    pair = seeking.Pair(*pair_of(lambda width: nn.Sequential(Layer(3, width, False), Layer(width, 2, False))))
    for _ in range(2):
        with pair.motivated() as model:
            model(torch.randn(2, 3))
    assert pair.base[0].runs == pair.motivated_model[0].runs == 2


def test_a_buffer_of_another_shape_than_the_map_is_refused() -> None:
    base, motivated = pair_of(mlp)
    for model in (base, motivated):
        model[0].register_buffer("scale", torch.zeros(1))
    pair = seeking.Pair(base, motivated)
    base[0].scale = torch.zeros(4)
    with pytest.raises(SeekingError, match=r"0\.scale.*\[4\].*\[1\].*run one forward"), pair.motivated():
        pass


def test_a_parameter_that_was_replaced_by_one_of_another_shape_is_told() -> None:
    """As the embedding of a vocabulary that grows after the models were paired."""
    pair = seeking.Pair(*pair_of(mlp))
    pair.base[-1].weight = nn.Parameter(torch.zeros(7, 4))
    with pytest.raises(
        SeekingError, match=r"weight: its shape in the base is \[7, 4\].*replaced.*pair the models anew"
    ):
        pair.motivated().__enter__()


def test_buffers_are_constants_and_keep_their_values() -> None:
    base, motivated = pair_of(mlp)
    for model in (base, motivated):
        model[0].register_buffer("table", torch.ones(model[0].out_features, model[0].out_features))
    before = motivated[0].table.clone()
    seeking.embed(base, motivated, batch=torch.randn(2, 3))
    assert torch.equal(motivated[0].table, before)


def inference(width: int) -> nn.Module:
    with torch.inference_mode():
        return mlp(width)


def sparse(width: int) -> nn.Module:
    model = mlp(width)
    model.register_buffer("adjacency", torch.eye(3).to_sparse())
    return model


def expanded(width: int) -> nn.Module:
    model = mlp(width)
    model[0].bias = nn.Parameter(torch.zeros(1).expand(width))
    return model


class Packed(Tensor):
    """A tensor that stands for others, as quantized weights and states do."""

    @staticmethod
    def __new__(cls, numbers: Tensor) -> "Packed":
        made = Tensor._make_wrapper_subclass(cls, numbers.shape, dtype=numbers.dtype)  # type: ignore[attr-defined]
        made.numbers = numbers.to(torch.int8)
        return made

    def __init__(self, numbers: Tensor) -> None: ...

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["numbers"], None

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.detach.default:
            return cls(args[0].numbers.float())
        raise NotImplementedError(f"{func} is not implemented")


def packed(width: int) -> nn.Module:
    model = mlp(width)
    model[0].weight = nn.Parameter(Packed(model[0].weight.detach()), requires_grad=False)
    return model


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda width: mlp(width).to("meta"), "meta"),
        (inference, "inference mode"),
        (sparse, "adjacency .* sparse"),
        (expanded, r"0\.bias .* expanded"),
        (lambda width: torch.jit.trace(mlp(width), torch.randn(2, 3)), "ScriptModule"),
        (lambda width: torch.ao.quantization.quantize_dynamic(mlp(width), dtype=torch.qint8), "before quantization"),
        (packed, r"0\.weight .* Packed.*before quantization"),
        (lambda width: accelerate.cpu_offload(mlp(width), torch.device("cpu")), "offloaded: load it without"),
        (lambda width: nn.Sequential(nn.LazyLinear(width), nn.Linear(width, 2)), r"0\.weight .*lazy"),
        (lambda width: "a name", "str"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_what_cannot_be_written_is_refused_by_name(make: Callable[[int], nn.Module], named: str) -> None:
    weights_map = seeking.match(*pair_of(mlp))
    base, motivated = pair_of(make)
    for use in (
        lambda: seeking.Pair(base, motivated, weights_map),
        lambda: seeking.embed(base, motivated, weights_map),
        lambda: seeking.extract(motivated, base, weights_map),
        lambda: seeking.Pair(base, motivated, batch=torch.randn(2, 3)),
    ):
        with pytest.raises(SeekingError, match=named):
            use()


def test_one_model_is_no_pair() -> None:
    model = mlp(4)
    with pytest.raises(SeekingError, match="one module"):
        seeking.Pair(model, model)


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


def test_wrappers_of_one_model_alone_are_named() -> None:
    base, motivated = mlp(4), nn.DataParallel(mlp(6))
    for pair, kinds in (((base, motivated), "Sequential .* DataParallel"), ((motivated, base), "DataParallel .* Seq")):
        with pytest.raises(seeking.NotContainedError, match=f"the base is a {kinds}"):
            seeking.match(*pair, batch=torch.randn(2, 3))


def test_state_that_is_not_shaped_like_its_parameter_is_refused() -> None:
    pair = seeking.Pair(*pair_of(mlp))
    optimizers = tuple(torch.optim.Adafactor(m.parameters()) for m in (pair.base, pair.motivated_model))
    pair.base(torch.randn(2, 3)).sum().backward()
    optimizers[0].step()
    with pytest.raises(SeekingError, match="Adafactor of the base"), pair.motivated(optimizers):
        pass


class PackedSGD(torch.optim.SGD):
    """Keeps its momentum in blocks of few bits, as 8-bit optimizers do; of small tensors as it is."""

    def step(self, closure: Any = None) -> None:
        super().step(closure)
        for parameter, state in self.state.items():
            if parameter.numel() % 256 == 0:
                state["momentum_buffer"] = Packed(parameter.detach())


def test_state_in_other_tensors_is_refused_before_it_is_shared() -> None:
    """Whole tensors are tied, and share it as it is."""

    def layers(width: int) -> nn.Module:
        return nn.Sequential(nn.Linear(3, width), nn.Linear(width, 64))

    def sgd(model: nn.Module) -> PackedSGD:
        return PackedSGD(model.parameters(), 0.1, momentum=0.9)

    for width in (64, 128):
        pair = seeking.Pair(layers(64), layers(width))
        optimizers = sgd(pair.base), sgd(pair.motivated_model)
        pair.base(torch.randn(2, 3)).sum().backward()
        optimizers[0].step()
        refused = pytest.raises(SeekingError, match=r"PackedSGD of the base: its state 'momentum_buffer' for 1.weight")
        with refused if width > 64 else contextlib.nullcontext(), pair.motivated(optimizers):
            pass
    config = seeking.TrainConfig(epochs=1, optimizer_state="shared")
    data = [(torch.randn(2, 3), torch.tensor([0, 1]))]
    with pytest.raises(SeekingError, match=r"PackedSGD: its state .*set optimizer_state to separate"):
        seeking.Trainer(layers(64), layers(128), train_loader=data, config=config, optimizer=sgd)


class Counting(nn.Linear):
    extra: Any = None

    def get_extra_state(self) -> Any:
        return self.extra

    def set_extra_state(self, value: Any) -> None:
        self.extra = value


def test_extra_state_is_in_weights_files(tmp_path: Path) -> None:
    model, other = Counting(2, 3), Counting(2, 3)
    model.extra = {"steps": 4}
    save_weights(model, tmp_path / "a.safetensors")
    load_weights(other, tmp_path / "a.safetensors")
    assert other.extra == {"steps": 4} and torch.equal(model.weight, other.weight)
    model.extra = object()
    with pytest.raises(RunError, match="_extra_state"):
        save_weights(model, tmp_path / "a.safetensors")


@pytest.mark.parametrize("extra", [{"steps": 4, "rates": [0.5, None]}, torch.tensor(4)], ids=["JSON", "tensor"])
def test_extra_state_is_in_the_weights_files_of_a_run(extra: Any, tmp_path: Path) -> None:
    base, motivated = Counting(2, 2), Counting(2, 2)
    base.extra = extra
    data = [(torch.randn(2, 2), torch.tensor([0, 1]))]
    trainer = seeking.Trainer(
        base,
        motivated,
        train_loader=data,
        eval_loader=data,
        config=seeking.TrainConfig(epochs=1),
        output=tmp_path / "run",
        progress=False,
    )
    trainer.fit()
    for kind in ("last", "best"):
        other = Counting(2, 2)
        load_weights(other, tmp_path / "run" / f"base.{kind}.safetensors")
        assert other.extra == extra and torch.equal(base.weight, other.weight)
    assert RunFolder(tmp_path / "run", resume=True).best("base").keys() == trainer.scores.best["base"].keys()


@pytest.mark.parametrize("family", ["bert", "gpt2", "llama"])
def test_fresh_transformers_keep_their_hooks(family: str) -> None:
    transformers = pytest.importorskip("transformers")
    settings: dict[str, Any] = {
        "bert": {"num_attention_heads": 2, "hidden_size": 8, "intermediate_size": 16},
        "gpt2": {"n_head": 2, "n_embd": 8},
        "llama": {"num_attention_heads": 2, "hidden_size": 8, "intermediate_size": 16},
    }[family]
    length = "n_layer" if family == "gpt2" else "num_hidden_layers"
    models = [
        transformers.AutoModel.from_config(
            transformers.AutoConfig.for_model(
                family, vocab_size=32, output_hidden_states=True, **{length: depth}, **settings
            )
        )
        for depth in (2, 3)
    ]
    before = [state(model) for model in models]
    batch = {"input_ids": torch.arange(4, 12).view(1, 8)}
    seeking.verify(*models, seeking.match(*models, batch=batch), batch)
    assert not unlike(before[0], state(models[0])) and not unlike(before[1], state(models[1]))
    assert len(models[0](**batch).hidden_states) == 3
