"""Copies of models that may be run, changed and thrown away, so that the user's own are left as they are."""

import contextlib
import copy
import functools
import operator
import random
import sys
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import CellType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from seeking.errors import SeekingError
from seeking.internals import outside_modes, tree_map
from seeking.renewed import renewed
from seeking.weights_map.tensors import identity, tensors

GLOBAL_GENERATORS = [getattr(np.random.rand, "__self__", None), getattr(random.random, "__self__", None)]
"""Random functions are methods of these, which are seeded from outside."""

ATOMS = (bool, int, float, str, type(None))
"""Values that hold nothing."""

WEAK = (weakref.ref, weakref.WeakKeyDictionary, weakref.WeakValueDictionary, weakref.WeakSet)


def copied(values: Any) -> Any:
    """New tensors in place of all, in new containers; tied ones stay tied."""
    copies: dict[Any, Tensor] = {}
    return converted(values, lambda tensor: copies.setdefault(identity(tensor), tensor.clone()))


def converted(values: Any, convert: Callable[[Tensor], Tensor]) -> Any:
    """What this makes of each tensor in its place, in new containers, dataclasses among them."""
    return tree_map(lambda leaf: renewed(leaf, convert), values)


def scratch_copy(model: nn.Module, convert: Callable[[Tensor], Tensor] = torch.clone) -> nn.Module:
    """A deep copy that shares no tensor, module, hook or attribute with the model; its tensors are tied alike.

    Args:
        model: left as it is.
        convert: makes the copy of a parameter or buffer, from it, detached; such as one on the meta device.

    Raises:
        SeekingError: a part of the model cannot be copied.
    """
    return _deep_copy(model, _copied_tensors(model, convert))


def copied_function(function: Any) -> Any:
    """A function over a copy of the state that it holds, which running it may change; what cannot be copied is shared.

    Args:
        function: a function, a method of an object, a module, or anything else that is called.
    """
    memo: dict[int, Any] = {id(shared): shared for shared in GLOBAL_GENERATORS}
    functions: dict[int, FunctionType] = {}
    twin = _copy_or_share(function, memo)
    modules = [made for original, made in memo.items() if isinstance(made, nn.Module) and id(made) != original]
    _rebind((*modules, *_plain_objects(memo)), memo, functions)
    return _with_rebound(twin, memo, functions)


def stateless(function: Callable[[nn.Module, Any], Any] | None) -> Callable[[nn.Module, Any], Any] | None:
    """A function that begins each call with the state that it has now, whatever the calls before have changed."""
    if function is None:
        return None

    def run(model: nn.Module, batch: Any) -> Any:
        with outside_modes():
            fresh = copied_function(function)
        return fresh(model, batch)

    return run


def _copied_tensors(model: nn.Module, convert: Callable[[Tensor], Tensor]) -> dict[int, Any]:
    """What ``deepcopy`` is to take for the tensors of a model, by the id of the original."""
    parts: dict[int, Any] = {}
    twins: dict[Any, Tensor] = {}
    parameters: dict[Any, Tensor] = {}
    with torch.inference_mode(False), torch.no_grad():
        for tensor in tensors(model).values():
            key = identity(tensor)
            if key not in twins:
                twins[key] = convert(tensor.detach())
            if isinstance(tensor, nn.Parameter):
                if key not in parameters:
                    parameters[key] = nn.Parameter(twins[key], requires_grad=tensor.requires_grad)
                parts[id(tensor)] = parameters[key]
            else:
                parts[id(tensor)] = twins[key]
        # deepcopy refuses methods that are held weakly, scripted functions, Python's modules, and tensors that were
        # computed, as a weight that a hook sets.
        for module in model.modules():
            for value in vars(module).values():
                if type(value) is OrderedDict and not value and not vars(value):
                    parts[id(value)] = OrderedDict()  # For hooks, ten in each module; deepcopy is slow at making them.
                for part in plain_parts(value) if type(value) not in ATOMS else ():
                    if isinstance(part, Tensor) and id(part) not in parts and not part.is_leaf:
                        parts[id(part)] = part.detach().clone()
                    elif isinstance(part, torch.Generator):
                        parts[id(part)] = part.clone_state()
                    elif isinstance(part, weakref.WeakMethod | torch.jit.ScriptFunction | ModuleType):
                        # What is weak is replaced later; scripted functions and Python's modules are not the model's.
                        parts[id(part)] = part
    return parts


