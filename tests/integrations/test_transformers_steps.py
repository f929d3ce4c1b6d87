"""The steps of pairs under the Hugging Face Trainer."""

import random
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.utils.data import IterableDataset

t = pytest.importorskip("transformers", reason="needs transformers: pip install 'seeking[transformers]'")
import language  # noqa: E402
from language import Words, equal, gpt2, llama, trainer, weights  # noqa: E402

import seeking  # noqa: E402
from seeking import Pair, SeekingError  # noqa: E402
from seeking.integrations.transformers import MotivatedTrainer  # noqa: E402

pytestmark = [  # Most take a second or two, of which the Trainer's start is the most.
    pytest.mark.slow,
    pytest.mark.usefixtures("_quiet"),
]


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
