"""Joint steps in one pass are those in two, and cost less."""

import dataclasses
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from runs import CONFIG, PLAIN, batches, steps, two_models, whole_and_resumed
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode

import seeking
from seeking import SeekingError, TrainConfig, Trainer, match
from seeking.cli import main
from seeking.errors import RunWarning
from seeking.prefix import find_prefix
from seeking.training.cost import attention_counted

JOINT: dict[str, Any] = {"update": "joint", "condition": "always", "one_pass": True}
VIT: dict[str, Any] = {"img_size": 8, "patch_size": 4, "embed_dim": 24, "num_heads": 3, "num_classes": 4}


def vits(base: int = 1, motivated: int = 3) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    small, large = (timm.create_model("vit_tiny_patch16_224", depth=depth, **VIT) for depth in (base, motivated))
    return small, large


def language_models(family: str) -> tuple[nn.Module, nn.Module]:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    no_dropout = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    sizes: dict[str, Any] = {
        "gpt2": {"n_head": 2, "n_embd": 16, "n_positions": 16, **no_dropout},
        "llama": {"num_attention_heads": 2, "hidden_size": 16, "intermediate_size": 24, "tie_word_embeddings": True},
    }
    length = "n_layer" if family == "gpt2" else "num_hidden_layers"
    small, large = (
        transformers.AutoModelForCausalLM.from_config(
            transformers.AutoConfig.for_model(
                family, vocab_size=40, bos_token_id=0, eos_token_id=0, **sizes[family], **{length: layers}
            )
        )
        for layers in (2, 4)
    )
    return small, large


def words() -> DataLoader[Any]:
    tokens = torch.randint(40, (32, 9), generator=torch.Generator().manual_seed(1))
    return DataLoader([{"input_ids": row, "labels": row} for row in tokens], batch_size=8)


def language_loss(model: nn.Module, batch: Any) -> Tensor:
    loss: Tensor = model(**batch).loss
    return loss


class Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.outer(self.inner(x).tanh())


class Chain(nn.Module):
    def __init__(self, depth: int, width: int = 4) -> None:
        super().__init__()
        self.stem = nn.Linear(3, width)
        self.blocks = nn.ModuleList(Residual(width) for _ in range(depth))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


@settings(max_examples=10)
@given(depth=st.integers(1, 3), more=st.integers(1, 3), how=st.sampled_from(["leading", "spread"]), zero=st.booleans())
def test_a_prefix_is_found_where_all_extra_blocks_come_last(depth: int, more: int, how: Any, zero: bool) -> None:
    """Whatever the weights are: where the extra blocks add nothing at first, all outputs are the same."""
    torch.manual_seed(0)
    base, motivated, x = Chain(depth), Chain(depth + more), torch.randn(5, 3)
    weights_map = match(base, motivated, batch=x, depth=how)
    if zero:
        seeking.embed(base, motivated, weights_map, batch=x)
    prefix = find_prefix(base, motivated, weights_map, x)
    places = sorted(
        {int(entry.target.split(".")[1]) for entry in weights_map.entries.values() if "blocks" in entry.target}
    )
    assert (prefix is not None) == (places == [*range(depth)])
    if prefix:
        blocks = [f"blocks.{number}" for number in range(depth)]
        assert sorted(prefix.modules) == [*blocks, "stem"]


