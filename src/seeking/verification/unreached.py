"""Settings in which the two models differ, but by which the pass over a batch computes nothing."""

import contextlib
import functools
import inspect
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import CodeType, FunctionType
from typing import Any

import torch
from torch import Tensor, nn

from seeking.copies import copied, inspecting, scratch_copy, train_own_code
from seeking.forward import Forward
from seeking.internals import PassingMode
from seeking.outside import outside_preserved
from seeking.verification.running import output_of
from seeking.verification.settings import Setting, closed_over, differing_settings
from seeking.verification.views import Views
from seeking.verification.weights import hold, promoted, random_weights
from seeking.weights_map import WeightsMap, leaves_in, tensors


def unreached_settings(
    base: nn.Module,
    motivated: nn.Module,
    weights_map: WeightsMap,
    batch: Any,
    run: Forward,
    views: Mapping[bool, Views],
) -> tuple[str, ...]:
    """Settings of shared parts that the code names, but by which the pass over this batch computes nothing.

    Whatever such a setting decides is not compared: a window that is longer than the batch, a threshold that no number
    reaches, a rate of dropout. Those that the code of the forward pass does not name are left out, and so are the sizes
    of the models, such as the number of heads.

    Args:
        base: the smaller model.
        motivated: the larger model.
        weights_map: says which parts are shared.
        batch: one input, as ``run`` takes it.
        run: runs a model on the batch.
        views: traces of both models, by whether the modules run their own code of training mode.

    Returns:
        For each, its name and both values.
    """
    originals = differing_settings(base, motivated, weights_map, views.values())
    if not originals:
        return ()
    twin = scratch_copy(motivated)
    # What the copy shares with the user's model, such as a logger, must stay.
    settings = [
        setting
        for name, setting in differing_settings(base, twin, weights_map, views.values()).items()
        if name in originals and setting.owner is not originals[name].owner
    ]
    weights = functools.cache(lambda: random_weights(twin, 0))
    with inspecting(twin), outside_preserved(twin):
        passes = [each for training in views if (each := _Pass(twin, weights, batch, run, training)).names]
        names = set().union(*(each.names for each in passes))
        # Of one value, as in a configuration and in the layers that are made by it, there may be several copies.
        groups: dict[Any, list[Setting]] = {}
        for setting in settings:
            if names.issuperset(key for key in setting.path if isinstance(key, str) and not key.isdigit()):
                key = setting.path[-1], repr(setting.base), repr(setting.motivated)
                groups.setdefault(key, []).append(setting)
        if not groups or not any(each.differs_with(itertools.chain(*groups.values())) for each in passes):
            return tuple(str(group[0]) for group in groups.values())
        return tuple(str(g[0]) for g in groups.values() if not any(each.differs_with(g) for each in passes))


class _Pass:
    """Forward passes of a copy in one mode.

    Attributes:
        names: those that the code names.
    """

    def __init__(
        self, model: nn.Module, weights: Callable[[], Mapping[str, Tensor]], batch: Any, run: Forward, training: bool
    ) -> None:
        self._model, self._weights, self._batch, self._run, self._training = model, weights, batch, run, training
        self.names: set[str] = set()
        code = _Code()
        with contextlib.suppress(Exception):  # In training mode it may ask for labels.
            self._leaves(tensors(model), code)
            self.names = _names(code.seen, model)

    @functools.cached_property
    def _output(self) -> list[Any]:
        return self._leaves(self._weights())

    @functools.cached_property
    def _repeats(self) -> bool:
        return _equal(self._output, self._leaves(self._weights()))

    def _leaves(self, weights: Mapping[str, Tensor], *modes: Any) -> list[Any]:
        if self._training:
            train_own_code(self._model)
        else:
            self._model.eval()
        hold(self._model, copied(promoted(weights, torch.float32)))  # A pass may change buffers.
        return leaves_in(output_of(self._model, self._batch, self._run, torch.float32, 0, *modes)[0])

    def differs_with(self, settings: Iterable[Setting]) -> bool:
        """Whether the model fails, or computes anything else, with the base's values of settings.

        A model that counts its passes, and computes something else in each, does not tell.
        """
        try:
            before = self._output
            with contextlib.ExitStack() as stack:
                for setting in settings:
                    stack.enter_context(setting.as_in_base())
                alike = _equal(before, self._leaves(self._weights()))
        except Exception:
            return True
        return not alike and self._repeats


def _equal(ours: list[Any], others: list[Any]) -> bool:
    if len(ours) != len(others):
        return False
    return all(
        torch.equal(a.nan_to_num(), b.nan_to_num()) if isinstance(a, Tensor) and isinstance(b, Tensor) else True
        for a, b in zip(ours, others, strict=True)
    )


class _Code(PassingMode):
    """Notes the code from which operations are called.

    Attributes:
        seen: all code of the pass, with the variables of its file.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[CodeType, Mapping[str, Any]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        frame = inspect.currentframe()
        while (frame := frame and frame.f_back) and frame.f_code is not output_of.__code__:
            self.seen[frame.f_code] = frame.f_globals
        return func(*args, **(kwargs or {}))


def _names(seen: Mapping[CodeType, Mapping[str, Any]], model: nn.Module) -> set[str]:
    """Names in code of the pass and in functions that it names, which another batch may take its way over."""
    names = set().union(*map(_names_in, seen))
    attributes = [vars(module) for module in model.modules()]
    held = [part for values in attributes for value in values.values() for part in _parts(value)]
    classes = {kind for owner in (*model.modules(), *held) for kind in type(owner).__mro__} - {nn.Module, object}
    functions: dict[str, list[FunctionType]] = {}
    files = {id(variables): variables for variables in seen.values()}
    for space in (*attributes, *map(vars, classes), *files.values()):
        for name, value in space.items():
            if not name.startswith("__"):  # What __init__ names are sizes.
                functions.setdefault(name, []).extend(_functions_in(value))
    read: set[FunctionType] = set()
    while further := names & functions.keys():
        for function in {*itertools.chain(*map(functions.pop, further))} - read:
            read.add(function)
            names |= _names_in(function.__code__)
            for name, value, _ in closed_over(function):
                functions.setdefault(name, []).extend(_functions_in(value))
    return names


def _functions_in(value: Any) -> Iterator[FunctionType]:
    """Functions that run where this value is named; those of PyTorch name no settings of models."""
    for part in _parts(value):
        kind = type(part)
        implicit = [vars(kind).get(name) for name in ("__call__", "__getattr__", "__getitem__")]
        for each in (part, *implicit):
            function = inspect.unwrap(getattr(each, "__func__", each)) if callable(each) else None
            if isinstance(function, FunctionType) and not (function.__module__ or "").startswith("torch."):
                yield function


def _parts(value: Any) -> Iterator[Any]:
    """What is in containers, and the functions of properties and partials."""
    if isinstance(value, dict | list | tuple):
        for part in value.values() if isinstance(value, dict) else value:
            if not isinstance(part, dict | list | tuple):
                yield from _parts(part)
    elif isinstance(value, property | functools.partial | functools.cached_property):
        yield value.fget if isinstance(value, property) else value.func
    elif not isinstance(value, Tensor | type | nn.Module):
        yield value


def _names_in(code: CodeType) -> set[str]:
    """Names of variables, attributes, arguments and keys in code, and in functions within it."""
    names = {*code.co_names, *code.co_freevars, *code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]}
    for value in code.co_consts:
        if isinstance(value, str):
            names.add(value)
        elif isinstance(value, CodeType):
            names |= _names_in(value)
    return names
