"""The states of all the random generators that a run draws from."""

import contextlib
import functools
import random
from collections.abc import Iterable, Iterator, Mapping
from types import CellType, FunctionType, MethodType, ModuleType, NoneType
from typing import Any

import numpy as np
import torch

from seeking.errors import MISFITS, SeekingError

State = dict[str, Any]

GENERATORS = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)
PLAIN = (str, bytes, int, float, complex, torch.Tensor, np.ndarray, np.generic, type, ModuleType, NoneType)
"""What holds no generators."""
MOST_PARTS, MOST_THINGS = 1000, 100_000
"""A collection of more parts than this holds data, not generators; no more things are looked at than that."""


def apart(seed: int) -> int:
    """A seed to which epochs may be added: seeds of neighbouring runs do not give each other's epochs."""
    return seed * 1_000_003


class RandomState:
    """The global generators (Python's, NumPy's, PyTorch's, the device's) and those that models and data hold.

    Args:
        device: whose generator is in use, next to the CPU's.
        owners: models, loaders and functions; all that they hold is looked through for generators.
    """

    def __init__(self, device: torch.device, *owners: Any) -> None:
        self.device = device
        self._own: dict[str, Any] = {}
        waiting = [(str(number), owner) for number, owner in enumerate(owners)]
        seen = {id(owner): owner for owner in owners}  # Kept, lest another thing takes the place of one in memory.
        for path, thing in waiting:
            if isinstance(thing, GENERATORS):
                self._own[path] = thing
                continue
            for name, part in _parts(thing):
                if id(part) not in seen and not isinstance(part, PLAIN) and len(seen) < MOST_THINGS:
                    seen[id(part)] = part
                    waiting.append((f"{path}.{name}", part))

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


def _parts(thing: Any) -> Iterable[tuple[object, Any]]:
    """What a collection, a function or an object holds."""
    if isinstance(thing, Mapping):
        return thing.items() if len(thing) <= MOST_PARTS else ()
    if isinstance(thing, list | tuple | set | frozenset):
        return enumerate(thing) if len(thing) <= MOST_PARTS else ()
    if isinstance(thing, functools.partial):
        return enumerate((thing.func, thing.args, thing.keywords))
    if isinstance(thing, MethodType):
        return [("self", thing.__self__)]
    if isinstance(thing, FunctionType):
        return enumerate(cell.cell_contents for cell in thing.__closure__ or () if cell != _EMPTY)
    return list(getattr(thing, "__dict__", {}).items())


_EMPTY = CellType()


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
