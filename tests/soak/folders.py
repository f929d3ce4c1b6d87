"""Folders: of runs, of checkpoints, and of data."""

import io
import json
import math
import os
from pathlib import Path
from typing import Any
from unittest import mock

import datasets
import numpy as np
import torch
from hypothesis import strategies as st
from inputs import BYTES, NUMBERS, Json, changed, damaged, json_values
from PIL import Image
from safetensors.torch import save
from states import equal
from target import Target
from texts import ROWS, lines

from seeking.checkpointing import serialize, snapshot
from seeking.data import DataConfig, load
from seeking.report import folder as report

STATE: Json = {"step": 3, "lr": 0.1, "names": ["é", None, {"$tensor": "a"}], "place": {"held": True}}
TENSORS = {"a": torch.arange(6.0).view(2, 3), "b": torch.tensor(5), "c": torch.zeros(0, 4), "d": torch.ones(3).bool()}

Files = dict[str, Any]
"""What to put in a folder's files: bytes, or one of ``NO_FILES``."""
NO_FILES = ("missing", "folder", "link", "pipe")


def put(folder: Path, files: Files, valid: Files) -> None:
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
            beside.write_bytes(valid[name])
            path.symlink_to(beside)


@st.composite
def contents(draw: st.DrawFn, valid: Files, others: Files, most: int) -> Files:
    """Some files of a folder: damaged, of others, of other kinds, or JSON in which one thing is another."""
    files: Files = {}
    for name in draw(st.lists(st.sampled_from(sorted(valid)), min_size=1, max_size=most, unique=True)):
        kind = draw(st.integers(0, 9))
        if kind == 0:
            files[name] = draw(st.sampled_from((*NO_FILES, others[name], *valid.values())))
        elif kind < 5 and name != "tensors.safetensors":
            rows = valid[name].splitlines() if name == "metrics.jsonl" else [valid[name]]
            files[name] = lines([draw(changed(json.loads(row))) for row in rows])
        else:
            files[name] = draw(damaged(valid[name]))
    return files


class Runs(Target):
    """Folders of runs, described."""

    config = json.dumps({"epochs": 2, "lr": 0.05, "condition": "decrease:2", "output": None}).encode()
    valid: Files = {"config.json": config, "metrics.jsonl": lines(ROWS)}  # noqa: RUF012
    known = (
        {},
        {"config.json": b'{"a": "\\ud800", "\\ud800": 1}'},
        {"config.json": b'{"\\u001b[2J": 1}'},
        {"metrics.jsonl": b'{"kind": "eval", "epoch": "\\u001b[2J"}'},
        {"metrics.jsonl": b'{"kind": "eval", "epoch": "\\ud800"}'},
        *({name: kind} for name in ("config.json", "metrics.jsonl") for kind in NO_FILES),
    )
    inputs = contents(valid, valid, most=1)

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.run = folder / "run"
        snapshot.write(self.run / "checkpoints", 3, STATE, TENSORS)
        put(self.run, self.valid, self.valid)

    def check(self, content: Files) -> None:
        put(self.run, content, self.valid)
        try:
            text, _ = report.describe(self.run)
        finally:
            put(self.run, {name: self.valid[name] for name in content}, self.valid)
        # It goes to a terminal.
        assert all(line.isprintable() for line in text.split("\n")), f"not fit to be shown: {text!r}"


class Checkpoints(Target):
    """Checkpoints to which something has happened are as they were written, or refused."""

    names = ("manifest.json", *snapshot.FILES)
    known = ({}, *({name: kind} for name in names for kind in (*NO_FILES, b"")))

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        written = []
        for step in (3, 4):
            snapshot.write(folder, step, {**STATE, "step": step}, {**TENSORS, "e": torch.tensor(step)})
            self.checkpoint = folder / f"step-{step:08d}"
            written.append({name: (self.checkpoint / name).read_bytes() for name in self.names})
        self.valid = written[-1]
        self.inputs = contents(self.valid, written[0], most=3)

    def check(self, content: Files) -> None:
        put(self.checkpoint, content, self.valid)
        try:
            state, tensors = snapshot.read(self.checkpoint)
        finally:
            put(self.checkpoint, {name: self.valid[name] for name in content}, self.valid)
        assert state == {**STATE, "step": 4}
        assert equal(dict(sorted(tensors.items())), {**TENSORS, "e": torch.tensor(4)})


# fmt: off
SIZES = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0"), 8),
    **dict.fromkeys(("I16", "U16", "F16", "BF16"), 16), **dict.fromkeys(("I32", "U32", "F32"), 32),
    **dict.fromkeys(("C64", "F64", "I64", "U64"), 64), "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}
# fmt: on


def tensors_of(header: Json, size: int) -> bytes:
    """A safetensors file of zeros."""
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + bytes(size)


def one_tensor(dtype: str, shape: list[int], bits: int | None = None) -> bytes:
    """A safetensors file of one tensor named ``a``."""
    length = (math.prod(shape) * SIZES[dtype] if bits is None else bits) // 8
    return tensors_of({"a": {"dtype": dtype, "shape": shape, "data_offsets": [0, length]}}, length)


