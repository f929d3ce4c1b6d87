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
TAGS = st.sampled_from(("$tensor", "$array", "$tuple", "$mapping", "$counter", "$float", "$dtype"))
NAMES = st.sampled_from(("a", "b", "a/b", "")) | TAGS
PIECES = st.sampled_from(BYTES) | st.binary(min_size=1, max_size=8)


def _containers(inner: st.SearchStrategy[Json]) -> st.SearchStrategy[Json]:
    pairs = st.lists(st.lists(inner, min_size=2, max_size=2), max_size=4)
    tagged = st.dictionaries(TAGS, st.lists(inner, max_size=4) | pairs | inner, min_size=1, max_size=1)
    return st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4) | tagged


values = st.sampled_from(VALUES)
json_values = st.recursive(values, _containers, max_leaves=12)
"""JSON of any kind."""


@st.composite
def damaged(draw: st.DrawFn, content: Any, pieces: st.SearchStrategy[Any] = PIECES) -> Any:
    """Bytes or a text of which parts are cut, repeated, replaced, or differ in a bit."""
    for _ in range(draw(st.integers(0, 3))):
        start = draw(st.integers(0, len(content)))
        part = content[start:][: draw(st.sampled_from((0, 1, 3, 8, 64, len(content))))]
        ways = st.sampled_from((part[:0], part * 2)) | pieces
        if isinstance(content, bytes) and part:
            ways |= st.integers(0, 7).map(lambda bit, part=part: bytes([part[0] ^ 1 << bit]) + part[1:])
        content = content[:start] + draw(ways) + content[start + len(part) :]
    return content


@st.composite
def changed(draw: st.DrawFn, tree: Json, root: Json = None) -> Json:
    """The same JSON, but for one node."""
    root = tree if root is None else root
    if isinstance(tree, dict | list) and tree and draw(st.integers(0, 7)):
        copy = tree.copy()
        key = draw(st.sampled_from(list(tree) if isinstance(tree, dict) else range(len(tree))))
        copy[key] = draw(changed(tree[key], root))
        if not draw(st.integers(0, 9)):
            del copy[key]
        return copy
    while isinstance(root, dict | list) and root and draw(st.integers(0, 4)):  # What belongs in another place.
        root = draw(st.sampled_from(list(root.values()) if isinstance(root, dict) else root))
    ways = [root, [tree], {"a": tree}]
    ways += [tree + 1, tree - 1, tree + 10**9, str(tree)] if isinstance(tree, int | float) else []
    ways += [tree[:1], tree[:-1], tree * 2] if isinstance(tree, str | list) else []
    return draw(values | st.sampled_from(ways))
