"""An experiment is run, cut off, goes on and grows, and its results are what they would have been."""

import contextlib
import dataclasses
import math
import multiprocessing
import signal
import time
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import programs
import psutil
import pytest
import torch
from filelock import FileLock
from runs import image_folder
from safetensors.torch import load_file
from small_recipes import TINY, by_one_thread, quietly, results, tiny, untimed

from seeking import RunError, SeekingError
from seeking.errors import unknown
from seeking.experiments.recipe import read
from seeking.experiments.reproduce import reproduce
from seeking.experiments.results import gather
from seeking.report.metric import ACCURACY

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("_no_figures_of_experiments")]


def test_a_recipe_gives_tables_and_figures_goes_on_and_takes_more_seeds(tmp_path: Path, figures: None) -> None:
    recipe = read(tiny(tmp_path), "quick", {})
    root = tmp_path / "out"
    text = reproduce(recipe, root, range(1), 1, quietly)
    assert text.startswith("# Everything, small")
    assert {"results.json", "results.md", "resnet8-resnet14.png", "resnet8-resnet14-condition.png"} <= {
        path.name for path in root.iterdir()
    }
    first = results(root)
    assert [record["arm"] for record in first["records"]] == [*TINY["arms"]]
    assert all(
        math.isclose(record["base_curve"][-1][1], record["flops"])
        for record in first["records"]
        if len(record["runs"]) == 1
    )
    stamps = {path: path.stat().st_mtime_ns for path in root.rglob("summary.json")}
    reproduce(recipe, root, range(2), 1, quietly)
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items())
    both = results(root)
    assert both["records"][: len(TINY["arms"])] == first["records"]
    assert {record["seed"] for record in both["records"]} == {0, 1}
    assert [front["name"] for front in both["fronts"]] == [arm for arm in TINY["arms"] if arm != "ordinary"]
    assert "| method | cost of parity |" in (root / "results.md").read_text()
    gains = next(row for row in both["rows"] if row["arm"] == "condition")["base_gain"]
    by_arm = {(record["arm"], record["seed"]): record for record in both["records"]}
    assert gains["values"] == [by_arm["condition", s]["base"] - by_arm["ordinary", s]["base"] for s in (0, 1)]


def test_parallel_gives_the_same_results_and_what_fails_is_told_when_all_others_are_done(
    tmp_path: Path, one_thread: None
) -> None:
    """Also of a run that starts from another one."""
    diverging = {name: {**TINY["arms"][name], "lr": 1e30} for name in ("ordinary", "growth")}
    arms = {"diverging": diverging["ordinary"], "condition": {}, "growth": TINY["arms"]["growth"]}
    arms["diverging growth"] = diverging["growth"]
    recipe = read(tiny(tmp_path, arms=arms, reference="condition"), "quick", {"epochs": 2})
    records = []
    for jobs in (1, 2):
        root = tmp_path / str(jobs)
        with pytest.raises(RunError, match=r"arms/diverging/.* at step \d+") as told:
            reproduce(recipe, root, range(1), jobs, quietly)
        base = "arms/diverging-growth/resnet8/seed0"
        larger = f"arms/diverging-growth/resnet8-resnet14-grown/seed0: not begun, since {base}, which it starts from, "
        assert f"\n{base}: " in str(told.value) and f"\n{larger}" in str(told.value)
        assert {path.parent.parent.parent.name for path in root.rglob("summary.json")} == {"condition", "growth"}
        done = [trial for trial in recipe.trials([0], {recipe.pairs[0]: 2.0}) if "diverging" not in trial.arm]
        records.append([gather(trial, root, ACCURACY) for trial in done])
        assert not multiprocessing.active_children()
    assert untimed(records[0]) == untimed(records[1])
    assert [len(record["runs"]) for record in records[0]] == [1, 2]


def started_run(folder: Path, name: str) -> BaseProcess:
    """``seeking reproduce`` with two processes, which it starts anew, when it has begun to train."""
    options = ["--seeds", "1", "--set", "epochs=8", "--output", "cut", "--jobs", "2"]
    program = programs.command(folder, ["reproduce", name, *options])
    while not [*(folder / "cut").glob("arms/*/*/seed0/metrics.jsonl")] and program.is_alive():
        time.sleep(0.05)
    return program


