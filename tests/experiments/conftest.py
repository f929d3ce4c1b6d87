"""Threads, figures and a text of small experiments."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from small_recipes import by_one_thread

from seeking.report import plots


@pytest.fixture
def one_thread() -> Iterator[None]:
    with by_one_thread():
        yield


FIGURES = ("draw_arms", "draw_by_flops", "draw_evidence", "draw_front")


@pytest.fixture
def _no_figures_of_experiments(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each seed that is finished draws all of them, which takes longer than its runs."""
    for name in FIGURES if "figures" not in request.fixturenames else ():
        monkeypatch.setattr(plots, name, lambda *given: None)


@pytest.fixture
def figures() -> None:
    """A test that asks for this draws them."""


@pytest.fixture(scope="module")
def lyrics(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "lyrics.txt"
    path.write_text("".join(f"{n} green bottles hanging on the wall, ünd sö fort\n" for n in range(200, 0, -1)))
    return path
