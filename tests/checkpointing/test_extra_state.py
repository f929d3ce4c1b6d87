"""What modules keep as extra state is in their weights files."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import seeking
from seeking.checkpointing.run_dir import RunFolder
from seeking.checkpointing.weights import load_weights, save_weights
from seeking.errors import RunError


class Counting(nn.Linear):
    extra: Any = None

    def get_extra_state(self) -> Any:
        return self.extra

    def set_extra_state(self, value: Any) -> None:
        self.extra = value


def test_extra_state_is_in_weights_files(tmp_path: Path) -> None:
    model, other = Counting(2, 3), Counting(2, 3)
    model.extra = {"steps": 4}
    save_weights(model, tmp_path / "a.safetensors")
    load_weights(other, tmp_path / "a.safetensors")
    assert other.extra == {"steps": 4} and torch.equal(model.weight, other.weight)
    model.extra = object()
    with pytest.raises(RunError, match="_extra_state"):
        save_weights(model, tmp_path / "a.safetensors")


@pytest.mark.parametrize("extra", [{"steps": 4, "rates": [0.5, None]}, {"unit": "$"}, torch.tensor(4)], ids=str)
def test_extra_state_is_in_the_weights_files_of_a_run(extra: Any, tmp_path: Path) -> None:
    base, motivated = Counting(2, 2), Counting(2, 2)
    base.extra = extra
    data = [(torch.randn(2, 2), torch.tensor([0, 1]))]
    trainer = seeking.Trainer(
        base,
        motivated,
        train_loader=data,
        eval_loader=data,
        config=seeking.TrainConfig(epochs=1),
        output=tmp_path / "run",
        progress=False,
    )
    trainer.fit()
    for kind in ("last", "best"):
        other = Counting(2, 2)
        load_weights(other, tmp_path / "run" / f"base.{kind}.safetensors")
        assert other.extra == extra and torch.equal(base.weight, other.weight)
    assert RunFolder(tmp_path / "run", resume=True).best("base").keys() == trainer.scores.best["base"].keys()
