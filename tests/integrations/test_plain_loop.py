"""The example of a training loop of one's own."""

import contextlib
import importlib.util
import math
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file

from seeking import Pair, verify

EXAMPLE = Path(__file__).parents[2] / "examples" / "plain_loop.py"


@pytest.mark.parametrize("paired", ["before", "after"])
def test_activation_checkpointing_changes_no_weight(paired: str) -> None:
    weights = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        sizes = {"img_size": 8, "patch_size": 4, "in_chans": 1, "num_classes": 4, "embed_dim": 16, "num_heads": 2}
        models = [timm.create_model("vit_tiny_patch16_224", depth=depth, **sizes) for depth in (1, 2)]
        for model in models if paired == "after" else ():
            model.set_grad_checkpointing(checkpointing)
        pair = Pair(*models)
        for model in models:
            model.set_grad_checkpointing(checkpointing)
        optimizers = {model: torch.optim.SGD(model.parameters(), 0.1) for model in models}
        x, y = torch.randn(8, 1, 8, 8), torch.arange(8) % 4

        def step(model: Any, optimizers: Any = optimizers, x: Any = x, y: Any = y) -> None:
            torch.nn.functional.cross_entropy(model(x), y).backward()
            optimizers[model].step()
            optimizers[model].zero_grad()

        for _ in range(2):
            step(pair.base)
            with pair.motivated() as motivated:
                step(motivated)
        assert verify(*models, pair.map, x)
        weights.append([tensor.clone() for tensor in models[1].parameters()])
    assert all(map(torch.equal, *weights))


@pytest.mark.slow
@pytest.mark.parametrize("scaled", [False, True])
def test_it_trains_both_models_without_a_warning(scaled: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a scaler, as under fp16, the first step overflows."""
    spec = importlib.util.spec_from_file_location("plain_loop", EXAMPLE)
    assert spec and spec.loader
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    skipped: list[bool] = []
    losses: list[float] = []
    step = example.Learner.step

    def seen(learner: Any, *batch: torch.Tensor) -> tuple[float, bool]:
        overflow = contextlib.ExitStack()
        if not skipped and scaled:
            learner.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
            hook = next(learner.model.parameters()).register_hook(lambda gradient: gradient * math.inf)
            overflow.callback(hook.remove)
        with overflow:
            loss, stepped = step(learner, *batch)
        skipped.append(not stepped)
        losses.append(loss)
        return loss, stepped

    monkeypatch.setattr(example.Learner, "step", seen)
    given = [
        "--epochs",
        "1",
        "--batch-size",
        "128",
        "--size",
        "24",
        "--condition",
        "decrease:1",
        "--output",
        str(tmp_path),
    ]
    monkeypatch.setattr(sys, "argv", [str(EXAMPLE), *given])
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        accuracies = example.main()
    assert skipped == [scaled] + [False] * (len(skipped) - 1)
    assert losses[-1] < losses[0] and accuracies.keys() == {"base", "motivated"}
    models = [timm.create_model("test_resnet", num_classes=10, layers=[blocks] * 4) for blocks in (1, 2)]
    saved = [load_file(tmp_path / f"{name}.safetensors") for name in ("base", "motivated")]
    for model, weights in zip(models, saved, strict=True):
        model.load_state_dict(weights)
    pair = Pair(*models, shared_from="motivated")  # What is shared was averaged alike in both models.
    for name, parameter in pair.base.named_parameters():
        torch.testing.assert_close(parameter, saved[0][name], rtol=1e-5, atol=1e-6)
