"""Every code block of README and docs is run: Python as it stands, shell commands on little data."""

import copy
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import sklearn.datasets
import torch
from sklearn.utils import Bunch

import seeking
from seeking.experiments.recipe import names, read

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.name}-{self.line}"


def blocks(*languages: str) -> list[Block]:
    every = [
        Block(page, text.count("\n", 0, match.start()) + 1, match[1], match[2])
        for page in PAGES
        for text in [page.read_text(encoding="utf-8")]
        for match in BLOCK.finditer(text)
    ]
    return [block for block in every if block.language in languages]


SEEKING = """#!{python} -SE
import os, sys
from pathlib import Path

given = [{cifar10!r} if word == "cifar10" else word for word in sys.argv[1:]]
ran = Path("ran")
if given[0] in ("train", "compare"):
    if ran.exists() and "--norm" in given:
        sys.exit(0)  # One of the runs of a loop is enough.
    ran.touch()
    given += ["--epochs", "1", "--max-train-samples", "192", "--max-eval-samples", "64"]
    given += ["--image-size", "8", "--batch-size", "64"]
    given += ["--seeds", "1"] if given[0] == "compare" else []
if given[0] == "reproduce" and {{"small", "long", "full"}} & {{*given}}:
    sys.exit(given[1] not in {recipes!r})  # Many runs; that it is a recipe is enough.
if given[0] == "reproduce":
    given += ["--data", {cifar10!r}, "--seeds", "1", "--jobs", "1"]
    given += ["--set", "epochs=1", "max_train_samples=128", "max_eval_samples=64", "image_size=8", "verify=false"]
if given[0] == "analyze":
    given += ["--samples", "64", "--steps", "2", "--iterations", "2"]
processes = ["--processes", os.environ["PROCESSES"]] if "PROCESSES" in os.environ else []
os.execv({client!r}, [{client!r}, *processes, "seeking", *given])
"""


LAUNCHER = """#!{python} -SE
import os, sys

# On this machine, whatever is asked for, and by one process where that will do.
given = sys.argv[sys.argv.index("seeking.cli") + 1 :]
os.environ["PROCESSES"] = "2" if "--shard" in given else "1"
os.execv({seeking!r}, [{seeking!r}, *given])
"""


@pytest.fixture
def shell(tmp_path: Path, request: pytest.FixtureRequest, client: str) -> dict[str, str]:
    """An environment whose ``seeking`` trains for seconds and whose ``make`` only says what it would do."""
    block = request.getfixturevalue("block")
    cifar10 = str(request.getfixturevalue("cifar10")) if "cifar10" in block.text else ""
    programs = tmp_path / "bin"
    programs.mkdir()
    launcher = LAUNCHER.format(python=sys.executable, seeking=str(programs / "seeking"))
    texts = {
        "seeking": SEEKING.format(python=sys.executable, cifar10=cifar10, client=client, recipes=names()),
        "make": f'#!/bin/sh\nexec /usr/bin/env PATH="{os.environ["PATH"]}" make -n -C {ROOT} "$@"\n',
        "torchrun": launcher,
        "accelerate": launcher,
    }
    for name, text in texts.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    curves = {} if "curves" in block.text else {"NO_CURVES": "1"}
    return {**os.environ, **curves, "PATH": f"{programs}:{os.environ['PATH']}", "HEAD": "localhost"}


def few_digits(load: Callable[..., Bunch] = sklearn.datasets.load_digits) -> Bunch:
    """A seventh of them."""
    digits = load()
    return Bunch(images=digits.images[:256], target=digits.target[:256])


def test_every_block_has_a_language_that_is_run() -> None:
    known = {"python", "bash", "console", "yaml", "text"}
    assert {match[1] for page in PAGES for match in BLOCK.finditer(page.read_text(encoding="utf-8"))} <= known


@pytest.mark.parametrize("block", blocks("python"), ids=str)
def test_python(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from seeking.matching.module_rules import RULES

    for library in re.findall(r"^from seeking\.integrations\.(\w+)", block.text, re.MULTILINE):
        pytest.importorskip(library, reason=f"needs {library}: pip install 'seeking[{library}]'")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sklearn.datasets, "load_digits", few_digits)
    rules = list(RULES)
    try:
        exec(compile("\n" * block.line + block.text, str(block.page), "exec"), {"__name__": "__main__"})
    finally:
        RULES[:] = rules


@pytest.mark.parametrize("block", blocks("bash", "console"), ids=str)
def test_shell(block: Block, shell: dict[str, str], tmp_path: Path) -> None:
    done = subprocess.run(
        ["bash", "-euc", block.text], cwd=tmp_path, env=shell, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("block", blocks("yaml"), ids=str)
def test_options(block: Block, shell: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(block.text.replace("data: cifar10\n", ""))
    if "arms:" in block.text:  # Many runs; that it is a recipe is enough.
        assert read(str(tmp_path / "run.yaml"), "quick", {}).arms
        return
    data = ["--data", "cifar10"] if "cifar10" in block.text else []
    command = ["seeking", "train", "--config", "run.yaml", *data, "--output", "out"]
    done = subprocess.run(command, cwd=tmp_path, env=shell, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_pictures_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        path, _, anchor = target.partition("#")
        if "://" in target:
            continue
        file = page.parent / path if path else page
        assert file.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}, target


def test_lines_are_no_wider_than_those_of_the_code() -> None:
    pages = [*PAGES, ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md"]
    lines = [(page.name, line) for page in pages for line in page.read_text(encoding="utf-8").splitlines()]
    assert [(page, line) for page, line in lines if len(line) > 120 and not line.startswith(("|", "!["))] == []


@pytest.mark.parametrize("budget", [0.3, 0.6, 0.85, 1.0, 1.1, None])
def test_the_best_recipe_by_hand_is_the_recipe(budget: float | None) -> None:
    """With budgets that pay for the motivated model before the base begins, and after it."""
    (by_hand,) = (block.text for block in blocks("python") if "start = max(0, round(" in block.text)
    cost = 1.2 if budget is None else budget
    by_hand = by_hand.replace("budget, b, steps = 1.0,", f"budget, b, steps = {cost},")
    models, rest = by_hand[: by_hand.index("\nbudget,")], by_hand[by_hand.index("\nbudget,") :]
    torch.manual_seed(0)
    found: dict[str, Any] = {}
    exec(models, found)
    twins = copy.deepcopy((found["base"], found["motivated"]))
    exec(rest, found)
    exact = {"optimizer": "momentum", "weight_decay": 0.0, "precision": "no", "fused": False}
    config = seeking.TrainConfig.from_recipe("best", budget=budget, epochs=1, lr=0.1, **exact)
    trainer = seeking.Trainer(*twins, train_loader=found["loader"], config=config, progress=False)
    assert trainer.fit().cost.report()["of_motivated_alone"] == pytest.approx(cost, rel=0.02)
    for twin, name in zip(twins, ("base", "motivated"), strict=True):
        torch.testing.assert_close(dict(twin.named_parameters()), dict(found[name].named_parameters()))