def plain_parts(value: Any, around: tuple[int, ...] = ()) -> Iterator[Any]:
    """What mappings, lists and tuples hold, at any depth, also if they hold themselves; of anything else, itself."""
    if id(value) in around:
        return
    around = (*around, id(value))
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for part in value:
            yield from plain_parts(part, around)
    else:
        yield value


def _deep_copy(model: nn.Module, parts: dict[int, Any]) -> nn.Module:
    memo = dict(parts)
    try:
        with torch.inference_mode(False), torch.no_grad():
            twin = copy.deepcopy(model, memo)
    except Exception as error:
        part = _uncopied(model, parts)
        problem = f"cannot be copied ({type(error).__name__}: {error}), and models are only run as copies, so that "
        problem += "they stay as they are; "
        if part:
            cure = "set it after the models were paired, or give its class a __deepcopy__"
            raise SeekingError(f"{type(model).__name__}: {part} {problem}{cure}") from error
        raise SeekingError(f"{type(model).__name__} {problem}copy.deepcopy(model) must work") from error
    # A traced module has a class of its own.
    traced = isinstance(model, torch.fx.GraphModule) and isinstance(twin, torch.fx.GraphModule)
    if type(twin) is not type(model) and not traced:
        raise SeekingError(f"{type(model).__name__}: its copy is a {type(twin).__name__}; correct its __deepcopy__")
    # A function that a copy has made for itself, as a compiled module does, is of the copy already.
    memo |= {id(part): part for part in (*twin.modules(), *tensors(twin).values())}
    _rebind((*twin.modules(), *_plain_objects(memo)), memo, {})
    return twin


def _rebind(owners: Iterable[Any], memo: dict[int, Any], functions: dict[int, FunctionType]) -> None:
    """Let the functions and weak references that are attributes of copies be over copies."""
    for owner in owners:
        for name, value in list(vars(owner).items()):
            if type(value) not in ATOMS and name not in ("_parameters", "_buffers", "_modules"):
                vars(owner)[name] = _with_rebound(value, memo, functions)


def _plain_objects(memo: Mapping[int, Any]) -> list[Any]:
    """The objects that ``deepcopy`` has made, but for modules, and those that copy themselves."""
    return [
        made
        for original, made in memo.items()
        if (attributes := getattr(made, "__dict__", None))
        and id(made) != original
        and isinstance(attributes, dict)
        and not isinstance(made, nn.Module | type | FunctionType | MethodType)
        and not hasattr(type(made), "__deepcopy__")
    ]


def _with_rebound(
    value: Any, memo: dict[int, Any], functions: dict[int, FunctionType], around: tuple[int, ...] = ()
) -> Any:
    """A copied value whose functions and weak references, in lists, tuples and mappings as well, are over copies."""
    if isinstance(value, FunctionType):
        return _rebound(value, memo, functions)
    if isinstance(value, WEAK):
        return _weakly(value, memo)
    if type(value) is functools.partial:
        inner = _with_rebound(value.func, memo, functions)
        arguments = [_with_rebound(part, memo, functions, around) for part in value.args]
        return functools.partial(inner, *arguments, **_with_rebound(value.keywords, memo, functions, around))
    if not isinstance(value, list | tuple | dict) or not value or id(value) in around:
        return value
    around = (*around, id(value))
    parts = [*value.values()] if isinstance(value, dict) else [*value]
    rebound = [_with_rebound(part, memo, functions, around) for part in parts]
    if all(map(operator.is_, rebound, parts)):
        return value
    if isinstance(value, dict):
        value.update(zip(value, rebound, strict=True))
        return value
    if isinstance(value, list):
        value[:] = rebound
        return value
    return tuple(rebound) if type(value) is tuple else value


