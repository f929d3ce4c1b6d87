"""Settings that decide something only on other batches are named, and no others are."""

import copy
import functools
import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import seeking
from seeking import match, verify
from seeking.errors import MatchWarning


class Decides(nn.Module):
    """Takes another way for a batch with more rows than a setting, wherever that is held."""

    def __init__(self, width: int, held: str, limit: int) -> None:
        super().__init__()
        self.enter, self.leave = nn.Linear(5, width), nn.Linear(width, 2)
        self.held = held
        self.limit = limit if held == "attribute" else 0
        self.config = SimpleNamespace(limit=limit) if held == "object" else None
        self.nested = {"inner": SimpleNamespace(limits=(limit, 1))} if held == "nested" else None
        self.options = {"limit": limit} if held == "mapping" else {}
        self.shorten = functools.partial(_shortened, limit=limit) if held == "partial" else None
        self.limits: dict[str, Any] = {"by function": limit} if held == "function" else {}

    def forward(self, x: Tensor) -> Tensor:
        y = self.enter(x)
        if self.shorten:
            y = self.shorten(y)
        elif len(y) > self.read():
            y = y * 3
        z: Tensor = self.leave(y)
        return z

    def read(self) -> int:
        if self.config:
            return self.config.limit  # type: ignore[no-any-return]
        if self.nested:
            return self.nested["inner"].limits[0]  # type: ignore[no-any-return]
        return int(self.options.get("limit") or self.limits.get("by function") or self.limit)


def _shortened(x: Tensor, limit: int) -> Tensor:
    return x * 3 if len(x) > limit else x


HELD = {
    "attribute": "limit",
    "object": "config.limit",
    "nested": "nested.inner.limits",
    "mapping": "options.limit",
    "partial": "shorten.limit",
    "function": "limits.by function",
}


@settings(deadline=None, max_examples=40)
@given(held=st.sampled_from(sorted(HELD)), rows=st.integers(1, 12), limits=st.tuples(*[st.integers(4, 9)] * 2))
def test_a_limit_is_reached_by_the_batch_or_named(held: str, rows: int, limits: tuple[int, int]) -> None:
    base, motivated = Decides(3, held, limits[0]), Decides(6, held, limits[1])
    batch = torch.randn(rows, 5)
    verdict = verify(base, motivated, match(base, motivated, batch=batch), batch)
    alike = (rows > limits[0]) == (rows > limits[1])
    assert verdict.exact == alike, verdict.reason
    names = [text.partition(" (")[0] for text in verdict.settings_not_judged]
    # With the base's limit the motivated model computes the same, since both take one way.
    assert names == ([HELD[held]] if alike and limits[0] != limits[1] else [])
    if names and held == "attribute":
        assert f"limit ({limits[0]} in the base, {limits[1]} in the motivated model)" in verdict.reason
    assert motivated.read() == limits[1] or held == "partial"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["GPT2", "Llama", "ViT"])
def test_sizes_are_no_such_settings(name: str) -> None:
    transformers = pytest.importorskip("transformers")

    def made(n: int) -> nn.Module:
        layers = {"num_hidden_layers": n, "hidden_size": 16 * n, "intermediate_size": 24 * n}
        config, kind, own = {
            "GPT2": (
                transformers.GPT2Config,
                transformers.GPT2LMHeadModel,
                {"n_embd": 8 * n, "n_head": n, "n_layer": n},
            ),
            "Llama": (
                transformers.LlamaConfig,
                transformers.LlamaForCausalLM,
                {**layers, "num_attention_heads": 2 * n, "num_key_value_heads": 2, "head_dim": 8},
            ),
            "ViT": (
                transformers.ViTConfig,
                transformers.ViTForImageClassification,
                {**layers, "num_attention_heads": 2 * n, "image_size": 16, "patch_size": 8},
            ),
        }[name]
        words = {} if name == "ViT" else {"vocab_size": 32, "bos_token_id": 0, "eos_token_id": 1}
        model: nn.Module = kind(config(**own, **words))
        return model

    base, motivated = made(1), made(2)
    batch = torch.randn(2, 3, 16, 16) if name == "ViT" else torch.randint(32, (2, 8))
    verdict = verify(base, motivated, match(base, motivated, batch=batch), batch)
    assert verdict, verdict.reason
    assert not verdict.settings_not_judged


class Dropping(nn.Module):
    """Drops by a function, in training alone."""

    def __init__(self, width: int, p: float) -> None:
        super().__init__()
        self.enter, self.leave, self.p = nn.Linear(5, width), nn.Linear(width, 2), p

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.leave(F.dropout(self.enter(x), self.p, self.training))
        return y


def test_rates_of_functions_are_named_and_those_of_layers_are_warned_of_by_match() -> None:
    base, motivated = Dropping(3, 0.1), Dropping(6, 0.5)
    verdict = verify(base, motivated, match(base, motivated, batch=torch.randn(4, 5)), torch.randn(4, 5))
    assert verdict.settings_not_judged == ("p (0.1 in the base, 0.5 in the motivated model)",)
    layers = [
        nn.Sequential(nn.Linear(5, width), nn.Dropout(p), nn.Linear(width, 2)) for width, p in ((3, 0.1), (6, 0.5))
    ]
    with pytest.warns(MatchWarning, match="dropout"):
        weights_map = match(*layers, batch=torch.randn(4, 5))
    assert not verify(*layers, weights_map, torch.randn(4, 5)).settings_not_judged


def test_what_training_mode_reaches_is_not_named() -> None:
    class Noted(nn.Module):
        def __init__(self, width: int, factor: float) -> None:
            super().__init__()
            self.enter, self.leave, self.factor = nn.Linear(5, width), nn.Linear(width, 2), factor

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.leave(self.enter(x))
            return y * self.factor if self.training else y

    base, motivated = Noted(3, 2.0), Noted(6, 2.0)
    batch = torch.randn(4, 5)
    weights_map = match(base, motivated, batch=batch)
    assert not verify(base, motivated, weights_map, batch).settings_not_judged
    motivated.factor = 3.0
    assert not verify(base, motivated, weights_map, batch)


def test_models_and_the_profiler_stay() -> None:
    calls: list[str] = []

    def profile(frame: Any, event: str, argument: Any) -> None:
        calls.append(event)

    base, motivated = Decides(3, "object", 8), Decides(6, "object", 9)
    before = copy.deepcopy((vars(base.config), vars(motivated.config)))
    batch = torch.randn(4, 5)
    weights_map = match(base, motivated, batch=batch)
    sys.setprofile(profile)
    try:
        assert verify(base, motivated, weights_map, batch).settings_not_judged
        assert sys.getprofile() is profile
    finally:
        sys.setprofile(None)
    assert (vars(base.config), vars(motivated.config)) == before


def test_the_trainer_warns_of_them() -> None:
    base, motivated = Decides(3, "attribute", 100), Decides(6, "attribute", 200)
    samples = [(torch.randn(5), n % 2) for n in range(8)]
    loader = torch.utils.data.DataLoader(samples, batch_size=4)
    with pytest.warns(seeking.errors.RunWarning, match=r"limit \(100 in the base, 200 in the motivated model\)"):
        seeking.Trainer(base, motivated, train_loader=loader, config=seeking.TrainConfig(epochs=1), progress=False)
