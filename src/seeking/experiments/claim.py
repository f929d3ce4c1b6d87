"""Whose the folder of an experiment is: one recipe's, and one program's at a time."""

import contextlib
import dataclasses
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from seeking.checkpointing.run_files import LOCK
from seeking.errors import SeekingError
from seeking.experiments.config import RunConfig
from seeking.experiments.parallel import runs_by_folder
from seeking.experiments.recipe import Recipe
from seeking.files import read_json, reason, write_json, writing

FORMAT = 2
"""Format version of the files of an experiment; files of another version are not read."""

CHANGEABLE = RunConfig.changeable() - {"epochs"}
"""Options that may change when an experiment is resumed."""


@contextlib.contextmanager
def claim(recipe: Recipe, root: Path) -> Iterator[None]:
    """Create the folder of an experiment, or check that it belongs to this recipe, and hold it for this program.

    A folder in which no run has begun becomes this recipe's. The recipe may have got more arms and pairs since.

    Raises:
        SeekingError: it belongs to another recipe, scale or format version, holds other files, or another program
            holds it.
    """
    path = root / "recipe.json"
    lock = FileLock(root / LOCK)
    try:
        root.mkdir(parents=True, exist_ok=True)
        of_others = "format" not in read_json(path) if path.exists() else _holds_runs(root)
        if of_others:
            raise SeekingError(f"{root} does not hold the results of a recipe; name another output folder")
        lock.acquire(timeout=0)
    except Timeout as error:
        raise SeekingError(
            f"{root}: another program is running an experiment in this folder; wait for it, or name another one"
        ) from error
    except OSError as error:
        raise SeekingError(f"{root}: cannot be used as an output folder ({reason(error)})") from error
    try:
        _record(recipe, root, path)
        yield
    finally:
        lock.release()


def _holds_runs(root: Path) -> bool:
    """Whether a folder holds anything but what is there before the first run."""
    names = {path.name for path in root.iterdir()} - {"recipe.json", LOCK}
    return not all(name.endswith(".writing") for name in names)


def _record(recipe: Recipe, root: Path, path: Path) -> None:
    """Write down whose the folder is, or check that it is this recipe's."""
    current = {"format": FORMAT, **json.loads(json.dumps(dataclasses.asdict(recipe)))}
    try:
        if not _holds_runs(root):
            write_json(path, current)
            return
    except OSError as error:
        raise SeekingError(f"{root}: cannot be used as an output folder ({reason(error)})") from error
    recorded = read_json(path)
    before, now = ({**content, "options": _fixed(content.get("options"))} for content in (recorded, current))
    differing = [key for key in now if key not in ("title", "seeds", "jobs") and now[key] != before.get(key)]
    if not differing:
        return
    if not (recorded.get("format") == FORMAT and _continued(recorded, recipe)):
        lines = [line for key in differing for line in _difference(key, before.get(key), now[key])]
        raise SeekingError(
            "\n".join([f"{root} holds the results of another recipe:", *lines, "Name another output folder"])
        )
    with writing(path):
        write_json(path, current)


def _difference(key: str, before: Any, now: Any) -> list[str]:
    """What differs, and of two mappings each key that does."""
    if before in (None, {}) and now in (None, {}):  # Options of a pair or a search that an added arm does not have.
        return []
    if isinstance(before, dict) and isinstance(now, dict):
        keys = [name for name in {**before, **now} if before.get(name) != now.get(name)]
        return [line for name in keys for line in _difference(f"{key}: {name}", before.get(name), now.get(name))]
    return [f"  {key}: {before!r} in the folder, {now!r} now"]


def _fixed(options: Any) -> Any:
    """Options without those that may change."""
    return {k: v for k, v in options.items() if k not in CHANGEABLE} if isinstance(options, dict) else options


def _continued(recorded: Mapping[str, Any], recipe: Recipe) -> bool:
    """Whether a recipe, perhaps written in another way, has all the arms of the recorded one, with the same runs."""
    fields: dict[str, Any] = {name: recorded.get(name) for name in Recipe.__dataclass_fields__}
    try:
        fields |= {"pairs": tuple(map(tuple, recorded["pairs"])), "budgets": tuple(recorded["budgets"])}
        (common, *plans), (common_now, *plans_now) = _plan(Recipe(**fields)), _plan(recipe)
    except (AttributeError, LookupError, SeekingError, SystemExit, TypeError, ValueError):
        return False
    if common != common_now:
        return False
    return all(plan.items() <= now.items() for plan, now in zip(plans, plans_now, strict=True))


def _plan(recipe: Recipe) -> tuple[Any, dict[str, Any], dict[str, Any], dict[str, Any]]:
    """What a recipe comes to: what its arms share, its runs but for options that may change, and what is searched."""
    runs = runs_by_folder(recipe.trials([0], dict.fromkeys(recipe.pairs, 2.0)))
    fixed = {
        folder: {name: value for name, value in run.config.recorded().items() if name not in CHANGEABLE}
        for folder, run in runs.items()
    }
    stages = {folder: (run.method, run.after, dict(run.settings)) for folder, run in runs.items()}
    searched = {arm: recipe.candidates(arm) for arm in recipe.search}
    of_search = (recipe.pairs[0], recipe.budgets) if any(recipe.search.values()) else None
    return (recipe.name, recipe.scale, recipe.reference, recipe.classes, of_search), fixed, stages, searched
