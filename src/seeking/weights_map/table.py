"""Weights maps as tables of text."""

import math
from collections.abc import Iterable, Mapping, Sequence

from seeking.weights_map.entry import Entry, Shape
from seeking.weights_map.index import Index

MAX_RUNS = 4
"""An index of more runs is abbreviated."""
MAX_NAMES = 8
"""A list of more names is abbreviated."""


def format_summary(entries: Mapping[str, Entry], parameters: Mapping[str, Shape]) -> str:
    """A line for each block of the motivated model, with the share of its parameters that is the base's.

    Args:
        entries: of the map, by the base tensor's name.
        parameters: shapes of the motivated model's parameters, by name.
    """
    sources = {entry.target: (name, math.prod(entry.shape)) for name, entry in entries.items()}
    blocks: dict[str, tuple[set[str], int, int]] = {}
    for target, shape in parameters.items():
        source, shared = sources.get(target, ("", 0))
        block_sources, block_total, block_shared = blocks.get(_block(target), (set(), 0, 0))
        if source:
            block_sources.add(_block(source))
        blocks[_block(target)] = block_sources, block_total + math.prod(shape), block_shared + shared
    rows = [("base", "motivated", "parameters", "shared", "extra", "shared %")]
    for block, (block_sources, block_total, block_shared) in blocks.items():
        rows.append((", ".join(sorted(block_sources)) or "-", block, *_counts(block_total, block_shared)))
    total = sum(block_total for _, block_total, _ in blocks.values())
    shared = sum(block_shared for _, _, block_shared in blocks.values())
    rows.append(("all", "all", *_counts(total, shared)))
    return _aligned(rows)


def format_details(entries: Mapping[str, Entry]) -> str:
    """A line for each base tensor: its target, its index and what decided it."""
    rows = [("base", "motivated", "shape", "of", "index", "from")]
    for name, entry in entries.items():
        index = "whole" if entry.whole else " | ".join(map(_abbreviated, entry.index))
        rows.append((name, entry.target, _times(entry.shape), _times(entry.target_shape), index, entry.origin))
    return _aligned(rows)


def format_own(names: Iterable[str]) -> str:
    """A line with the base tensors that each model keeps for itself; nothing if there are none."""
    ordered = sorted(names)
    more = f", … ({len(ordered)} tensors)" if len(ordered) > MAX_NAMES else ""
    return f"\neach model's own, not shared: {', '.join(ordered[:MAX_NAMES])}{more}" if ordered else ""


def _aligned(rows: Sequence[tuple[str, ...]]) -> str:
    """Rows of text with columns of one width each; columns of numbers are right-aligned."""
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


def _block(name: str) -> str:
    """The block that a tensor belongs to: its path down to the last number, else its first part."""
    path = name.split(".")
    last = max((place for place, part in enumerate(path) if part.isdigit()), default=0)
    return ".".join(path[: last + 1])


def _counts(total: int, shared: int) -> tuple[str, str, str, str]:
    return f"{total:,}", f"{shared:,}", f"{total - shared:,}", f"{100 * shared / max(1, total):.1f}"


def _times(shape: Iterable[int]) -> str:
    return "×".join(map(str, shape)) or "1"


def _abbreviated(index: Index) -> str:
    return str(index) if len(index.runs) <= MAX_RUNS else f"{Index(index.runs[:3])}, … ({len(index)} positions)"
