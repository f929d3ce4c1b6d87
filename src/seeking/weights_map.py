"""The weights map: which entries of the motivated model's tensors are the base model's."""

import dataclasses
import itertools
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from seeking.errors import SeekingError
from seeking.files import atomic_write, read_json

Shape = tuple[int, ...]
Slices = tuple[slice, ...]

FORMAT = "seeking.weights_map"
VERSION = 1
MOST_MAP = 1 << 26
"""Bytes of a file of a map that are read."""
LARGEST = 1 << 48
"""No dimension is as large as this."""
MOST_POSITIONS = 1 << 24
"""Positions of an index that jumps back and forth that are looked through."""


@dataclass(frozen=True)
class Index:
    """Ordered positions along one dimension of a tensor, held as runs of even distance.

    Its text form is that of Python slices, ``0:192, 384:576`` or ``0:384:2``.
    """

    runs: tuple[range, ...]

    @classmethod
    def of(cls, positions: Iterable[int]) -> "Index":
        """The index of these positions, in this order."""
        if isinstance(positions, range) and positions.step > 0:
            return cls._joined([positions])
        return cls._joined(range(position, position + 1) for position in positions)

    @classmethod
    def _joined(cls, parts: Iterable[range]) -> "Index":
        """The positions of these runs, one after the other, in as few runs as taking each as long as it goes gives."""
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
            if not run or run.step < 0 or run.start < 0 or run.stop >= LARGEST:
                raise SeekingError(f"index {text!r}: {part.strip()!r} names no position from 0 up")
            runs.append(run)
        return cls._joined(runs)

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
            SeekingError: there are too many to look through.
        """
        ordered = sorted(self.runs, key=lambda run: run.start)
        if all(one[-1] < other.start for one, other in itertools.pairwise(ordered)):
            return False
        start, count = ordered[0].start, sum(map(len, self.runs))
        span = max(run.stop for run in self.runs) - start
        if count > span:
            return True
        if span > MOST_POSITIONS:
            raise SeekingError(f"an index over {span:,} positions that jumps back and forth is not supported")
        taken = bytearray(span)
        for run in self.runs:
            taken[run.start - start : run.stop - start : run.step] = bytes([1]) * len(run)
        return sum(taken) != count

    def covers(self, size: int) -> bool:
        """Whether this is every position of a dimension of ``size``, in order."""
        return self.runs == ((range(size),) if size else ())


@dataclass(frozen=True)
class Entry:
    """Where one base tensor lies in the motivated model.

    Attributes:
        target: name of the motivated model's tensor.
        index: for each dimension of the base tensor, its positions in the target.
        target_shape: shape of the target.
        origin: what decided it: ``name``, ``structure``, ``rule: …`` or ``user``.
    """

    target: str
    index: tuple[Index, ...]
    target_shape: Shape
    origin: str = "name"

    def __post_init__(self) -> None:
        if len(self.index) != len(self.target_shape):
            raise SeekingError(
                f"{self.target}: {len(self.index)} indices for {len(self.target_shape)} dimensions; give one for each"
            )
        for dim, (index, size) in enumerate(zip(self.index, self.target_shape, strict=True)):
            if any(run[-1] >= size or run[0] < 0 for run in index.runs):
                raise SeekingError(f"{self.target}, dimension {dim}: index {index} leaves the dimension's size {size}")
            if index.repeats():
                raise SeekingError(f"{self.target}, dimension {dim}: index {index} names a position twice")

    @property
    def shape(self) -> Shape:
        """Shape of the base tensor."""
        return tuple(map(len, self.index))

    @property
    def whole(self) -> bool:
        """Whether the base tensor is all of the target, in order."""
        return self.shape == self.target_shape and all(
            index.covers(size) for index, size in zip(self.index, self.target_shape, strict=True)
        )

    def blocks(self) -> Iterator[tuple[Slices, Slices]]:
        """The rectangular blocks of the entry: slices of the base tensor and of the target."""
        for runs in itertools.product(*(tuple(_placed(index)) for index in self.index)):
            yield tuple(here for here, _ in runs), tuple(there for _, there in runs)

    def block_count(self) -> int:
        """How many blocks ``blocks`` yields."""
        return math.prod(len(index.runs) for index in self.index)

    def mesh(self, device: torch.device | str = "cpu") -> tuple[Tensor, ...]:
        """Index tensors that broadcast to the base tensor's shape: ``target[mesh]`` is the base tensor."""
        rank = len(self.index)
        return tuple(
            index.tensor(device).view([-1 if d == dim else 1 for d in range(rank)])
            for dim, index in enumerate(self.index)
        )


