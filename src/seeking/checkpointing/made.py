"""What a program makes on a disk before it has anything to keep there."""

from contextlib import suppress
from pathlib import Path

from seeking.errors import SeekingError
from seeking.files import is_folder, reason, status


class Made:
    """Folders and files that this program made, to be taken back if what they were made for comes to nothing."""

    def __init__(self) -> None:
        self._paths: list[Path] = []

    def make_folder(self, path: Path) -> None:
        """Make a folder and those that it is in, where there is none.

        Raises:
            OSError: one cannot be made.
        """
        for each in [*reversed(path.parents), path]:
            if each.is_dir():
                continue
            try:
                each.mkdir()
            except FileExistsError:  # Another program was faster.
                if not each.is_dir():
                    raise
            else:
                self._paths.append(each)

    def make_new_folder(self, path: Path) -> bool:
        """Make a folder that is not there yet, and those that it is in.

        Returns:
            Whether it was not there.

        Raises:
            SeekingError: one cannot be made.
        """
        try:
            self.make_folder(path.parent)
            path.mkdir()
        except FileExistsError:
            return False
        except OSError as error:
            raise SeekingError(f"{path}: cannot be made ({reason(error)})") from error
        self._paths.append(path)
        return True

    def add(self, *paths: Path) -> None:
        """Count these files as made by this program."""
        self._paths += paths

    def take_back(self) -> None:
        """Delete them, and the folders if nothing else is in them."""
        for path in reversed(self._paths):
            with suppress(OSError):
                if is_folder(path):
                    path.rmdir()
                elif status(path):
                    path.unlink()
        self._paths.clear()