@pytest.fixture(scope="module")
def uncut(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The records of two arms that nothing cuts off."""
    folder = tmp_path_factory.mktemp("uncut")
    arms = {arm: TINY["arms"][arm] for arm in ("condition", "sandwich")}
    recipe = read(tiny(folder, arms=arms, reference="condition"), "quick", {"epochs": 8})
    with by_one_thread():
        reproduce(recipe, folder / "out", range(1), 1, quietly)
    return untimed(results(folder / "out")["records"])


@pytest.mark.parametrize(
    ("number", "code", "twice", "arms"),
    [
        (signal.SIGINT, 130, False, ("condition", "sandwich")),
        (signal.SIGINT, 130, True, ("condition",)),
        (signal.SIGTERM, 75, True, ("condition",)),
        (signal.SIGKILL, -signal.SIGKILL, False, ("condition",)),
    ],
)
def test_cut_off_it_goes_on_and_gives_what_it_would_have(
    number: int,
    code: int,
    twice: bool,
    arms: tuple[str, ...],
    uncut: list[dict[str, Any]],
    tmp_path: Path,
    one_thread: None,
) -> None:
    """With one arm, one of the two processes has nothing to do. A second signal comes while the program waits."""
    name = tiny(tmp_path, arms={arm: TINY["arms"][arm] for arm in arms}, reference="condition")
    program = started_run(tmp_path, name)
    started = psutil.Process(program.pid)
    processes = started.children(recursive=True)
    if twice:
        for process in processes:
            process.suspend()
        started.send_signal(number)
        time.sleep(1)
    started.send_signal(number)
    if twice:
        time.sleep(1)
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()
    assert programs.exit_codes([program]) == [code]
    assert not psutil.wait_procs(processes, timeout=30)[1]
    for folder in (tmp_path / "cut" / "arms").glob("*/*/seed0"):  # What an orphan saves.
        with FileLock(folder / ".lock", timeout=60):
            pass
    assert not [*(tmp_path / "cut").rglob("summary.json")]
    reproduce(read(name, "quick", {"epochs": 8}), tmp_path / "cut", range(1), 1, quietly)
    assert untimed(results(tmp_path / "cut")["records"]) == [record for record in uncut if record["arm"] in arms]


def test_images_in_a_folder_and_what_is_trained_before(tmp_path: Path) -> None:
    """The recipes for data that a user brings, on made images."""
    folder = str(image_folder(tmp_path / "images", sizes=[40, 48], per_class=8))
    options = {"epochs": 1, "batch_size": 8, "workers": 0, "verify": False, "image_size": 8}
    small = (("resnet8", "resnet14"),)
    recipe = dataclasses.replace(read("imagenet", "quick", {"data": folder, **options}), pairs=small)
    reproduce(recipe, tmp_path / "imagenet", range(1), 1, quietly)
    assert len(results(tmp_path / "imagenet")["records"]) == 2
    recipe = read("transfer", "quick", {"data": "digits", **options}, source=folder)
    recipe = dataclasses.replace(recipe, pretraining={**recipe.pretraining, "epochs": 1})
    recipe = dataclasses.replace(recipe, options={**recipe.options, "max_train_samples": 64, "lr": 0.0})
    reproduce(recipe, tmp_path / "transfer", range(1), 1, quietly)
    records = results(tmp_path / "transfer")["records"]
    assert all(record["runs"][0].startswith("pretraining/") for record in records)
    # Without a learning rate everything but the head is what was trained before.
    for arm, name, which in (
        ("motivated", "resnet8-resnet14", "motivated"),
        ("ordinary", "resnet8-resnet14-base", "base"),
    ):
        after = load_file(tmp_path / f"transfer/arms/{arm}/{name}/seed0/{which}.last.safetensors")
        before = load_file(tmp_path / f"transfer/pretraining/resnet8-resnet14/seed0/{which}.last.safetensors")
        for key, tensor in before.items():
            fits = not key.startswith(("conv1", "fc"))
            assert torch.equal(tensor, after[key]) == fits or "running" in key or "num_batches" in key, key


def test_an_arm_that_is_added_later_joins_the_seeds_that_there_are(tmp_path: Path) -> None:
    root, arms = tmp_path / "out", {name: TINY["arms"][name] for name in ("ordinary", "condition")}
    reproduce(read(tiny(tmp_path, arms=arms), "quick", {}), root, [0, 1], 1, quietly)
    before = results(root)
    arms["always"] = {"condition": "always"}
    reproduce(read(tiny(tmp_path, arms=arms), "quick", {}), root, [1], 1, quietly)
    after = results(root)
    assert {row["arm"]: row["seeds"] for row in after["rows"]} == {"ordinary": 2, "condition": 2, "always": 1}
    assert [record for record in after["records"] if record["arm"] != "always"] == before["records"]


def test_arms_are_run_one_by_one_or_together_with_the_same_results(tmp_path: Path) -> None:
    recipe = read(tiny(tmp_path, arms={name: TINY["arms"][name] for name in ("ordinary", "condition")}), "quick", {})
    reproduce(recipe, tmp_path / "all", [0], 1, quietly)
    reproduce(recipe, tmp_path / "parts", [0], 1, quietly, arms=["condition"])
    first = results(tmp_path / "parts")
    assert [row["arm"] for row in first["rows"]] == ["condition"]
    assert first["about"]["without the arms"] == "ordinary"
    reproduce(recipe, tmp_path / "parts", [0], 1, quietly, arms=["ordinary"])
    both, expected = results(tmp_path / "parts"), results(tmp_path / "all")
    assert "without the arms" not in both["about"]
    for record in (*both["records"], *expected["records"]):
        del record["seconds"]
    assert both["records"] == expected["records"]
    with pytest.raises(SeekingError, match=r"^unknown arm of recipe \S+ .Ordinary.*ordinary"):
        reproduce(recipe, tmp_path / "all", [0], 1, quietly, arms=["Ordinary"])
    assert str(unknown("arm", "first", ["best", "best, budget 1.0"])).endswith("known: best, 'best, budget 1.0'")


def test_a_pair_that_is_added_later_joins_the_seeds_that_there_are(tmp_path: Path) -> None:
    root, arms = tmp_path / "out", {name: TINY["arms"][name] for name in ("condition", "ordinary")}
    pairs = [["resnet8", "resnet14"]]
    scales = {"quick": {"pairs": pairs, "options": {"epochs": 1}}}
    reproduce(read(tiny(tmp_path, arms=arms, scales=scales), "quick", {}), root, [0, 1], 1, quietly)
    before = results(root)
    pairs.append(["resnet8", "resnet20"])
    reproduce(read(tiny(tmp_path, arms=arms, scales=scales), "quick", {}), root, [0], 1, quietly)
    after = results(root)
    assert [record for record in after["records"] if record["pair"] == pairs[0]] == before["records"]
    seeds = {(row["pair"][1], row["arm"]): row["seeds"] for row in after["rows"]}
    assert [seeds["resnet14", arm] for arm in arms] == [2, 2]
    assert [seeds["resnet20", arm] for arm in arms] == [1, 1]
