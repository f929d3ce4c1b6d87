"""Several processes are one run: steps, decisions, order of the data and augmentation in every epoch."""

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file

from seeking.checkpointing import snapshot
from seeking.cli import main

pytestmark = pytest.mark.slow

OPTIONS = shlex.split("""
    --base vit_tiny_patch16_224 --motivated vit_small_patch16_224 --model-kwargs img_size=8 patch_size=4 depth=2
    --base-kwargs embed_dim=24 --motivated-kwargs embed_dim=48 --max-train-samples 512
    --optimizer adamw --lr 0.001 --epochs 2 --condition decrease:1 --precision no
""")
TWO = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


@pytest.fixture(autouse=True)
def _no_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    """They take longer than a run of a few steps."""
    monkeypatch.setenv("NO_CURVES", "1")


def alone(output: Path, *more: str) -> list[dict[str, float]]:
    """Train in one process, which is this one."""
    assert main(["train", *OPTIONS, *more, "--output", str(output)]) == 0
    return rows(output)


def in_two(client: str, *command: str) -> str:
    """Run a program in two processes; what they print."""
    done = subprocess.run(
        [client, "--processes", "2", *command], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def together(client: str, output: Path, *more: str) -> list[dict[str, float]]:
    """Train in two processes."""
    printed = in_two(client, "seeking", "train", *OPTIONS, *more, "--output", str(output))
    assert printed.count("Figure:") == 1, "one process speaks"
    return rows(output)


def rows(output: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]


def by_one_and_by_two(script: str, client: str, folder: Path) -> None:
    """Run a script beside this one by one process and by two, each with a folder for what comes out."""
    program = str(Path(__file__).with_name(script))
    for name in ("one", "two"):
        (folder / name).mkdir()
    subprocess.run([client, program, str(folder / "one")], check=True, timeout=300)
    if (folder / "one" / "sgd").exists():  # To go on from.
        shutil.copytree(folder / "one" / "sgd", folder / "two" / "longer")
    in_two(client, program, str(folder / "two"))


def test_two_processes_give_the_weights_of_one(client: str, tmp_path: Path) -> None:
    """Over 50 steps for tied and sliced pairs, and over 22 for every condition."""
    by_one_and_by_two("two_processes.py", client, tmp_path)
    files = sorted((tmp_path / "one").glob("*.safetensors"))
    assert len(files) == 15
    for path in files:
        (case, single), (_, split) = (
            json.loads((tmp_path / name / f"{path.stem}.json").read_text()) for name in ("one", "two")
        )
        assert [row.keys() for row in single] == [row.keys() for row in split], (
            f"{case}: the same batches are motivated"
        )
        assert len(single) == (50 if path.stem in ("0", "1") else 22)
        theirs = load_file(tmp_path / "two" / path.name)
        for name, tensor in load_file(path).items():
            torch.testing.assert_close(tensor, theirs[name], rtol=0, atol=1e-6, msg=lambda m: f"{case} {name}: {m}")  # noqa: B023


def test_two_processes_give_the_weights_of_one_whatever_the_loader_is(client: str, tmp_path: Path) -> None:
    """With batches and micro-batches of unequal sizes, some of them smaller than the number of processes.

    A stream that is resumed goes on where it was, whichever process reads it.
    """
    by_one_and_by_two("loaders.py", client, tmp_path)
    files = sorted((tmp_path / "one").glob("*.json"))
    assert len(files) == 16
    for path in files:
        single, split = (json.loads((tmp_path / name / path.name).read_text()) for name in ("one", "two"))
        assert single["weights"] == pytest.approx(split["weights"], rel=0, abs=1e-6), path.stem
        assert [row.keys() for row in single["history"]] == [row.keys() for row in split["history"]]
        evaluations = [
            [row["base"]["loss"] for row in run["history"] if row["kind"] == "eval"] for run in (single, split)
        ]
        assert evaluations[0] == pytest.approx(evaluations[1], rel=1e-6), path.stem


def test_two_processes_measure_what_one_does(client: str, tmp_path: Path) -> None:
    """By torchmetrics and by functions of all samples, in batches of unequal sizes, some with a single sample."""
    by_one_and_by_two("metrics.py", client, tmp_path)
    files = sorted((tmp_path / "one").glob("*.json"))
    assert len(files) == 4
    for path in files:
        single, split = (json.loads((tmp_path / name / path.name).read_text()) for name in ("one", "two"))
        for model in ("base", "motivated"):
            assert single[model] == pytest.approx(split[model], rel=1e-5), path.stem


def test_a_sharded_pair_gives_the_weights_of_one_process(client: str, tmp_path: Path) -> None:
    """Under FSDP2, with the shared part stored once in each process; in a loop of one's own and by the trainer."""
    by_one_and_by_two("sharded.py", client, tmp_path)
    for shared in (False, True):
        single, split = (load_file(tmp_path / name / f"{shared}.safetensors") for name in ("one", "two"))
        close(single, split)
        for name in single:
            if name.startswith("base.") and "blocks" not in name:
                assert torch.equal(split[name], split[name.replace("base.", "motivated.")])
    for run in ("sgd", "adamw", "stopped", "longer", "bf16"):
        close(*(newest(tmp_path / name / run) for name in ("one", "two")), run, 5e-3 if run == "bf16" else 1e-6)
        decisions = [[row.keys() for row in rows(tmp_path / name / run)] for name in ("one", "two")]
        assert decisions[0] == decisions[1]
    whole, resumed = (newest(tmp_path / "two" / name) for name in ("sgd", "resumed"))
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(tensor, resumed[name]) for name, tensor in whole.items())


