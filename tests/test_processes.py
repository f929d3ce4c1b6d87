"""Several processes are one run: steps, decisions, order of the data and augmentation in every epoch."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

OPTIONS = [
    *("--base", "vit_tiny_patch16_224", "--motivated", "vit_small_patch16_224"),
    *("--model-kwargs", "img_size=8", "patch_size=4", "depth=2"),
    *("--optimizer", "adamw", "--lr", "0.001", "--epochs", "2", "--condition", "decrease:1"),
]


def train(output: Path, launcher: list[str]) -> list[dict[str, float]]:
    command = [sys.executable, *launcher, "-m", "seeking.cli", "train", *OPTIONS, "--output", str(output)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("Picture:") == 1, "one process speaks"
    return [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]


def test_two_processes_take_the_steps_and_decisions_of_one(tmp_path: Path) -> None:
    alone = train(tmp_path / "one", [])
    together = train(tmp_path / "two", ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"])
    assert len(alone) == len(together)
    for one, two in zip(alone, together, strict=True):
        assert one.keys() == two.keys(), "the same batches are motivated"
        for key in ("loss", "motivated_loss"):
            assert one.get(key, 0) == pytest.approx(two.get(key, 0), rel=1e-3)
    for model in ("base", "motivated"):
        assert alone[-1][model] == pytest.approx(together[-1][model], rel=1e-2)
