"""Models for images, text and tables by name, and the arguments that they take."""

import contextlib
import re
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import seeking.models
from seeking import NotContainedError, SeekingError
from seeking.cli import main
from seeking.experiments import RunConfig
from seeking.experiments.run import check_names
from seeking.models import check_arguments, create, task_of
from seeking.models.family import Family, image_arguments
from seeking.training import count_flops

pytest.importorskip("transformers", reason="needs transformers: pip install 'seeking[transformers]'")


@pytest.mark.slow
@given(st.data())
@settings(max_examples=25)
def test_a_model_for_other_data_names_the_task(data: st.DataObject) -> None:
    names = {"images": ["resnet8", "vit_tiny_patch16_224"], "text": ["gpt2-1x32", "llama-2x64"], "tabular": ["mlp-16"]}
    kinds = sorted(names)
    kind, base, motivated = (data.draw(st.sampled_from(kinds)) for _ in range(3))
    models = [data.draw(st.sampled_from(names[each])) for each in (base, motivated)]
    config = RunConfig(task=kind, base=models[0], motivated=models[1])
    wrong = [(name, each) for name, each in zip(models, (base, motivated), strict=True) if each != kind]
    if not wrong:
        with contextlib.suppress(NotContainedError):  # Of one task, but perhaps of two families.
            check_names(config)
        return
    with pytest.raises(
        SeekingError, match=f"{wrong[0][0]} is a model of task {wrong[0][1]}.* the task is {kind}; give task"
    ):
        check_names(config)


@pytest.mark.parametrize("name", ["gpt2-2x64", "llama-2x64"])
def test_attention_costs_the_same_by_whatever_kernel(name: str) -> None:
    tokens = torch.randint(256, (2, 16))
    counts = {
        kernel: count_flops(
            create(name, num_classes=256, sequence_length=16, attn_implementation=kernel),
            lambda model, inputs: model(inputs).logits.sum(),
            tokens,
        )
        for kernel in ("eager", "sdpa")
    }
    assert counts["eager"] == counts["sdpa"]


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("gpt2-1x33", {"sequence_length": 8}, "the width is 33; it must be a multiple of 32"),
        ("llama-1x32", {"sequence_length": 8}, "the width is 32; it must be a multiple of 64"),
        ("gpt2-1x32", {"in_chans": 3}, "model gpt2-1x32 rejects the arguments num_classes=256, in_chans=3"),
        ("mlp-3", {"sequence_length": 8}, "model mlp-3 rejects the arguments"),
        ("mlp-3", {"in_features": 2, "pretrained": True}, "there are no pretrained weights of mlp-3"),
    ],
)
def test_models_that_there_are_not(name: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(SeekingError, match=message):
        create(name, num_classes=256, **arguments)


MADE = {
    "resnet8": ({"num_classes": 10, "in_chans": 1}, ["width", "depth"]),
    "vit_tiny_patch16_224": ({"num_classes": 10, "in_chans": 1}, ["num_heads", "depth", "patchsize"]),
    "gpt2-1x32": ({"num_classes": 256, "sequence_length": 8}, ["n_inner", "n_head", "in_chans"]),
    "mlp-3": ({"num_classes": 3, "in_features": 7}, ["depth", "num_classes", "width"]),
}


@pytest.mark.slow
@given(st.data())
@settings(max_examples=25)
@pytest.mark.filterwarnings("ignore:Initializing zero-element")
def test_arguments_are_refused_without_data_if_and_only_if_they_are_with_data(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(MADE)))
    known, keys = MADE[name]
    values = st.integers(-1, 2) | st.sampled_from(["a", None, 2.5])
    given = data.draw(st.dictionaries(st.sampled_from(keys), values, max_size=2))
    config = RunConfig(task=task_of(name), base=name, motivated=name, base_kwargs=given, sequence_length=8)
    try:
        create(name, **{**known, **given})
    except SeekingError:
        with pytest.raises(SeekingError):
            check_names(config)
    else:
        check_names(config)


def test_a_model_that_needs_memory_to_be_made_is_not_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def net(name: str, *, num_classes: int, scale: float = 1.0) -> nn.Module:
        return nn.Linear(2, num_classes * int((torch.ones(1) * scale).item()))

    family = Family(re.compile("net"), ("net",), "images", net, image_arguments)
    monkeypatch.setattr(seeking.models, "families", lambda: (family,))
    check_arguments("net", {"scale": 2.0}, {"num_classes": 2})
    with pytest.raises(SeekingError, match="model net rejects the arguments scale='a': "):
        check_arguments("net", {"scale": "a"}, {"num_classes": 2})


@pytest.mark.parametrize(
    "arguments", [["gpt2-1x32", "gpt2-3x32"], ["llama-1x64", "llama-1x128"], ["mlp-4", "mlp-8", "--in-chans", "5"]]
)
def test_maps_of_models_for_text_and_tables_are_proven(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", *arguments]) == 0
    assert main(["map", *arguments]) == 0
    told = capsys.readouterr().out
    assert "exact" in told
    assert ("prefix pair" in told) == arguments[0].startswith("gpt2")


@pytest.mark.parametrize("name", ["gpt2-1x32", "llama-1x64"])
def test_a_misspelled_option_of_a_language_model_is_told(name: str) -> None:
    with pytest.raises(SeekingError, match=r"unknown option of .*'initialiser_range'; did you mean initializer_range"):
        create(name, num_classes=8, sequence_length=4, initialiser_range=0.1)
    assert create(name, num_classes=8, sequence_length=4, initializer_range=0.1).config.initializer_range == 0.1
    options = {"attn_implementation": "eager", **({"rope_theta": 500.0} if "llama" in name else {"n_inner": 48})}
    create(name, num_classes=8, sequence_length=4, **options)
