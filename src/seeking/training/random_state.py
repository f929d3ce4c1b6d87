"""The states of all the random generators that a run draws from."""

import contextlib
import random
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset, Sampler

from seeking.errors import MISFITS, SeekingError

State = dict[str, Any]

GENERATORS = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)
LEADING_ON = (
    *("base_dataloader", "sampler", "batch_sampler", "data_source"),
    *("dataset", "datasets", "transform", "transforms", "target_transform"),
)
"""Attributes of loaders, samplers, data sets and transforms in which to look on for generators."""


class RandomState:
    """The global generators (Python's, NumPy's, PyTorch's, the device's) and those that models and data hold.

    Args:
        device: whose generator is in use, next to the CPU's.
        owners: models and loaders; their attributes are looked through for generators.
    """

    def __init__(self, device: torch.device, *owners: Any) -> None:
        self.device = device
        self._own: dict[str, Any] = {}
        seen: set[int] = set()

        def search(thing: Any, path: str) -> None:
            if id(thing) in seen:
                return
            seen.add(id(thing))
            if isinstance(thing, GENERATORS):
                self._own[path] = thing
            elif isinstance(thing, nn.Module):
                for name, module in thing.named_modules():
                    for key, value in vars(module).items():
                        if isinstance(value, GENERATORS):
                            search(value, f"{path}.{name}.{key}")
            else:
                for key, value in getattr(thing, "__dict__", {}).items():
                    several = value if key in ("datasets", "transforms") and isinstance(value, list | tuple) else ()
                    for number, one in enumerate(several):
                        search(one, f"{path}.{key}.{number}")
                    leads_on = key in LEADING_ON or isinstance(value, (*GENERATORS, Dataset, Sampler))
                    if leads_on and not several:
                        search(value, f"{path}.{key}")

        for number, owner in enumerate(owners):
            search(owner, str(number))

    def capture(self) -> State:
        """The states, as JSON-serialisable values."""
        state: State = {"python": _taken(random), "numpy": _taken(np.random), "torch": _text(torch.get_rng_state())}
        if self.device.type != "cpu":
            state["device"] = _text(torch.get_device_module(self.device).get_rng_state())
        state["own"] = {path: _taken(generator) for path, generator in self._own.items()}
        return state

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from states taken before.

        Raises:
            SeekingError: they are not states of generators.
        """
        try:
            _put(random, state["python"])
            _put(np.random, state["numpy"])
            torch.set_rng_state(_bytes(state["torch"]))
            if self.device.type != "cpu" and "device" in state:
                torch.get_device_module(self.device).set_rng_state(_bytes(state["device"]))
            for path, generator in self._own.items():
                if path in state["own"]:
                    _put(generator, state["own"][path])
        except MISFITS as error:
            raise SeekingError(f"not the states of random generators ({type(error).__name__}: {error})") from error

    @contextlib.contextmanager
    def preserved(self) -> Iterator[None]:
        """Whatever is drawn inside has not been drawn."""
        state = self.capture()
        try:
            yield
        finally:
            self.restore(state)


def _taken(generator: Any) -> Any:
    if isinstance(generator, torch.Generator):
        return _text(generator.get_state())
    if isinstance(generator, np.random.Generator):
        return _plain(generator.bit_generator.state)
    if hasattr(generator, "get_state"):
        return _plain(generator.get_state(legacy=False))
    version, numbers, gauss = generator.getstate()
    return [version, list(numbers), gauss]


def _put(generator: Any, state: Any) -> None:
    if isinstance(generator, torch.Generator):
        generator.set_state(_bytes(state))
    elif isinstance(generator, np.random.Generator):
        _check_places(state)
        generator.bit_generator.state = state
    elif hasattr(generator, "set_state"):
        _check_places(state["state"])
        generator.set_state({**state, "gauss": float(state["gauss"])})
    else:
        version, numbers, gauss = state
        generator.setstate((version, tuple(numbers), None if gauss is None else float(gauss)))


def _check_places(state: Mapping[str, Any]) -> None:
    """NumPy does not, and reads whatever memory a wrong place in a generator's buffer points at."""
    for name, size in (("pos", 624), ("buffer_pos", 4)):
        for part in (state, state.get("state")):
            place = part.get(name, 0) if isinstance(part, Mapping) else 0
            if type(place) is not int or not 0 <= place <= size:
                raise ValueError(f"{name} {place!r}")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


def _text(state: torch.Tensor) -> str:
    return state.numpy().tobytes().hex()


def _bytes(text: str) -> torch.Tensor:
    return torch.frombuffer(bytearray.fromhex(text), dtype=torch.uint8)
