"""Pairs of models that are fine-tuned by adapters of the library peft."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import seeking
from seeking.errors import MatchWarning, RunWarning

peft = pytest.importorskip("peft", reason="needs peft, which seeking does not: pip install peft")
pytest.importorskip("transformers", reason="needs transformers: pip install 'seeking[transformers]'")

from language import Words, gpt2, llama, trainer  # noqa: E402

pytestmark = pytest.mark.filterwarnings(
    "ignore:the initialization preserves:seeking.errors.MatchWarning",
    "ignore:.*is_gradient_checkpointing:FutureWarning",
    "ignore:save_model saves the adapters alone:seeking.errors.RunWarning",
)

TARGETS = {"gpt2": ["c_attn", "c_proj"], "llama": ["q_proj", "v_proj", "down_proj"]}
PAIRS = {"gpt2": lambda: (gpt2(1, 0.0), gpt2(2, 0.0)), "llama": lambda: (llama(2), llama(4))}
KINDS = pytest.mark.parametrize("kind", ["gpt2", "llama"])  # Deeper, and wider with grouped queries.
TOKENS = Words(4).tokens


def adapted(kind: str, model: nn.Module, rank: int = 2, dora: bool = False, alpha: int | None = None) -> Any:
    """With adapters that have an effect from the start."""
    config = peft.LoraConfig(
        r=rank,
        lora_alpha=alpha or rank,
        use_dora=dora,
        target_modules=TARGETS[kind],
        fan_in_fan_out=kind == "gpt2",
        task_type="CAUSAL_LM",
    )
    wrapped = peft.get_peft_model(model, config)
    for name, parameter in wrapped.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.1)
    return wrapped


def pair_of(kind: str) -> seeking.Pair:
    torch.manual_seed(0)
    return seeking.Pair(*(adapted(kind, model) for model in PAIRS[kind]()))


def frozen(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters() if not p.requires_grad}


def logits(model: nn.Module) -> Tensor:
    with torch.no_grad():
        output: Tensor = model.eval()(input_ids=TOKENS).logits
    return output


@pytest.mark.slow
@KINDS
def test_adapters_are_shared_and_all_else_stays(kind: str) -> None:
    pair = pair_of(kind)
    base, motivated = pair.base, pair.motivated_model
    batch = {"input_ids": TOKENS}
    assert seeking.verify(base, motivated, pair.map, batch)
    before = frozen(base), frozen(motivated)
    own = {name: p.detach().clone() for name, p in motivated.named_parameters() if p.requires_grad}
    optimizers = {
        model: torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
        for model in (base, motivated)
    }

    def step(model: Any) -> None:
        model(input_ids=TOKENS, labels=TOKENS).loss.backward()
        optimizers[model].step()
        optimizers[model].zero_grad()

    for _ in range(3):
        step(base)
        with pair.motivated() as model:
            step(model)
    assert seeking.verify(base, motivated, pair.map, batch)
    for model, kept in zip((base, motivated), before, strict=True):
        assert all(torch.equal(p, kept[name]) for name, p in model.named_parameters() if name in kept)
    assert all(not torch.equal(motivated.get_parameter(name), value) for name, value in own.items())


@pytest.mark.slow
@KINDS
def test_adapters_of_other_ranks_are_slices(kind: str) -> None:
    """DoRA divides by norms of weights, which are 0 in a neutral part; the proof takes any number for 0 / 0."""
    batch = {"input_ids": TOKENS}
    for dora in (False, True):
        models = [adapted(kind, model, rank, dora) for model, rank in zip(PAIRS[kind](), (2, 3), strict=True)]
        assert seeking.verify(*models, seeking.match(*models, batch=batch), batch)
        if dora:
            with pytest.warns(MatchWarning, match="preserves the base's function only approximately"):
                seeking.embed(*models, batch=batch)
            assert models[1](**batch).logits.isfinite().all()


@pytest.mark.slow
def test_adapters_of_other_scales_are_not_slices() -> None:
    batch = {"input_ids": TOKENS}
    models = [adapted("gpt2", model, rank, alpha=6) for model, rank in zip(PAIRS["gpt2"](), (2, 3), strict=True)]
    verdict = seeking.verify(*models, seeking.match(*models, batch=batch), batch)
    assert not verdict and "mul by 3 in the base is mul by 2" in verdict.reason


@pytest.mark.slow
@KINDS
def test_saved_adapters_belong_to_models_that_were_saved_after_sharing(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    base, motivated = PAIRS[kind]()
    seeking.embed(base, motivated)
    for name, model in (("small", base), ("large", motivated)):
        model.save_pretrained(tmp_path / name)
    with pytest.warns(RunWarning, match="save_model saves the adapters alone"):
        both = trainer(tmp_path / "out", seeking.Pair(adapted(kind, base), adapted(kind, motivated)))
    both.train()
    both.save_model()
    assert not (tmp_path / "out" / "model.safetensors").exists()

    def loaded(name: str, adapter: str) -> Tensor:
        whole = type(base).from_pretrained(tmp_path / name)
        return logits(peft.PeftModel.from_pretrained(whole, tmp_path / "out" / adapter))

    assert torch.equal(loaded("small", "."), logits(both.pair.base))
    with both.pair.motivated() as model:
        assert torch.equal(loaded("large", "motivated/adapter"), logits(model))


@pytest.mark.slow
def test_resumed_equals_uninterrupted_and_the_best_are_loaded(tmp_path: Path) -> None:
    options: dict[str, Any] = {"save_strategy": "steps", "save_steps": 4, "eval_strategy": "steps", "eval_steps": 4}
    best = {"load_best_model_at_end": True, "metric_for_best_model": "eval_motivated_loss", "learning_rate": 0.5}
    whole, resumed = (trainer(tmp_path / name, pair_of("gpt2"), **options) for name in ("whole", "resumed"))
    whole.train()
    resumed.train(str(tmp_path / "whole" / "checkpoint-8"))
    models = (each.pair.motivated_model.parameters() for each in (whole, resumed))
    for ours, theirs in zip(*models, strict=True):
        assert torch.equal(ours, theirs)
    chosen = trainer(tmp_path / "best", pair_of("gpt2"), **{**options, **best})
    chosen.train()
    assert chosen.state.best_metric is not None
    assert chosen.evaluate()["eval_motivated_loss"] == pytest.approx(chosen.state.best_metric)
