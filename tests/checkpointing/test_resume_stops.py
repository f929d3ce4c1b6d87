"""However a run is stopped, it saves what it has, and goes on from there."""

import dataclasses
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from resuming import EVERY_STEP, Killed, make, same, whole_run
from runs import CONFIG, batches, stop_at
from torch.utils.data import DataLoader, Dataset

from seeking import SeekingError, Trainer
from seeking.checkpointing import metrics_log, snapshot
from seeking.checkpointing.writer import BackgroundWriter
from seeking.training import RunFolder


@pytest.mark.slow
def test_a_trainer_goes_on_where_it_was_and_never_over_another(tmp_path: Path) -> None:
    outputs = tmp_path / "whole", tmp_path / "parts"
    whole = whole_run(make, outputs[0], CONFIG)
    trainer = make(output=RunFolder(outputs[1], overwrite=True), config=CONFIG, listeners=[stop_at(4)])
    with pytest.raises(KeyboardInterrupt):
        trainer.fit()
    stale = make(output=outputs[1], config=CONFIG, resume=True)
    trainer.listeners = []
    same(whole, (trainer, trainer.fit()), outputs)
    with pytest.raises(SeekingError, match="at step 5, and the newest checkpoint is step-00000012; make a new"):
        stale.fit()


def test_a_second_sigterm_waits_for_what_is_being_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Schedulers and launchers each pass one on."""
    write = snapshot.write

    def slowly(folder: Path, step: int, *rest: Any) -> None:
        if step:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.2)
        write(folder, step, *rest)

    def listen(row: dict[str, Any]) -> None:
        if row["kind"] == "step" and row["step"] == 3:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(snapshot, "write", slowly)
    with pytest.raises(SystemExit):
        make(output=tmp_path / "run", config=CONFIG, listeners=[listen]).fit()
    assert snapshot.list_checkpoints(tmp_path / "run" / "checkpoints")[0].name == "step-00000004"


@pytest.mark.slow
def test_saving_changes_nothing(tmp_path: Path) -> None:
    for state in ("separate", "shared"):
        config = dataclasses.replace(EVERY_STEP, optimizer_state=state)
        outputs = tmp_path / f"{state}-often", tmp_path / f"{state}-seldom"
        often = whole_run(make, outputs[0], config)
        seldom = whole_run(make, outputs[1], dataclasses.replace(config, save_every="1000"))
        same(often, seldom, outputs)
        alone = make(config=config)
        assert alone.fit().history == often[1].history


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_a_stop_during_evaluation_evaluates_again(workers: int, tmp_path: Path) -> None:
    """Workers read ahead to the end of the epoch, and recalibration takes training batches."""

    class Interrupting(Dataset[Any]):
        calls = 0
        items = batches()["eval_loader"].dataset

        def __len__(self) -> int:
            return len(self.items)

        def __getitem__(self, index: int) -> Any:
            Interrupting.calls += 1
            if Interrupting.calls == 60:  # One batch is looked at beforehand; then the motivated model's first.
                signal.raise_signal(signal.SIGTERM)
            return self.items[index]

    config = dataclasses.replace(CONFIG, norm="recalibrated", recalibration_batches=3)

    def interrupting(**kwargs: Any) -> Trainer:
        ours = batches(padding=1, flip=True)["train_loader"]
        options = {"sampler": ours.sampler, "drop_last": True, "collate_fn": ours.collate_fn}
        train = DataLoader(ours.dataset, 8, num_workers=workers, **options)
        return make(train_loader=train, eval_loader=DataLoader(Interrupting(), 8), **kwargs)

    outputs = tmp_path / "whole", tmp_path / "parts"
    with pytest.raises(SystemExit) as stopped:
        interrupting(output=outputs[1], config=config).fit()
    assert stopped.value.code == 75
    assert snapshot.list_checkpoints(outputs[1] / "checkpoints")[0].name == "step-00000006"
    parts = whole_run(interrupting, outputs[1], config, resume=True)
    same(whole_run(interrupting, outputs[0], config), parts, outputs)


def test_a_second_interrupt_leaves_at_once(tmp_path: Path) -> None:
    def twice(row: dict[str, Any]) -> None:
        if row.get("step") == 4 and row["kind"] == "step":
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        make(output=tmp_path / "run", config=CONFIG, listeners=[twice]).fit()
    assert [path.name for path in snapshot.list_checkpoints(tmp_path / "run" / "checkpoints")] == ["step-00000000"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert make(output=tmp_path / "run", config=CONFIG, resume=True).fit().cost.batches == 12


def test_a_run_that_an_error_ends_loses_no_step(tmp_path: Path) -> None:
    def die(row: dict[str, Any]) -> None:
        if row["kind"] == "step" and row["step"] == 9:
            raise Killed

    outputs = tmp_path / "whole", tmp_path / "parts"
    with pytest.raises(Killed):
        make(output=outputs[1], config=CONFIG, listeners=[die]).fit()
    assert len(list(metrics_log.read_rows(outputs[1] / "metrics.jsonl"))) == 12
    trainer = make(output=outputs[1], config=CONFIG, resume=True)
    assert trainer.progress.step == 10
    same(whole_run(make, outputs[0], CONFIG), (trainer, trainer.fit()), outputs)


def test_a_finished_run_is_finished(tmp_path: Path) -> None:
    output = tmp_path / "run"
    first = make(output=output, config=CONFIG).fit()
    again = make(output=output, config=CONFIG, resume=True).fit()
    assert again.summary() == first.summary()
    assert again.history == first.history


@pytest.mark.slow
def test_the_newest_are_kept_and_the_last_good_one_is_never_deleted_first(tmp_path: Path) -> None:
    present: list[list[str]] = []

    def look(row: dict[str, Any]) -> None:
        present.append([path.name for path in snapshot.list_checkpoints(tmp_path / "run" / "checkpoints")])

    config = dataclasses.replace(EVERY_STEP, keep_checkpoints=3, epochs=4)
    make(output=tmp_path / "run", config=config, listeners=[look]).fit()
    first = next(number for number, names in enumerate(present) if names)
    assert all(1 <= len(names) <= 4 for names in present[first:])
    kept = snapshot.list_checkpoints(tmp_path / "run" / "checkpoints")
    assert len(kept) == 3
    assert kept[0].name == "step-00000024"
    assert not list((tmp_path / "run" / "checkpoints").glob(".*"))


def test_an_error_in_a_users_code_waits_for_what_is_being_written(tmp_path: Path) -> None:
    def fail(row: dict[str, Any]) -> None:
        if row["kind"] == "saving" and row["step"] == 6:
            raise Killed

    with pytest.raises(Killed):
        make(output=tmp_path / "run", config=CONFIG, listeners=[fail]).fit()
    assert snapshot.list_checkpoints(tmp_path / "run" / "checkpoints")[0].name == "step-00000006"


@pytest.mark.skipif(not hasattr(os, "getpriority"), reason="the system has no priorities")
def test_what_is_written_has_the_priority_of_training() -> None:
    """A thread of a lower one holds the interpreter's lock while it waits for a core, and training waits with it."""
    priorities = []
    writer = BackgroundWriter()
    writer.start([lambda: priorities.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))])
    writer.wait()
    assert priorities == [os.getpriority(os.PRIO_PROCESS, 0)]
