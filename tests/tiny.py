"""Runs whose steps take a millisecond, and what can happen to their folders."""

import errno
import functools
import json
import os
import shutil
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from seeking import TrainConfig, Trainer
from seeking.checkpointing import run_files
from seeking.training import RunFolder

TINY = TrainConfig(epochs=2, condition="every:2", save_every="1", precision="no", channels_last=False)


class Network(nn.Sequential):
    def __init__(self, width: int) -> None:
        super().__init__(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 2))


def tiny(output: Path | RunFolder, config: TrainConfig = TINY, **options: Any) -> Trainer:
    """A trainer whose steps take a millisecond."""
    torch.manual_seed(0)
    x = torch.randn(16, 4, generator=torch.Generator().manual_seed(1))
    data = TensorDataset(x, (x[:, 0] > 0).long())
    loaders = {"train_loader": DataLoader(data, 4), "eval_loader": DataLoader(data, 16)}
    return Trainer(Network(3), Network(5), **{**loaders, **options}, config=config, output=output)


def stop_after(step: int, act: Any = None) -> Any:
    def listen(row: dict[str, Any]) -> None:
        if row["kind"] == "step" and row["step"] == step:
            if act is None:
                raise KeyboardInterrupt
            act()

    return listen


def contents(folder: Path) -> dict[str, bytes | str | None]:
    return {
        str(path.relative_to(folder)): str(path.readlink())
        if path.is_symlink()
        else path.read_bytes()
        if path.is_file()
        else None
        for path in folder.rglob("*")
        if path.name != run_files.LOCK
    }


def moved(run: Path) -> None:
    run.rename(run.with_name("elsewhere"))


def deleted(run: Path) -> None:
    shutil.rmtree(run, ignore_errors=True)


def replaced(run: Path) -> None:
    """By another run, which takes the path."""
    moved(run)
    tiny(run).fit()


def files_of(run: Path) -> list[str]:
    return sorted(name for name, content in contents(run).items() if content is not None)


BERT = json.dumps({"architectures": ["BertModel"], "hidden_size": 768, "vocab_size": 30522})
OPTIONS = json.dumps(TINY.recorded())
FOREIGN = st.fixed_dictionaries(
    {"config.json": st.sampled_from((BERT, "{}", "[]", "", OPTIONS, json.dumps({"epochs": 3, "lr": 0.1})))},
    optional={
        "thesis.tex": st.just("years of work"),
        "metrics.jsonl": st.sampled_from(('{"loss": 1}\n', "", '{"kind": "step"}\n')),
        "manifest.json": st.sampled_from(("{}", '{"manifest_version": 3}', '{"format": "seeking.checkpoint"}', "")),
        "map.json": st.just("{}"),
        "base.best.safetensors": st.just("weights"),
        "checkpoints/step-00000003/model.bin": st.just("weights"),
        "checkpoints/step-00000003/manifest.json": st.just("{}"),
        "checkpoint-500/pytorch_model.bin": st.just("weights"),
        "pair-seed0/notes.txt": st.just("notes"),
        ".config.json.writing": st.just("half"),
    },
).filter(lambda files: files["config.json"] != OPTIONS or "thesis.tex" in files)


ERRORS = [errno.EIO, errno.ESTALE, errno.EACCES]


class Failing:
    """Operations on files under a folder that fail."""

    def __init__(self, folder: Path, number: int, after: int = 0, only: str = "", times: int = 1_000_000) -> None:
        self.folder, self.number, self.after, self.only = str(folder), number, after, only
        self.until = after + times
        self.count = 0
        self.failed = 0

    def __call__(self, real: Any, path: Any, *rest: Any, **options: Any) -> Any:
        text = os.fspath(path) if isinstance(path, str | os.PathLike) else ""
        if text.startswith(self.folder) and self.only in text:
            self.count += 1
            if self.after < self.count <= self.until:
                self.failed += 1
                raise OSError(self.number, os.strerror(self.number), text)
        return real(path, *rest, **options)

    def __enter__(self) -> "Failing":
        self.patches = [
            mock.patch(name, functools.partial(self, real))
            for name, real in (
                ("io.open", open),
                ("builtins.open", open),
                ("os.open", os.open),
                ("os.stat", os.stat),
                ("os.lstat", os.lstat),
                ("os.scandir", os.scandir),
                ("os.listdir", os.listdir),
            )
        ]
        for patch in self.patches:
            patch.start()
        return self

    def __exit__(self, *error: object) -> None:
        for patch in self.patches:
            patch.stop()
