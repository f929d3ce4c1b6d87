"""The state of a run: every part's own state under its name, saved and restored without knowing what the parts are."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Protocol

from seeking.checkpointing import snapshot
from seeking.checkpointing.run_dir import RunFolder
from seeking.checkpointing.serialize import unpack
from seeking.checkpointing.upgrade import upgrade
from seeking.distributed.processes import from_first_process
from seeking.errors import INCOMPATIBLE_STATE_ERRORS, SeekingError

State = dict[str, Any]

VERSION = 3
"""Of the state."""


class Stateful(Protocol):
    """A part of a run that must survive a restart."""

    def state_dict(self) -> Mapping[str, Any]:
        """Everything that decides the part's future, made of tensors, arrays, numbers, text, lists and mappings.

        Called in all processes; what the first one returns is saved.
        """

    def load_state_dict(self, state: Any) -> object:
        """Continue from where ``state_dict`` was called."""


def capture_state(parts: Mapping[str, Stateful], about: Mapping[str, Any]) -> State:
    """The state of a run between two steps.

    Args:
        parts: by name.
        about: what the run is: its options and the like.
    """
    return {"version": VERSION, **about, "parts": {name: part.state_dict() for name, part in parts.items()}}


def restore_state(parts: Mapping[str, Stateful], state: Mapping[str, Any]) -> None:
    """Put every part where it was when the state was captured, in the order of ``parts``.

    A part may have come or gone since if it has no state, such as a loss without buffers.

    Raises:
        SeekingError: it is the state of another run.
    """
    saved = state["parts"]
    gone = [name for name in saved.keys() - parts.keys() if saved[name]]
    new = [name for name in parts.keys() - saved.keys() if parts[name].state_dict()]
    if gone or new:
        raise SeekingError(
            f"the run had the parts {', '.join(saved)} and has {', '.join(parts)} now; if one model was trained alone "
            "in it, for a comparison or an experiment, resume that by seeking compare --resume or seeking reproduce; "
            "in Python, give the Trainer the same models, algorithm, objective and parts"
        )
    try:
        for name, part in parts.items():
            if name in saved:
                part.load_state_dict(saved[name])
    except INCOMPATIBLE_STATE_ERRORS as error:
        raise SeekingError(f"the checkpoint is of another run ({type(error).__name__}: {error})") from error


def newest_state(folder: RunFolder, models: Collection[str]) -> State | None:
    """The state in the newest intact checkpoint of a folder, the same in every process; None if there has been none.

    Args:
        folder: of the run.
        models: names of the models that are trained.

    Raises:
        SeekingError: none is intact.
    """
    state: State | None = None

    def newest_step() -> int | None:
        nonlocal state
        if content := folder.newest_checkpoint():
            state = _checked(unpack(*content), models)
        return state["step"] if state else None

    step = from_first_process(newest_step)
    if step is not None and state is None:  # In the other processes.
        state = read_state(folder.checkpoints / snapshot.name(step), models)
    return state


def read_state(checkpoint: Path, models: Collection[str]) -> State:
    """The state in a checkpoint.

    Args:
        checkpoint: its folder.
        models: names of the models that are trained.

    Raises:
        DamagedError: the checkpoint is not as it was written.
        SeekingError: it cannot be read, or is not one of a run.
    """
    return _checked(unpack(*snapshot.read(checkpoint)), models)


def _checked(state: Any, models: Collection[str]) -> State:
    if isinstance(state, dict) and "version" not in state:
        try:
            state = upgrade(state, models)
        except INCOMPATIBLE_STATE_ERRORS as error:
            raise SeekingError(
                f"the newest checkpoint is not one of a run ({type(error).__name__}: {error})"
            ) from error
    expected = {"options": dict, "map": dict | None, "step": int, "parts": dict, "metrics_bytes": int, "version": int}
    if not isinstance(state, dict) or not all(
        isinstance(state.get(key, ...), kind) and type(state[key]) is not bool for key, kind in expected.items()
    ):
        raise SeekingError("the newest checkpoint is not one of a run")
    if state["version"] != VERSION:
        raise SeekingError(f"the checkpoint is of version {state['version']}, and this program reads {VERSION}")
    if state["metrics_bytes"] < 0 or state["step"] < 0:
        raise SeekingError("the newest checkpoint is not one of a run: a count is negative")
    return state


def check_options(current: Mapping[str, Any], saved: Mapping[str, Any], changeable: frozenset[str]) -> None:
    """Refuse options other than the run's, unless they may change.

    Args:
        current: by name, as they are recorded.
        saved: likewise.
        changeable: names of options that may differ.

    Raises:
        SeekingError: with both values of each that differs.
    """
    differing = [
        f"  {name}: {saved[name]!r} in the run, {current[name]!r} now"
        for name in sorted(current.keys() & saved.keys() - changeable)
        if current[name] != saved[name]
    ]
    if differing:
        lines = ["it was made with other options:", *differing]
        raise SeekingError("\n".join([*lines, "Give those to resume it, or name another output folder"]))
