"""Strategies for hostile input: values, damaged files, and JSON in which something is another."""

import math
from typing import Any

from hypothesis import strategies as st

Json = Any

NUMBERS = [0, 1, -1, 2, 3, 7, 2**31, 2**32, 2**48 - 1, 2**48, 2**53 + 1, 2**63 - 1, 2**63, -(2**63), 2**64, 10**18]
# fmt: off
VALUES: list[Json] = [
    *(*NUMBERS, 10**30, 10**400, None, True, False, 0.0, -0.0, 0.5, 1e-320, 1e308, math.nan, math.inf, -math.inf),
    *("", "0", "nan", "inf", "a", "b", "a/b", "/", "float32", "ff", "fff", "\ud800", "\x00", "\x1b[2J", "é\u202e"),
    *([], {}, [[]], [{}], {"": None}, [1, 2, 3], ["a", "b"], [0] * 700, {"$tuple": []}, {"$float": "nan"}),
    *({"$tensor": "a"}, {"$array": "b"}, {"$dtype": "int8"}, {"$mapping": [[1, 2]]}, {"$counter": [["a", 1]]}),
    *({"$tuple": 1}, {"$float": "1"}, {"$float": []}, {"$mapping": [[[], 1]]}, {"$mapping": [1]}, {"$": 1}, {"$x": {}}),
    *({"$counter": {"ab": 1}}, {"$tensor": 1}, {"$array": None}, {"$dtype": {}}, {"$mapping": "ab"}, {"a": 1, "$b": 2}),
]
BYTES = [
    *(b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\x80", b"\n", b"\r", b"\t", b"\x1b[2J", b" "),
    *(b'"', b"'", b"{", b"}", b"[", b"]", b":", b",", b"-", b"null", b"NaN", b"-Infinity", b"1e999", b"0x", b"\\ud800"),
    *(b"9" * 5000, b"0x" + b"f" * 5000, b"[" * 200, b'{"a":' * 200, b"1:59:59", b"2001-99-99", b"&a", b"*a"),
]
# fmt: on
TAGS = ["$tensor", "$array", "$tuple", "$mapping", "$counter", "$float", "$dtype"]

values = st.sampled_from(VALUES)


def _containers(inner: st.SearchStrategy[Json]) -> st.SearchStrategy[Json]:
    parts = st.lists(inner, max_size=4)
    tagged = parts | parts.map(lambda items: [[item, item] for item in items]) | inner | st.sampled_from(("a", "b"))
    names = st.sampled_from(("a", "b", "a/b", "", *TAGS))
    return (
        parts | st.dictionaries(names, inner, max_size=4) | st.dictionaries(st.sampled_from(TAGS), tagged, min_size=1)
    )


json_values = st.recursive(values, _containers, max_leaves=12)
"""JSON of any kind."""


PIECES = st.sampled_from(BYTES) | st.binary(min_size=1, max_size=8)


@st.composite
def damaged(draw: st.DrawFn, content: Any, pieces: st.SearchStrategy[Any] = PIECES) -> Any:
    """Bytes or a text of which parts are cut, repeated, replaced, or differ in a bit."""
    for _ in range(draw(st.integers(0, 3))):
        start = draw(st.integers(0, len(content)))
        end = min(len(content), start + draw(st.sampled_from((0, 1, 3, 8, 64, len(content)))))
        part = content[start:end]
        replacement = st.sampled_from((part[:0], part * 2)) | pieces
        if isinstance(content, bytes) and part:
            replacement |= st.integers(0, 7).map(lambda bit, part=part: bytes([part[0] ^ 1 << bit]) + part[1:])
        content = content[:start] + draw(replacement) + content[end:]
    return content


@st.composite
def changed(draw: st.DrawFn, tree: Json, root: Json = None) -> Json:
    """The same JSON, but for one node."""
    root = tree if root is None else root
    if isinstance(tree, dict | list) and tree and draw(st.integers(0, 7)):
        copy = tree.copy()
        key = draw(st.sampled_from(list(tree) if isinstance(tree, dict) else range(len(tree))))
        if draw(st.integers(0, 9)) == 9:
            del copy[key]
        else:
            copy[key] = draw(changed(tree[key], root))
        return copy
    kind = draw(st.integers(0, 4))
    if kind == 0:  # What belongs in another place.
        while isinstance(root, dict | list) and root and draw(st.integers(0, 4)):
            root = draw(st.sampled_from(list(root.values()) if isinstance(root, dict) else root))
        return root
    if kind == 1:
        return draw(st.sampled_from((str(tree), [tree], {"a": tree})))
    if kind == 2 and isinstance(tree, int | float) and abs(tree) < 1e300:
        return tree + draw(st.sampled_from((1, -1, 0.5, 10**9)))
    if kind == 2 and isinstance(tree, str | list):
        return tree[: draw(st.integers(0, len(tree)))]
    return draw(values)
