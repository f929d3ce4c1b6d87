"""Checkpoints of pairs under the Hugging Face Trainer: saved, resumed, loaded, and the best of them."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

t = pytest.importorskip("transformers", reason="needs transformers: pip install 'seeking[transformers]'")
from language import Words, equal, gpt2, llama, losses, trainer, weights  # noqa: E402

import seeking  # noqa: E402
from seeking import Pair, SeekingError  # noqa: E402
from seeking.integrations.transformers import STATE  # noqa: E402

pytestmark = [  # Most take a second or two, of which the Trainer's start is the most.
    pytest.mark.slow,
    pytest.mark.usefixtures("_quiet"),
]

RESUMED = [
    {"neftune_noise_alpha": 5.0, "gradient_accumulation_steps": 2, "dataloader_num_workers": 0, "bf16": True},
    {"condition": "decrease:1 | random:0.3", "max_steps": 9, "lr_scheduler_type": "cosine"},
    {},  # From the end of an epoch.
]


@pytest.mark.parametrize(("step", "options"), list(zip((4, 5, 6), RESUMED, strict=True)), ids=str)
def test_resumed_equals_uninterrupted(tmp_path: Path, options: dict[str, Any], step: int) -> None:
    saving = {**options, "save_strategy": "steps", "save_steps": step}
    whole = trainer(tmp_path, **saving)
    whole.train()
    resumed = trainer(tmp_path, **saving)
    resumed.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{step}"))
    assert whole.state.global_step > step
    assert equal(resumed.pair.base, whole.pair.base)
    assert equal(resumed.pair.motivated_model, whole.pair.motivated_model)
    assert resumed.motivated_steps == whole.motivated_steps > 0
    assert losses(resumed) == losses(whole)


def test_the_last_checkpoint_is_found_and_a_missing_one_is_told(tmp_path: Path) -> None:
    with pytest.raises(SeekingError, match="no checkpoint"):
        trainer(tmp_path).train(resume_from_checkpoint=True)
    trainer(tmp_path, num_train_epochs=1, save_strategy="epoch").train()
    again = trainer(tmp_path)
    again.train(resume_from_checkpoint=True)
    assert again.state.global_step == 12


def test_a_checkpoint_has_the_optimizers_of_both_models_or_of_neither(tmp_path: Path) -> None:
    trainer(tmp_path, save_strategy="epoch", max_steps=2).train()
    checkpoint = tmp_path / "checkpoint-2"
    (checkpoint / "motivated" / STATE).unlink()
    with pytest.raises(SeekingError, match=r"has no seeking\.pt.*base's optimizer \(optimizer\.pt\)"):
        trainer(tmp_path, max_steps=3).train(resume_from_checkpoint=True)
    (checkpoint / "optimizer.pt").unlink()
    weights = trainer(tmp_path, max_steps=3)
    weights.train(resume_from_checkpoint=True)
    assert weights.state.global_step == 3


def test_a_checkpoint_of_the_base_alone_and_another_condition_are_refused(tmp_path: Path) -> None:
    run = trainer(tmp_path, save_strategy="epoch", max_steps=2)
    t.Trainer(gpt2(1), run.args, train_dataset=Words(24)).train()
    with pytest.raises(SeekingError, match="no motivated model"):
        run.train(resume_from_checkpoint=True)
    trainer(tmp_path, save_strategy="epoch", max_steps=2).train()
    with pytest.raises(SeekingError, match="the condition was every:2"):
        trainer(tmp_path, condition="always").train(resume_from_checkpoint=True)


@pytest.mark.parametrize("pair", [lambda: (gpt2(1), gpt2(2)), lambda: (llama(2), llama(4))], ids=["gpt2", "llama"])
def test_both_folders_load_with_from_pretrained(tmp_path: Path, pair: Any) -> None:
    run = trainer(tmp_path, Pair(*pair()), max_steps=3)
    run.train()
    run.save_model()
    with run.pair.motivated():
        assert equal(t.AutoModelForCausalLM.from_pretrained(tmp_path / "motivated"), run.pair.motivated_model)
    assert equal(t.AutoModelForCausalLM.from_pretrained(tmp_path), run.pair.base)


@pytest.mark.parametrize("best", ["eval_loss", "eval_motivated_loss"])
def test_the_best_models_are_those_of_one_checkpoint(tmp_path: Path, best: str) -> None:
    run = trainer(
        tmp_path,
        eval_strategy="epoch",
        save_strategy="epoch",
        load_best_model_at_end=True,
        metric_for_best_model=best,
        greater_is_better=True,  # The first: the loss falls.
    )
    run.train()
    measured = [row[best] for row in run.state.log_history if best in row]
    assert run.state.best_metric == max(measured) > measured[-1]
    assert run.evaluate()[best] == pytest.approx(max(measured))
    folder = Path(run.state.best_model_checkpoint)
    for model, saved in ((run.pair.base, folder), (run.pair.motivated_model, folder / "motivated")):
        kept = load_file(saved / "model.safetensors")
        assert all(torch.equal(weights(model)[name], tensor) for name, tensor in kept.items())


def test_callbacks_see_both_models_of_the_best_checkpoint(tmp_path: Path) -> None:
    class Saving(t.TrainerCallback):
        def on_train_end(self, *args: Any, **kwargs: Any) -> None:
            run.save_model(str(tmp_path / "end"))

    best = {"metric_for_best_model": "motivated_loss", "greater_is_better": True, "load_best_model_at_end": True}
    run = trainer(tmp_path, eval_strategy="epoch", save_strategy="epoch", condition="always", **best)
    run.add_callback(Saving())
    run.train()
    for name in ("model.safetensors", "motivated/model.safetensors"):
        assert equal(load_file(tmp_path / "end" / name), load_file(Path(run.state.best_model_checkpoint) / name))


def test_stopped_by_a_callback_within_an_epoch_and_resumed(tmp_path: Path) -> None:
    class Stopping(t.TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            control.should_training_stop = control.should_save = state.global_step == 4

    run = trainer(tmp_path)
    run.add_callback(Stopping())
    run.train()
    resumed = trainer(tmp_path)
    resumed.train(resume_from_checkpoint=True)
    whole = trainer(tmp_path / "whole")
    whole.train()
    assert run.state.global_step == 4 and resumed.state.global_step == 12
    assert equal(resumed.pair.motivated_model, whole.pair.motivated_model)


def test_weights_in_a_run_folder_load_with_from_pretrained(tmp_path: Path) -> None:
    """Those of seeking's own Trainer, with the configuration beside them."""
    data = [{"input_ids": words, "labels": words} for words in torch.arange(16).view(2, 2, 4)]
    models = {"base": gpt2(1), "motivated": gpt2(2)}
    config = seeking.TrainConfig(epochs=1, condition="always")
    run = seeking.Trainer(
        *models.values(),
        train_loader=data,
        config=config,
        loss_fn=lambda model, batch: model(**batch),
        output=tmp_path / "run",
    )
    run.fit()
    for name, model in models.items():
        folder = tmp_path / name
        model.config.save_pretrained(folder)
        shutil.copy(tmp_path / "run" / f"{name}.last.safetensors", folder / "model.safetensors")
        with run.pair.motivated():
            assert equal(t.GPT2LMHeadModel.from_pretrained(folder), model)
