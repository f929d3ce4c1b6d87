"""Capture and restore the states of all random generators of a run."""

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
PLAIN_TYPES = (str, bytes, int, float, complex, torch.Tensor, np.ndarray, np.generic, type, ModuleType, NoneType)
"""Types that contain no generators."""
MAX_PARTS, MAX_OBJECTS = 1000, 100_000
"""Larger collections are taken for data and not searched for generators; at most MAX_OBJECTS objects are searched."""


def derive_seed(seed: int) -> int:
    """A seed to which epoch numbers can be added without reaching the seeds of another run."""
    return seed * 1_000_003


class RandomState:
    """The global generators (Python, NumPy, PyTorch, the device) and the generators that models and data hold.

    Args:
        device: the device whose generator is used, in addition to the CPU's.
        owners: models, loaders and functions; searched recursively for generators.
    """

    def __init__(self, device: torch.device, *owners: Any) -> None:
        self.device = device
        self._own: dict[str, Any] = {}
        queue = [(str(number), owner) for number, owner in enumerate(owners)]
        seen = {id(owner): owner for owner in owners}  # Holding the objects keeps their ids unique.
        for path, value in queue:
            if isinstance(value, GENERATORS):
                self._own[path] = value
                continue
            for name, part in _parts(value):
                if id(part) not in seen and not isinstance(part, PLAIN_TYPES) and len(seen) < MAX_OBJECTS:
                    seen[id(part)] = part
                    queue.append((f"{path}.{name}", part))

    def state_dict(self) -> State:
        """The states as JSON-serializable values."""
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
            SeekingError: these are not valid states.
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
        """Restore the current states on exit."""
        state = self.state_dict()
        try:
            yield
        finally:
            self.load_state_dict(state)


class RunRandomState:
    """The random states of a run in all processes: the current ones and those at the start of the epoch.

    Args:
        generators: the generators of this process.
        accelerator: used to gather the states of all processes.
    """

    def __init__(self, generators: RandomState, accelerator: Accelerator) -> None:
        self.generators = generators
        self.epoch_start = generators.state_dict()
        self._accelerator = accelerator

    def state_dict(self) -> State:
        """The states of all processes; all processes must call this."""
        own = {"epoch": self.epoch_start, "now": self.generators.state_dict()}
        return {"processes": gather_json(own, self._accelerator)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from these states; if the number of processes has changed, some are reused or dropped."""
        own = state["processes"][self._accelerator.process_index % len(state["processes"])]
        self.epoch_start = own["epoch"]
        self.generators.load_state_dict(own["now"])


def _parts(value: Any) -> Iterable[tuple[object, Any]]:
    """The members of a collection, a function or an object."""
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
    """NumPy does not check positions in its buffers; a wrong one would read out of bounds."""
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
