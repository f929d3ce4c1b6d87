"""Settings that decide something only on other batches are named, and no others are."""

import copy
import cProfile
import functools
import logging
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import seeking
from seeking import match, verify
from seeking.errors import MatchWarning


class Decides(nn.Module):
    """Computes something else for a batch with more rows than a limit."""

    def __init__(self, width: int, limit: int = 0) -> None:
        super().__init__()
        self.enter, self.leave, self.limit = nn.Linear(5, width), nn.Linear(width, 2), limit

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.leave(self.shortened(self.enter(x)))
        return y

    def shortened(self, x: Tensor) -> Tensor:
        return _shortened(x, self.limit)


def _shortened(x: Tensor, most: int) -> Tensor:
    return x * 3 if len(x) > most else x


class InNamespace(Decides):
    def __init__(self, width: int, limit: int) -> None:
        super().__init__(width)
        self.config = SimpleNamespace(inner={"sizes": (limit, 1)})

    def shortened(self, x: Tensor) -> Tensor:
        return _shortened(x, self.config.inner["sizes"][0])


class InKeywords(Decides):
    def __init__(self, width: int, limit: int) -> None:
        super().__init__(width)
        self.options = {"most": limit}

    def shortened(self, x: Tensor) -> Tensor:
        return _shortened(x, **self.options)


class InPartial(Decides):
    def __init__(self, width: int, limit: int) -> None:
        super().__init__(width)
        self.crop = functools.partial(_shortened, most=limit)

    def shortened(self, x: Tensor) -> Tensor:
        return self.crop(x)


class InClosure(Decides):
    def __init__(self, width: int, limit: int) -> None:
        super().__init__(width)
        self.crop = lambda x: _shortened(x, limit)

    def shortened(self, x: Tensor) -> Tensor:
        return self.crop(x)


class Crop:
    __slots__ = ("most",)

    def __init__(self, most: int) -> None:
        self.most = most

    def __call__(self, x: Tensor) -> Tensor:
        return _shortened(x, self.most)


class InListOfObjects(Decides):
    def __init__(self, width: int, limit: int) -> None:
        super().__init__(width)
        self.crops = [Crop(limit)]

    def shortened(self, x: Tensor) -> Tensor:
        for crop in self.crops:
            x = crop(x)
        return x


class Unchanging(dict[str, Any]):
    def __setitem__(self, key: str, value: Any) -> None:
        raise TypeError("cannot be changed")

    def __reduce__(self) -> Any:
        return Unchanging, (dict(self),)


class InUnchanging(Decides):
    def __init__(self, width: int, limit: int) -> None:
        super().__init__(width)
        self.config = Unchanging(most=limit)

    @functools.cached_property
    def most(self) -> int:
        return int(self.config["most"])

    def shortened(self, x: Tensor) -> Tensor:
        return _shortened(x, self.most)


class InCodeThatRunsOnLongBatches(Decides):
    def shortened(self, x: Tensor) -> Tensor:
        return self._rarely(x) if len(x) > 3 else x

    def _rarely(self, x: Tensor) -> Tensor:
        return torch.cat([_shortened(part, self.limit) for part in (x, x)])[: len(x)]


