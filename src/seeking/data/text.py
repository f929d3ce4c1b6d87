"""Texts as bytes, and windows of them."""

import random
import sysconfig
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from seeking.checkpointing.fingerprint import digest, sample
from seeking.errors import SeekingError
from seeking.files import check_regular, reason, user_path
from seeking.training.rng import derive_seed

PYTHON = "python"
"""The text that every machine has: the sources of Python's standard library."""
INSTALLED = {"site-packages", "dist-packages"}


def read_text(source: str) -> Tensor:
    """The bytes of a text, uint8.

    Args:
        source: the path of a file, or ``python`` for the sources of the standard library, file by file in an order that
            is random and always the same.

    Raises:
        SeekingError: it cannot be read.
    """
    paths = python_sources() if source == PYTHON else [user_path(source)]
    try:
        for path in paths:
            check_regular(path)
        content = b"".join(path.read_bytes() for path in paths)
    except OSError as error:
        raise SeekingError(
            f"{source}: cannot be read ({reason(error)}); give the path of a text, or {PYTHON} for the sources of "
            "Python's standard library"
        ) from error
    return torch.from_numpy(np.frombuffer(content, np.uint8).copy())


def python_sources() -> list[Path]:
    """The source files of Python's standard library, in a random order that depends on their names alone."""
    root = Path(sysconfig.get_path("stdlib"))
    paths = sorted(path for path in root.rglob("*.py") if not INSTALLED & {*path.parts} and path.is_file())
    random.Random(0).shuffle(paths)
    return paths


class Windows(Dataset[tuple[Tensor, Tensor]]):
    """Windows of a text: the bytes of each, and those that follow each of them.

    Args:
        text: uint8.
        length: bytes in a window.
        count: number of windows, if the text has as many side by side; else, and if not given, as many as it has.
        seed: if given, the windows lie at random, and elsewhere in each epoch; else they are spread evenly.

    Raises:
        SeekingError: the text is too short for one window.
    """

    stateless = True
    """An item does not depend on the items loaded before it."""

    def __init__(self, text: Tensor, length: int, count: int | None = None, seed: int | None = None) -> None:
        self.text, self.length, self.seed = text, length, seed
        self._places = len(text) - length  # Each window has one more byte, the one that follows.
        if self._places < 1:
            raise SeekingError(
                f"a text of {len(text):,} bytes is too short for a window of {length} and the byte that follows; give "
                "a longer text or a smaller sequence_length"
            )
        most = max(1, (len(text) - 1) // length)
        self.count = min(count or most, most)
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Draw where the windows of this epoch lie, if they lie at random."""
        if self.seed is None:
            self._starts = torch.linspace(0, self._places - 1, self.count, dtype=torch.float64).long()
        else:
            generator = torch.Generator().manual_seed(derive_seed(self.seed) + epoch)
            self._starts = torch.randint(self._places, (self.count,), generator=generator)

    def content_fingerprint(self) -> dict[str, Any]:
        """What identifies the text, wherever it lies."""
        return {"bytes": len(self.text), "count": self.count, "sample": digest(sample(self.text))}

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        inputs, targets = self.__getitems__([index])
        return inputs[0], targets[0]

    def __getitems__(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        """A batch: int64 ``[len(indices), length]``, and the byte that follows each, of the same shape."""
        starts = self._starts[torch.tensor(indices)]
        windows = self.text[starts[:, None] + torch.arange(self.length + 1)].long()
        return windows[:, :-1], windows[:, 1:]
