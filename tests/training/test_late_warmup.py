"""The warm-up begins with the first step of any model."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from runs import PLAIN, steps, two_models, weights, whole_and_resumed

from seeking import Trainer

BATCH = torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 4
CONFIG = dataclasses.replace(PLAIN, epochs=1, schedule="constant", shared_from="motivated", finish="private")


def make(rest: int, warmup: int, **more: Any) -> Trainer:
    """Nobody steps for some batches, then the motivated model does; all batches are the same."""
    condition, base_condition = (f"after:{rest}", "after:10") if rest else ("always", "after:10")
    options = {"condition": condition, "base_condition": base_condition, "warmup_steps": warmup, "finish_at": 10 / 16}
    config = dataclasses.replace(CONFIG, **{**options, **more.pop("options", {})})
    return Trainer(*two_models(), train_loader=[BATCH] * 16, config=config, **more)


def rates(rows: list[dict[str, Any]], model: str = "motivated_") -> list[float]:
    return [row.get(f"{model}lr", row["lr"]) for row in rows if f"{model}loss" in row]


@settings(max_examples=6, suppress_health_check=list(HealthCheck))
@given(warmup=st.integers(1, 5), data=st.data())
def test_the_first_steps_after_a_rest_are_those_of_a_run_without_one(warmup: int, data: st.DataObject) -> None:
    rest = data.draw(st.integers(0, 10 - warmup))
    late, early = make(rest, warmup), make(0, warmup, options={"max_steps": 16 - rest, "base_condition": "never"})
    late_rows, early_rows = steps(late.fit()), steps(early.fit())
    assert rates(late_rows) == pytest.approx(rates(early_rows))
    assert rates(late_rows, "") == [CONFIG.lr] * 6, "a model that starts from another's weights has no warm-up"
    ours, theirs = ({n: t for n, t in weights(each).items() if n.startswith("motivated")} for each in (late, early))
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("at", [[2, 6], [7, 8, 12]])
def test_it_resumes_bit_for_bit(at: list[int], tmp_path: Path) -> None:
    def trainer(**more: Any) -> Trainer:
        return make(5, 4, options={"save_every": "1"}, **more)

    whole_and_resumed(trainer, tmp_path / "run", at)