def _weakly(value: Any, memo: Mapping[int, Any]) -> Any:
    """A weak reference, or a container of some, to copies, where ``deepcopy`` shares what is referred to."""

    def own(target: Any) -> Any:
        return memo.get(id(target), target)

    if isinstance(value, weakref.WeakMethod):
        method: Any = value()
        bound = method is not None and id(method.__self__) in memo
        return weakref.WeakMethod(MethodType(method.__func__, own(method.__self__))) if bound else value
    if isinstance(value, weakref.ref):
        return weakref.ref(own(value())) if id(value()) in memo else value
    if isinstance(value, weakref.WeakKeyDictionary):
        return weakref.WeakKeyDictionary({own(key): part for key, part in value.items()})
    if isinstance(value, weakref.WeakValueDictionary):
        return weakref.WeakValueDictionary({key: own(part) for key, part in value.items()})
    return weakref.WeakSet(map(own, value))


def _rebound(function: FunctionType, memo: dict[int, Any], functions: dict[int, FunctionType]) -> FunctionType:
    """A function over copies of what it has closed over or finds in its module, which ``deepcopy`` would share."""
    parts = _parts_in_module(function, memo)
    if not (function.__closure__ or function.__defaults__ or parts):
        return function
    if id(function) not in functions:
        cells = tuple(CellType() for _ in function.__closure__ or ())
        names = {**function.__globals__, **parts} if parts else function.__globals__
        twin = FunctionType(function.__code__, names, function.__name__, None, cells or None)
        functions[id(function)] = twin
        twin.__dict__.update(function.__dict__)
        twin.__kwdefaults__ = function.__kwdefaults__
        twin.__defaults__ = _copy_or_share(function.__defaults__, memo)
        for cell, own in zip(cells, function.__closure__ or (), strict=True):
            with contextlib.suppress(ValueError):  # A cell that is still empty.
                content = own.cell_contents
                part = content if isinstance(content, FunctionType) else _copy_or_share(content, memo)
                is_new = part is not content or isinstance(content, FunctionType | weakref.ref)
                cell.cell_contents = _with_rebound(part, memo, functions) if is_new else part
    return functions[id(function)]


def _parts_in_module(function: FunctionType, memo: dict[int, Any]) -> dict[str, Any]:
    """Copies of the parts of a model, or of their methods, that a function finds as variables of its module."""
    known = {name: function.__globals__.get(name) for name in function.__code__.co_names}
    return {
        name: copy.deepcopy(value, memo)
        for name, value in known.items()
        if isinstance(value, nn.Module | MethodType | Tensor) and id(getattr(value, "__self__", value)) in memo
    }


def _copy_or_share(value: Any, memo: dict[int, Any]) -> Any:
    """A deep copy, but for the parts that cannot be copied, such as locks and files."""
    known = dict(memo)  # A copy that fails leaves objects without their attributes in it.
    try:
        twin = copy.deepcopy(value, known)
    except Exception:
        return _copied_in_part(value, memo)
    originals = known.pop(id(known), [])  # Kept alive, so that no other object gets their ids.
    memo.update(known)
    memo.setdefault(id(memo), []).extend(originals)
    return twin


