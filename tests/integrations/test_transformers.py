"""Pairs under the Hugging Face Trainer."""

import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.utils import DistributedType
from safetensors.torch import load_file
from torch import nn
from torch.utils.data import IterableDataset

t = pytest.importorskip("transformers", reason="needs transformers: pip install 'seeking[transformers]'")
import language  # noqa: E402
from language import Words, gpt2, llama, trainer  # noqa: E402

import seeking  # noqa: E402
from seeking import Pair, SeekingError  # noqa: E402
from seeking.integrations.transformers import STATE, MotivatedTrainer  # noqa: E402
from seeking.integrations.transformers_arguments import check_processes  # noqa: E402

pytestmark = pytest.mark.slow  # Most take a second or two, of which the Trainer's start is the most.


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    t.utils.logging.disable_progress_bar()


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def equal(ours: nn.Module | dict[str, torch.Tensor], theirs: nn.Module | dict[str, torch.Tensor]) -> bool:
    left, right = (weights(side) if isinstance(side, nn.Module) else side for side in (ours, theirs))
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def losses(run: Any) -> list[float]:
    return [row["loss"] for row in run.state.log_history if "loss" in row]


@pytest.mark.parametrize(
    "options",
    [
        {"neftune_noise_alpha": 5.0, "bf16": True, "gradient_accumulation_steps": 3, "max_grad_norm": 0.1},
        {"max_steps": 7, "lr_scheduler_type": "cosine", "label_smoothing_factor": 0.1, "optim": "adafactor"},
        {"train_sampling_strategy": "group_by_length", "eval_on_start": True, "dataloader_drop_last": True},
    ],
    ids=str,
)
def test_without_motivated_steps_the_base_trains_as_under_the_trainer_itself(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    ours = trainer(tmp_path, condition="never", eval_strategy="epoch", **options)
    ours.train()
    torch.manual_seed(0)
    theirs = t.Trainer(gpt2(1), ours.args, train_dataset=Words(24), eval_dataset=Words(8))
    theirs.train()
    assert equal(ours.pair.base, theirs.model)
    for key in ("loss", "learning_rate", "grad_norm", "eval_loss"):
        kept, plain = ([row[key] for row in run.state.log_history if key in row] for run in (ours, theirs))
        assert kept == plain and kept


@pytest.mark.parametrize(("kind", "options"), [("deeper", {"max_grad_norm": 0.3}), ("wider", {"max_grad_norm": 0.0})])
def test_each_step_is_that_of_a_loop_by_hand(tmp_path: Path, kind: str, options: dict[str, Any]) -> None:
    """The same batches, learning rates and clipping. By SGD, which does not amplify the rounding of the loss."""
    torch.manual_seed(3)
    models = [gpt2(1, 0.0), gpt2(2, 0.0)] if kind == "deeper" else [llama(2), llama(4)]
    starts = [weights(model) for model in models]
    run = trainer(tmp_path, Pair(*models), optim="sgd", learning_rate=0.3, **options)
    batches: list[tuple[torch.Tensor, Any]] = []
    step = run.compute_loss

    def seen(model: nn.Module, inputs: dict[str, torch.Tensor], *rest: Any, **named: Any) -> Any:
        if model is run.pair.base and model.training:
            batches.append((inputs["input_ids"].clone(), named["num_items_in_batch"]))
        return step(model, inputs, *rest, **named)

    run.compute_loss = seen
    run.train()
    trained = [weights(model) for model in models]
    for model, start in reversed(list(zip(models, starts, strict=True))):  # They share storage; the base comes last.
        model.load_state_dict(start)
    pair = Pair(*models, weights_map=run.pair.map)
    optimizers = {model: torch.optim.SGD(model.parameters(), lr=0.3) for model in models}
    rates = [row["learning_rate"] for row in run.state.log_history if "learning_rate" in row]

    def take(model: nn.Module, tokens: torch.Tensor, items: Any, rate: float) -> None:
        model.train()
        model(input_ids=tokens, labels=tokens, num_items_in_batch=items).loss.backward()
        if run.args.max_grad_norm:
            nn.utils.clip_grad_norm_(model.parameters(), run.args.max_grad_norm)
        for group in optimizers[model].param_groups:
            group["lr"] = rate
        optimizers[model].step()
        optimizers[model].zero_grad()

    for number, (batch, rate) in enumerate(zip(batches, rates, strict=True)):
        take(pair.base, *batch, rate)
        if number % 2 == 1:
            with pair.motivated() as model:
                take(model, *batch, rate)
    for model, expected in zip(models, trained, strict=True):
        for name, tensor in weights(model).items():
            torch.testing.assert_close(tensor, expected[name], rtol=1e-5, atol=1e-6)
    assert run.motivated_steps == len(batches) // 2
    assert seeking.verify(*models, pair.map, batches[0][0])


def test_each_model_trains_with_noise_of_its_own_size(tmp_path: Path) -> None:
    pair = Pair(llama(2), llama(4))
    most: dict[int, list[float]] = {}

    def measure(module: nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        noise = (output - module.weight[inputs[0]]).detach().abs().max()
        most.setdefault(output.size(2), []).append(float(noise) * (output.size(1) * output.size(2)) ** 0.5)

    embeddings = [model.get_input_embeddings() for model in (pair.base, pair.motivated_model)]
    run = trainer(tmp_path, pair, condition="always", neftune_noise_alpha=5.0, eval_strategy="no", max_steps=2)
    begin = run.begin_motivated

    def begin_measured() -> None:  # After the hooks that add the noise.
        begin()
        for module in embeddings:
            module.register_forward_hook(measure)

    run.begin_motivated = begin_measured
    run.train()
    assert len(most) == 2 and all(4.5 < each <= 5.01 for seen in most.values() for each in seen)
    most.clear()
    for model in pair.base.train(), pair.motivated_model.train():
        model(input_ids=torch.arange(4)[None])
    assert [each for seen in most.values() for each in seen] == [0.0, 0.0]


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


def test_random_numbers_of_the_evaluation_are_those_of_the_base_alone(tmp_path: Path) -> None:
    drawn: list[float] = []

    class Noisy(Words):
        def __init__(self, samples: int) -> None:
            super().__init__(samples)
            self.own = np.random.default_rng(0)

        def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
            drawn.append(float(torch.rand(1)) + random.random() + np.random.rand() + self.own.random())
            return super().__getitem__(int(drawn[-1] * 1e6) % len(self))

    ours = trainer(tmp_path, condition="never", eval_strategy="epoch")
    ours.train_dataset, ours.eval_dataset = Noisy(24), Noisy(8)
    ours.train()
    pair_drew, drawn = drawn, []
    torch.manual_seed(0)
    theirs = t.Trainer(gpt2(1), ours.args, train_dataset=Noisy(24), eval_dataset=Noisy(8))
    theirs.train()
    assert equal(ours.pair.base, theirs.model)
    assert pair_drew == [*drawn[:32], *drawn[24:], *drawn[56:]]  # Twice what is drawn for evaluation.


def test_compiled_models_take_the_same_steps(tmp_path: Path) -> None:
    """By a compiler that rounds as PyTorch does; both models are compiled, and saved as they are."""
    folders, compiled = (tmp_path / "plain", tmp_path / "compiled"), {"torch_compile_backend": "eager"}
    for folder, options in zip(folders, ({}, {"torch_compile": True, **compiled}), strict=True):
        torch.manual_seed(0)
        run = trainer(folder, Pair(gpt2(1, 0.0), gpt2(2, 0.0)), max_steps=2, **options)
        run.train()
        run.save_model()
        assert run.motivated_steps == 1 and hasattr(run._learner[0], "_orig_mod") == bool(options)
    for part in (".", "motivated"):
        ours, theirs = (load_file(folder / part / "model.safetensors") for folder in folders)
        assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("returned", [True, False])
def test_an_optimizer_of_ones_own(tmp_path: Path, returned: bool) -> None:
    class Own(MotivatedTrainer):
        def create_optimizer(self) -> Any:
            self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1)
            return self.optimizer if returned else None

    class ByTensor(MotivatedTrainer):
        def create_optimizer(self) -> Any:
            self.optimizer = torch.optim.SGD([{"params": [p]} for p in self.model.parameters()], lr=0.1)
            return self.optimizer

    args = trainer(tmp_path, max_steps=2).args
    run = Own(Pair(gpt2(1), gpt2(2)), args, condition="always", train_dataset=Words(24))
    run.train()
    assert run.motivated_steps == 2
    with pytest.raises(SeekingError, match="parameter groups"):
        ByTensor(Pair(gpt2(1), gpt2(2)), args, train_dataset=Words(24)).train()


def test_a_stream_is_counted_in_steps(tmp_path: Path) -> None:
    class Stream(IterableDataset[dict[str, torch.Tensor]]):
        def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
            return (Words(64)[number] for number in range(64))

    pair = Pair(gpt2(1), gpt2(2))
    args = trainer(tmp_path, pair, max_steps=5).args
    run = MotivatedTrainer(pair, args, condition="every:2", train_dataset=Stream())
    run.train()
    assert run.state.global_step == 5 and run.motivated_steps == 2
    run.train()  # Once more, with the same optimizers.
    assert run.state.global_step == 5 and run.motivated_steps == 5
    run.condition = seeking.MatchedCount(seeking.Always())
    with pytest.raises(SeekingError, match="needs the number of batches in an epoch"):
        run.train()


def test_predictions_are_the_bases_and_metrics_of_both(tmp_path: Path) -> None:
    pair = Pair(gpt2(1), gpt2(2))
    args = trainer(tmp_path, pair).args
    seen: list[torch.Tensor] = []

    def metrics(result: Any) -> dict[str, float]:
        seen.append(result.predictions)
        return {"size": float(result.predictions.size)}

    run = MotivatedTrainer(pair, args, eval_dataset={"a": Words(4), "b": Words(8)}, compute_metrics=metrics)
    evaluated = run.evaluate()
    sizes = {"eval_a_size": 4 * 16 * 29, "eval_b_motivated_size": 8 * 16 * 29}
    assert {name: evaluated[name] for name in sizes} == sizes
    predicted = run.predict(Words(4)).predictions
    pair.base.eval()
    assert torch.allclose(torch.tensor(predicted), pair.base(Words(4).tokens).logits, atol=1e-5)


@pytest.fixture
def scaled() -> Iterator[Any]:
    """Lets a trainer scale losses as under fp16, on the CPU."""
    from accelerate.state import AcceleratorState

    def scale(run: MotivatedTrainer) -> torch.amp.GradScaler:
        run.accelerator.scaler = scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
        run.accelerator.native_amp = True
        run.accelerator.state._mixed_precision = "fp16"
        return scaler

    yield scale
    AcceleratorState._reset_state()


@pytest.mark.parametrize("optimizer", ["adamw_torch", "adamw_torch_fused"])  # Fused ones leave out steps themselves.
@pytest.mark.parametrize("name", ["base", "motivated_model"])
@pytest.mark.filterwarnings("error:.*lr_scheduler")
def test_an_overflow_under_fp16_leaves_out_the_step_of_one_model(
    name: str, optimizer: str, scaled: Any, tmp_path: Path
) -> None:
    seen: list[tuple[int, bool, bool]] = []

    class Looking(seeking.Condition):
        def decide(self, signals: seeking.Signals) -> bool:
            self.last = signals
            return True

        def feedback(self, outcome: seeking.Outcome) -> None:
            assert (self.last.grad_norm is not None) == self.last.base_stepped
            seen.append((self.last.step, self.last.base_stepped, outcome.taken))

    run = trainer(tmp_path, optim=optimizer)
    run.condition = Looking()
    weight = getattr(run.pair, name).transformer.ln_f.weight
    weight.register_hook(lambda gradient: gradient * (float("inf") if run.state.global_step in (0, 4) else 1))
    scaler = scaled(run)
    run.train()
    base, motivated = ([step for step, *taken in seen if not taken[which]] for which in (0, 1))
    assert (base, motivated) == (([0, 4], []) if name == "base" else ([], [0, 4]))
    assert len(seen) == 12 and run.motivated_steps == 12 - len(motivated)
    assert scaler.get_scale() == 256
    assert all(tensor.isfinite().all() for tensor in weights(run.pair.motivated_model).values())
    rate = run.optimizer.param_groups[0]["lr"]
    assert (rate > 0) == (name == "base" and optimizer == "adamw_torch")  # Transformers leaves out the schedule, too.


def test_a_signal_for_each_kind_of_condition(tmp_path: Path) -> None:
    seen: list[seeking.Signals] = []

    class Looking(seeking.Condition):
        needs_gradients = True
        outcomes: list[seeking.Outcome]

        def decide(self, signals: seeking.Signals) -> bool:
            seen.append(signals)
            return True

        def feedback(self, outcome: seeking.Outcome) -> None:
            assert outcome.taken and outcome.shared_gradients
            assert outcome.shared_gradients().keys() == seen[-1].gradients.keys()

    run = trainer(tmp_path, condition=Looking())
    run.train()
    last = seen[-1]
    assert (last.step, last.steps, last.epoch_length) == (11, 12, 6)
    assert last.grad_norm == pytest.approx(run.state.log_history[-2]["grad_norm"])
    assert last.motivated_flops > last.base_flops > 0
    assert last.flops_spent == pytest.approx(11 * last.motivated_flops + 12 * last.base_flops)
    assert run.state.total_flos == pytest.approx(12 * last.motivated_flops + 12 * last.base_flops)


@pytest.mark.parametrize(
    "given",
    [
        {"gradient_checkpointing": True},
        {"auto_find_batch_size": True},
        {"optim": "lomo"},
        {"condition": "held_out:4"},
        {"bf16_full_eval": True},
        {"use_liger_kernel": True},
        {"debug": "underflow_overflow"},
    ],
    ids=str,
)
def test_what_would_be_done_to_one_model_alone_is_refused(tmp_path: Path, given: dict[str, Any]) -> None:
    with pytest.raises(SeekingError, match=f"{next(iter(given))} cannot be used"):
        trainer(tmp_path, **given)


class MotivatedSeq2SeqTrainer(MotivatedTrainer, t.Seq2SeqTrainer):
    pass


def test_both_models_generate_where_the_trainer_does(tmp_path: Path) -> None:
    torch.manual_seed(0)
    sizes = {"vocab_size": 23, "d_model": 8, "d_kv": 4, "d_ff": 8, "num_heads": 2, "decoder_start_token_id": 0}
    pair = Pair(*(t.T5ForConditionalGeneration(t.T5Config(**sizes, num_layers=layers)) for layers in (1, 2)))
    words = torch.randint(1, 23, (6, 5))
    data = [{"input_ids": row, "labels": row} for row in words]
    arguments = t.Seq2SeqTrainingArguments(
        str(tmp_path), max_steps=2, predict_with_generate=True, report_to="none", use_cpu=True, disable_tqdm=True
    )
    with pytest.raises(SeekingError, match=r"predict_with_generate .*MotivatedTrainer, Seq2SeqTrainer"):
        MotivatedTrainer(pair, arguments, train_dataset=data)
    generated: list[Any] = []
    run = MotivatedSeq2SeqTrainer(
        pair,
        arguments,
        condition="always",
        train_dataset=data,
        eval_dataset=data,
        compute_metrics=lambda given: {"sum": generated.append(given.predictions) or 0.0},
    )
    run.train()
    run.evaluate()
    with pair.motivated() as motivated:
        for model, tokens in zip((pair.base, motivated), generated, strict=True):
            own = model.eval().generate(words, max_new_tokens=19)
            assert torch.equal(torch.from_numpy(tokens)[:, : own.shape[1]], own)


@pytest.mark.parametrize("kind", ["FSDP", "DEEPSPEED", "MEGATRON_LM", "XLA"])
def test_a_configuration_of_accelerate_that_shards_the_base_alone_is_refused(kind: str) -> None:
    for_both = SimpleNamespace(distributed_type=DistributedType.MULTI_CPU, parallelism_config=None)
    check_processes(for_both)
    with pytest.raises(SeekingError, match=f"{kind} cannot be used with MotivatedTrainer.* torchrun"):
        check_processes(SimpleNamespace(distributed_type=DistributedType[kind], parallelism_config=None))
    for_both.parallelism_config = object()
    with pytest.raises(SeekingError, match="parallelism_config cannot be used"):
        check_processes(for_both)


def test_habits_of_the_trainer(tmp_path: Path) -> None:
    """A schedule and the best by a metric of the motivated model's predictions, few checkpoints, several data sets."""

    def share(result: Any) -> dict[str, float]:
        return {"right": float((result.predictions[:, :-1] == result.label_ids[:, 1:]).mean())}

    pair = Pair(gpt2(1), gpt2(2))
    for model in pair.base, pair.motivated_model:
        model.gradient_checkpointing_enable()
    steps = {"eval_strategy": "steps", "eval_steps": 3, "save_strategy": "steps", "save_steps": 3}
    run = trainer(
        tmp_path,
        pair,
        **steps,
        save_total_limit=1,
        load_best_model_at_end=True,
        metric_for_best_model="few_motivated_right",
        greater_is_better=True,
        lr_scheduler_type="reduce_lr_on_plateau",
        lr_scheduler_kwargs={"patience": 0, "threshold": 10.0},
    )
    run.compute_metrics, run.preprocess_logits_for_metrics = share, lambda logits, labels: logits.argmax(-1)
    run.eval_dataset = {"few": Words(4), "more": Words(8)}
    run.train()
    evaluations = [
        row["eval_few_motivated_right"] for row in run.state.log_history if "eval_few_motivated_right" in row
    ]
    assert len(evaluations) == 4 and run.state.best_metric == max(evaluations)
    predicted = run.predict(Words(4))
    assert predicted.predictions.shape == (4, 16) and predicted.metrics["test_motivated_right"] == max(evaluations)
    rates = run.optimizer.param_groups[0]["lr"], run._learner[1].param_groups[0]["lr"]
    assert rates[0] <= rates[1] < 3e-3


def test_a_search_would_need_a_pair_for_each_trial(tmp_path: Path) -> None:
    with pytest.raises(SeekingError, match="make both in a loop of your own"):
        trainer(tmp_path).hyperparameter_search(n_trials=1)


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


def test_early_stopping_by_the_motivated_model(tmp_path: Path) -> None:
    run = trainer(
        tmp_path,
        learning_rate=0.0,
        num_train_epochs=6,
        eval_strategy="epoch",
        save_strategy="epoch",
        load_best_model_at_end=True,
        metric_for_best_model="eval_motivated_loss",
    )
    run.add_callback(t.EarlyStoppingCallback(2))
    run.train()
    assert run.state.global_step == 18  # It gets no better after the first of six epochs.


def test_two_processes_give_the_weights_of_one(client: str, tmp_path: Path) -> None:
    """With accumulation and clipping, in float32 and in bf16; and go on where they were within an epoch."""
    for processes in ("1", "2"):
        done = subprocess.run(
            [client, "--processes", processes, language.__file__, str(tmp_path / processes)],
            capture_output=True, text=True, check=False, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
    for folder, rounding in ((".", 1e-5), ("motivated", 1e-5), ("bf16", 5e-3), ("bf16/motivated", 5e-3)):
        ours, theirs = (load_file(tmp_path / by / folder / "model.safetensors") for by in ("1", "2"))
        assert ours.keys() == theirs.keys()
        for name in ours:
            torch.testing.assert_close(ours[name], theirs[name], rtol=10 * rounding, atol=rounding)


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
