"""Texts: conditions, and files of maps, options, overrides and metrics."""

import json
import math
from pathlib import Path

from hypothesis import strategies as st
from inputs import NUMBERS, Json, changed, damaged, json_values
from target import Target

from seeking import SeekingError, WeightsMap, conditions
from seeking.checkpointing.metrics_log import read_rows
from seeking.conditions import grammar
from seeking.experiments.run import read_overrides
from seeking.files import MAX_NODES, MAX_YAML_BYTES, read_json, read_yaml


def written(content: Json) -> bytes:
    """JSON as a file."""
    return json.dumps(content).encode()


def lines(rows: list[Json]) -> bytes:
    """Rows as a file."""
    return b"".join(written(row) + b"\n" for row in rows)


class Conditions(Target):
    """Conditions as text."""

    known = (
        *("&".join(["always"] * 142), " | ".join(["every:1e300"] * 71), "decrease:" + "9" * 900, "os.system:1"),
        *("~" * 49 + "always", "(" * 49 + "always" + ")" * 49, "matched(" * 49 + "decrease" + ")" * 49, "~" * 990),
    )
    names = st.sampled_from(sorted(grammar.known()))
    odd = "1e300", "1e999", "nan", "0.5", ".5", "1_0", "２", "+1", "1,2", "True", "0x1", "-0", ""
    numbers = st.sampled_from((*map(str, NUMBERS), *odd))
    others = st.sampled_from(
        (*"&|~():, \n\0\u2003ä_", "matched(", "decrease:1", "every:2", "os.system", "decreas", "every.")
    )
    pieces = names | numbers | others
    valid = st.recursive(
        names | st.builds("{}:{}".format, names, numbers | st.sampled_from(("1", "2", "0.5"))),
        lambda inner: st.one_of(
            st.builds(str.join, st.sampled_from(("&", " & ", "|", " | ")), st.lists(inner, min_size=2, max_size=3)),
            *(inner.map(pattern.format) for pattern in ("~{}", "({})", "matched({})")),
        ),
        max_leaves=8,
    )
    inputs = valid | valid.flatmap(lambda text: damaged(text, Conditions.pieces))

    def check(self, content: str) -> None:
        condition = conditions.parse(content, imports=False)
        try:
            assert str(conditions.parse(str(condition), imports=False)) == str(condition)
        except SeekingError as error:
            raise AssertionError("its own text is refused") from error
        condition.load_state_dict(json.loads(json.dumps(condition.state_dict(), allow_nan=False)))


MAP: Json = {
    **{"format": "seeking.weights_map", "version": 1},
    "entries": {
        "stem.weight": {"target": "stem.weight", "index": ["0:4", "0:2, 4:6", ""], "origin": "rule: linear"},
        "stem.bias": {"target": "bias", "index": ["0:8:2"], "origin": "name"},
        "count": {"target": "count", "index": [], "origin": "user"},
    },
    "motivated": {"stem.weight": [6, 8, 0], "bias": [8], "count": [], "extra": [3]},
    **{"buffers": ["count"], "own": ["stem.bias"]},
}


def map_of(index: str, size: int) -> bytes:
    """A file of a map with one index."""
    row = {"target": "x", "index": [index], "origin": "user"}
    return written({**MAP, "entries": {"x": row}, "motivated": {"x": [size]}, "own": []})


class Maps(Target):
    """Files of weights maps."""

    known = (
        *(written(MAP), map_of("0:1000000000000", 10**12), map_of("0:10000000000:2, 1:10000000000:2", 10**10)),
        map_of("0:16000000:2, 1:16000000:2", 16_000_000),
        map_of(", ".join([f"0:{2**48 - 1}"] * 40_000), 2**48 - 1),
        map_of(", ".join(map(str, range(40_000, 0, -1))), 50_000),
        *(map_of("0:5:" + "9" * 4000, 5), map_of("9" * 5000, 5), b'{"a":' * 5000),
        *(written({**MAP, "motivated": {**MAP["motivated"], "extra": [size]}}) for size in ("3", 1.5, -1, None)),
    )
    odd = "4", "6", "12", "", " 1 ", "1e3", "２", "1_0", "0x1", "a", "9" * 5000
    numbers = st.sampled_from((*map(str, NUMBERS), *odd)) | st.integers(0, 30).map(str)
    indices = st.lists(st.lists(numbers, min_size=1, max_size=4).map(":".join), max_size=5).map(", ".join)
    drawn = st.builds(map_of, indices, st.sampled_from((*NUMBERS, 31, 31, 40, 10**12, 10**18)))
    inputs = st.one_of(damaged(written(MAP)), changed(MAP).map(written), drawn, drawn)

    def check(self, content: bytes) -> None:
        path = self.folder / "map.json"
        path.write_bytes(content)
        loaded = WeightsMap.load(path)
        assert WeightsMap.from_dict(json.loads(json.dumps(loaded.as_dict()))) == loaded
        assert str(loaded) and loaded.details()