def _seldom(method: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def runs(self: nn.Module, x: Tensor) -> Tensor:
        return method(self, x) if len(x) > 3 else x

    return runs


class InDecorated(Decides):
    @_seldom
    def shortened(self, x: Tensor) -> Tensor:
        return _shortened(x, self.bound)

    def __init__(self, width: int, limit: int) -> None:
        super().__init__(width)
        self.bound = limit


def in_class(width: int, limit: int) -> nn.Module:
    """As a class of its own for each size."""
    return type("Sized", (Decides,), {"limit": limit, "__init__": lambda self: _without_limit(self, width)})()


def _without_limit(model: Decides, width: int) -> None:
    Decides.__init__(model, width)
    del model.limit


HELD: dict[str, Callable[[int, int], nn.Module]] = {
    "limit": Decides,
    "config.inner.sizes": InNamespace,
    "options.most": InKeywords,
    "crop.most": InPartial,
    "crop.limit": InClosure,
    "crops.0.most": InListOfObjects,
    "config.most": InUnchanging,
    "bound": InDecorated,
    "limit ": InCodeThatRunsOnLongBatches,
    " limit": in_class,
}


@settings(max_examples=60)
@example(held="bound", rows=2, limits=(5, 7))
@given(held=st.sampled_from(sorted(HELD)), rows=st.integers(1, 12), limits=st.tuples(*[st.integers(4, 9)] * 2))
def test_a_limit_is_reached_by_the_batch_or_named(held: str, rows: int, limits: tuple[int, int]) -> None:
    base, motivated = HELD[held](3, limits[0]), HELD[held](6, limits[1])
    batch = torch.randn(rows, 5)
    before = copy.deepcopy(vars(motivated).get("config"))
    verdict = verify(base, motivated, match(base, motivated, batch=batch), batch)
    alike = (rows > limits[0]) == (rows > limits[1])
    assert verdict.exact == alike, verdict.reason
    # With the base's limit the motivated model computes the same, since both take one way.
    names = [text.partition(" (")[0] for text in verdict.settings_not_judged]
    assert names == ([held.strip()] if alike and limits[0] != limits[1] else [])
    assert vars(motivated).get("config") == before
    if names == ["limit"]:
        assert f"limit ({limits[0]} in the base, {limits[1]} in the motivated model)" in verdict.reason


def test_a_module_without_weights_of_another_class_is_named() -> None:
    class Cropping(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return _shortened(x, 8)

    base, motivated = (
        nn.Sequential(nn.Linear(5, width), between, nn.Linear(width, 2))
        for width, between in ((3, Cropping()), (6, nn.Identity()))
    )
    batch = torch.randn(4, 5)
    verdict = verify(base, motivated, match(base, motivated, batch=batch), batch)
    assert verdict.settings_not_judged == ("1 (Cropping in the base, Identity in the motivated model)",)


def test_a_setting_that_is_needed_hides_no_other() -> None:
    class Shaped(Decides):
        def __init__(self, width: int, limit: int) -> None:
            super().__init__(width)
            self.shape, self.limit = f"{width} channels", limit

        def shortened(self, x: Tensor) -> Tensor:
            return super().shortened(x.view(-1, int(self.shape.partition(" ")[0])))

    base, motivated = Shaped(3, 8), Shaped(6, 9)
    vars(motivated)["limit"] = vars(motivated).pop("limit")  # It is looked at last.
    batch = torch.randn(4, 5)
    verdict = verify(base, motivated, match(base, motivated, batch=batch), batch)
    assert verdict.settings_not_judged == ("limit (8 in the base, 9 in the motivated model)",), verdict.reason


def test_a_model_that_counts_its_passes_hides_nothing() -> None:
    class Counting(Decides):
        passes = 0

        def forward(self, x: Tensor) -> Tensor:
            self.passes += 1
            return super().forward(x) + self.passes

    base, motivated = Counting(3, 8), Counting(6, 9)
    batch = torch.randn(4, 5)
    verdict = verify(base, motivated, match(base, motivated, batch=batch), batch)
    assert verdict.settings_not_judged == ("limit (8 in the base, 9 in the motivated model)",), verdict.reason


def test_what_copies_share_with_the_models_stays() -> None:
    class Logging(Decides):
        def __init__(self, width: int, limit: int) -> None:
            super().__init__(width, limit)
            self.logger = logging.getLogger(f"of {width}")
            self.logger.addFilter(lambda record: bool(names.append(self.logger.name)))

        def shortened(self, x: Tensor) -> Tensor:
            self.logger.warning("%s", self.logger.name)
            return x

    names: list[str] = []
    base, motivated = Logging(3, 8), Logging(6, 8)
    batch = torch.randn(4, 5)
    verdict = verify(base, motivated, match(base, motivated, batch=batch), batch)
    assert verdict and not verdict.settings_not_judged
    assert set(names) == {"of 3", "of 6"}


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
                {**layers, "num_attention_heads": 4 * n, "num_key_value_heads": 2, "head_dim": 8},
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


def test_a_profiler_goes_on() -> None:
    base, motivated = Decides(3, 8), Decides(6, 9)
    batch = torch.randn(4, 5)
    weights_map = match(base, motivated, batch=batch)
    profile = cProfile.Profile()
    profile.enable()
    try:
        assert verify(base, motivated, weights_map, batch).settings_not_judged
        copy.copy(batch)
    finally:
        profile.disable()
    assert any(getattr(entry.code, "co_name", "") == "copy" for entry in profile.getstats())


def test_the_trainer_warns_of_them() -> None:
    base, motivated = Decides(3, 100), Decides(6, 200)
    samples = [(torch.randn(5), n % 2) for n in range(8)]
    loader = torch.utils.data.DataLoader(samples, batch_size=4)
    with pytest.warns(seeking.errors.RunWarning, match=r"limit \(100 in the base, 200 in the motivated model\)"):
        seeking.Trainer(base, motivated, train_loader=loader, config=seeking.TrainConfig(epochs=1), progress=False)
