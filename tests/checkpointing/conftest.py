"""Folders of runs whose steps take a millisecond."""

import contextlib
import shutil
from pathlib import Path

import pytest
from tiny import stop_after, tiny


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("finished") / "run"
    tiny(path).fit()
    return path


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("stopped") / "run"
    with contextlib.suppress(KeyboardInterrupt):
        tiny(path, listeners=[stop_after(5)]).fit()
    return path


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))
