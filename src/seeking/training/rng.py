"""The states of all random generators that a run draws from."""

import contextlib
import functools
import random
from collections.abc import Iterable, Iterator, Mapping
from types import CellType, FunctionType, MethodType, ModuleType, NoneType
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator

from seeking.distributed.processes import gather_json
from seeking.errors import INCOMPATIBLE_STATE_ERRORS, SeekingError

State = dict[str, Any]

GENERATORS = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)
PLAIN = (str, bytes, int, float, complex, torch.Tensor, np.ndarray, np.generic, type, ModuleType, NoneType)
"""Types that hold no generators."""
MAX_PARTS, MAX_OBJECTS = 1000, 100_000
"""A collection of more parts than this holds data, not generators; no more objects than that are looked at."""


def derive_seed(seed: int) -> int:
    """A seed to which epochs may be added without running into the seeds of another run."""
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
        seen = {id(owner): owner for owner in owners}  # Kept alive, so that no identity is reused.
        for path, value in waiting:
            if isinstance(value, GENERATORS):
                self._own[path] = value
                continue
            for name, part in _parts(value):
                if id(part) not in seen and not isinstance(part, PLAIN) and len(seen) < MAX_OBJECTS:
                    seen[id(part)] = part
                    waiting.append((f"{path}.{name}", part))

    def state_dict(self) -> State:
        """The states, as JSON-serialisable values."""
        state: State = {
            "python": _capture(random),
            "numpy": _capture(np.random),
            "torch": _to_hex(torch.get_rng_state()),
        }
        if self.device.type != "cpu":
            state["device"] = _to_hex(torch.get_device_module(self.device).get_rng_state())
        state["own"] = {path: _capture(generator) for path, generator in self._own.items()}
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from these states.

        Raises:
            SeekingError: they are not states of generators.
        """
        try:
            _restore(random, state["python"])
            _restore(np.random, state["numpy"])
            torch.set_rng_state(_from_hex(state["torch"]))
            if self.device.type != "cpu" and "device" in state:
                torch.get_device_module(self.device).set_rng_state(_from_hex(state["device"]))
            for path, generator in self._own.items():
                if path in state["own"]:
                    _restore(generator, state["own"][path])
        except INCOMPATIBLE_STATE_ERRORS as error:
            raise SeekingError(f"not the states of random generators ({type(error).__name__}: {error})") from error

    @contextlib.contextmanager
    def preserved(self) -> Iterator[None]:
        """Undo whatever is drawn inside."""
        state = self.state_dict()
        try:
            yield
        finally:
            self.load_state_dict(state)


class RunRandomState:
    """The random states of a run in all its processes: now, and at the beginning of this epoch.

    Args:
        generators: of this process.
        accelerator: that knows the other processes.
    """

    def __init__(self, generators: RandomState, accelerator: Accelerator) -> None:
        self.generators = generators
        self.epoch_start = generators.state_dict()
        self._accelerator = accelerator

    def state_dict(self) -> State:
        """The states in all processes, which must all call this."""
        own = {"epoch": self.epoch_start, "now": self.generators.state_dict()}
        return {"processes": gather_json(own, self._accelerator)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from these states; with other numbers of processes, some states are used twice or not at all."""
        own = state["processes"][self._accelerator.process_index % len(state["processes"])]
        self.epoch_start = own["epoch"]
        self.generators.load_state_dict(own["now"])


def _parts(value: Any) -> Iterable[tuple[object, Any]]:
    """What a collection, a function or an object holds."""
    if isinstance(value, Mapping):
        return value.items() if len(value) <= MAX_PARTS else ()
    if isinstance(value, list | tuple | set | frozenset):
        return enumerate(value) if len(value) <= MAX_PARTS else ()
    if isinstance(value, functools.partial):
        return enumerate((value.func, value.args, value.keywords))
    if isinstance(value, MethodType):
        return [("self", value.__self__)]
    if isinstance(value, FunctionType):
        return enumerate(cell.cell_contents for cell in value.__closure__ or () if cell != _EMPTY)
    return list(getattr(value, "__dict__", {}).items())


_EMPTY = CellType()


def _capture(generator: Any) -> Any:
    if isinstance(generator, torch.Generator):
        return _to_hex(generator.get_state())
    if isinstance(generator, np.random.Generator):
        return _as_plain(generator.bit_generator.state)
    if hasattr(generator, "get_state"):
        return _as_plain(generator.get_state(legacy=False))
    version, numbers, gauss = generator.getstate()
    return [version, list(numbers), gauss]


def _restore(generator: Any, state: Any) -> None:
    if isinstance(generator, torch.Generator):
        generator.set_state(_from_hex(state))
    elif isinstance(generator, np.random.Generator):
        _check_positions(state)
        generator.bit_generator.state = state
    elif hasattr(generator, "set_state"):
        _check_positions(state["state"])
        generator.set_state({**state, "gauss": float(state["gauss"])})
    else:
        version, numbers, gauss = state
        generator.setstate((version, tuple(numbers), None if gauss is None else float(gauss)))


def _check_positions(state: Mapping[str, Any]) -> None:
    """NumPy does not, and reads whatever memory a wrong position in a generator's buffer points at."""
    for name, size in (("pos", 624), ("buffer_pos", 4)):
        for part in (state, state.get("state")):
            position = part.get(name, 0) if isinstance(part, Mapping) else 0
            if type(position) is not int or not 0 <= position <= size:
                raise ValueError(f"{name} {position!r}")


def _as_plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _as_plain(item) for key, item in value.items()}
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


def _to_hex(state: torch.Tensor) -> str:
    return state.numpy().tobytes().hex()


def _from_hex(text: str) -> torch.Tensor:
    return torch.frombuffer(bytearray.fromhex(text), dtype=torch.uint8)
