"""Runs that were saved by the first version of the library are resumed."""

import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from seeking import TrainConfig, Trainer
from seeking.training import Result
from seeking.weights_map import tensors

SAVED = Path(__file__).with_name("version-1.zip")
"""Three runs, each stopped after 13 of 24 steps: with options like those below, made by version 0.1.0."""

COMMON = {"epochs": 3, "precision": "no", "save_every": "1", "keep_checkpoints": 1}
SEPARATE = TrainConfig(**COMMON, lr=0.05, condition="decrease:1 & after:2", schedule="step", fused=False, clip_grad=1.0)
SHARED = TrainConfig(
    **COMMON,
    lr=0.01,
    optimizer="adamw",
    optimizer_state="shared",
    condition="matched(decrease:1) | every:5",
    on="next",
    norm="recalibrated",
    recalibration_batches=2,
    warmup_epochs=0.5,
)
CONFIGS = {"shared": SHARED, "separate": SEPARATE, "alone": SEPARATE}


def network(width: int) -> nn.Module:
    return nn.Sequential(
        nn.Linear(4, width, bias=False), nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(0.1), nn.Linear(width, 3)
    )


def run(name: str, output: Path, *roles: str, **options: Any) -> tuple[Trainer, Result]:
    torch.manual_seed(0)
    models = {"base": network(3), "motivated": network(5)}
    x = torch.randn(40, 4, generator=torch.Generator().manual_seed(1))
    data = TensorDataset(x, x.argmax(1).clamp(max=2))
    trainer = Trainer(
        **{role: models[role] for role in roles},
        train_loader=DataLoader(data, 5, shuffle=True),
        eval_loader=DataLoader(data, 20),
        config=CONFIGS[name],
        output=output,
        **options,
    )
    return trainer, trainer.fit()


@pytest.mark.parametrize(
    ("name", "roles"),
    [("shared", ["base", "motivated"]), ("separate", ["base", "motivated"]), ("alone", ["motivated"])],
)
def test_a_run_of_the_first_version_continues_as_if_it_had_not_been_stopped(
    name: str, roles: list[str], tmp_path: Path
) -> None:
    with zipfile.ZipFile(SAVED) as archive:
        archive.extractall(tmp_path)
    resumed, result = run(name, tmp_path / name, *roles, resume=True)
    whole, expected = run(name, tmp_path / "whole", *roles)
    for role in roles:
        own = tensors(resumed.learners[role].module)
        for key, tensor in tensors(whole.learners[role].module).items():
            torch.testing.assert_close(own[key], tensor, rtol=1e-5, atol=1e-6)
        assert result.metrics[role] == pytest.approx(expected.metrics[role], rel=1e-5)
    assert result.cost.report()["total"] == expected.cost.report()["total"]
    steps, expected_steps = (
        [row["step"] for row in each.history if row["kind"] == "step"] for each in (result, expected)
    )
    assert steps == expected_steps == [*range(24)]
    shutil.rmtree(tmp_path / name)
