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
from accelerate.utils import gather_object

from seeking.errors import INCOMPATIBLE_STATE_ERRORS, SeekingError
from seeking.internals import mt19937_words

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
        self._numpy: tuple[bytes, State] = b"", {}
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

    def snapshot(self) -> State:
        """The states as the generators give them, which takes microseconds."""
        state: State = {
            "python": random.getstate(),
            "numpy": self._numpy_state(),
            "torch": torch.get_rng_state(),
        }
        if self.device.type != "cpu":
            state["device"] = torch.get_device_module(self.device).get_rng_state()
        state["own"] = {path: _capture(generator) for path, generator in self._own.items()}
        return state

    def state_dict(self) -> State:
        """The states as JSON-serializable values."""
        state: State = _as_plain(self.snapshot())
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from these states, of ``state_dict`` or ``snapshot``.

        Raises:
            SeekingError: these are not valid states.
        """
        try:
            _restore(random, state["python"])
            _restore(np.random, state["numpy"])
            torch.set_rng_state(_as_tensor(state["torch"]))
            if self.device.type != "cpu" and "device" in state:
                torch.get_device_module(self.device).set_rng_state(_as_tensor(state["device"]))
            for path, generator in self._own.items():
                if path in state["own"]:
                    _restore(generator, state["own"][path])
        except INCOMPATIBLE_STATE_ERRORS as error:
            raise SeekingError(f"not the states of random generators ({type(error).__name__}: {error})") from error

    def _numpy_state(self) -> State:
        """NumPy's state. To copy it takes longer than all others together, so it is if it has changed only."""
        bit_generator = np.random.get_bit_generator()  # type: ignore[attr-defined]
        if type(bit_generator) is not np.random.MT19937:
            return dict(_capture(np.random))
        memory = mt19937_words(bit_generator)
        before, state = self._numpy
        # Normal numbers are drawn in pairs; the second one is not kept in this memory.
        if memory != before or state["has_gauss"]:
            self._numpy = memory, _capture(np.random)
        return self._numpy[1]

    @contextlib.contextmanager
    def preserved(self) -> Iterator[None]:
        """Restore the current states on exit."""
        state = self.snapshot()
        try:
            yield
        finally:
            self.load_state_dict(state)


class RunRandomState:
    """The random states of a run in all processes: the current ones and those at the start of the epoch.

    A batch draws random numbers as it is loaded and as the models step on it. If it ends before a model has stepped,
    ``undo_batch`` lets it draw the same ones again.

    Args:
        generators: the generators of this process.
        accelerator: that knows the processes.
    """

    def __init__(self, generators: RandomState, accelerator: Accelerator) -> None:
        self.generators = generators
        self.epoch_start = generators.state_dict()
        self._accelerator = accelerator
        self._batch_start: State | None = None

    def start_batch(self) -> None:
        """Call before a batch is loaded."""
        self._batch_start = self.generators.snapshot()

    def undo_batch(self) -> None:
        """Go back to the states before the latest batch was loaded."""
        if self._batch_start is not None:
            self.generators.load_state_dict(self._batch_start)

    def state_dict(self) -> State:
        """The states of all processes; all processes must call this."""
        own = {"epoch": self.epoch_start, "now": self.generators.state_dict()}
        return {"processes": gather_object([own])}

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
        return generator.get_state()
    if isinstance(generator, np.random.Generator):
        return generator.bit_generator.state
    return generator.get_state(legacy=False) if hasattr(generator, "get_state") else generator.getstate()


def _restore(generator: Any, state: Any) -> None:
    if isinstance(generator, torch.Generator):
        generator.set_state(_as_tensor(state))
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
    if isinstance(value, torch.Tensor):
        return value.numpy().tobytes().hex()
    if isinstance(value, tuple):
        return [_as_plain(item) for item in value]
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


def _as_tensor(state: Any) -> torch.Tensor:
    return state if isinstance(state, torch.Tensor) else torch.frombuffer(bytearray.fromhex(state), dtype=torch.uint8)
