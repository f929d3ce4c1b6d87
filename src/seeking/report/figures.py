"""Figures of two panels, in any script, without a change to matplotlib's global state."""

import contextlib
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib import font_manager
from matplotlib.figure import Figure
from matplotlib.text import Text

from seeking.escapes import printable

NO_TEXT = re.compile("cm[a-z]+10$|STIXNonUnicode")
"""Fonts of formulas, whose characters are at the places of others."""


@contextlib.contextmanager
def two_panels(path: Path, title: str, height: float, **options: Any) -> Iterator[tuple[Any, Any]]:
    """A figure with two panels, saved on exit.

    Args:
        path: file to write; its suffix sets the format.
        title: title of the figure.
        height: in inches.
        options: of ``Figure.subplots``.
    """
    figure = Figure(figsize=(11, height), layout="constrained")
    left, right = figure.subplots(1, 2, **options)
    figure.suptitle(plain(title))
    yield left, right
    for panel in (left, right):
        panel.spines[["top", "right"]].set_visible(False)
    texts = figure.findobj(Text)
    fonts = families("".join(text.get_text() for text in texts))
    for text in texts:
        text.set_fontfamily(fonts)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # No font of this machine has it.
        figure.savefig(path, dpi=130)


def plain(text: str) -> str:
    """A text for a figure: without control characters, and with dollar signs that begin no formula."""
    return printable(text).replace("$", r"\$")


def families(text: str) -> list[str]:
    """Font families that together have all characters of a text, matplotlib's own first, as far as there are any."""
    names: list[str] = [*matplotlib.rcParams["font.family"]]
    missing = {ord(character) for character in text if not character.isspace()}
    missing -= characters(font_manager.findfont(font_manager.FontProperties()), missing)
    fonts = font_manager.fontManager.ttflist if missing else []
    for font in sorted((font for font in fonts if not NO_TEXT.match(font.name)), key=lambda font: "Last" in font.name):
        if has := characters(font.fname, missing):
            names.append(font.name)
            missing -= has
        if not missing:
            break
    return names


def widen(axis: Any, least: float) -> None:
    """Make an axis span at least this much, so that small differences look small."""
    low, high = axis.get_view_interval()
    if (lacking := least - (high - low)) > 0:
        setter = axis.axes.set_xlim if axis.axis_name == "x" else axis.axes.set_ylim
        setter(low - lacking / 2, high + lacking / 2)


def characters(path: str, wanted: set[int]) -> set[int]:
    """Those of some characters, by their numbers in Unicode, that a font has."""
    try:
        font = font_manager.get_font(path)
    except (OSError, RuntimeError):  # It is installed and cannot be read.
        return set()
    return {number for number in wanted if font.get_char_index(number)}
