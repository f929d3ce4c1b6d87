"""Sizes of small networks of every kind of layer that a weights map must understand."""

import dataclasses

from hypothesis import strategies as st

HEAD = 4


@dataclasses.dataclass(frozen=True)
class Sizes:
    """What may grow from a base to a motivated model."""

    width: int = 4
    hidden: int = 5
    heads: int = 2
    per_group: int = 2
    depth: int = 1
    words: int = 11


@st.composite
def sizes(draw: st.DrawFn) -> tuple[Sizes, Sizes]:
    """Sizes of a base and of a motivated model, which has at least as much of everything."""
    small = {
        f.name: draw(st.integers(9 if f.name == "words" else 1, 4 + 8 * (f.name == "words")))
        for f in dataclasses.fields(Sizes)
    }
    large = {name: size + draw(st.integers(0, 4)) for name, size in small.items()}
    return Sizes(**small), Sizes(**large)
