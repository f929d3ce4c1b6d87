"""The search for the best options of each arm."""

import errno
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from small_recipes import quietly, tiny

from seeking import RunError, SeekingError
from seeking.experiments import parallel
from seeking.experiments import search as searching
from seeking.experiments.recipe import read
from seeking.experiments.reproduce import reproduce

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("_no_figures_of_experiments")]


def test_a_search_chooses_on_held_out_training_images(tmp_path: Path, figures: None) -> None:
    recipe = read(tiny(tmp_path, arms={"ordinary": {"method": "ordinary"}, "condition": {}}), "by-cost", {})
    root = tmp_path / "out"
    reproduce(recipe, root, range(1), 1, quietly)
    chosen = json.loads((root / "search.json").read_text())
    assert chosen.keys() == {"ordinary", "condition"}
    best = max(chosen["condition"]["tried"], key=lambda candidate: candidate["base"] + candidate["motivated"])
    assert chosen["condition"]["best"] == best["options"]
    for model in ("base", "motivated"):  # Alone, each has its own best.
        best = max(chosen["ordinary"]["tried"], key=lambda candidate, model=model: candidate[model])
        assert chosen["ordinary"]["best"]["each"][model] == best["options"]
        (run,) = [*(root / "arms" / "ordinary-2").glob(f"*-{model}/*/config.json")]
        assert json.loads(run.read_text())["lr"] == best["options"]["lr"]
    searched = [json.loads(path.read_text()) for path in (root / "search").rglob("config.json")]
    assert {options["validation"] for options in searched} == {searching.SEARCH_VALIDATION}
    run = [json.loads(path.read_text()) for path in (root / "arms" / "condition-2").rglob("config.json")]
    assert [options["lr"] for options in run] == [chosen["condition"]["best"]["lr"]]
    assert [options["validation"] for options in run] == [None]
    assert (root / "resnet8-resnet14-flops.png").exists()


def test_a_candidate_that_fails_is_not_chosen(tmp_path: Path) -> None:
    arms = {"condition": {"search": {"lr": [1e30, 0.05]}}}
    recipe = read(tiny(tmp_path, arms=arms, reference="condition"), "by-cost", {})
    reproduce(recipe, tmp_path / "out", range(1), 1, quietly)
    assert json.loads((tmp_path / "out" / "search.json").read_text())["condition"]["best"] == {"lr": 0.05}


def test_candidates_are_checked_before_the_first_is_trained(tmp_path: Path) -> None:
    arms = {"x": {"search": {"condition": ["always", "nvr"]}}}
    recipe = read(tiny(tmp_path, arms=arms, reference="x"), "quick", {})
    with pytest.raises(SeekingError, match=r"^search/.*nvr.*: .*unknown condition 'nvr'"):
        reproduce(recipe, tmp_path / "out", range(1), 1, quietly)
    assert not [*(tmp_path / "out").rglob("config.json")]


def test_a_search_that_fails_for_another_reason_has_found_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arms = {"condition": {"search": {"lr": [0.01, 0.05]}}}
    recipe = read(tiny(tmp_path, arms=arms, reference="condition"), "by-cost", {})
    train_run = parallel.train_run

    def fail_at_one_rate(run: Any, *arguments: Any) -> None:
        if run.config.lr == 0.05:
            raise torch.OutOfMemoryError("no memory is left")
        train_run(run, *arguments)

    monkeypatch.setattr(parallel, "train_run", fail_at_one_rate)
    with pytest.raises(RunError, match=r"search/lr=0.05/.*: no memory is left$"):
        reproduce(recipe, tmp_path / "out", range(1), 1, quietly)
    assert not (tmp_path / "out" / "search.json").exists()


def test_a_search_that_cannot_be_written_down_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = read(tiny(tmp_path, arms={"condition": {"search": {"lr": [0.05]}}}, reference="condition"), "by-cost", {})
    write_json = searching.write_json

    def full(path: Path, content: Any) -> None:
        if path.name == "search.json":
            raise OSError(errno.ENOSPC, "No space left on device")
        write_json(path, content)

    monkeypatch.setattr(searching, "write_json", full)
    with pytest.raises(RunError, match=r"search\.json: cannot be written \(No space left on device\)"):
        reproduce(recipe, tmp_path / "out", range(1), 1, quietly)


def test_a_search_keeps_what_an_arm_says_of_each_model(tmp_path: Path) -> None:
    arms = {"ordinary": {"method": "ordinary", "each": {"base": {"weight_decay": 0.125}}}}
    recipe = read(tiny(tmp_path, arms=arms), "by-cost", {})
    searched = searching.search(recipe, tmp_path, {recipe.pairs[0]: 2.0}, 1, quietly, recipe.arms)
    assert searched.arms["ordinary"]["each"]["base"].keys() == {"weight_decay", "lr"}
    assert searched.arms["ordinary"]["each"]["motivated"].keys() == {"lr"}
