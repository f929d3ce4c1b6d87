"""Settings in which the two models differ, but by which the pass over a batch computes nothing."""

import contextlib
import sys
from collections.abc import Iterator, Mapping
from types import CodeType, FrameType, FunctionType
from typing import Any

import torch
from torch import Tensor, nn

from seeking.copies import copied, evaluating, scratch_copy, train_own_code
from seeking.forward import Forward
from seeking.outside import outside_preserved
from seeking.verification.running import output_of
from seeking.verification.settings import Setting, differing_settings
from seeking.verification.views import Views
from seeking.verification.weights import hold, promoted, random_weights
from seeking.weights_map import WeightsMap
from seeking.weights_map.tensors import leaves_in


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
    reaches, a rate of dropout. Those that the code of the pass does not name are left out, and so are the sizes of the
    models, such as the number of heads.

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
    if not differing_settings(base, motivated, weights_map, views.values()):
        return ()
    twin = scratch_copy(motivated)
    settings: dict[Any, list[Setting]] = {}
    for setting in differing_settings(base, twin, weights_map, views.values()):
        settings.setdefault(setting.key, []).append(setting)
    with evaluating(twin), outside_preserved(twin):
        passes = [one for training in views if (one := _Pass(twin, batch, run, training)).ran]
        named = set().union(*(each.names for each in passes))
        return tuple(
            str(group[0])
            for key, group in settings.items()
            if key in named and not any(each.differs_with(group) for each in passes)
        )


class _Pass:
    """A forward pass of a copy with random weights."""

    def __init__(self, model: nn.Module, batch: Any, run: Forward, training: bool) -> None:
        self._model, self._batch, self._run, self._training = model, batch, run, training
        self.names: set[str] = set()
        self.ran = False
        self._weights = random_weights(model, 0)
        for self._dtype in (torch.float64, torch.float32):
            codes: dict[CodeType, Mapping[str, Any]] = {}
            try:
                with _noted(codes):
                    self._output = self._leaves()
            except Exception:
                continue
            self.names, self.ran = _names(codes, model), True
            return

    def _leaves(self) -> list[Any]:
        if self._training:
            train_own_code(self._model)
        else:
            self._model.eval()
        hold(self._model, copied(promoted(self._weights, self._dtype)))  # As it may have changed buffers.
        return leaves_in(output_of(self._model, self._batch, self._run, self._dtype, 0)[0])

    def differs_with(self, settings: list[Setting]) -> bool:
        """Whether the model fails, or computes anything else, with the base's values of settings."""
        own = [setting.values[setting.key] for setting in settings]
        try:
            for setting in settings:
                setting.values[setting.key] = setting.base
            return not _equal(self._output, self._leaves())
        except Exception:
            return True
        finally:
            for setting, value in zip(settings, own, strict=True):
                setting.values[setting.key] = value


def _equal(ours: list[Any], others: list[Any]) -> bool:
    if len(ours) != len(others):
        return False
    return all(
        torch.equal(a.nan_to_num(), b.nan_to_num()) if isinstance(a, Tensor) and isinstance(b, Tensor) else True
        for a, b in zip(ours, others, strict=True)
    )


@contextlib.contextmanager
def _noted(codes: dict[CodeType, Mapping[str, Any]]) -> Iterator[None]:
    """Note the code that runs inside, with the variables of its file."""

    def note(frame: FrameType, event: str, _: Any) -> None:
        if event == "call":
            codes.setdefault(frame.f_code, frame.f_globals)

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        yield
    finally:
        sys.setprofile(before)


def _names(codes: Mapping[CodeType, Mapping[str, Any]], model: nn.Module) -> set[str]:
    """Names in code that ran, and in functions that it names: another batch may take a way over these."""
    names = set().union(*map(_names_in, codes))
    modules = list(model.modules())
    classes = {kind for module in modules for kind in type(module).__mro__} - {nn.Module, object}
    files = {id(variables): variables for variables in codes.values()}
    further: set[str] = set()
    for space in (*map(vars, modules), *map(vars, classes), *files.values()):
        for name in names & space.keys():
            value = getattr(space[name], "__func__", space[name])
            functions = value.values() if isinstance(value, dict) else [value]
            if not name.startswith("__"):  # What __init__ names are sizes.
                further.update(*(_names_in(f.__code__) for f in functions if isinstance(f, FunctionType)))
    return names | further


def _names_in(code: CodeType) -> set[str]:
    return {*code.co_names, *(value for value in code.co_consts if isinstance(value, str))}
