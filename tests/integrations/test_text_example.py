"""The example of language models under the Hugging Face Trainer."""

import importlib.util
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import IterableDataset

t = pytest.importorskip("transformers", reason="needs transformers: pip install 'seeking[transformers]'")

from seeking import Pair  # noqa: E402
from seeking.experiments.config import RunConfig  # noqa: E402
from seeking.experiments.run import models, trainer  # noqa: E402
from seeking.experiments.tasks import task  # noqa: E402
from seeking.integrations.transformers import MotivatedTrainer  # noqa: E402

EXAMPLE = Path(__file__).parents[2] / "examples" / "text_with_transformers.py"


@pytest.fixture(scope="module")
def example() -> Any:
    spec = importlib.util.spec_from_file_location("text_with_transformers", EXAMPLE)
    assert spec and spec.loader
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "lyrics.txt"
    path.write_text("".join(f"{n} green bottles hanging on the wall\n" for n in range(120, 0, -1)))
    return path


@pytest.mark.slow
def test_both_pairs_are_trained_measured_and_saved(
    example: Any, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ["--length", "16", "--width", "128", "--steps", "12", "--condition", "every:2", "--lr", "0.003"]
    by_pair = example.main(["--text", str(text), *small, "--output", str(tmp_path / "out")])
    assert by_pair.keys() == {"gpt2", "llama"}
    told = capsys.readouterr().out
    content = torch.frombuffer(bytearray(text.read_bytes()), dtype=torch.uint8)
    held_out = example.Windows(content[len(content) - len(content) // 10 :], 16)
    rows = [held_out[number] for number in range(len(held_out))]
    batch = {key: torch.stack([row[key] for row in rows]) for key in rows[0]}
    for name, measured in by_pair.items():
        assert measured["motivated share"] == 0.5
        for model, folder in (("base", tmp_path / "out" / name), ("motivated", tmp_path / "out" / name / "motivated")):
            loaded = t.AutoModelForCausalLM.from_pretrained(folder).eval()
            with torch.no_grad():
                loss = loaded(**batch).loss
            assert measured[model] == pytest.approx(float(loss) / math.log(2), rel=1e-4)
            assert 1 < measured[model] < 8
            assert f"{model} {measured[model]:.3f}" in told


@pytest.mark.slow
@pytest.mark.parametrize("names", [("gpt2-1x32", "gpt2-2x32"), ("llama-2x64", "llama-2x128")])
def test_the_losses_are_those_of_seeking_train(names: tuple[str, str], text: Path, tmp_path: Path) -> None:
    """On the same batches, of both models, over the first steps."""
    steps = 6
    config = RunConfig(
        task="text",
        data=str(text),
        base=names[0],
        motivated=names[1],
        sequence_length=16,
        batch_size=8,
        max_steps=steps,
        condition="every:2",
        optimizer="adamw",
        lr=0.003,
        weight_decay=0.0,
        schedule="constant",
        precision="no",
        device="cpu",
        verify=False,
        model_kwargs={"sequence_length": 17},  # transformers' models also take the byte that is predicted last.
    )
    data: Any = task("text").load(config, 1, config.loss)
    rows = [row for row in trainer(config, data).fit().history if row["kind"] == "step"]
    loader = data.loaders(config).train
    batches = list(loader)[:steps]

    class Same(IterableDataset[Any]):
        def __iter__(self) -> Iterator[Any]:
            for inputs, targets in batches:
                windows = torch.cat([inputs, targets[:, -1:]], dim=1)
                labels = torch.cat([torch.full((len(windows), 1), -100), targets], dim=1)
                yield from ({"input_ids": x, "labels": y} for x, y in zip(windows, labels, strict=True))

    pair = Pair(*models(config, data.model_arguments, config.seed).values())
    arguments = t.TrainingArguments(
        str(tmp_path / "out"),
        max_steps=steps,
        per_device_train_batch_size=8,
        learning_rate=0.003,
        lr_scheduler_type="constant",
        max_grad_norm=0.0,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
    )
    theirs = MotivatedTrainer(pair, arguments, condition="every:2", train_dataset=Same())
    theirs.train()
    logs = [row for row in theirs.state.log_history if "loss" in row]
    for name, count in (("loss", steps), ("motivated_loss", steps // 2)):
        losses, logged = ([row[name] for row in history if name in row] for history in (rows, logs))
        assert losses == pytest.approx(logged, rel=1e-5), name
        assert len(losses) == count
