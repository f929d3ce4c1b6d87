"""The weights map of a base model in a motivated model, and its file."""

import functools
import json
from collections.abc import Hashable, Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from seeking.errors import SeekingError, naming
from seeking.files import atomic_write, read_json
from seeking.weights_map.entry import Entry, Shape
from seeking.weights_map.index import MAX_SIZE, Index
from seeking.weights_map.own import chosen
from seeking.weights_map.table import format_details, format_own, format_summary
from seeking.weights_map.tensors import identity, tensors

FORMAT = "seeking.weights_map"
VERSION = 1

MAX_FILE_BYTES = 1 << 26
"""A larger file is no map."""


class WeightsMap:
    """For each parameter and buffer of the base model: a target's name and an index per dimension.

    Args:
        entries: one entry for each base tensor, by the base tensor's name.
        motivated: shape of every tensor of the motivated model, by name.
        buffers: which of the motivated model's tensors are buffers, not parameters.
        own: which base tensors each model keeps for itself; see ``without``.

    Raises:
        SeekingError: an entry's target is not among ``motivated``, or has another shape there; or a name in ``own`` has
            no entry.
    """

    def __init__(
        self,
        entries: Mapping[str, Entry],
        motivated: Mapping[str, Shape],
        buffers: Iterable[str] = (),
        own: Iterable[str] = (),
    ) -> None:
        self.entries = dict(entries)
        self.buffers = frozenset(buffers)
        self.own = frozenset(own)
        self.motivated = {name: tuple(shape) for name, shape in motivated.items()}
        for name, entry in self.entries.items():
            if entry.target not in self.motivated:
                raise SeekingError(f"{name}: target {entry.target!r} is not a tensor of the motivated model")
            if entry.target_shape != self.motivated[entry.target]:
                raise SeekingError(
                    f"{name}: target {entry.target} has shape {list(entry.target_shape)} in the entry and "
                    f"{list(self.motivated[entry.target])} in the motivated model"
                )
        for name in self.own:
            self._entry(name)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, WeightsMap)
            and self.entries == other.entries
            and self.motivated == other.motivated
            and self.buffers == other.buffers
            and self.own == other.own
        )

    __hash__ = None  # type: ignore[assignment]

    def without(self, *patterns: str) -> "WeightsMap":
        """The same map, in which each model keeps base tensors of these names for itself.

        Their entries stay, so that the whole map can be verified, but a ``Pair`` does not share them.

        Args:
            patterns: of names as a shell has them, of base tensors or of modules with all their tensors: ``"norm*"``,
                ``"blocks.*.norm1"``, ``"head"``.

        Raises:
            SeekingError: a pattern matches nothing.
        """
        if not patterns:
            return self
        return WeightsMap(self.entries, self.motivated, self.buffers, self.own | chosen(self.entries, patterns))

    @functools.cached_property
    def shared(self) -> "WeightsMap":
        """The part of the map that the models share; the map itself if they share all of it."""
        if not self.own:
            return self
        entries = {name: entry for name, entry in self.entries.items() if name not in self.own}
        return WeightsMap(entries, self.motivated, self.buffers)

    def embed(self, source: Mapping[str, Tensor], into: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Write base tensors into the motivated model's.

        Works for any tensors keyed and shaped like the parameters: weights, an average of them, one slot of an
        optimizer's state. ``source`` may hold only some of the base's names.

        Args:
            source: tensors by base name, each of its entry's ``shape``; cast to the target's dtype and device.
            into: tensors by the motivated model's name, each of its entry's ``target_shape``; not changed. Tied
                tensors stay tied.

        Returns:
            ``into`` with the mapped positions overwritten; tensors that are written to are new ones.

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
        replaced = {identity(into[name]): result[name] for name in written}
        return {name: replaced.get(identity(into[name]), tensor) for name, tensor in result.items()}

    def extract(self, source: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Cut the base tensors out of the motivated model's; the inverse of ``embed``.

        Args:
            source: tensors by the motivated model's name; base tensors whose target is missing are left out.

        Returns:
            New tensors by base name, of the source's dtype and device.

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
        own = self.own | {name for name, entry in self.entries.items() if entry.target in larger.own}
        return WeightsMap(entries, larger.motivated, larger.buffers, own)

    def __str__(self) -> str:
        """A table with a line for each block and the share of its parameters that is the base's, if shared."""
        parameters = {name: shape for name, shape in self.motivated.items() if name not in self.buffers}
        return format_summary(self.shared.entries, parameters) + format_own(self.own)

    def details(self) -> str:
        """A table with a line for each base tensor: its target, its index and what decided it."""
        return format_details(self.entries) + format_own(self.own)

    def check(self, base: nn.Module, motivated: nn.Module) -> None:
        """Make sure that the map is one of these two models.

        Raises:
            SeekingError: a tensor is missing on either side, has another shape, or is tied to another in one model
                alone.
        """
        small, large = tensors(base), tensors(motivated)
        for name in sorted(small.keys() ^ self.entries.keys()):
            problem = "the map has no entry for it" if name in small else "the base model has no such tensor"
            raise SeekingError(f"{name}: {problem}; the map belongs to other models")
        for name, tensor in small.items():
            _expect(f"{name} (base)", tensor, self.entries[name].shape)
        for name in sorted(large.keys() ^ self.motivated.keys()):
            problem = "unknown to the map" if name in large else "missing in the motivated model"
            raise SeekingError(f"{name}: {problem}; the map belongs to other models")
        for name, tensor in large.items():
            _expect(f"{name} (motivated)", tensor, self.motivated[name])
        self._check_ties(small, large)

    def difference(self, other: "WeightsMap") -> str:
        """The first base tensor that lies elsewhere under another map of the same models; empty if none does."""
        for name, entry in self.entries.items():
            mine, theirs = (
                f"{each.target}[{', '.join(map(str, each.index))}]" if each else "nowhere"
                for each in (entry, other.entries.get(name))
            )
            if mine != theirs:
                return f"{name} lies at {mine} in this map, at {theirs} in the other one"
        return ""

    def _check_ties(self, small: Mapping[str, Tensor], large: Mapping[str, Tensor]) -> None:
        first_name: dict[Hashable, str] = {}
        names_in: dict[Hashable, list[str]] = {}
        for name, entry in self.entries.items():
            first = first_name.setdefault(identity(small[name]), name)
            if identity(large[self.entries[first].target]) != identity(large[entry.target]):
                raise SeekingError(
                    f"{first} and {name} are one tensor in the base and two in the motivated model; "
                    "tie these weights in both models or in neither"
                )
            if (first in self.own) != (name in self.own):
                raise SeekingError(
                    f"{first} and {name} are one tensor in the base, and only one of these names is the base's own; "
                    "name both, or neither"
                )
            neighbours = names_in.setdefault(identity(large[entry.target]), [])
            for other in neighbours:
                if identity(small[other]) != identity(small[name]) and _overlap(self.entries[other], entry):
                    raise SeekingError(
                        f"{other} and {name} are two tensors in the base and lie in one place of {entry.target}; "
                        "tie these weights in both models or in neither, or correct the map"
                    )
            neighbours.append(name)

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
        own = {"own": sorted(self.own)} if self.own else {}
        return {"entries": entries, "motivated": motivated, "buffers": sorted(self.buffers), **own}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "WeightsMap":
        """The inverse of ``as_dict``.

        Raises:
            SeekingError: it is no map, or contradicts itself.
        """
        try:
            motivated = {str(name): tuple(map(_size, shape)) for name, shape in content["motivated"].items()}
            buffers, own = frozenset(map(str, content["buffers"])), frozenset(map(str, content.get("own", ())))
            rows = content["entries"]
            for name, row in rows.items():
                if row["target"] not in motivated:
                    raise SeekingError(f"{name}: target {row['target']!r} is not a tensor of the motivated model")
            entries = {
                str(name): Entry(
                    target=row["target"],
                    index=tuple(map(Index.parse, row["index"])),
                    target_shape=motivated[row["target"]],
                    origin=str(row["origin"]),
                )
                for name, row in rows.items()
            }
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise SeekingError(f"not a weights map ({type(error).__name__}: {error})") from error
        return cls(entries, motivated, buffers, own)

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
                f'  "buffers": {json.dumps(content["buffers"])}'
                + (f',\n  "own": {json.dumps(content["own"])}' if self.own else "")
                + "\n}\n",
                encoding="utf-8",
            )

    @classmethod
    def load(cls, path: str | Path) -> "WeightsMap":
        """Read a map that ``save`` wrote.

        Raises:
            SeekingError: the file cannot be read, is no map, or contradicts itself.
        """
        content = read_json(Path(path), MAX_FILE_BYTES)
        kind, version = content.get("format"), content.get("version")
        if kind != FORMAT:
            raise SeekingError(f"{path}: not a weights map, which has the format {FORMAT!r}; give map.json of a run")
        if version != VERSION:
            raise SeekingError(
                f"{path}: a weights map of version {version!r}, and this program reads version {VERSION}"
            )
        with naming(path):
            return cls.from_dict(content)

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
    if type(value) is not int or not 0 <= value < MAX_SIZE:
        raise ValueError(f"{value!r} is no size of a dimension")
    return value


def _overlap(first: Entry, second: Entry) -> bool:
    return all(not set(a).isdisjoint(b) for a, b in zip(first.index, second.index, strict=True))


def _expect(name: str, tensor: Tensor, shape: Shape) -> None:
    if tuple(tensor.shape) != shape:
        shapes = f"shape {list(tensor.shape)} where the map has {list(shape)}"
        raise SeekingError(f"{name}: {shapes}; the map belongs to other models")
