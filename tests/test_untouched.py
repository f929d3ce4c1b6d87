"""What the user gives is never changed by being looked at."""

import contextlib
import functools
import random
import warnings
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from watched_models import Ends, Layer, mlp, pair_of, state, unlike

import seeking
from seeking.copies import scratch_copy
from seeking.errors import SeekingError
from seeking.training.cost import count_flops


@settings(max_examples=25)
@given(
    widths=st.tuples(st.integers(2, 4), st.integers(0, 3)),
    merges=st.booleans(),
    tied=st.booleans(),
    training=st.lists(st.booleans(), min_size=3, max_size=3),
    hooked=st.sampled_from(["", "forward", "pre", "closure"]),
    gradients=st.booleans(),
)
def test_models_come_out_as_they_went_in(
    widths: tuple[int, int], merges: bool, tied: bool, training: list[bool], hooked: str, gradients: bool
) -> None:
    x = torch.randn(4, 3)
    runs: list[int] = []
    models = []
    for width in (widths[0], sum(widths)):
        model = nn.Sequential(Layer(3, width, merges), nn.ReLU(), Layer(width, 3, merges))
        first = model[0]
        if hooked == "forward":
            first.register_forward_hook(lambda module, inputs, output: output * 2)
        elif hooked == "pre":
            first.register_forward_pre_hook(lambda module, inputs: module.runs.add_(1) and None)
        elif hooked == "closure":
            first.register_forward_hook(lambda module, inputs, output, own=model: runs.append(int(own[2].merges)))
        if tied:
            model[2].mask = first.mask
            first.bias.data = first.bias.data.clone()
        if gradients:
            model(x).sum().backward()
        for module, mode in zip(model, training, strict=True):
            module.train(mode)
        models.append(model)
    base, motivated = models
    untouched = [state(model) for model in models]
    runs_before = list(runs)
    random_state = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        weights_map = seeking.match(base, motivated, batch=x)
        with contextlib.suppress(SeekingError):
            seeking.verify(base, motivated, weights_map, x)
        for model in models:
            count_flops(model, lambda module, batch: module(batch).sum(), x)
        assert not unlike(untouched[0], state(base)) and not unlike(untouched[1], state(motivated))
        seeking.embed(base, scratch_copy(motivated), weights_map, batch=x)
        seeking.extract(motivated, scratch_copy(base), weights_map)

    assert not unlike(untouched[0], state(base)) and not unlike(untouched[1], state(motivated))
    assert runs == runs_before
    assert torch.equal(random_state[0], torch.get_rng_state()) and random_state[1] == random.getstate()
    assert random_state[2] == np.random.get_state()[1].tolist()


TABLES: dict[int, Tensor] = {}
LISTED: list[Tensor] = []
TABLE: Tensor | None = None


def table(width: int) -> Tensor:
    return torch.arange(width) / 4


@functools.lru_cache
def cached_table(width: int, device: torch.device) -> Tensor:
    return table(width).to(device)


class Cached(Ends):
    """Keeps a table outside of itself."""

    tables: ClassVar[dict[int, Tensor]] = {}
    last: ClassVar[Tensor | None] = None

    def __init__(self, width: int, where: str) -> None:
        super().__init__(width)
        self.where = where

    def own(self, width: int, device: torch.device) -> Tensor:
        global TABLE
        if self.where == "function":
            return cached_table(width, device)
        if self.where == "global":
            TABLE = table(width).to(device)
            return TABLE
        if self.where in ("list", "long list"):
            LISTED.append(table(width).to(device))
            return LISTED[-1]
        if self.where == "class":
            type(self).last = table(width).to(device)
            return self.last
        tables = TABLES if self.where == "mapping" else self.tables
        if width not in tables:
            tables[width] = table(width).to(device)
        return tables[width]

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        y: Tensor = self.leave(x * self.own(x.shape[-1], x.device))
        return y


@pytest.mark.parametrize("filled", [False, True])
@pytest.mark.parametrize(
    "where", ["function", "global", "list", "long list", "class", "mapping", "mapping of the class"]
)
def test_what_is_kept_outside_of_models_is_left_as_it_is(where: str, filled: bool) -> None:
    def kept() -> str:
        return repr((TABLES, LISTED, TABLE, Cached.tables, Cached.last))

    x = torch.randn(4, 3)
    base, motivated = pair_of(lambda width: Cached(width, where))
    if where == "long list":
        LISTED.extend(table(1) for _ in range(1000))
    if filled:
        base(x)
    before = kept()
    assert seeking.verify(base, motivated, seeking.match(base, motivated, batch=x), x)
    assert kept() == before
    for model in (base, motivated):  # What is kept is of the model's own precision and device.
        model(x)
    now = (*TABLES.values(), *LISTED, *Cached.tables.values(), *filter(None.__ne__, (TABLE, Cached.last)))
    assert all(tensor.dtype == torch.float32 for tensor in now)
    TABLES.clear()
    Cached.tables.clear()
    LISTED.clear()


def test_buffers_are_constants_and_keep_their_values() -> None:
    base, motivated = pair_of(mlp)
    for model in (base, motivated):
        model[0].register_buffer("table", torch.ones(model[0].out_features, model[0].out_features))
    before = motivated[0].table.clone()
    seeking.embed(base, motivated, batch=torch.randn(2, 3))
    assert torch.equal(motivated[0].table, before)


@pytest.mark.parametrize("family", ["bert", "gpt2", "llama"])
def test_fresh_transformers_keep_their_hooks(family: str) -> None:
    transformers = pytest.importorskip("transformers")
    settings: dict[str, Any] = {
        "bert": {"num_attention_heads": 2, "hidden_size": 8, "intermediate_size": 16},
        "gpt2": {"n_head": 2, "n_embd": 8},
        "llama": {"num_attention_heads": 2, "hidden_size": 8, "intermediate_size": 16},
    }[family]
    length = "n_layer" if family == "gpt2" else "num_hidden_layers"
    models = [
        transformers.AutoModel.from_config(
            transformers.AutoConfig.for_model(
                family, vocab_size=32, output_hidden_states=True, **{length: depth}, **settings
            )
        )
        for depth in (2, 3)
    ]
    before = [state(model) for model in models]
    batch = {"input_ids": torch.arange(4, 12).view(1, 8)}
    seeking.verify(*models, seeking.match(*models, batch=batch), batch)
    assert not unlike(before[0], state(models[0])) and not unlike(before[1], state(models[1]))
    assert len(models[0](**batch).hidden_states) == 3
