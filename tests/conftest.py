"""Shared by the tests: data sets that are too large for the repository, and small models."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # Before anything reads it: no test goes out.

import forking
import pytest
import torch
from hypothesis import settings

from seeking import Trainer
from seeking.report import plots

DRAW = plots.draw

# What a shell has started in the background ignores the one, what nohup has started the other.
for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) == signal.SIG_IGN:
        signal.signal(number, handler)

# What a commit is tested by does not change from run to run, and depends on no time.
settings.register_profile("same", derandomize=True, deadline=None)
settings.load_profile("same")
EXAMPLES = int(os.environ.get("EXAMPLES", 100_000))  # make fuzz EXAMPLES=10000
# For make fuzz and make torture.
settings.register_profile("soak", max_examples=EXAMPLES, print_blob=True, derandomize=False, deadline=None)

DATA = Path(os.environ.get("SEEKING_DATA", Path(__file__).parents[2] / "shared" / "data"))


@pytest.fixture
def cifar10() -> Path:
    path = DATA / "cifar10"
    if not path.is_dir():
        pytest.skip(f"needs CIFAR-10 as parquet in {path}; set SEEKING_DATA to the folder that holds cifar10/")
    return path


@pytest.fixture(autouse=True, scope="session")
def _no_flushes() -> Iterator[None]:
    """Nothing here has to outlive a power cut, and a flush waits for all that the tests write meanwhile."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(autouse=True, scope="session")
def _short_waits() -> Iterator[None]:
    """PyTorch waits for this long for workers that do not end, and in workers for a parent that is gone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.utils.data._utils, "MP_STATUS_CHECK_INTERVAL", 0.5)
        yield


@pytest.fixture(autouse=True, scope="session")
def _no_figures() -> Iterator[None]:
    """The hundreds of runs of the tests show and draw nothing, unless one asks for it: a figure takes half a second."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(Trainer.__init__.__kwdefaults__, "progress", False)
        patch.setattr(plots, "draw", lambda results, path, *named: path.touch())  # For those of the command line.
        yield


@pytest.fixture
def curves(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that asks for this draws the curves of its runs."""
    monkeypatch.setattr(plots, "draw", DRAW)


@pytest.fixture
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that uses this runs in a new folder."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A program that runs others without the seconds that their imports take."""
    with forking.client(tmp_path_factory.mktemp("forking")) as program:
        yield program


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What starts programs of its own comes first, so that no long test is left to one process at the end."""
    programs = {f"test_{name}.py" for name in ("torture", "processes", "reproduce", "docs")}
    items.sort(key=lambda item: item.path.name not in programs)