class Options(Target):
    """Files of options, in YAML and JSON, and of overrides."""

    valid = b'stem.weight: {target: stem.weight, index: [null, "0:4", [0, 1]], space: true}\nlr: 0.5\non: [yes, 1e-3]\n'
    tree = {"a": {"target": "b", "index": [None, "0:4", [0, 1]], "space": True}, "lr": 0.5}  # noqa: RUF012
    long = b"0x" + b"f" * 5000
    known = (
        *(b'{"a": {"target": "b"}}', b"", b"\xef\xbb\xbfa: 1", "a: 1".encode("utf-16"), b"a" * ((1 << 20) + 1)),
        *(b"a:" + b"\n- a: " * (MAX_NODES // 3 - 1), b"a: " + b"x " * (MAX_YAML_BYTES // 2 - 2), b"- " * 5000),
        *(b"a: &a [x]\nb: &b [*a, *a]\nc: [*b, *b]\n", b"a: " + b"[" * 5000, b"a: " + b"[" * 60 + b"]" * 60),
        *(b"a: " + b"9" * 5000, b"a: 1" + b":59" * 80_000, b"a: 1" + b":59" * 1000 + b".5", b"a: 2001-99-99"),
        *(b"a: 2001-01-01 00:00:00 +99:99", b".nan: 1\n.NaN: {target: a}\n", b"? " * 5000, b'"\\ud800": {target: a}'),
        *(b"a: !!python/object/%s:os.mkdir [executed]" % how for how in (b"apply", b"new")),
        *(b'a: "\\UFFFFFFFF"', b"%YAML " + b"1" * 5000 + b".1\n---\na: 1", b'{"a": ' * 5000, b'{"a": NaN}'),
        *(b'{"a": ' * 900 + b"1" + b"}" * 900, b'{"a": ' + b"9" * 5000 + b"}", b"? " + long + b"\n: {target: a}"),
        *(b"a: {space: %s}" % long, b"a: {index: [-%s]}" % long, b"a: {index: [[-%s]]}" % long),
    )
    words = rb"""a b: : - [ ] { } ? | > , target: index: space: [0, 1] null "0:4" true yes on <<: &a *a !!int !!float
    !!bool !!null !!timestamp !!binary !!set !!omap !!pairs !!str !!seq !!map !a!b !<x> %TAG ! %YAML 1.1 --- ... = .nan
    .inf -.inf 1_000 0x_ 0b 0o7 08 1:60:60 1:2.5 - + 1e5 2001-99-99 2001-01-01 0000-00-00 2001-01-01t25:00:00Z '"\x
    "\UFFFFFFFF" "\ud800" !!python/name:os.system !!python/object/apply:os.mkdir [executed]"""
    pieces = st.sampled_from([*words.split(), b"\xff", b"\0", b"\x85", b"\xe2\x80\xa8", b"9" * 5000, long])
    spaces = st.sampled_from((b"", b" ", b" ", b"\n", b"\n  ", b"\n    "))
    inputs = st.one_of(
        damaged(valid),
        json_values.map(written).flatmap(damaged),
        changed(tree).map(written),
        st.lists(st.tuples(pieces, spaces).map(b"".join), min_size=1, max_size=12).map(b"".join),
    )

    def check(self, content: bytes) -> None:
        path = self.folder / "options"
        path.write_bytes(content)
        refused = None
        for read in (read_yaml, read_overrides, lambda path: read_json(path, 1 << 20)):
            try:
                assert isinstance(read(path), dict)
            except SeekingError as error:
                refused = error
        assert not Path("executed").exists()
        if refused:
            raise refused


ROWS = [
    {"kind": "start", "epochs": 2, "epoch_length": 6},
    {"kind": "step", "epoch": 0, "step": 0, "loss": 1.5, "grad_norm": 0.5, "lr": 0.05, "motivated_loss": 1.0},
    {"kind": "nonfinite", "step": 1, "model": "base", "action": "skip"},
    {"kind": "eval", "epoch": 1, "step": 6, "base": {"loss": 1.0, "accuracy": 0.5}, "motivated": {"loss": math.nan}},
]


class Metrics(Target):
    """Files of metrics."""

    known = (b'{"kind": "a"}\n' + b"1" * (1 << 21), b'{"kind": 1}', b"[]", b"\n", b"", b"[" * 5000, lines(ROWS))
    row = st.sampled_from(ROWS)
    files = st.lists(row | row | row | row.flatmap(changed), max_size=4).map(lines)
    inputs = files | files.flatmap(damaged)

    def check(self, content: bytes) -> None:
        path = self.folder / "metrics.jsonl"
        path.write_bytes(content)
        assert all(isinstance(row["kind"], str) for row in read_rows(path))
