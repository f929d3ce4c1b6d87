"""The manifest of a run folder: it marks the folder as this program's, and lists its finished files.

manifest.json names each file that the run has finished writing, with its size and SHA-256. A file is listed before it
gets its name, and what it replaces (null if there is no file) is listed until then: so what is there is always one of
those listed, wherever the program is killed.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal

from seeking.errors import DamagedError
from seeking.files import atomic_write, is_file, open_file, reading, status

NAME = "manifest.json"
FORMAT = "seeking.run"
VERSION = 1
MAX_BYTES = 1 << 16

Kind = Literal["run", "comparison"]
KINDS: tuple[Kind, ...] = ("run", "comparison")

Digest = dict[str, Any] | None
"""``sha256`` and ``bytes`` of a file; None if there is no file."""

_FILE = re.compile(r"[\w-]+(\.[\w-]+)+")


class ForeignError(DamagedError):
    """What is at the place of a manifest is none of a run: somebody else's, or damaged so that it cannot be told."""


def digest(path: Path) -> Digest:
    """The size and SHA-256 of a file; None if there is no regular file.

    Raises:
        OSError: it cannot be read.
    """
    if not is_file(path):
        return None
    with open_file(path) as file:
        return {"sha256": hashlib.file_digest(file, "sha256").hexdigest(), "bytes": file.tell()}


class Manifest:
    """The manifest of a folder.

    Args:
        folder: of the run or the comparison.
        kind: of what is in the folder.
        files: the digests that each finished file may have, the newest last.
        ready: called when the manifest is written, before it gets its name; may raise.
    """

    def __init__(
        self,
        folder: Path,
        kind: Kind = "run",
        files: dict[str, list[Digest]] | None = None,
        ready: Callable[[Path], object] | None = None,
    ) -> None:
        self.path = folder / NAME
        self.kind = kind
        self.files = files or {}
        self.ready = ready

    @classmethod
    def read(cls, folder: Path, ready: Callable[[Path], object] | None = None) -> "Manifest | None":
        """The manifest of a folder; None if it has none.

        Raises:
            ForeignError: what is there is not a manifest of a run.
            DamagedError: it is one that is damaged.
            OSError: it cannot be read.
        """
        path = folder / NAME
        if status(path) is None:
            return None
        if not is_file(path):
            raise ForeignError(f"{path}: not a file of its own")
        with open_file(path) as file:
            text = file.read(MAX_BYTES + 1)
        unfit = DamagedError if FORMAT.encode() in text else ForeignError
        try:
            content = json.loads(text)
            manifest = cls(folder, content["kind"], content["files"], ready)
            lists = [
                digests and all(not each or (each["sha256"].isalnum() and each["bytes"] >= 0) for each in digests)
                for name, digests in manifest.files.items()
                if _FILE.fullmatch(name)
            ]
            intact = manifest._text().encode() == text and all(lists) and len(lists) == len(manifest.files)
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise unfit(f"{path}: damaged ({type(error).__name__}: {error})") from error
        if not intact or manifest.kind not in KINDS:
            raise unfit(f"{path}: damaged; it is not as it was written")
        return manifest

    def write(self) -> None:
        """Write the manifest.

        Raises:
            OSError: it cannot be written.
        """
        with atomic_write(self.path, self.ready) as temporary:
            temporary.write_text(self._text(), encoding="utf-8")

    def announce(self, name: str, file: Path) -> None:
        """List a file before it gets its name.

        Raises:
            OSError: the file cannot be read, or the manifest not be written.
        """
        old, new = self.files.get(name) or [digest(self.path.with_name(name))], digest(file)
        self.files[name] = [*(each for each in old if each != new), new]
        self.write()

    def settle(self, name: str) -> None:
        """Forget what a file has replaced, from the next ``write`` on."""
        self.files[name] = self.files[name][-1:]

    def forget(self, names: Iterable[str]) -> None:
        """No longer list these files.

        Raises:
            OSError: the manifest cannot be written.
        """
        listed = self.files.keys() & set(names)
        for name in listed:
            del self.files[name]
        if listed:
            self.write()

    def _text(self) -> str:
        content = {"format": FORMAT, "version": VERSION, "kind": self.kind, "files": self.files}
        return json.dumps(content, indent=2) + "\n"


def kind_of(folder: Path) -> Kind | None:
    """What a folder holds by its manifest; None if it has none, or none that is intact.

    Raises:
        OSError: the manifest cannot be read.
    """
    try:
        manifest = Manifest.read(folder)
    except DamagedError:
        return None
    return manifest.kind if manifest else None


def of_run(folder: Path) -> Manifest | None:
    """The manifest of the run in a folder; None if there is none, or one of somebody else's.

    Raises:
        DamagedError: it is damaged.
        OSError: it cannot be read.
    """
    try:
        return Manifest.read(folder)
    except ForeignError:
        return None


def check_file(path: Path) -> bool:
    """Make sure that a file is one of those that the manifest of its folder lists, if it has one.

    Returns:
        Whether it is there and the manifest lists it.

    Raises:
        DamagedError: the file or the manifest is not as it was written.
        SeekingError: it cannot be read, which may pass.
    """
    with reading(path):
        manifest = of_run(path.parent)
        while manifest and path.name in manifest.files:
            file_digest = digest(path)
            if file_digest in manifest.files[path.name]:
                return file_digest is not None
            seen, manifest = manifest, of_run(path.parent)
            if manifest and manifest.files == seen.files:  # Not replaced meanwhile by a run that is going on.
                raise DamagedError(
                    f"{path}: missing"
                    if file_digest is None
                    else f"{path}: damaged; it is not the file that {NAME} lists ({file_digest['bytes']:,} bytes)"
                )
    return False
