"""Folders: of runs, of checkpoints, and of data."""

import io
import json
import math
import os
from collections.abc import Callable
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
from target import Target
from texts import ROWS, lines, written

from seeking.checkpointing import serialize, snapshot
from seeking.data import DataConfig, load
from seeking.report.folder import describe

NO_FILES: dict[str, Callable[[Path], object]] = {
    "missing": lambda path: None,
    "folder": Path.mkdir,
    "pipe": os.mkfifo,
    "link": lambda path: path.symlink_to(__file__),
}


class Shown(Target):
    """Folders of runs without checksums are shown."""

    options = written({"epochs": 2, "lr": 0.05, "condition": "decrease:2", "output": None})
    valid: dict[str, Any] = {"config.json": options, "metrics.jsonl": lines(ROWS)}  # noqa: RUF012
    known = (
        *({"config.json": text} for text in (options, b'{"a": "\\ud800"}', b'{"\\u001b[2J": 1}', *NO_FILES)),
        *({"metrics.jsonl": b'{"kind": "eval", "epoch": "%s"}' % text} for text in (b"\\u001b[2J", b"\\ud800")),
        *({"metrics.jsonl": text} for text in (b'{"kind": "eval", "base": {"\\u001b[2J": 1.0}}', *NO_FILES)),
    )
    rows = st.tuples(*map(changed, ROWS)).map(lines)
    files = changed(json.loads(options)).map(written) | damaged(options), rows | rows.flatmap(damaged)
    inputs = st.fixed_dictionaries({}, optional=dict(zip(valid, files, strict=True)))

    def check(self, content: dict[str, Any]) -> None:
        with self.scratch() as run:
            run.mkdir()
            for name, text in {**self.valid, **content}.items():
                (run / name).write_bytes(text) if isinstance(text, bytes) else NO_FILES[text](run / name)
            text, _ = describe(run)
        # It goes to a terminal.
        assert all(line.isprintable() for line in text.split("\n")), f"not fit to be shown: {text!r}"


# fmt: off
BITS = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0"), 8),
    **dict.fromkeys(("I16", "U16", "F16", "BF16"), 16), **dict.fromkeys(("I32", "U32", "F32"), 32),
    **dict.fromkeys(("C64", "F64", "I64", "U64"), 64), "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}
# fmt: on


def tensor_file(header: Json, size: int) -> bytes:
    """A safetensors file of zeros."""
    text = written(header)
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + bytes(size)


def one_tensor(dtype: str, shape: list[int], size: int | None = None, name: str = "a") -> bytes:
    """A safetensors file of one tensor."""
    size = math.prod(shape) * BITS[dtype] // 8 if size is None else size
    return tensor_file({name: {"dtype": dtype, "shape": shape, "data_offsets": [0, size]}}, size)


class Strangers(Target):
    """Checkpoints that were made with care by someone who means ill."""

    known = (
        *((b'{"x": {"$tensor": "a"}, "y": {"$array": "a"}}', one_tensor(dtype, [2, 4])) for dtype in BITS),
        *((b"{}", one_tensor("F32", [0, huge])) for huge in (2**31, 2**62, 2**63 - 1, 2**63, 2**64 - 1, 2**64)),
        *((b"{}", one_tensor("F32", [0, huge, huge], 0)) for huge in (2**31, 2**32, 2**62)),
        *((b"{}", one_tensor("U8", [1] * rank)) for rank in (70, 5000)),
        (b'{"a": ' * 900 + b"1" + b"}" * 900, save({})),
        *((b'{"a": [' + b'{"$tuple": [' * deep + b"]}" * deep + b"]}", save({})) for deep in (300, 800)),
        *((text, save({})) for text in (b'{"$counter": [["a", "b"], ["a", null]]}', b'{"$mapping": ["ab", "cd"]}')),
        (b'{"a": "' + b"b" * (1 << 26) + b'"}', save({})),
    )
    valid = save({"a": torch.arange(6.0), "b": torch.tensor([[1, 2]]), "c": torch.zeros(2, 0)})
    header = json.loads(valid[8:][: int.from_bytes(valid[:8], "little")])
    shapes = st.lists(st.sampled_from((0, 1, 2, 3, 4, 8)), max_size=4)
    states = st.dictionaries(st.sampled_from("abc"), json_values, min_size=1).map(written)
    inputs = st.tuples(
        st.one_of(*[states] * 4, states.flatmap(damaged)),
        st.one_of(
            *(st.just(valid), damaged(valid), st.builds(tensor_file, changed(header), st.just(40))),
            st.builds(one_tensor, st.sampled_from(list(BITS)), shapes, name=st.sampled_from(("a", "", "\ud800"))),
        ),
    )

    def check(self, content: tuple[bytes, bytes]) -> None:
        checkpoint = self.folder / snapshot.name(3)
        checkpoint.mkdir(exist_ok=True)
        for name, file in zip(snapshot.FILES, content, strict=True):
            (checkpoint / name).write_bytes(file)
        (checkpoint / "manifest.json").write_text(snapshot.manifest_text(3, checkpoint))
        serialize.unpack(*snapshot.read(checkpoint))


file = io.BytesIO()
Image.new("L", (4, 4)).save(file, "PNG")
PICTURE = file.getvalue()


class Parquet(Target):
    """Folders of parquet files: with wrong images or labels, or damaged."""

    share = 10
    seconds = 5.0
    images = st.sampled_from((*[PICTURE] * 20, None, b"", *BYTES))
    labels = st.sampled_from((0, 0, 0, 1, 1, 1, -1, None, *(number for number in NUMBERS if abs(number) < 2**63)))
    rows = st.lists(st.tuples(images, labels), max_size=4)
    kinds = st.sampled_from(("int64", "int64", "class", "float64", "string"))
    few: Any = ("int64", [(PICTURE, 0), (PICTURE, 1)])
    none: Any = ("int64", [])
    known = ((few, None), (few, few), (few, none), (none, few), (none, None), b"", b"PAR1")

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.write(folder / "valid", *self.few)
        tables = st.tuples(self.kinds, self.rows)
        self.inputs = st.tuples(tables, st.none() | tables) | damaged((folder / "valid").read_bytes())

    def write(self, path: Path, kind: str, rows: list[tuple[bytes | None, int | None]]) -> None:
        classes = datasets.ClassLabel(num_classes=2)
        convert = {"float64": float, "string": str, "class": lambda number: number % 2}.get(kind, int)
        labels = [None if number is None else convert(number) for _, number in rows]
        label = classes if kind == "class" else datasets.Value(kind)
        features = datasets.Features({"image": datasets.Image(), "label": label})
        table = {"image": [image for image, _ in rows], "label": labels}
        datasets.Dataset.from_dict(table, features).to_parquet(path)

    def check(self, content: Any) -> None:
        with self.scratch() as data, mock.patch("datasets.config.HF_DATASETS_CACHE", str(data.parent / "cache")):
            data.mkdir()
            if isinstance(content, bytes):
                (data / "train.parquet").write_bytes(content)
            else:
                for split, table in zip(("train", "test"), content, strict=True):
                    if table:
                        self.write(data / f"{split}.parquet", *table)
            loaded = load(DataConfig(data=str(data)))
        for part in (loaded.train, loaded.test):
            assert len(part) and 0 <= int(part.labels.min()) <= int(part.labels.max()) < len(loaded.classes)
        assert np.isfinite([*loaded.mean, *loaded.std]).all()
