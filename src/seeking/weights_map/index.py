"""Positions along one dimension of a tensor."""

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from seeking.errors import SeekingError

MAX_SIZE = 1 << 48
"""Every dimension is smaller than this."""

MAX_SPAN = 1 << 24
"""Greatest distance of the first and the last position of an unordered index that is searched for duplicates."""


@dataclass(frozen=True)
class Index:
    """Ordered positions along one dimension of a tensor, stored as runs of constant step.

    The text form is that of Python slices, ``0:192, 384:576`` or ``0:384:2``.
    """

    runs: tuple[range, ...]

    @classmethod
    def of(cls, positions: Iterable[int]) -> "Index":
        """The index of these positions, in this order."""
        if isinstance(positions, range) and positions.step > 0:
            return cls._merged([positions])
        return cls._merged(range(position, position + 1) for position in positions)

    @classmethod
    def _merged(cls, parts: Iterable[range]) -> "Index":
        """The positions of these runs in their order, in as few runs as extending each greedily gives."""
        runs: list[range] = []
        for part in parts:
            while part:
                last = runs[-1] if runs else range(0)
                step = part[0] - last[0] if len(last) == 1 else last.step
                if not last or step <= 0 or part[0] != last[-1] + step:
                    runs.append(part if len(part) > 1 else range(part[0], part[0] + 1))
                    break
                taken = len(part) if len(part) == 1 or part.step == step else 1
                runs[-1] = range(last[0], part[taken - 1] + 1, step)
                part = part[taken:]
        return cls(tuple(runs))

    @classmethod
    def parse(cls, text: str) -> "Index":
        """Read the text form.

        Raises:
            SeekingError: the text is not a list of positions and slices.
        """
        if not isinstance(text, str):
            raise SeekingError(f"index {text!r} is not text")
        runs = []
        for part in text.split(",") if text.strip() else ():
            try:
                numbers = [int(number) for number in part.split(":")]
                run = range(numbers[0], numbers[0] + 1) if len(numbers) == 1 else range(*numbers)
            except (ValueError, TypeError) as error:
                raise SeekingError(
                    f"index {text!r}: {part.strip()!r} is neither a position nor start:stop[:step]"
                ) from error
            if not run or run.step < 0 or run.start < 0 or run.stop >= MAX_SIZE:
                raise SeekingError(f"index {text!r}: {part.strip()!r} names no position from 0 up")
            runs.append(run)
        return cls._merged(runs)

    def __str__(self) -> str:
        return ", ".join(
            str(run[0]) if len(run) == 1 else f"{run.start}:{run.stop}" + (f":{run.step}" if run.step != 1 else "")
            for run in self.runs
        )

    def __len__(self) -> int:
        return sum(map(len, self.runs))

    def __iter__(self) -> Iterator[int]:
        return itertools.chain.from_iterable(self.runs)

    def tensor(self, device: torch.device | str = "cpu") -> Tensor:
        """The positions, int64, of shape ``[len(self)]``."""
        return torch.tensor(list(self), dtype=torch.long, device=device)

    def repeats(self) -> bool:
        """Whether a position occurs twice.

        Raises:
            SeekingError: the positions are unordered and too far apart to be searched.
        """
        ordered = sorted(self.runs, key=lambda run: run.start)
        if all(run[-1] < following.start for run, following in itertools.pairwise(ordered)):
            return False
        start, count = ordered[0].start, sum(map(len, self.runs))
        span = max(run.stop for run in self.runs) - start
        if count > span:
            return True
        if span > MAX_SPAN:
            raise SeekingError(f"an index over {span:,} positions that jumps back and forth is not supported")
        taken = bytearray(span)
        for run in self.runs:
            taken[run.start - start : run.stop - start : run.step] = bytes([1]) * len(run)
        return sum(taken) != count

    def covers(self, size: int) -> bool:
        """Whether the index is every position of a dimension of this size, in order."""
        return self.runs == ((range(size),) if size else ())

    def slices(self) -> Iterator[tuple[slice, slice]]:
        """For each run, a slice of the indexed positions and the slice of the dimension that it stands for."""
        start = 0
        for run in self.runs:
            yield slice(start, start + len(run)), slice(run.start, run.stop, run.step)
            start += len(run)