class Dropped(Chain):
    """With layer drop: in training, blocks are left out at random."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            if not self.training or torch.rand(()) < 0.5:
                x = block(x)
        return self.head(self.norm(x))


def test_layers_that_the_larger_model_leaves_out_are_run_by_the_base() -> None:
    torch.manual_seed(0)
    base, motivated, x = Chain(2), Chain(4), torch.randn(5, 3)
    pair = seeking.Pair(base, motivated)
    prefix = find_prefix(base, motivated, pair.map, x)
    assert prefix
    with prefix.recorded(motivated) as outputs:
        motivated(x)
    del outputs["blocks.1"]
    losses = [base(x).square().sum()]
    with prefix.replayed(base, outputs):
        losses.append(base(x).square().sum())
    assert torch.equal(*losses)
    alone, replayed = (torch.autograd.grad(loss, base.get_parameter("blocks.1.outer.weight")) for loss in losses)
    assert torch.equal(*alone, *replayed)


def test_models_with_layer_drop_train_in_one_pass() -> None:
    torch.manual_seed(0)
    data = [(torch.randn(4, 3), torch.randint(4, (4,))) for _ in range(12)]
    trainer = Trainer(Dropped(2), Dropped(4), train_loader=data, config=dataclasses.replace(PLAIN, epochs=1, **JOINT))
    trainer.fit()
    assert trainer.run.prefix and all(p.isfinite().all() for p in trainer.run.motivated.parameters)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_prefix_is_found_in_any_precision(family: str, dtype: torch.dtype) -> None:
    base, motivated = (model.to(dtype) for model in language_models(family))
    batch = {key: value[:4] for key, value in next(iter(words())).items()}
    before = {name: parameter.clone() for name, parameter in motivated.named_parameters()}
    assert find_prefix(base, motivated, match(base, motivated, batch=batch), batch, language_loss)
    assert all(torch.equal(before[name], parameter) for name, parameter in motivated.named_parameters())


def test_models_that_insist_on_half_precision_are_no_error_where_a_prefix_is_looked_for() -> None:
    base, motivated, x = Chain(1).bfloat16(), Chain(2).bfloat16(), torch.randn(5, 3)

    def insisting(model: nn.Module, x: Tensor) -> Tensor:
        output: Tensor = model(x.bfloat16())
        return output

    find_prefix(base, motivated, match(base, motivated, batch=x, forward=insisting), x, insisting)


def test_no_prefix_where_statistics_are_collected_or_widths_differ() -> None:
    images = torch.randn(4, 3, 8, 8)
    for base, motivated in (
        two_models(),
        (vits()[0], timm.create_model("vit_tiny_patch16_224", **{**VIT, "embed_dim": 32, "num_heads": 4})),
    ):
        assert find_prefix(base, motivated, match(base, motivated, batch=images), images) is None


def test_no_prefix_where_a_buffer_has_another_value() -> None:
    x = torch.randn(5, 3)
    for same in (True, False):
        base, motivated = Chain(1), Chain(2)
        for model, scale in ((base, 1.0), (motivated, 1.0 if same else 0.5)):
            for block in model.blocks:
                block.register_buffer("scale", torch.tensor(scale))
                block.register_forward_hook(lambda module, inputs, output: output * module.scale)
        weights_map = match(base, motivated, batch=x)
        assert (find_prefix(base, motivated, weights_map, x) is not None) == same


MODELS: dict[str, Callable[[], tuple[dict[str, Any], tuple[nn.Module, nn.Module]]]] = {
    "vit": lambda: ({**batches(), "config": PLAIN}, vits()),
    "taught vit": lambda: ({**batches(), "config": dataclasses.replace(PLAIN, teach=0.7, accumulate=2)}, vits()),
    "gpt2": lambda: ({"train_loader": words(), "loss_fn": language_loss, "config": PLAIN}, language_models("gpt2")),
    "llama": lambda: ({"train_loader": words(), "loss_fn": language_loss, "config": PLAIN}, language_models("llama")),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", MODELS)
def test_one_pass_is_two_and_its_flops_are_counted_as_they_are(kind: str) -> None:
    losses = {}
    for one_pass in (False, True):
        arguments, models = MODELS[kind]()
        config = dataclasses.replace(arguments.pop("config"), **{**JOINT, "one_pass": one_pass}, momentum=0.5, lr=0.1)
        trainer = Trainer(*models, **arguments, config=config)
        first = next(iter(arguments["train_loader"]))
        counter = FlopCounterMode(display=False)
        before = trainer.run.cost.total
        rows = steps(trainer.fit())
        with attention_counted(models[0]), counter:
            trainer.algorithm([first] * config.accumulate, trainer.run)
        spent = trainer.run.cost.total - before
        losses[one_pass] = [(row["loss"], row["motivated_loss"], row["motivated_grad_norm"]) for row in rows]
        count = trainer.run.cost.run_samples + 8 * config.accumulate
        assert all(("grad_norm" in row) != one_pass for row in rows)
        assert spent / count == pytest.approx(counter.get_total_flops() / (8 * config.accumulate))
        assert trainer.run.cost.one_pass_samples == one_pass * count
        for learner in trainer.learners.values():
            assert not any("forward" in vars(module) for module in [*learner.module.modules()][1:])
    for once, twice in zip(losses[True], losses[False], strict=True):
        assert once == pytest.approx(twice, rel=1e-3)


@pytest.mark.slow
def test_a_run_in_one_pass_resumes_bit_for_bit_and_meets_its_budget(tmp_path: Path) -> None:
    config = dataclasses.replace(
        CONFIG,
        epochs=8,
        **{**JOINT, "condition": "affordable:0.25,0.77"},
        base_condition="~affordable:0.25,0.77 | every:4 | after:0.77",
        budget=0.8,
        teach=0.3,
        optimizer_state="shared",
    )

    def make(**more: Any) -> Trainer:
        return Trainer(*vits(1, 2), **batches(), config=config, **more)

    whole, resumed = whole_and_resumed(make, tmp_path / "run", [7, 38])
    cost = whole.run.cost
    assert cost.report() == resumed.run.cost.report()
    assert cost.one_pass_samples > 0
    assert cost.report()["of_motivated_alone"] == pytest.approx(0.8, rel=0.02)


def test_where_there_is_no_prefix_two_passes_are_taken_and_a_warning_says_so() -> None:
    with pytest.warns(RunWarning, match="one_pass: the base is not the first layers of the motivated model"):
        trainer = Trainer(*two_models(), **batches(), config=dataclasses.replace(CONFIG, **JOINT))
    assert trainer.run.prefix is None
    config = dataclasses.replace(CONFIG, **JOINT, checkpoint_activations=True)
    with pytest.warns(RunWarning, match="one_pass: activations are recomputed"):
        Trainer(*vits(), **batches(), config=config)


@pytest.mark.parametrize(
    "options",
    [
        {"condition": "decrease:1"},
        {"condition": "decrease:1", "teach": 0.5, "base_condition": "every:2 | before:0.3"},
        {"condition": "decrease:1", "finish": "private", "finish_at": 0.5},
    ],
    ids=str,
)
def test_the_same_batches_are_motivated_where_two_passes_are_taken(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    x = torch.randn(64, 3, generator=torch.Generator().manual_seed(1))
    data = DataLoader(torch.utils.data.TensorDataset(x, x.argmax(1)), 8)
    runs = []
    for prefix in (True, False):
        if not prefix:
            monkeypatch.setattr("seeking.training.one_pass.find_prefix", lambda *_: None)
        torch.manual_seed(0)
        with warnings.catch_warnings(action="ignore", category=RunWarning):
            trainer = Trainer(
                Chain(1), Chain(2), train_loader=data, config=dataclasses.replace(PLAIN, **JOINT | options)
            )
            runs.append((trainer, steps(trainer.fit())))
    assert (runs[0][0].run.prefix is None, runs[1][0].run.prefix is None) == (False, True)
    for once, twice in zip(runs[0][1], runs[1][1], strict=True):
        assert once.keys() - {"grad_norm"} == twice.keys() - {"grad_norm"}
        assert once.get("loss", 0.0) == pytest.approx(twice.get("loss", 0.0), rel=1e-4)
    assert {"motivated_loss" in row for row in runs[0][1]} == {True, False}


@pytest.mark.parametrize("option", ["condition", "base_condition"])
def test_conditions_on_a_norm_that_is_not_known_are_refused(option: str) -> None:
    config = dataclasses.replace(PLAIN, **JOINT | {option: "every:2 | grad_norm"})
    with pytest.raises(SeekingError, match=f"^{option} is .*, which needs the norm of the base's gradient"):
        Trainer(*vits(), **batches(), config=config)


def test_an_error_leaves_no_gradient_and_no_change_of_the_modules() -> None:
    def loss_fn(model: nn.Module, batch: Any) -> Tensor:
        if failing and len(model.blocks) == 1:
            raise RuntimeError("out of luck")
        return nn.functional.cross_entropy(model(batch[0]), batch[1])

    failing = False
    trainer = Trainer(*vits(), **batches(), config=dataclasses.replace(PLAIN, **JOINT), loss_fn=loss_fn)
    failing = True
    with pytest.raises(RuntimeError, match="out of luck"):
        trainer.algorithm([next(iter(batches()["train_loader"]))], trainer.run)
    for learner in trainer.learners.values():
        assert not learner.gradients()
        assert not any("forward" in vars(module) for module in [*learner.module.modules()][1:])


def test_seeking_map_tells_of_a_prefix(capsys: pytest.CaptureFixture[str]) -> None:
    kwargs = ["--model-kwargs", "img_size=8", "patch_size=4", "embed_dim=24", "num_heads=3"]
    for base, told in (("depth=1", True), ("depth=3", False)):
        command = [
            "map",
            *["vit_tiny_patch16_224"] * 2,
            *kwargs,
            "--base-kwargs",
            base,
            "--motivated-kwargs",
            "depth=3",
        ]
        assert main(command) == 0
        assert ("prefix pair: one pass can serve both" in capsys.readouterr().out) == told


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"one_pass": True}, "one_pass serves joint updates alone"),
        ({**JOINT, "teach": 0.5, "student": "motivated"}, "one_pass cannot be combined with student motivated"),
    ],
)
def test_options_that_do_not_go_together(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SeekingError, match=message):
        TrainConfig(**options)


@pytest.mark.parametrize("finish", ["tied", "private"])
@pytest.mark.parametrize("base", ["every:4 | after:0.77", "random:0.5", "~affordable:0,0.77"])
def test_a_budget_is_met_where_one_pass_serves_both_on_some_batches(base: str, finish: Any) -> None:
    """A step of the motivated model costs less on a batch on which the base steps as well."""
    torch.manual_seed(0)
    data = [(torch.randn(4, 3), torch.randint(4, (4,))) for _ in range(100)]
    options = {**JOINT, "condition": "every:3", "base_condition": base, "finish": finish, "budget": 0.88}
    config = dataclasses.replace(PLAIN, epochs=1, lr=0.01, **options)
    trainer = Trainer(Chain(2), Chain(3), train_loader=data, config=config)
    trainer.fit()
    assert trainer.run.prefix
    assert trainer.run.cost.report()["of_motivated_alone"] == pytest.approx(0.88, abs=0.015)
