"""The figures of an analysis are what they are said to be, and the run is left as it was."""

import copy
import dataclasses
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from command_line import refused
from hypothesis import given, settings
from hypothesis import strategies as st
from runs import PLAIN, batches, images, two_models
from tiny import contents
from torch import Tensor, nn

from seeking import Pair, SeekingError, Trainer, embed, match
from seeking.analysis import agreement, losses_along_line, sharpness
from seeking.analysis.line import Point, barrier
from seeking.analysis.steps import changes_by_a_step, put_back
from seeking.checkpointing.resume import capture_state
from seeking.checkpointing.weights import save_weights
from seeking.choices import MODELS
from seeking.cli import main
from seeking.models import create
from seeking.weights_map import tensors

SMALL = ["--base-kwargs", "width=4", "--motivated-kwargs", "width=6", "--batch-size", "16", "--max-train-samples", "64"]


def cross_entropy(model: nn.Module, batch: Any) -> Tensor:
    return F.cross_entropy(model(batch[0]), batch[1])


def data(count: int = 2, size: int = 16) -> list[Any]:
    whole = images(count * size)
    return [(x.float() / 128 - 1, y) for x, y in zip(whole.pixels.split(size), whole.labels.split(size), strict=True)]


def test_a_motivated_model_that_computes_the_bases_function_has_its_gradient() -> None:
    base, motivated = two_models()
    weights_map = match(base, motivated, batch=data()[0][0])
    embed(base, motivated, weights_map, extra="neutral", batch=data()[0][0])
    pair = Pair(base, motivated, weights_map)
    before = [{name: (t.clone(), t.requires_grad) for name, t in tensors(m).items()} for m in (base, motivated)]
    with pair.motivated():
        same = agreement(base, motivated, pair.map, data(), cross_entropy)
        opposite = agreement(
            base,
            motivated,
            pair.map,
            data(),
            lambda model, batch: cross_entropy(model, batch) * (-1) ** (model is base),
        )
        by_output = agreement(base, motivated, pair.map, data(), lambda *both: {"loss": cross_entropy(*both)})
    assert by_output == same, "whatever a loss_fn may return"
    assert [same.sample, *same.batches] == pytest.approx([1.0] * 3, abs=1e-4)
    assert [opposite.sample, *opposite.batches] == pytest.approx([-1.0] * 3, abs=1e-4)
    for model, tensors_before in zip((base, motivated), before, strict=True):
        for name, parameter in model.named_parameters():
            assert torch.equal(parameter, tensors_before[name][0])
            assert parameter.grad is None


def test_measuring_leaves_the_models_and_the_random_state_as_they_are() -> None:
    base, motivated = (nn.Sequential(model, nn.Dropout(0.5)) for model in two_models())
    weights_map = match(base, motivated, batch=data()[0][0])
    before = [{name: tensor.clone() for name, tensor in tensors(model).items()} for model in (base, motivated)]
    state = torch.get_rng_state()
    with torch.no_grad():  # As a caller may have it.
        for model in (base, motivated):
            sharpness(model, iter(data()), cross_entropy, iterations=2)
        agreement(base, motivated, weights_map, iter(data()), cross_entropy)
    assert torch.equal(torch.get_rng_state(), state)
    for model, tensors_before in zip((base, motivated), before, strict=True):
        assert model.training
        assert all(torch.equal(tensor, tensors_before[name]) for name, tensor in tensors(model).items())


def test_what_cannot_be_measured_is_told() -> None:
    base, motivated = two_models()
    weights_map = match(base, motivated, batch=data()[0][0])
    measures: list[Callable[[Any, Any], Any]] = [
        lambda batches, loss: agreement(base, motivated, weights_map, batches, loss),
        lambda batches, loss: sharpness(base, batches, loss),
    ]
    of_nan = measures[0](data(), lambda *both: cross_entropy(*both) * math.nan)
    assert math.isnan(of_nan.sample) and all(map(math.isnan, of_nan.batches))
    for measure in measures:
        with pytest.raises(SeekingError, match="no batch to measure on"):
            measure(iter(()), cross_entropy)
        with pytest.raises(SeekingError, match="returns for the OneStage has no gradient"):
            measure(data(), lambda *both: cross_entropy(*both).detach())
    base.requires_grad_(False)
    for measure in measures:
        with pytest.raises(SeekingError, match="no parameter of the OneStage requires gradients"):
            measure(data(), cross_entropy)


