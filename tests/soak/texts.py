"""Texts: conditions, and files of maps, options, overrides and metrics."""

import json
import math
from collections.abc import Iterator
from pathlib import Path

import torch
from hypothesis import strategies as st
from inputs import NUMBERS, changed, damaged, json_values
from runs import two_models
from target import Offence, Target

from seeking import SeekingError, WeightsMap, conditions
from seeking.checkpointing.metrics_log import read_rows
from seeking.conditions import grammar
from seeking.experiments.run import read_overrides
from seeking.files import read_json, read_yaml
from seeking.matching import match


class Conditions(Target):
    """Conditions as text, and their state."""

    losses = (1.0, 0.5, 0.25, math.nan, 0.2, math.inf, 0.1, -math.inf, -1.0, -2.0, 1e308, 0.0, -0.0, 1e-320)
    known = (
        "&".join(["always"] * 142),
        " | ".join(["every:1e300"] * 71),
        "~" * 49 + "always",
        "(" * 49 + "always" + ")" * 49,
        "matched(" * 49 + "decrease" + ")" * 49,
        "decrease:" + "9" * 900,
        "os.system:1",
    )
    names = st.sampled_from(sorted(grammar.known()))
    others = st.sampled_from(("os.system", "decreas", "ä", "_", "every.", "1", ""))
    # fmt: off
    numbers = st.sampled_from((
        *map(str, NUMBERS), "1e300", "1e999", "nan", "0.5", ".5", "1_0", "２", "+1", "1,2", "", "True", "0x1", "-0",
    ))
    symbols = st.sampled_from((
        "&", "|", "~", "(", ")", ":", ",", " ", "\n", "\x00", "\u2003", "matched(", "decrease:1", "every:2",
    ))
    # fmt: on
    valid = st.recursive(
        names | st.builds("{}:{}".format, names | names | others, numbers | st.sampled_from(("1", "2", "0.5"))),
        lambda inner: st.one_of(
            st.builds(str.join, st.sampled_from(("&", " & ", "|", " | ")), st.lists(inner, min_size=2, max_size=3)),
            *(inner.map(pattern.format) for pattern in ("~{}", "({})", "matched({})")),
        ),
        max_leaves=8,
    )
    inputs = valid | valid.flatmap(lambda text: damaged(text, Conditions.symbols | Conditions.names))

    def check(self, content: str) -> None:
        condition = conditions.parse(content, imports=False)
        try:
            again = conditions.parse(str(condition), imports=False)
        except SeekingError as error:
            raise Offence(f"refuses its own text: {error}") from error
        assert str(again) == str(condition)
        for signals in self.signals():
            assert isinstance(condition.update(signals.loss, signals), bool)
        again.load_state_dict(json.loads(json.dumps(condition.state_dict(), allow_nan=False)))
        for signals in self.signals():
            assert condition.update(signals.loss, signals) == again.update(signals.loss, signals)

    def signals(self) -> Iterator[conditions.Signals]:
        """Every signal that there is."""
        for step, loss in enumerate(self.losses):
            yield conditions.Signals(
                loss=loss,
                step=step,
                steps=len(self.losses),
                epoch_length=10,
                flops_spent=float(step),
                flops_planned=20.0,
                base_flops=1.0,
                motivated_flops=2.0,
                grad_norm=loss,
                held_out_loss=lambda loss=loss: loss,
                gradients={"weight": torch.tensor([loss, 1.0])},
            )


def map_of(index: str, size: int) -> bytes:
    """A file of a map with one index."""
    row = {"target": "x", "index": [index], "origin": "user"}
    content = {"entries": {"x": row}, "motivated": {"x": [size]}, "buffers": []}
    return json.dumps({"format": "seeking.weights_map", "version": 1, **content}).encode()