@st.composite
def tensor_files(draw: st.DrawFn) -> bytes:
    """Safetensors files of any types and shapes, or with one thing in the header that is another."""
    header, start = {}, 0
    names = st.sampled_from(("a", "b", "a/b", "", "__metadata__", "\ud800"))
    for name in draw(st.lists(names, max_size=3, unique=True)):
        dtype = draw(st.sampled_from(list(SIZES)))
        shape = draw(st.lists(st.sampled_from((0, 1, 2, 3, 4, 8)), max_size=4))
        end = start + math.prod(shape) * SIZES[dtype] // 8
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}
        start = end
    return tensors_of(draw(changed(header) if draw(st.booleans()) else st.just(header)), start)


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
    valid = save({"a": torch.arange(6.0), "b": torch.tensor([[1, 2]]), "c": torch.zeros(2, 0)})
    states = st.dictionaries(st.sampled_from("abc"), json_values, min_size=1).map(json.dumps).map(str.encode)
    inputs = st.tuples(
        st.one_of(*[states] * 4, states.flatmap(damaged)),
        st.just(valid) | damaged(valid) | tensor_files(),
    )

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.checkpoint = folder / "step-00000003"
        self.checkpoint.mkdir()

    def check(self, content: tuple[bytes, bytes]) -> None:
        for name, file in zip(snapshot.FILES, content, strict=True):
            (self.checkpoint / name).write_bytes(file)
        (self.checkpoint / "manifest.json").write_text(snapshot._manifest(3, self.checkpoint))
        serialize.unpack(*snapshot.read(self.checkpoint))


def picture(mode: str, size: tuple[int, int], kind: str) -> bytes:
    """An image file."""
    file = io.BytesIO()
    Image.linear_gradient("L").resize(size).convert(mode).save(file, kind)
    return file.getvalue()


def write_parquet(path: Path, rows: list[tuple[bytes | None, int | None]], image: str, label: str) -> None:
    """A file of images and labels, in columns of these types."""
    types = {
        "image": datasets.Image() if image == "image" else datasets.Value(image),
        "label": datasets.ClassLabel(names=["a", "b"]) if label == "class" else datasets.Value(label),
    }
    pictures, labels = ([row[column] for row in rows] for column in (0, 1))
    convert = {"int64": int, "class": lambda number: number % 2, "float64": float, "string": str}[label]
    table = {"image": pictures, "label": [None if number is None else convert(number) for number in labels]}
    datasets.Dataset.from_dict(table, datasets.Features(types)).to_parquet(path)


LABEL_TYPES = ("int64", "class", "float64", "string")


class Parquet(Target):
    """Folders of parquet files: with wrong rows, wrong images, or damaged."""

    share = 10
    seconds = 5.0
    good = picture("L", (4, 4), "PNG")
    pictures = st.one_of(
        *[st.just(good)] * 6,
        damaged(good),
        st.builds(
            picture,
            st.sampled_from(("1", "L", "P", "RGB")),
            st.sampled_from(((4, 4), (1, 1), (4, 5))),
            st.sampled_from(("PNG", "GIF", "TIFF")),
        ),
        st.sampled_from((None, b"", *BYTES)),
    )
    labels = st.sampled_from((0, 0, 0, 1, 1, 1, -1, None, *(n for n in NUMBERS if -(2**63) <= n < 2**63)))
    rows = st.lists(st.tuples(pictures, labels), max_size=4)
    kinds = st.tuples(*(st.sampled_from(types) for types in (("image", "image", "image", "binary"), LABEL_TYPES)))
    few = [(good, 0), (good, 1), (good, 0)]  # noqa: RUF012
    usual = ("image", "int64")
    known = (
        *((few, None, usual), (few, few, usual), (few, [], usual), ([], few, usual), ([], None, usual)),
        *((few[:1], None, usual), b"", b"PAR1"),
    )

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        write_parquet(folder / "valid", self.few, *self.usual)
        valid = (folder / "valid").read_bytes()
        self.inputs = st.tuples(self.rows, st.none() | self.rows, self.kinds | st.just(self.usual)) | damaged(valid)

    def check(self, content: Any) -> None:
        with (
            self.scratch() as data,
            mock.patch.object(datasets.config, "HF_DATASETS_CACHE", str(data.parent / "cache")),
        ):
            data.mkdir()
            if isinstance(content, bytes):
                (data / "train.parquet").write_bytes(content)
            else:
                for split, rows in zip(("train", "test"), content[:2], strict=True):
                    if rows is not None:
                        write_parquet(data / f"{split}.parquet", rows, *content[2])
            loaded = load(DataConfig(data=str(data)))
        for part in (loaded.train, loaded.test):
            assert len(part) and 0 <= int(part.labels.min()) <= int(part.labels.max()) < len(loaded.classes)
        assert np.isfinite([*loaded.mean, *loaded.std]).all()