@settings(max_examples=20)
@given(st.integers(0, 1000), st.integers(1, 6), st.sampled_from([-1.0, 1.0]))
def test_sharpness_is_the_eigenvalue_of_largest_magnitude(seed: int, features: int, sign: float) -> None:
    torch.manual_seed(seed)
    x, y = torch.randn(12, features), torch.randn(12)
    model = nn.Linear(features, 1, bias=False)
    parts = [(x[:5], y[:5]), (x[5:], y[5:])]
    measured = sharpness(
        model,
        parts,
        lambda model, batch: sign * F.mse_loss(model(batch[0])[:, 0], batch[1]),
        iterations=500,
        tolerance=1e-7,
    )
    expected = torch.linalg.eigvalsh(2 * x.T @ x / 12)[-1]
    assert measured.converged
    assert measured.eigenvalue == pytest.approx(sign * float(expected), rel=1e-2)


def test_sharpness_stops_after_its_iterations_and_knows_a_flat_loss() -> None:
    base, _ = two_models()
    base.eval()
    measured = sharpness(base, data(), cross_entropy, iterations=2, tolerance=0.0)
    assert (measured.iterations, measured.converged) == (2, False)
    assert not base.training
    flat = sharpness(nn.Linear(3, 1), [torch.randn(4, 3)], lambda model, batch: model(batch).mean())
    assert (flat.eigenvalue, flat.converged) == (0.0, True)
    attention = nn.MultiheadAttention(8, 2, batch_first=True)
    x = torch.randn(2, 5, 8)
    curved = sharpness(attention, [x], lambda model, batch: model(batch, batch, batch)[0].square().mean(), iterations=3)
    assert curved.eigenvalue > 0


@settings(max_examples=20)
@given(st.integers(0, 1000), st.integers(2, 9))
def test_along_a_line_a_convex_loss_has_no_barrier(seed: int, points: int) -> None:
    torch.manual_seed(seed)
    x, y = torch.randn(12, 3), torch.randn(12)
    ends = [nn.Linear(3, 1) for _ in range(2)]

    def measure(model: nn.Module) -> dict[str, float]:
        loss = float(F.mse_loss(model(x)[:, 0], y).detach())
        return {"convex": loss, "concave": -loss}

    expected = [pytest.approx(measure(end)) for end in ends]
    line = losses_along_line(ends[0], tensors(ends[0]), tensors(ends[1]), measure, points)
    assert [line[0].losses, line[-1].losses] == expected
    assert barrier(line, "convex") == pytest.approx(0, abs=1e-6)
    assert barrier(line, "concave") >= 0
    assert barrier([Point(0, {"a": 1.0}), Point(0.5, {"a": 5.0}), Point(1, {"a": 3.0})], "a") == 3


def test_solutions_of_other_shapes_are_named() -> None:
    with pytest.raises(
        Exception, match=r"bias is \[1\] in the model, \[2\] in the first solution and missing in the sec"
    ):
        losses_along_line(nn.Linear(3, 1), tensors(nn.Linear(3, 2)), tensors(nn.Linear(3, 1, bias=False)), lambda _: {})