def _copied_in_part(value: Any, memo: dict[int, Any]) -> Any:
    """A copy of a container or an object whose own parts are copied or shared; of anything else, itself."""
    if id(value) in memo:
        return memo[id(value)]
    if hasattr(type(value), "__del__"):  # A copy would release what the object still needs.
        return value
    if type(value) is tuple:
        return tuple([_copy_or_share(part, memo) for part in value])
    if isinstance(value, MethodType):
        return MethodType(value.__func__, _copy_or_share(value.__self__, memo))
    if type(value) is functools.partial:
        arguments = [_copy_or_share(part, memo) for part in value.args]
        return functools.partial(_copy_or_share(value.func, memo), *arguments, **_copy_or_share(value.keywords, memo))
    try:
        twin = copy.copy(value)
    except Exception:
        return value
    attributes = getattr(twin, "__dict__", None)
    slots = _slots(value)
    holds = [each for each in (attributes, twin) if isinstance(each, dict | list | deque)]
    if twin is value or not (holds or slots) or (attributes and attributes is vars(value)):
        return value
    memo[id(value)] = twin
    for inside in holds:
        for key, part in [*(inside.items() if isinstance(inside, dict) else enumerate(inside))]:
            inside[key] = _copy_or_share(part, memo)
    for name in slots:
        object.__setattr__(twin, name, _copy_or_share(getattr(value, name), memo))
    return twin


def _slots(value: Any) -> list[str]:
    """The names of an object's attributes that are in slots."""
    names = []
    for kind in type(value).__mro__:
        own = vars(kind).get("__slots__", ())
        for name in (own,) if isinstance(own, str) else own:
            private = name.startswith("__") and not name.endswith("__")
            names.append(f"_{kind.__name__.lstrip('_')}{name}" if private else name)
    return [name for name in names if name not in ("__dict__", "__weakref__") and hasattr(value, name)]


def _uncopied(model: nn.Module, parts: dict[int, Any]) -> str:
    """The name of the first attribute that cannot be copied; empty if it is no single one."""
    for name, module in model.named_modules():
        for key, value in vars(module).items():
            if key == "_modules":
                continue
            try:
                copy.deepcopy(value, {**parts, **{id(m): m for m in model.modules()}})
            except Exception:
                return f"{name}.{key}".removeprefix(".")
    return ""


@contextlib.contextmanager
def random_state_preserved(seed: int | None = None) -> Iterator[None]:
    """On exit the global generators of PyTorch, NumPy and Python are as they were.

    Args:
        seed: of all of them inside; they continue where they are if not given.
    """
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    numpy_state, python_state = np.random.get_state(), random.getstate()
    apple_state = torch.mps.get_rng_state() if torch.backends.mps.is_available() else None
    try:
        with torch.random.fork_rng(devices):
            if seed is not None:
                torch.manual_seed(seed)
                np.random.seed(seed % 2**32)
                random.seed(seed)
            yield
    finally:
        if apple_state is not None:
            torch.mps.set_rng_state(apple_state)
        np.random.set_state(numpy_state)
        random.setstate(python_state)


def train_own_code(model: nn.Module) -> None:
    """Put a copy into training mode, but for the layers of PyTorch and stochastic depth: these only add noise."""
    model.train()
    for module in model.modules():
        if type(module).__module__.startswith("torch.nn.") or hasattr(module, "drop_prob"):
            module.training = False


def uncompiled() -> contextlib.AbstractContextManager[Any]:
    """Runs Python's code where something would be compiled, as ``flex_attention`` is, which no mode can follow."""
    # Importing the compiler takes a second, and without it nothing is compiled.
    return torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else contextlib.nullcontext()


@contextlib.contextmanager
def inspecting(*models: nn.Module) -> Iterator[None]:
    """Put copies into evaluation mode, with neither gradients, nor compilation, nor an effect on the random state.

    Raises:
        SeekingError: a model has no evaluation mode.
    """
    fastpath = torch.backends.mha.get_fastpath_enabled()
    try:
        # The fast path is one opaque operation and may return nested tensors.
        torch.backends.mha.set_fastpath_enabled(False)
        with torch.no_grad(), random_state_preserved(), uncompiled():
            for model in models:
                try:
                    model.eval()
                except NotImplementedError as error:
                    raise SeekingError(
                        f"{type(model).__name__}: eval() is not supported ({error}); take the model that it was "
                        "exported from"
                    ) from error
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fastpath)