class Maps(Target):
    """Files of weights maps."""

    pieces = st.sampled_from(
        (*map(str, NUMBERS), "4", "6", "12", "", " 1 ", "1e3", "２", "1_0", "0x1", "a", "9" * 5000)
    )
    ranges = st.lists(pieces | st.integers(0, 30).map(str), min_size=1, max_size=4).map(":".join)
    indices = st.builds(
        map_of,
        st.lists(ranges, max_size=5).map(", ".join),
        st.sampled_from([*NUMBERS, 31, 31, 40, 10**12, 10**18]),
    )

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        full = match(*two_models())
        keep = [name for name in full.entries if name.startswith(("stem", "conv1", "bn1", "fc", "head"))][:6]
        WeightsMap({name: full.entries[name] for name in keep}, full.motivated, full.buffers).save(folder / "valid")
        valid = (folder / "valid").read_bytes()
        edited = changed(json.loads(valid)).map(json.dumps).map(str.encode)
        self.inputs = st.one_of(damaged(valid), edited, self.indices, self.indices)
        self.known = (
            valid,
            map_of("0:1000000000000", 10**12),
            map_of("0:10000000000:2, 1:10000000000:2", 10**10),
            map_of("0:16000000:2, 1:16000000:2", 16_000_000),
            map_of(", ".join([f"0:{2**48 - 1}"] * 40_000), 2**48 - 1),
            map_of(", ".join(map(str, range(40_000, 0, -1))), 50_000),
            map_of("0:5:" + "9" * 4000, 5),
            map_of("9" * 5000, 5),
            b'{"a":' * 5000,
            b'{"format": "seeking.weights_map", "version": 1, "entries": {}, "motivated": {}, "buffers": []}',
        )

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
    # fmt: off
    known = (
        *(b'{"a": {"target": "b"}}', b"", b"\xef\xbb\xbfa: 1", "a: 1".encode("utf-16"), b"a" * ((1 << 20) + 1)),
        *(b"a: &a [x]\nb: &b [*a, *a]\nc: [*b, *b]\n", b"a: " + b"[" * 5000, b"- " * 5000, b"? " * 5000),
        *(b"a: " + b"9" * 5000, b"a: 1" + b":59" * 100_000, b"a: 1" + b":59" * 1000 + b".5", b"a: 2001-99-99"),
        *(b"a: 2001-01-01 00:00:00 +99:99", b".nan: 1\n.NaN: {target: a}\n"),
        b"%YAML " + b"1" * 5000 + b".1\n---\na: 1",
        *(b"a: !!python/object/apply:os.mkdir [executed]", b"a: !!python/object/new:os.mkdir [executed]"),
        *(b'a: "\\UFFFFFFFF"', b'"\\ud800": {target: "\\ud800"}', b'{"a": ' * 5000, b'{"a": NaN}'),
        *(b'{"a": ' * 900 + b"1" + b"}" * 900, b'{"a": ' + b"9" * 5000 + b"}", b"? 0x" + b"f" * 5000 + b"\n: 1"),
        *(b"a: {space: 0x" + b"f" * 5000 + b"}", b"a: {index: [-0x" + b"f" * 5000 + b"]}"),
        *(b"a: {index: [[-0x" + b"f" * 5000 + b"]]}", b"? 0x" + b"f" * 5000 + b"\n: {target: a}"),
    )
    pieces = st.sampled_from((
        *(b"a", b"b: ", b": ", b"- ", b"\n", b"\n  ", b"\n    ", b"[", b"]", b"{", b"}", b", ", b"? ", b"| ", b"> "),
        *(b"target: a", b"index: ", b"space: true", b"[0, 1]", b"null", b'"0:4"', b"true", b"yes", b"on", b"<<: "),
        *(b"&a ", b"*a ", b"!!int ", b"!!float ", b"!!bool ", b"!!null ", b"!!timestamp ", b"!!binary ", b"!!set "),
        *(b"!!omap ", b"!!pairs ", b"!!str ", b"!!seq ", b"!!map ", b"!!python/object/apply:os.mkdir [executed]"),
        *(b"!!python/name:os.system", b"!a!b ", b"!<x> ", b"%TAG ! x:\n", b"%YAML 1.1\n", b"---\n", b"...\n", b"="),
        *(b".nan", b".inf", b"-.inf", b"1_000", b"0x_", b"0b", b"0o7", b"08", b"1:60:60", b"1:2.5", b"-", b"+", b"1e5"),
        *(b"2001-99-99", b"2001-01-01", b"0000-00-00", b"2001-01-01t25:00:00Z", b"2001-01-01 1:1:1.9 -99", b'"\\x'),
        *(b'"\\UFFFFFFFF"', b'"\\ud800"', b"\xff", b"\x00", b"\x85", b"\xe2\x80\xa8", b"9" * 5000, b"0x" + b"f" * 5000),
    ))
    # fmt: on
    inputs = st.one_of(
        damaged(valid),
        json_values.map(json.dumps).map(str.encode).flatmap(damaged),
        changed(tree).map(json.dumps).map(str.encode),
        st.lists(pieces, min_size=1, max_size=12).map(b"".join),
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


def lines(rows: list[dict[str, object]]) -> bytes:
    """Rows as a file."""
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


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