@pytest.mark.parametrize("separated", [False, True])
def test_a_step_is_the_one_that_training_would_take_and_is_taken_back(separated: bool) -> None:
    trainer = Trainer(
        *two_models(), **batches(), config=dataclasses.replace(PLAIN, condition="every:2", schedule="wsd")
    )
    trainer.fit()
    run, rate = trainer.run, 0.03
    if separated:
        run.pair.separate()
    for learner in run.learners.values():
        learner.optimizer.param_groups[0]["lr"] = rate
    parts = copy.deepcopy(capture_state(trainer.parts, {})["parts"])
    batch = data(1)[0]

    def measure() -> float:
        with torch.no_grad():
            return float(cross_entropy(run.base.module.train(), batch))

    changes = changes_by_a_step(run, parts, [batch] * 2, measure)
    for name, learner in run.learners.items():
        put_back(run, parts)
        before = measure()
        put_back(run, parts)
        with run.synced(name):
            loss = cross_entropy(learner.module.train(), batch)
            loss.backward()
            learner.optimizer.step()
            learner.optimizer.zero_grad()
        assert changes[name] == [pytest.approx(measure() - before, abs=1e-5)] * 2
    assert changes["base"][0] != 0
    assert (changes["motivated"][0] == 0) == separated
    put_back(run, parts)
    for name, learner in run.learners.items():
        saved = parts[name]["model"]["tensors"]
        assert all(torch.equal(tensor, saved[key]) for key, tensor in tensors(learner.module).items())
        assert learner.optimizer.param_groups[0]["lr"] == rate


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pair and its base alone, on the digits."""
    folder = tmp_path_factory.mktemp("runs")
    options = [*SMALL, "--seeds", "1", "--epochs", "2", "--keep-checkpoints", "9", "--precision", "no", "--no-verify"]
    assert main(["compare", *options, "--condition", "decrease:2", "--output", str(folder / "out")]) == 0
    return folder / "out" / "pair-seed0"


MEASURE = ["--samples", "32", "--steps", "2", "--iterations", "3"]


@pytest.mark.slow
def test_analyze_prints_and_writes_what_it_measures(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(run)
    out = tmp_path / "analysis"
    twin = run.with_name("base-seed0")
    assert main(["analyze", str(run), *MEASURE, "--against", str(twin), "--output", str(out)]) == 0
    assert contents(run) == before
    printed = " ".join(capsys.readouterr().out.split())
    assert "sharpness" in printed and "barrier" in printed
    analysis = json.loads((out / "analysis.json").read_text())
    assert [row["step"] for row in analysis["checkpoints"]] == [0, 4, 8]
    for row in analysis["checkpoints"]:
        assert -1 <= row["agreement"] <= 1
        assert len(row["motivated_step"]["values"]) == len(row["base_step"]["values"]) == 2
    rates = [row["learning_rate"] for row in analysis["checkpoints"]]
    assert rates == pytest.approx([0.05, 0.025, 0.0])
    assert analysis["checkpoints"][0]["base_step"]["mean"] != 0 == analysis["checkpoints"][-1]["base_step"]["mean"]
    assert list(analysis["ends"]) == ["base", "motivated", "base alone"]
    for end, position in (("base", 0), ("base alone", -1)):
        for loss in ("training_loss", "held_out_loss"):
            assert analysis["ends"][end][loss] == pytest.approx(analysis["line"][position][loss])
    assert (out / "analysis.png").stat().st_size > 10_000
    assert main(["analyze", str(run), *MEASURE, "--output", str(out)]) == 0, "a second time"
    again = json.loads((out / "analysis.json").read_text())
    assert again["checkpoints"] == analysis["checkpoints"]
    assert "line" not in again


TEXT = ["--task", "text", "--data", "python", "--base", "gpt2-1x32", "--motivated", "gpt2-2x32"]
TABLE = ["--task", "tabular", "--base", "mlp-4", "--motivated", "mlp-8"]
JOINT = ["--update", "joint", "--base-weight", "0.4"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        [*TEXT, "--sequence-length", "8", "--max-train-samples", "64", "--condition", "decrease:2"],
        [*TABLE, "--data", "digits", "--condition", "decrease:2"],
        [*TABLE, "--data", "diabetes", "--loss", "mse", "--condition", "decrease:2"],
        [*TABLE, "--data", "digits", "--recipe", "best", "--teach", "0.5", "--student", "motivated"],
        [*TABLE, "--data", "digits", *("--condition", "always", "--teach", "0.5", "--student", "both"), *JOINT],
    ],
    ids=["text", "classes", "values", "recipe", "joint"],
)
def test_runs_of_every_task_are_analyzed_on_their_data_and_loss(
    options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    options = [*options, "--max-eval-samples", "40", "--epochs", "2", "--keep-checkpoints", "9", "--lr", "0.01"]
    assert main(["train", *options, "--output", "run", "--precision", "no", "--no-verify"]) == 0
    assert main(["analyze", "run", *MEASURE[2:], "--samples", "100000", "--output", "analysis"]) == 0
    assert "has no effect" not in capsys.readouterr().err
    analysis = json.loads(Path("analysis/analysis.json").read_text())
    measured = json.loads(Path("run/summary.json").read_text())["metrics"]
    assert len(analysis["checkpoints"]) == 3
    for model, end in analysis["ends"].items():
        assert end["held_out_loss"] == pytest.approx(measured[model]["loss"])


@pytest.mark.slow
def test_models_from_elsewhere_are_named_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run folder may be a stranger's, and does not say what is loaded."""
    folders = {name: tmp_path / name for name in MODELS}
    for depth, folder in enumerate(folders.values(), start=1):
        arguments = {"img_size": 8, "patch_size": 4, "in_chans": 1, "depth": depth}
        folder.mkdir()
        save_weights(create("test_vit", num_classes=10, **arguments), folder / "model.safetensors")
        config = {"architecture": "test_vit", "num_classes": 10, "model_args": arguments}
        config["pretrained_cfg"] = {"num_classes": 10, "classifier": "head", "input_size": [1, 8, 8]}
        (folder / "config.json").write_text(json.dumps(config))
    models = [f"--{name}=local-dir:{folder}" for name, folder in folders.items()]
    options = ["--max-steps", "1", "--max-train-samples", "64", "--output", str(tmp_path / "run")]
    assert main(["train", *models, *options]) == 0
    refused(["analyze", str(tmp_path / "run"), *MEASURE], f"loaded from elsewhere .* add {' '.join(models)}", capsys)
    assert main(["analyze", str(tmp_path / "run"), *MEASURE, *models]) == 0


