"""Each tracker gets the numbers of ``metrics.jsonl`` under the same names; a resumed run goes on in the same run."""

import contextlib
import dataclasses
import errno
import importlib.util
import json
import os
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from accelerate.tracking import GeneralTracker
from runs import CONFIG, run
from tiny import Failing

from seeking import SeekingError, TrainConfig, Trainer
from seeking.choices import Tracker
from seeking.errors import DivergedError, RunWarning
from seeking.report import trackers
from seeking.report.trackers import check_trackers, numbers, starters, tensorboard
from seeking.training import RunFolder

Found = dict[tuple[str, int], float]
"""The value of each metric at each step."""


def of_tensorboard(folder: Path) -> list[Found]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "run/tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    return [{(tag, e.step): e.value for tag in events.Tags()["scalars"] for e in events.Scalars(tag)}]


def leveldb_records(content: bytes) -> Iterator[bytes]:
    """The records of a log in LevelDB's format after the seven bytes of W&B's header: blocks of 32 KiB, in which each
    part of a record follows its checksum, its length and its kind (1 whole, 2 first, 3 middle, 4 last)."""
    position, record = 7, b""
    while position + 7 <= len(content):
        rest = 32768 - position % 32768
        if rest < 7:
            position += rest
            continue
        length, kind = int.from_bytes(content[position + 4 : position + 6], "little"), content[position + 6]
        part, position = content[position + 7 : position + 7 + length], position + 7 + length
        record = part if kind in (1, 2) else record + part
        if kind in (1, 4):
            yield record


def of_wandb(folder: Path) -> list[Found]:
    from wandb.proto.wandb_internal_pb2 import Record

    by_run: dict[str, Found] = {}
    for path in sorted(folder.glob("wandb/offline-run-*/*.wandb")):
        values = by_run.setdefault(path.stem, {})
        for content in leveldb_records(path.read_bytes()):
            record = Record()
            record.ParseFromString(content)
            items = {"/".join(i.nested_key) or i.key: json.loads(i.value_json) for i in record.history.item}
            step = record.history.step.num
            values.update({(key, step): value for key, value in items.items() if not key.startswith("_")})
    return [*by_run.values()]


def of_mlflow(folder: Path) -> list[Found]:
    with sqlite3.connect(folder / "mlflow.db") as base:
        rows = base.execute("select run_uuid, key, step, value from metrics").fetchall()
    return [{(key, step): value for each, key, step, value in rows if each == run} for run in {row[0] for row in rows}]


def of_trackio(folder: Path) -> list[Found]:
    with sqlite3.connect(folder / "trackio/seeking.db") as base:
        rows = base.execute("select run_name, step, metrics from metrics").fetchall()
    names = {row[0] for row in rows}
    return [
        {(k, step): v for each, step, text in rows if each == name for k, v in json.loads(text).items()}
        for name in names
    ]


READERS: dict[str, Callable[[Path], list[Found]]] = {
    "tensorboard": of_tensorboard,
    "wandb": of_wandb,
    "mlflow": of_mlflow,
    "trackio": of_trackio,
}


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    yield
    os.environ.pop("MLFLOW_RUN_ID", None)


def test_the_option_has_the_trackers_of_the_package() -> None:
    assert {*starters()} == {*get_args(Tracker)}


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test_trackers_have_what_the_metrics_have(name: str, tmp_path: Path) -> None:
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"needs the package {name}")
    config = TrainConfig(**{**vars(CONFIG), "tracker": (name,), "epochs": 1, "save_every": "2"})

    def stop(row: dict[str, Any]) -> None:
        if row["kind"] == "step" and row["step"] == 3:
            raise DivergedError("not saved, so that steps come again")

    with pytest.raises(DivergedError):
        run(config, output=tmp_path / "run", listeners=[stop])
    run(config, output=tmp_path / "run", resume=True)
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    expected = {(key, row["step"]): value for row in rows if "step" in row for key, value in numbers(row).items()}
    runs = READERS[name](tmp_path)
    assert len(runs) == 1
    assert {key: runs[0].get(key) for key in expected} == pytest.approx(expected, rel=1e-6)


class Recording(GeneralTracker):
    """A tracker that fails at a step."""

    name = "tensorboard"
    requires_logging_directory = True

    def __init__(self, run_name: str, logging_dir: Path, purge_step: int) -> None:
        self.logged: list[int] = []

    def start(self) -> None: ...

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        assert values["tracker"] == '["tensorboard"]'

    def log(self, values: dict[str, Any], step: int | None = None, **more: Any) -> None:
        assert step is not None
        if step == 3:
            raise ConnectionError("gone")
        self.logged.append(step)


def test_a_tracker_that_fails_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recordings: list[Recording] = []
    monkeypatch.setattr(
        tensorboard, "TensorBoardTracker", lambda *a, **k: recordings.append(Recording(*a, **k)) or recordings[-1]
    )
    monkeypatch.setattr(trackers, "check_trackers", lambda names: None)
    with pytest.warns(RunWarning, match=r"tracker tensorboard fails and is left out .*ConnectionError: gone"):
        _, result = run(TrainConfig(**{**vars(CONFIG), "tracker": "tensorboard"}), output=tmp_path / "run")
    assert recordings[0].logged == [0, 1, 2]
    assert result.metrics


def test_ids_that_cannot_be_read_are_refused_and_not_read_without_trackers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensorboard, "TensorBoardTracker", lambda *a, **k: Recording(*a, **k))
    monkeypatch.setattr(trackers, "check_trackers", lambda names: None)
    config = TrainConfig(**{**vars(CONFIG), "tracker": "tensorboard", "max_steps": 2})
    run(config, output=tmp_path / "run")
    failed = [Failing(tmp_path, errno.EIO, after, "trackers.json", times=1) for after in range(8)]
    for failing in failed:
        with failing, contextlib.suppress(SeekingError):
            run(config, output=tmp_path / "run", resume=True)
    assert failed[2].failed
    (tmp_path / "run/trackers.json").write_text("{")
    with pytest.raises(SeekingError, match="remove the file to begin new runs in the trackers"):
        run(config, output=tmp_path / "run", resume=True)
    run(dataclasses.replace(config, tracker=()), output=tmp_path / "run", resume=True)


def test_what_is_missing_is_named_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SeekingError, match=r"needs the package mlflow; install it with: pip install mlflow"):
        run(TrainConfig(tracker=("mlflow",)))
    with pytest.raises(SeekingError, match="unknown tracker 'wnadb'; did you mean wandb"):
        check_trackers(["wnadb"])
    with pytest.raises(SeekingError, match="unknown tracker 'wnadb'; did you mean wandb"):
        Trainer(config=TrainConfig(tracker=["wnadb"]), train_loader=[])


def test_what_tensorboard_writes_belongs_to_the_run_and_nothing_else_does(tmp_path: Path) -> None:
    run(output=tmp_path / "run")
    events = tmp_path / "run/tensorboard"
    (events / "1700000000.5").mkdir(parents=True)
    (events / "1700000000.5/hparams.yml").write_text("lr: 1")
    (events / "events.out.tfevents.1700000000.host.1.0").write_bytes(b"")
    (events / "notes.txt").write_text("mine")
    with pytest.raises(SeekingError, match=r"notes\.txt is no file of a run"):
        run(output=RunFolder(tmp_path / "run", overwrite=True))
    assert (tmp_path / "run/base.last.safetensors").exists()
    (events / "notes.txt").unlink()
    run(output=RunFolder(tmp_path / "run", overwrite=True))
    assert not events.exists()