def close(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor], run: str = "", atol: float = 1e-6) -> None:
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name], rtol=0, atol=atol, msg=lambda m: f"{run} {name}: {m}")  # noqa: B023


def newest(run: Path) -> dict[str, torch.Tensor]:
    """All tensors of a run's newest checkpoint: weights and what the optimizers remember."""
    return load_file(snapshot.list_checkpoints(run / "checkpoints")[0] / "tensors.safetensors")


def test_two_processes_take_the_steps_and_decisions_of_one_and_continue_from_it(client: str, tmp_path: Path) -> None:
    steady = ["--schedule", "constant", "--resume"]
    alone(tmp_path / "more", *steady, "--epochs", "1")
    shutil.copytree(tmp_path / "more", tmp_path / "one")
    by_one = alone(tmp_path / "one", *steady)
    by_two = together(client, tmp_path / "two", *steady)
    went_on = together(client, tmp_path / "more", *steady)
    assert len(by_one) == len(by_two) == len(went_on)
    for row, *others in zip(by_one, by_two, went_on, strict=True):
        for other in others:
            assert row.keys() == other.keys(), "the same batches are motivated"
            for key in ("loss", "motivated_loss"):
                assert row.get(key, 0) == pytest.approx(other.get(key, 0), rel=1e-3)
    for model in ("base", "motivated"):
        assert by_one[-1][model] == pytest.approx(by_two[-1][model], rel=1e-2)


def test_a_comparison_by_two_processes_replaces_another(client: str, tmp_path: Path) -> None:
    command = ["compare", *OPTIONS, "--max-train-samples", "64", "--epochs", "1", "--seeds", "1", "--overwrite"]
    command += ["--output", str(tmp_path / "out")]
    assert main(command) == 0
    in_two(client, "seeking", *command)


def test_a_job_whose_process_dies_is_restarted_and_saves_when_it_is_asked_to_stop(tmp_path: Path) -> None:
    output = tmp_path / "run"
    restarting = ["--max-restarts", "1", "--monitor-interval", "0.2"]
    command = [sys.executable, *TWO, *restarting, "-m", "seeking.cli", "train", *OPTIONS]
    job = subprocess.Popen(
        [*command, "--epochs", "50", "--resume", "--output", str(output)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"},  # See docs/safety.md.
    )

    def taken() -> int:
        metrics = output / "metrics.jsonl"
        return metrics.read_text().count('"kind": "step"') if metrics.exists() else 0

    def wait_for(condition: Callable[[], bool]) -> None:
        while job.poll() is None and not condition():
            time.sleep(0.05)

    wait_for(lambda: taken() > 10)
    workers = psutil.Process(job.pid).children()
    workers[-1].kill()
    psutil.wait_procs(workers, timeout=60)
    before = taken()
    wait_for(lambda: bool(psutil.Process(job.pid).children()) and taken() > before + 10)
    job.terminate()
    assert job.wait(timeout=60) != 0
    assert taken() > before + 10, "it was not restarted"
    assert snapshot.list_checkpoints(output / "checkpoints")[0].name == f"step-{taken():08d}"
    assert alone(output, "--resume", "--epochs", "6")[-1]["epoch"] == 6


def test_a_loss_that_fails_in_one_process_ends_the_run_at_the_same_step_in_all_and_it_is_saved(
    client: str, tmp_path: Path
) -> None:
    in_two(client, str(Path(__file__).with_name("failing.py")), str(tmp_path))
    by_process = [json.loads((tmp_path / f"{process}.json").read_text()) for process in (0, 1)]
    assert len(by_process[0]) == 12
    for rows_of_case in zip(*by_process, strict=True):
        for process, row in enumerate(rows_of_case):
            steps = (row["at"] - 1) // row["accumulate"]
            # The step of the base on the batch is not taken again; of models that teach each other, none was taken.
            stepped = row["model"] == "motivated" and not row["teach"]
            assert row["step"] == row["resumed"] == steps + stepped, row
            failed = process == row["process"]
            kind = ("RuntimeError: mat1" if row["where"] == "within" else "ValueError") if failed else "ProcessError"
            assert row["error"].startswith(kind)
            assert f"the run is saved at step {row['step']}" in row["error"]
            assert row["same"]
            assert row["end"] == 16 // row["accumulate"]
            assert row["as_whole"] == (not stepped)
        assert rows_of_case[0]["weights"] == rows_of_case[1]["weights"]


def test_processes_decide_alike_and_are_refused_what_is_not_alike(client: str, tmp_path: Path) -> None:
    """A condition that draws random numbers decides for both; other options or data in one of them are told by both."""
    in_two(client, str(Path(__file__).with_name("unlike.py")), str(tmp_path))
    first, second = (json.loads((tmp_path / f"{process}.json").read_text()) for process in (0, 1))
    assert first == second
    for run in first["trained"].values():
        steps = [row for row in run["rows"] if "samples" in row]
        assert len(steps) == 16 and 0 < sum("motivated_loss" in row for row in steps) < 16
    refused = first["refused"]
    assert len(refused) == 6
    assert refused["lr"].startswith("lr is 0.1 in process 0 and 1.1 in process 1; give")
    assert "train_loader is 4 in process 0 and 6 in process 1; give" in refused["number of batches"]
    assert refused["data"].startswith("the data set of train_loader (")