def _placed(index: Index) -> Iterator[tuple[slice, slice]]:
    start = 0
    for run in index.runs:
        yield slice(start, start + len(run)), slice(run.start, run.stop, run.step)
        start += len(run)


def tensors(model: nn.Module) -> dict[str, Tensor]:
    """Every parameter and buffer of a model by name, tied and non-persistent ones included."""
    return {
        **dict(model.named_parameters(remove_duplicate=False)),
        **dict(model.named_buffers(remove_duplicate=False)),
    }


def tensors_in(value: Any) -> list[Tensor]:
    """Every tensor in a batch or an output: in mappings of any kind, dataclasses, tuples and lists, however deep."""
    if isinstance(value, Tensor):
        return [value]
    inside = value.values() if isinstance(value, Mapping) else value if isinstance(value, (tuple, list)) else ()
    if not inside and dataclasses.is_dataclass(value) and not isinstance(value, type):
        inside = vars(value).values()
    return [tensor for item in inside for tensor in tensors_in(item)]


class WeightsMap:
    """For each parameter and buffer of the base model: a target's name and an index per dimension.

    Args:
        entries: one entry for each base tensor, by the base tensor's name.
        motivated: shape of every tensor of the motivated model, by name.
        buffers: which of the motivated model's tensors are buffers, not parameters.

    Raises:
        SeekingError: an entry's target is not among ``motivated``, or has another shape there.
    """

    def __init__(
        self, entries: Mapping[str, Entry], motivated: Mapping[str, Shape], buffers: Iterable[str] = ()
    ) -> None:
        self.entries = dict(entries)
        self.buffers = frozenset(buffers)
        self.motivated = {name: tuple(shape) for name, shape in motivated.items()}
        for name, entry in self.entries.items():
            if entry.target not in self.motivated:
                raise SeekingError(f"{name}: target {entry.target!r} is not a tensor of the motivated model")
            if entry.target_shape != self.motivated[entry.target]:
                raise SeekingError(
                    f"{name}: target {entry.target} has shape {list(entry.target_shape)} in the entry and "
                    f"{list(self.motivated[entry.target])} in the motivated model"
                )

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, WeightsMap)
            and self.entries == other.entries
            and self.motivated == other.motivated
            and self.buffers == other.buffers
        )

    __hash__ = None  # type: ignore[assignment]

    def embed(self, source: Mapping[str, Tensor], into: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Put base tensors into their place in the motivated model's.

        Works for any tensors keyed and shaped like the parameters: weights, an average of them, one slot of an
        optimizer's state. ``source`` may hold a part of the base's names only.

        Args:
            source: tensors by base name.
            into: tensors by the motivated model's name; not changed. One tensor under two names stays one.

        Returns:
            ``into`` with the mapped entries replaced, in new tensors where anything was replaced.

        Raises:
            SeekingError: a name that the map does not have, or a tensor of another shape.
        """
        result = dict(into)
        written: set[str] = set()
        for name, tensor in source.items():
            entry = self._entry(name)
            _expect(name, tensor, entry.shape)
            target = self._tensor(result, entry)
            if entry.target not in written:
                target = result[entry.target] = target.clone()
                written.add(entry.target)
            target[entry.mesh(target.device)] = tensor.to(target)
        replaced = {id(into[name]): result[name] for name in written}
        return {name: replaced.get(id(into[name]), tensor) for name, tensor in result.items()}

    def extract(self, source: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Cut the base tensors out of the motivated model's; the inverse of ``embed``.

        Args:
            source: tensors by the motivated model's name; base tensors whose target is missing are left out.

        Returns:
            New tensors by base name.

        Raises:
            SeekingError: a tensor has another shape than the map's.
        """
        result = {}
        for name, entry in self.entries.items():
            if entry.target in source:
                target = self._tensor(source, entry)
                result[name] = target[entry.mesh(target.device)].clone()
        return result

    def then(self, larger: "WeightsMap") -> "WeightsMap":
        """Compose two maps: the base in a medium model, and that in a large one, give the base in the large one.

        Args:
            larger: where the motivated model of this map lies in a larger one.

        Raises:
            SeekingError: the larger map is not one of this map's motivated model.
        """
        entries = {}
        for name, entry in self.entries.items():
            outer = larger._entry(entry.target)
            if outer.shape != entry.target_shape:
                raise SeekingError(
                    f"{entry.target}: shape {list(entry.target_shape)} in the smaller map and {list(outer.shape)} in "
                    "the larger; the motivated model of the one must be the base of the other"
                )
            index = []
            for inner, around in zip(entry.index, outer.index, strict=True):
                positions = list(around)
                index.append(Index.of([positions[place] for place in inner]))
            origin = entry.origin if entry.origin == outer.origin else f"{entry.origin}, {outer.origin}"
            entries[name] = Entry(outer.target, tuple(index), outer.target_shape, origin)
        return WeightsMap(entries, larger.motivated, larger.buffers)

    def __str__(self) -> str:
        """A table for people: a line for each block, with the share of its parameters that is the base's."""
        sources = {entry.target: (name, math.prod(entry.shape)) for name, entry in self.entries.items()}
        blocks: dict[str, tuple[set[str], int, int]] = {}
        for target, shape in self.motivated.items():
            if target not in self.buffers:
                name, shared = sources.get(target, ("", 0))
                origin, total, common = blocks.get(_block(target), (set(), 0, 0))
                origins = origin | {_block(name)} if name else origin
                blocks[_block(target)] = origins, total + math.prod(shape), common + shared
        rows = [("base", "motivated", "parameters", "shared", "extra", "shared %")]
        for block, (origins, total, common) in blocks.items():
            rows.append((", ".join(sorted(origins)) or "-", block, *_counts(total, common)))
        total, common = sum(block[1] for block in blocks.values()), sum(block[2] for block in blocks.values())
        rows.append(("all", "all", *_counts(total, common)))
        return _table(rows)

    def details(self) -> str:
        """A table with a line for each base tensor: its target, its index and what decided it."""
        rows = [("base", "motivated", "shape", "of", "index", "from")]
        for name, entry in self.entries.items():
            index = "whole" if entry.whole else " | ".join(map(_shortened, entry.index))
            of = "×".join(map(str, entry.target_shape)) or "1"
            rows.append((name, entry.target, "×".join(map(str, entry.shape)) or "1", of, index, entry.origin))
        return _table(rows)

    def check(self, base: nn.Module, motivated: nn.Module) -> None:
        """Make sure that the map is one of these two models.

        Raises:
            SeekingError: a tensor is missing on either side, has another shape, or is tied to another in one model
                alone.
        """
        have = tensors(base)
        for name in have.keys() ^ self.entries.keys():
            where = "the map has no entry for it" if name in have else "the base model has no such tensor"
            raise SeekingError(f"{name}: {where}; the map belongs to other models")
        for name, tensor in have.items():
            _expect(f"{name} (base)", tensor, self.entries[name].shape)
        large = tensors(motivated)
        for name in large.keys() ^ self.motivated.keys():
            where = "unknown to the map" if name in large else "missing in the motivated model"
            raise SeekingError(f"{name}: {where}; the map belongs to other models")
        for name, tensor in large.items():
            _expect(f"{name} (motivated)", tensor, self.motivated[name])
        by_source: dict[int, str] = {}
        by_target: dict[int, list[str]] = {}
        for name, entry in self.entries.items():
            first = by_source.setdefault(id(have[name]), name)
            if large[self.entries[first].target] is not large[entry.target]:
                raise SeekingError(
                    f"{first} and {name} are one tensor in the base and two in the motivated model; "
                    "tie these weights in both models or in neither"
                )
            for other in by_target.setdefault(id(large[entry.target]), []):
                if have[other] is not have[name] and _overlap(self.entries[other], entry):
                    raise SeekingError(
                        f"{other} and {name} are two tensors in the base and lie in one place of {entry.target}; "
                        "tie these weights in both models or in neither, or correct the map"
                    )
            by_target[id(large[entry.target])].append(name)

    def as_dict(self) -> dict[str, Any]:
        """The map as JSON-serialisable values."""
        entries = {
            name: {
                "target": entry.target,
                "index": [str(index) for index in entry.index],
                "origin": entry.origin,
            }
            for name, entry in self.entries.items()
        }
        motivated = {name: list(shape) for name, shape in self.motivated.items()}
        return {"entries": entries, "motivated": motivated, "buffers": sorted(self.buffers)}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "WeightsMap":
        """The inverse of ``as_dict``.

        Raises:
            SeekingError: it is no map, or contradicts itself.
        """
        try:
            motivated = {str(name): tuple(map(_size, shape)) for name, shape in content["motivated"].items()}
            buffers = frozenset(map(str, content["buffers"]))
            entries = {
                str(name): Entry(
                    target=row["target"],
                    index=tuple(map(Index.parse, row["index"])),
                    target_shape=motivated[row["target"]],
                    origin=str(row["origin"]),
                )
                for name, row in content["entries"].items()
            }
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise SeekingError(f"not a weights map ({type(error).__name__}: {error})") from error
        return cls(entries, motivated, buffers)

    def save(self, path: str | Path) -> None:
        """Write the map as JSON, one line a tensor.

        Raises:
            OSError: the file cannot be written.
        """
        content = self.as_dict()

        def lines(rows: Mapping[str, Any]) -> str:
            return "{\n" + ",\n".join(f"    {json.dumps(k)}: {json.dumps(v)}" for k, v in rows.items()) + "\n  }"

        with atomic_write(Path(path)) as temporary:
            temporary.write_text(
                f'{{\n  "format": "{FORMAT}",\n  "version": {VERSION},\n'
                f'  "entries": {lines(content["entries"])},\n  "motivated": {lines(content["motivated"])},\n'
                f'  "buffers": {json.dumps(content["buffers"])}\n}}\n',
                encoding="utf-8",
            )

    @classmethod
    def load(cls, path: str | Path) -> "WeightsMap":
        """Read a map that ``save`` wrote.

        Raises:
            SeekingError: the file cannot be read, is no map, or contradicts itself.
        """
        content = read_json(Path(path), MOST_MAP)
        made = content.get("format"), content.get("version")
        if made != (FORMAT, VERSION):
            raise SeekingError(
                f"{path}: is {made[0]!r} version {made[1]!r}, this program reads {FORMAT!r} version {VERSION}"
            )
        try:
            return cls.from_dict(content)
        except SeekingError as error:
            raise SeekingError(f"{path}: {error}") from error

    def _entry(self, name: str) -> Entry:
        try:
            return self.entries[name]
        except KeyError:
            raise SeekingError(f"{name}: the map has no such base tensor") from None

    def _tensor(self, source: Mapping[str, Tensor], entry: Entry) -> Tensor:
        if entry.target not in source:
            raise SeekingError(f"{entry.target}: missing among the motivated model's tensors")
        _expect(entry.target, source[entry.target], entry.target_shape)
        return source[entry.target]


def _size(value: Any) -> int:
    if type(value) is not int or not 0 <= value < LARGEST:
        raise ValueError(f"{value!r} is no size of a dimension")
    return value


def _overlap(one: Entry, other: Entry) -> bool:
    return all(not set(a).isdisjoint(b) for a, b in zip(one.index, other.index, strict=True))


def _expect(name: str, tensor: Tensor, shape: Shape) -> None:
    if tuple(tensor.shape) != shape:
        raise SeekingError(f"{name}: shape {list(tensor.shape)} where the map has {list(shape)}")


def _block(name: str) -> str:
    """The block that a tensor belongs to: its path down to the last number, else its first part."""
    path = name.split(".")
    last = max((place for place, part in enumerate(path) if part.isdigit()), default=0)
    return ".".join(path[: last + 1])


def _counts(total: int, shared: int) -> tuple[str, str, str, str]:
    return f"{total:,}", f"{shared:,}", f"{total - shared:,}", f"{100 * shared / max(1, total):.1f}"


def _shortened(index: Index) -> str:
    return str(index) if len(index.runs) <= 4 else f"{Index(index.runs[:3])}, … ({len(index)} positions)"


def _table(rows: Sequence[tuple[str, ...]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    numeric = [all(cell[:1].isdigit() for cell in column[1:]) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, numeric, strict=True)
        ).rstrip()
        for row in rows
    )
    return "\n".join(lines)