@pytest.mark.slow
def test_what_cannot_be_analyzed_is_refused(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    refused(["analyze", str(run.with_name("base-seed0"))], "one model was trained alone", capsys)
    refused(["analyze", str(run.parent)], "no intact checkpoint", capsys)
    refused(["analyze", "nowhere"], "nowhere: not the folder of a run", capsys)
    refused(["analyze", str(run), "--samples", "0"], "samples is 0", capsys)
    refused(["analyze", str(run), "--output", str(run)], "holds something else than an analysis", capsys)
    refused(["analyze", str(run), *MEASURE, "--against", "nowhere"], "nowhere.*cannot be read", capsys)


@pytest.mark.slow
def test_data_that_are_not_those_of_the_run_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [tmp_path / "here.csv", tmp_path / "moved.csv", tmp_path / "other.csv"]
    for file, factor in zip(files, (1, 1, -1), strict=True):
        file.write_text("\n".join(["size,label", *(f"{factor * n**2},{n % 2}" for n in range(64))]))
    options = ["--task", "tabular", "--base", "mlp-8", "--motivated", "mlp-16", "--epochs", "1", "--batch-size", "16"]
    assert main(["train", *options, "--data", str(files[0]), "--output", str(tmp_path / "run")]) == 0
    for file in files:
        capsys.readouterr()
        assert main(["analyze", str(tmp_path / "run"), *MEASURE, "--data", str(file)]) == 0
        told = f"{file} does not hold the data of the run (training data" in " ".join(capsys.readouterr().err.split())
        assert told == (file.name == "other.csv")


@pytest.mark.slow
def test_a_damaged_checkpoint_is_left_out(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run" / "checkpoints" / "step-00000004" / "state.json").write_text("{}")
    assert main(["analyze", str(tmp_path / "run"), *MEASURE, "--output", str(tmp_path / "out")]) == 0
    assert "step-00000004" in capsys.readouterr().err
    analysis = json.loads((tmp_path / "out" / "analysis.json").read_text())
    assert [row["step"] for row in analysis["checkpoints"]] == [0, 8]
