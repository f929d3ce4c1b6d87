"""Whatever a file or a text from others holds, it is refused in words or it is right.

Each target makes inputs and puts them through the program. ``python tests/fuzz.py --inputs 100000`` tries all of them;
an input follows from the seed, the target and its number alone, so that ``--only NAME --first NUMBER --inputs 1``
repeats it.
"""

import argparse
import contextlib
import itertools
import json
import math
import os
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import types
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from runs import CONFIG, batches, two_models
from safetensors.torch import save
from torch import Tensor

from seeking import RunError, SeekingError, Trainer, WeightsMap, conditions
from seeking.checkpointing import serialize, snapshot
from seeking.checkpointing.metrics_log import read_rows
from seeking.conditions import grammar
from seeking.experiments.run import read_overrides
from seeking.files import read_json, read_yaml
from seeking.matching import match
from seeking.report import folder as report
from seeking.training.rng import RandomState

SECONDS = 2.0
"""Of computing for one input."""
HUNG = 20.0
"""Seconds after which an input that need not compute at all is given up."""
MEMORY = 512
"""MiB by which a target may make this program grow."""

Random = random.Random
Json = Any

NUMBERS = [0, 1, -1, 2, 3, 7, 2**31, 2**32, 2**48 - 1, 2**48, 2**53 + 1, 2**63 - 1, 2**63, -(2**63), 2**64, 10**18]
# fmt: off
VALUES: list[Json] = [
    *(*NUMBERS, 10**30, 10**400, None, True, False, 0.0, -0.0, 0.5, 1e-320, 1e308, math.nan, math.inf, -math.inf),
    *("", "0", "nan", "inf", "a", "a/b", "/", "float32", "ff", "fff", "zz", "\ud800", "\x00", "\x1b[2J", "é\u202e"),
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


class TooSlow(BaseException):
    """An input has taken longer than any may."""


class Ended(Exception):
    """Ends a run once it has gone on."""


class Offence(Exception):
    """Something else has come of an input than being refused in words or being right."""


def damaged(content: bytes, draw: Random) -> bytes:
    """A file to which something has happened."""
    for _ in range(draw.randint(1, 3)):
        place, end = sorted((draw.randint(0, len(content)), draw.randint(0, len(content))))
        end = min(end, place + draw.choice((1, 8, 64, len(content))))
        change = draw.randrange(6)
        if change == 0 and place < len(content):
            content = content[:place] + bytes([content[place] ^ 1 << draw.randrange(8)]) + content[place + 1 :]
        elif change == 1:
            content = content[:place]
        elif change == 2:
            content = content[:place] + content[end:]
        elif change == 3:
            content = content[:end] + content[place:]
        elif change == 4:
            content = content[:place] + draw.randbytes(draw.randint(1, 8)) + content[end:]
        else:
            content = content[:place] + draw.choice(BYTES) + content[end:]
    return content


def changed(tree: Json, draw: Random, root: Json = None) -> Json:
    """The same JSON, but for one node."""
    root = tree if root is None else root
    if isinstance(tree, dict | list) and tree and draw.random() < 0.85:
        copy = tree.copy()
        key = draw.choice(list(tree)) if isinstance(tree, dict) else draw.randrange(len(tree))
        if draw.random() < 0.1:
            del copy[key]
        else:
            copy[key] = changed(tree[key], draw, root)
        return copy
    change = draw.randrange(8)
    if change == 0 and isinstance(tree, int | float):
        return tree + draw.choice(
            (1, -1, 10**9) if isinstance(tree, int) and abs(tree) > 10**300 else (1, -1, 0.5, 10**9)
        )
    if change == 1:
        return str(tree)
    if change == 2:
        return [tree]
    if change == 3:
        return {"a": tree}
    if change == 4:  # What belongs in another place.
        while isinstance(root, dict | list) and root and draw.random() < 0.8:
            root = draw.choice(list(root.values()) if isinstance(root, dict) else root)
        return root
    if change == 5 and isinstance(tree, str | list):
        return tree[: draw.randint(0, len(tree))]
    return draw.choice(VALUES)


def grown(draw: Random, depth: int = 4) -> Json:
    """JSON of any kind."""
    kind = draw.randrange(6) if depth else 0
    if kind < 3:
        return draw.choice(VALUES)
    parts = [grown(draw, depth - 1) for _ in range(draw.randint(0, 4))]
    if kind == 3:
        return parts
    names = ["a", "b", "a/b", "", "$tensor", "$array", "$tuple", "$mapping", "$counter", "$float", "$dtype"]
    if kind == 4:
        return {draw.choice(names): part for part in parts}
    return {draw.choice(names[4:]): draw.choice([*parts, [[part, part] for part in parts], "a", "b"])}


class Target:
    """One way into the program.

    Attributes:
        known: inputs that have once gone wrong, or that no chance would find.
        share: of the inputs asked for, one in this many is made.
        allowed: what a refusal may be.
        seconds: of computing for one input.
    """

    known: Sequence[Any] = ()
    share = 1
    allowed: tuple[type[Exception], ...] = (SeekingError,)
    seconds = SECONDS

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def make(self, draw: Random) -> Any:
        """An input."""
        raise NotImplementedError

    def check(self, given: Any) -> None:
        """Put an input through the program; raises one of ``allowed`` if it is refused."""
        raise NotImplementedError


class Conditions(Target):
    """Conditions as text."""

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
    names = (*grammar.known(), "os.system", "decreas", "ä", "_", "every.", "1", "")
    # fmt: off
    numbers = (
        *map(str, NUMBERS), "1e300", "1e999", "nan", "0.5", ".5", "1_0", "２", "+1", "1,2", "", "True", "0x1", "-0",
    )
    # fmt: on
    symbols = ("&", "|", "~", "(", ")", ":", ",", " ", "\n", "\x00", "\u2003", "matched(", "decrease:1", "every:2")

    def make(self, draw: Random) -> str:
        text = self.grown(draw, draw.randint(0, 6))
        for _ in range(draw.choice((0, 0, 0, 1, 3))):
            place, end = sorted((draw.randint(0, len(text)), draw.randint(0, len(text))))
            text = (
                text[:place] + draw.choice((*self.symbols, *self.names)) + text[min(end, place + draw.randint(0, 3)) :]
            )
        return text

    def grown(self, draw: Random, depth: int) -> str:
        kind = draw.randrange(6) if depth else 5
        if kind < 2:
            return draw.choice(("&", " & ", "|", " | ")).join(self.grown(draw, depth - 1) for _ in range(kind + 2))
        if kind < 5:
            return ("~{}", "({})", "matched({})")[kind - 2].format(self.grown(draw, depth - 1))
        number = draw.choice((*self.numbers, "1", "2", "0.5")) if draw.random() < 0.5 else "1"
        return f"{draw.choice(self.names[:-6] if draw.random() < 0.9 else self.names)}:{number}".removesuffix(":1")

    def check(self, given: str) -> None:
        condition = conditions.parse(given, imports=False)
        try:
            again = conditions.parse(str(condition), imports=False)
        except SeekingError as error:
            raise Offence(f"refuses its own text: {error}") from error
        assert str(again) == str(condition)
        for loss in self.losses:
            assert isinstance(condition.update(loss, epoch_length=10), bool)
        again.load_state_dict(json.loads(json.dumps(condition.state_dict(), allow_nan=False)))
        for loss in self.losses:
            assert condition.update(loss, epoch_length=10) == again.update(loss, epoch_length=10)


def map_of(index: str, size: int) -> bytes:
    """A file of a map with one index."""
    row = {"target": "x", "index": [index], "origin": "user"}
    content = {"entries": {"x": row}, "motivated": {"x": [size]}, "buffers": []}
    return json.dumps({"format": "seeking.weights_map", "version": 1, **content}).encode()


class Maps(Target):
    """Files of weights maps."""

    known = (
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
    pieces = (*map(str, NUMBERS), "4", "6", "12", "", " 1 ", "1e3", "２", "1_0", "0x1", "a", "9" * 5000)

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        found = match(*two_models())
        keep = [name for name in found.entries if name.startswith(("stem", "conv1", "bn1", "fc", "head"))][:6]
        small = WeightsMap({name: found.entries[name] for name in keep}, found.motivated, found.buffers)
        small.save(folder / "valid.json")
        self.valid = (folder / "valid.json").read_bytes()
        self.tree = json.loads(self.valid)

    def make(self, draw: Random) -> bytes:
        kind = draw.randrange(4)
        if kind == 0:
            return damaged(self.valid, draw)
        if kind == 1:
            return json.dumps(changed(self.tree, draw)).encode()
        text = ", ".join(
            ":".join(
                draw.choice(self.pieces) if draw.random() < 0.3 else str(draw.randint(0, 30)) for _ in range(parts)
            )
            for parts in draw.choices((1, 2, 3, 4), (8, 8, 4, 1), k=draw.randint(0, 5))
        )
        return map_of(text, draw.choice([*NUMBERS, 31, 31, 40, 10**12, 10**18]))

    def check(self, given: bytes) -> None:
        path = self.folder / "map.json"
        path.write_bytes(given)
        found = WeightsMap.load(path)
        assert WeightsMap.from_dict(json.loads(json.dumps(found.as_dict()))) == found
        assert str(found) and found.details()


class Options(Target):
    """Files of options, in YAML and JSON, and of overrides."""

    known = (
        b"a: &a [x]\nb: &b [*a, *a]\nc: [*b, *b]\n",
        b"a: " + b"[" * 5000,
        b"- " * 5000,
        b"? " * 5000,
        b"a: " + b"9" * 5000,
        b"? 0x" + b"f" * 5000 + b"\n: 1",
        b"a: {space: 0x" + b"f" * 5000 + b"}",
        b"a: {index: [-0x" + b"f" * 5000 + b"]}",
        b"a: {index: [[-0x" + b"f" * 5000 + b"]]}",
        b"? 0x" + b"f" * 5000 + b"\n: {target: a}",
        b"a: 1" + b":59" * 100_000,
        b"a: 1" + b":59" * 1000 + b".5",
        b"a: 2001-99-99",
        b"a: 2001-01-01 00:00:00 +99:99",
        b".nan: 1\n.NaN: {target: a}\n",
        b"a: !!python/object/apply:os.mkdir [executed]",
        b"a: !!python/object/new:os.mkdir [executed]",
        b'a: "\\UFFFFFFFF"',
        b'"\\ud800": {target: "\\ud800"}',
        b"%YAML " + b"1" * 5000 + b".1\n---\na: 1",
        b'{"a": ' * 5000,
        b'{"a": ' * 900 + b"1" + b"}" * 900,
        b'{"a": ' + b"9" * 5000 + b"}",
        b'{"a": NaN}',
        b"a" * ((1 << 20) + 1),
        b"",
        b"\xef\xbb\xbfa: 1",
        "a: 1".encode("utf-16"),
    )
    # fmt: off
    pieces = (
        *(b"a", b"b: ", b": ", b"- ", b"\n", b"\n  ", b"\n    ", b"[", b"]", b"{", b"}", b", ", b"? ", b"| ", b"> "),
        *(b"target: a", b"index: ", b"space: true", b"[0, 1]", b"null", b'"0:4"', b"true", b"yes", b"on", b"<<: "),
        *(b"&a ", b"*a ", b"!!int ", b"!!float ", b"!!bool ", b"!!null ", b"!!timestamp ", b"!!binary ", b"!!set "),
        *(b"!!omap ", b"!!pairs ", b"!!str ", b"!!seq ", b"!!map ", b"!!python/object/apply:os.mkdir [executed]"),
        *(b"!!python/name:os.system", b"!a!b ", b"!<x> ", b"%TAG ! x:\n", b"%YAML 1.1\n", b"---\n", b"...\n", b"="),
        *(b".nan", b".inf", b"-.inf", b"1_000", b"0x_", b"0b", b"0o7", b"08", b"1:60:60", b"1:2.5", b"-", b"+", b"1e5"),
        *(b"2001-99-99", b"2001-01-01", b"0000-00-00", b"2001-01-01t25:00:00Z", b"2001-01-01 1:1:1.9 -99", b'"\\x'),
        *(b'"\\UFFFFFFFF"', b'"\\ud800"', b"\xff", b"\x00", b"\x85", b"\xe2\x80\xa8", b"9" * 5000, b"0x" + b"f" * 5000),
    )
    # fmt: on
    valid = b'stem.weight: {target: stem.weight, index: [null, "0:4", [0, 1]], space: true}\nlr: 0.5\non: [yes, 1e-3]\n'
    tree: Json = types.MappingProxyType(
        {"a": {"target": "b", "index": [None, "0:4", [0, 1]], "space": True}, "lr": 0.5}
    )

    def make(self, draw: Random) -> bytes:
        kind = draw.randrange(4)
        if kind == 0:
            return damaged(self.valid, draw)
        if kind == 1:
            return damaged(json.dumps(grown(draw)).encode(), draw)
        if kind == 2:
            return json.dumps(changed(dict(self.tree), draw)).encode()
        return b"".join(draw.choices(self.pieces, k=draw.randint(1, 12)))

    def check(self, given: bytes) -> None:
        path = self.folder / "options"
        path.write_bytes(given)
        refused = None
        for read in (read_yaml, read_overrides, lambda path: read_json(path, 1 << 20)):
            try:
                assert isinstance(read(path), dict)
            except SeekingError as error:
                refused = error
        assert not Path("executed").exists()
        if refused:
            raise refused


ROWS: list[Json] = [
    {"kind": "start", "epochs": 2, "epoch_length": 6},
    {"kind": "step", "epoch": 0, "step": 0, "loss": 1.5, "grad_norm": 0.5, "lr": 0.05, "motivated_loss": 1.0},
    {"kind": "nonfinite", "step": 1, "model": "base", "action": "skip"},
    {"kind": "eval", "epoch": 1, "step": 6, "base": {"loss": 1.0, "accuracy": 0.5}, "motivated": {"loss": math.nan}},
]


class Metrics(Target):
    """Rows of metrics."""

    known = (b'{"kind": "a"}\n' + b"1" * (1 << 21), b'{"kind": 1}', b"[]", b"\n", b"", b"[" * 5000)

    def make(self, draw: Random) -> bytes:
        rows = [changed(row, draw) if draw.random() < 0.2 else row for row in draw.choices(ROWS, k=draw.randint(0, 4))]
        content = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
        return damaged(content, draw) if draw.random() < 0.5 else content

    def check(self, given: bytes) -> None:
        path = self.folder / "metrics.jsonl"
        path.write_bytes(given)
        assert all(isinstance(row["kind"], str) for row in read_rows(path))


STATE: Json = {"step": 3, "lr": 0.1, "names": ["é", None, {"$tensor": "a"}], "place": {"held": True}}
TENSORS = {"a": torch.arange(6.0).view(2, 3), "b": torch.tensor(5), "c": torch.zeros(0, 4), "d": torch.ones(3).bool()}

Files = dict[str, Any]
"""What to put in a folder's files: bytes, or one of ``NO_FILES``."""
NO_FILES = ("missing", "folder", "link", "pipe")


def put(folder: Path, files: Files, valid: Callable[[str], bytes]) -> None:
    """Write files, or what is there in a file's place."""
    for name, content in files.items():
        path = folder / name
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        else:
            path.unlink(missing_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif content == "folder":
            path.mkdir()
        elif content == "pipe":
            os.mkfifo(path)
        elif content == "link":
            beside = folder.parent / f"linked-{name}"
            beside.write_bytes(valid(name))
            path.symlink_to(beside)


class Runs(Target):
    """Folders of runs, described."""

    known = (
        {"config.json": b'{"a": "\\ud800", "\\ud800": 1}'},
        {"config.json": b'{"\\u001b[2J": 1}'},
        {"metrics.jsonl": b'{"kind": "eval", "epoch": "\\u001b[2J"}'},
        {"metrics.jsonl": b'{"kind": "eval", "epoch": "\\ud800"}'},
        *({name: kind} for name in ("config.json", "metrics.jsonl") for kind in NO_FILES),
    )

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.run = folder / "run"
        snapshot.write(self.run / "checkpoints", 3, STATE, TENSORS)
        self.valid = {
            "config.json": json.dumps({"epochs": 2, "lr": 0.05, "condition": "decrease:2", "output": None}).encode(),
            "metrics.jsonl": b"".join(json.dumps(row).encode() + b"\n" for row in ROWS),
        }
        put(self.run, self.valid, self.valid.__getitem__)

    def make(self, draw: Random) -> Files:
        name = draw.choice(list(self.valid))
        if draw.random() < 0.05:
            return {name: draw.choice(NO_FILES)}
        if draw.random() < 0.5:
            return {name: damaged(self.valid[name], draw)}
        lines = [json.dumps(changed(json.loads(line), draw)).encode() for line in self.valid[name].splitlines()]
        return {name: b"\n".join(lines)}

    def check(self, given: Files) -> None:
        put(self.run, given, self.valid.__getitem__)
        try:
            text = report.describe(self.run)
        finally:
            put(self.run, {name: self.valid[name] for name in given}, self.valid.__getitem__)
        # It goes to a terminal.
        assert all(line.isprintable() for line in text.split("\n")), f"not fit to be shown: {text!r}"


class Checkpoints(Target):
    """Checkpoints to which something has happened are as they were written, or refused."""

    names = ("manifest.json", *snapshot.FILES)
    known = (
        {},
        *({name: kind} for name in names for kind in NO_FILES),
        *({name: b""} for name in names),
    )

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.files = []
        for number in (3, 4):
            snapshot.write(folder, number, {**STATE, "step": number}, {**TENSORS, "e": torch.tensor(number)})
            self.place = folder / f"step-{number:08d}"
            self.files.append({name: (self.place / name).read_bytes() for name in self.names})
        self.valid = self.files[-1]

    def make(self, draw: Random) -> Files:
        files: Files = {}
        for name in draw.sample(self.names, draw.choice((1, 1, 2, 3))):
            kind = draw.random()
            if kind < 0.05:
                files[name] = draw.choice(NO_FILES)
            elif kind < 0.15:
                files[name] = self.files[0][name]
            elif kind < 0.25:
                files[name] = self.valid[draw.choice(self.names)]
            else:
                files[name] = damaged(self.valid[name], draw)
        return files

    def check(self, given: Files) -> None:
        put(self.place, given, self.valid.__getitem__)
        try:
            content, tensors = snapshot.read(self.place)
        finally:
            put(self.place, {name: self.valid[name] for name in given}, self.valid.__getitem__)
        assert content == {**STATE, "step": 4}
        assert equal(dict(sorted(tensors.items())), {**TENSORS, "e": torch.tensor(4)})


# fmt: off
SIZES = {
    **{"BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "I16": 16, "U16": 16, "F16": 16,
    "BF16": 16,}, **{"I32": 32, "U32": 32, "F32": 32, "C64": 64, "F64": 64, "I64": 64, "U64": 64, "F4": 4,
    "F6_E2M3": 6, "F6_E3M2": 6,},
}
# fmt: on


def tensors_of(header: Json, data: bytes) -> bytes:
    """A safetensors file."""
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data


def one_tensor(dtype: str, shape: list[int], bits: int | None = None) -> bytes:
    """A safetensors file of one tensor named ``a``."""
    length = (math.prod(shape) * SIZES[dtype] if bits is None else bits) // 8
    return tensors_of({"a": {"dtype": dtype, "shape": shape, "data_offsets": [0, length]}}, bytes(length))


class Strangers(Target):
    """Checkpoints that were made with care by someone who means ill."""

    known = (
        *((b'{"x": {"$tensor": "a"}, "y": {"$array": "a"}}', one_tensor(dtype, [2, 4])) for dtype in SIZES),
        *((b"{}", one_tensor("F32", [0, huge])) for huge in (2**31, 2**62, 2**63 - 1, 2**63, 2**64 - 1, 2**64)),
        *((b"{}", one_tensor("F32", [0, huge, huge], 0)) for huge in (2**31, 2**32, 2**62)),
        (b"{}", one_tensor("U8", [1] * 70)),
        (b"{}", one_tensor("U8", [1] * 5000)),
        (b'{"a": ' * 900 + b"1" + b"}" * 900, save({})),
        (b'{"a": [' + b'{"$tuple": [' * 450 + b"]}" * 450 + b"]}", save({})),
        (b'{"$counter": [["a", "b"], ["a", null]]}', save({})),
        (b'{"$mapping": ["ab", "cd"]}', save({})),
        (b'{"$tuple": [1]}', save({})),
        (b'{"a": "' + b"b" * (1 << 26) + b'"}', save({})),
    )

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.place = folder / "step-00000003"
        self.place.mkdir()
        self.valid = save({"a": torch.arange(6.0), "b": torch.tensor([[1, 2]]), "c": torch.zeros(2, 0)})

    def make(self, draw: Random) -> tuple[bytes, bytes]:
        content = json.dumps({"a": grown(draw), **{"bc"[n]: grown(draw) for n in range(draw.randint(0, 2))}}).encode()
        if draw.random() < 0.1:
            content = damaged(content, draw)
        kind = draw.random()
        if kind < 0.3:
            return content, self.valid
        if kind < 0.6:
            return content, damaged(self.valid, draw)
        header, start = {}, 0
        for name in draw.sample(("a", "b", "a/b", "", "__metadata__", "\ud800"), draw.randint(0, 3)):
            dtype, shape = draw.choice(list(SIZES)), draw.choices((0, 1, 2, 3, 4, 8), k=draw.randint(0, 4))
            bits = math.prod(shape) * SIZES[dtype]
            header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, start := start + bits // 8]}
        return content, tensors_of(changed(header, draw) if draw.random() < 0.5 else header, bytes(start))

    def check(self, given: tuple[bytes, bytes]) -> None:
        for name, content in zip(snapshot.FILES, given, strict=True):
            (self.place / name).write_bytes(content)
        (self.place / "manifest.json").write_text(snapshot._manifest(3, self.place))
        serialize.unpack(*snapshot.read(self.place))


def equal(one: Any, other: Any, pairs: dict[int, Tensor] | None = None) -> bool:
    """Whether two values are the same in type and content, and one tensor in several places is one in both."""
    pairs = {} if pairs is None else pairs
    if type(one) is not type(other):
        return False
    if isinstance(one, Tensor):
        # Empty tensors have nothing to share.
        if one.numel() and pairs.setdefault(id(one), other) is not other:
            return False
        plain = [value.resolve_conj().resolve_neg().flatten() for value in (one, other)]
        bits = [v.clone(memory_format=torch.contiguous_format).view(torch.uint8) for v in plain]
        return one.dtype == other.dtype and one.shape == other.shape and torch.equal(*bits)
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
    if isinstance(one, float):
        return repr(one) == repr(other)
    if isinstance(one, dict):
        return len(one) == len(other) and all(
            equal(*keys) and equal(*values, pairs)
            for keys, values in zip(
                zip(one, other, strict=True), zip(one.values(), other.values(), strict=True), strict=True
            )
        )
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(equal(*both, pairs) for both in zip(one, other, strict=True))
    return bool(one == other)


class States(Target):
    """Values taken apart and put together again."""

    ones, twos = torch.ones(2), torch.full((2,), 2.0)
    known = (
        {"a/b": ones, "a": {"b": twos}},
        {"a": {"b": twos}, "a/b": ones},
        {"/a": ones, "a": twos},
        {1: ones, "1": twos},
        {"a": [ones], ("a", 0): {"x": twos}},
        {(1, "a"): {"": ones}, "": twos},
        [torch.zeros(0, 2), torch.zeros(0, 3), {"a/b": torch.zeros(0), "a": {"b": torch.zeros(0, 5)}}],
        [ones, ones, ones[:1], ones.view(torch.int32), ones.view(1, 2)],
        np.arange(4)[::-1],
        np.arange(4, dtype=">i4"),
        np.ones(2, dtype=np.longdouble),
        np.array(3.0),
        [c := torch.tensor([1 + 2j]), c.conj()],
        [c, c.conj().imag],
    )
    dtypes = sorted(serialize.DTYPES)
    # fmt: off
    keys = (
        "a", "b", "a/b", "/a", "", "/", "$tensor", "$x", "0", 0, 1, -1, (0, "a"), ((), 1), ("a", "b"), "é", "\ud800",
    )
    # fmt: on
    leaves = (None, True, False, *NUMBERS, 10**400, 0.5, -0.0, 1e308, math.nan, math.inf, -math.inf, "", "$x", "\ud800")
    numpy_dtypes = ("?", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8", ">i4", ">f8", "g")

    def make(self, draw: Random) -> Any:
        return self.grown(draw, draw.randint(1, 4), [self.tensor(draw) for _ in range(2)])

    def tensor(self, draw: Random) -> Tensor:
        dtype = serialize.DTYPES[draw.choice(self.dtypes)]
        shape = draw.choice(((), (0,), (1,), (3,), (2, 3), (2, 0, 4)))
        bits = torch.frombuffer(bytearray(draw.randbytes(512)), dtype=torch.uint8)
        try:
            whole = bits.view(dtype) if dtype != torch.bool else bits > 127
            made = whole[: math.prod(shape)].clone().view(shape)
            return made.t() if made.ndim == 2 and draw.random() < 0.5 else made
        except (RuntimeError, TypeError):  # Quantised and packed types, of which tensors are not made in this way.
            return torch.ones(shape)

    def grown(self, draw: Random, depth: int, shared: list[Tensor]) -> Any:
        kind = draw.randrange(10) if depth else draw.randrange(6)
        if kind < 2:
            return draw.choice(self.leaves)
        if kind == 2:
            return draw.choice(shared)
        if kind == 3:
            return self.tensor(draw)
        if kind == 4:
            array = np.zeros(draw.choice(((), (0,), (3,), (2, 3))), draw.choice(self.numpy_dtypes))
            array[...] = draw.randint(0, 99)
            return array[:: draw.choice((1, 1, 1, 2, -1))] if array.ndim else array
        if kind == 5:
            return serialize.DTYPES[draw.choice(self.dtypes)]
        items = [self.grown(draw, depth - 1, shared) for _ in range(draw.randint(0, 4))]
        if kind == 6:
            return items
        if kind == 7:
            return tuple(items)
        pairs = {draw.choice(self.keys): item for item in items}
        return Counter(pairs) if kind == 8 and draw.random() < 0.3 else pairs

    def check(self, given: Any) -> None:
        content, tensors = serialize.pack(given)
        assert equal(serialize.unpack(json.loads(json.dumps(content, allow_nan=False)), tensors), given)


class Generators(Target):
    """States of random generators."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.owner = types.SimpleNamespace(
            torch=torch.Generator(),
            numpy=np.random.default_rng(1),
            mersenne=np.random.Generator(np.random.MT19937(1)),
            old=np.random.RandomState(1),
            python=random.Random(1),
        )
        self.random = RandomState(torch.device("cpu"), self.owner)
        self.valid = json.loads(json.dumps(self.random.state_dict()))

    @property
    def known(self) -> list[Json]:  # type: ignore[override]
        made = []
        for path, value in (
            *((("numpy", "state", "pos"), pos) for pos in (625, 10**6, -1, 10**30, "1", 1.5)),
            *((("own", "0.old", "state", "pos"), pos) for pos in (625, -1)),
            *((("own", "0.mersenne", "state", "pos"), pos) for pos in (625, -1)),
            *((("numpy",), wrong) for wrong in ([], ["MT19937"], ["MT19937", []], {}, None, "a", 3)),
            *((("numpy", "gauss"), wrong) for wrong in (None, "a", [])),
            *((("python", 2), wrong) for wrong in ("a", [], {}, True)),
            *((("python", 1), wrong) for wrong in (None, [], [-1] * 625, [2**64] * 625, ["a"] * 625)),
            *((("torch",), wrong) for wrong in ("", "zz", "00", "00" * 5056, "ff" * 5056, None)),
            *((("own",), wrong) for wrong in (None, [], "0.old", 3)),
        ):
            tree = json.loads(json.dumps(self.valid))
            node = tree
            for key in path[:-1]:
                node = node[key]
            node[path[-1]] = value
            made.append(tree)
        return made

    def make(self, draw: Random) -> Json:
        return changed(changed(self.valid, draw) if draw.random() < 0.2 else self.valid, draw)

    def check(self, given: Json) -> None:
        try:
            self.random.load_state_dict(given)
            # NumPy reads whatever memory such a position points at.
            for place in (np.random.get_state(legacy=False), self.owner.old.get_state(legacy=False)):
                assert 0 <= place["state"]["pos"] <= 624, "NumPy would read beyond its state"
            assert 0 <= self.owner.mersenne.bit_generator.state["state"]["pos"] <= 624, "beyond its state"
            for python in (random, self.owner.python):
                assert isinstance(python.gauss(0, 1) + python.random(), float)
            for numpy in (np.random, self.owner.old, self.owner.numpy, self.owner.mersenne):
                assert isinstance(numpy.normal() + numpy.random(), float)
            torch.rand(1)
            torch.rand(1, generator=self.owner.torch)
        finally:
            self.random.load_state_dict(self.valid)


class Resumed(Target):
    """Runs that go on from a checkpoint in which one thing is another."""

    share = 20
    allowed = (SeekingError, RunError)
    seconds = 5.0
    config: ClassVar = {"condition": "decrease:1 | matched(random:0.5)", "optimizer": "adamw", "lr": 0.01}

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.valid = folder / "valid"
        with contextlib.suppress(Ended):
            trainer = self.trainer(self.valid, 8, save_every="1")
            trainer.fit()
        trainer.saver.wait()
        for path in snapshot.list_checkpoints(self.valid / "checkpoints")[1:]:
            shutil.rmtree(path)
        (self.place,) = snapshot.list_checkpoints(self.valid / "checkpoints")
        self.tree, _ = snapshot.read(self.place)

    def trainer(self, output: Path, ends: int = -1, **options: Any) -> Trainer:
        def listen(row: dict[str, Any]) -> None:
            if row["kind"] == "step" and row["step"] >= ends:
                raise Ended

        config = CONFIG.__class__(**{"epochs": 3, **self.config, **options})
        return Trainer(*two_models(), **batches(), config=config, output=output, resume=True, listeners=[listen])

    @property
    def known(self) -> list[Json]:  # type: ignore[override]
        return [{}, {"$tuple": []}, *({k: v for k, v in self.tree.items() if k != name} for name in self.tree)]

    def make(self, draw: Random) -> Json:
        tree = changed(self.tree, draw)
        while not isinstance(tree, dict):
            tree = changed(self.tree, draw)
        return tree

    def check(self, given: Json) -> None:
        output, trainer = Path(tempfile.mkdtemp(dir=self.folder)), None
        shutil.copytree(self.valid, output, dirs_exist_ok=True)
        place = output / "checkpoints" / self.place.name
        (place / "state.json").write_text(json.dumps(given))
        (place / "manifest.json").write_text(snapshot._manifest(int(place.name[5:]), place))
        try:
            trainer = self.trainer(output)
            with contextlib.suppress(Ended):
                trainer.fit()
        finally:
            if trainer and trainer.saver:
                with contextlib.suppress(RunError):
                    trainer.saver.wait()
            begun_anew = not place.exists() and not list(place.parent.glob("damaged-*"))
            shutil.rmtree(output)
            assert not begun_anew, "what the folder held is gone"


TARGETS: dict[str, type[Target]] = {
    "conditions": Conditions,
    "maps": Maps,
    "options": Options,
    "metrics": Metrics,
    "runs": Runs,
    "checkpoints": Checkpoints,
    "strangers": Strangers,
    "states": States,
    "generators": Generators,
    "resumed": Resumed,
}


@contextlib.contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Give up on what takes too long."""

    def rung(number: int, frame: object) -> None:
        raise TooSlow(f"not done after {HUNG:.0f} s")

    before, start = signal.signal(signal.SIGALRM, rung), time.process_time()
    signal.setitimer(signal.ITIMER_REAL, HUNG)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        taken = time.process_time() - start
    if taken > seconds:
        raise TooSlow(f"{taken:.1f} s of computing")


def peak() -> float:
    """MiB that this program has had at most so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def accepted(target: Target, given: Any, start: float) -> bool:
    """Try one input: whether it is accepted.

    Raises:
        Offence: it is neither accepted and right nor refused in words.
    """
    try:
        refused = False
        with limited(target.seconds):
            try:
                target.check(given)
            except target.allowed as error:
                refused = True
                if not str(error):
                    raise Offence("refused without a word") from error
        assert peak() - start < MEMORY, f"{peak() - start:.0f} MiB of memory"
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise Offence(f"{type(error).__name__}: {error}") from error
    return not refused


@dataclass
class Tried:
    """What came of a target's inputs."""

    name: str
    inputs: int
    accepted: int
    seconds: float
    memory: float

    def __str__(self) -> str:
        refused = self.inputs - self.accepted
        return (
            f"{self.name:<12}{self.inputs:>9,}{self.accepted:>10,}{refused:>10,}{self.seconds:>9.1f}{self.memory:>9.0f}"
        )


HEADING = f"{'target':<12}{'inputs':>9}{'accepted':>10}{'refused':>10}{'seconds':>9}{'MiB':>9}"


def fuzz(kind: type[Target], name: str, inputs: int, seed: int = 0, first: int = 0, known: bool = True) -> Tried:
    """Try so many inputs of a target, after those that are known.

    Raises:
        Offence: with the input, and how to repeat it.
    """
    given: Any = None
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(), contextlib.chdir(folder):
        warnings.simplefilter("ignore")
        target = kind(Path(folder))
        before, start, count, good = peak(), time.perf_counter(), 0, 0
        drawn = ((number, target.make(Random(f"{seed} {name} {number}"))) for number in itertools.count(first))
        chosen = itertools.islice(drawn, max(1, inputs // kind.share))
        for number, given in itertools.chain(enumerate(target.known if known else ()), chosen):
            try:
                good += accepted(target, given, before)
            except Offence as error:
                where = (
                    f"known input {number}" if count < len(target.known) and known else f"input {number}, seed {seed}"
                )
                raise Offence(f"{name}, {where}: {error}\n{_shown(given)}") from error.__cause__
            count += 1
        return Tried(name, count, good, time.perf_counter() - start, peak() - before)


def _shown(given: Any) -> str:
    text = re.sub(r"(.{1,20}?)\1{20,}", r"\1…", repr(given))
    return text if len(text) < 4000 else f"{text[:4000]}… ({len(text)} characters)"


def main(arguments: Sequence[str] | None = None) -> int:
    """Try all targets."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=1000)
    parser.add_argument("--only", choices=TARGETS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first input")
    chosen = parser.parse_args(arguments)
    print(f"seed {chosen.seed}\n{HEADING}")
    for name in [chosen.only] if chosen.only else TARGETS:
        try:
            print(fuzz(TARGETS[name], name, chosen.inputs, chosen.seed, chosen.first), flush=True)
        except Offence as error:
            traceback.print_exception(error.__cause__)
            print(error)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
