"""Models of the libraries that people use: a sample of what benchmarks/coverage.py walks in full."""

import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import timm
import torch

import seeking

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import coverage

pytestmark = pytest.mark.slow

PAIRS = [
    coverage.Candidate("timm", "resnext", "resnext50_32x4d", "resnext101_32x8d"),
    coverage.Candidate("timm", "dpn", "dpn92", "dpn98"),
    coverage.Candidate("timm", "swin", "swin_tiny_patch4_window7_224", "swin_small_patch4_window7_224"),
    coverage.Candidate("timm", "tiny_vit", "tiny_vit_11m_224", "tiny_vit_21m_224"),
    coverage.Candidate("timm", "convnext", "convnext_atto", "convnext_pico"),
    coverage.Candidate("timm", "coat", "coat_lite_mini", "coat_lite_small"),
    coverage.Candidate("torchvision", "shufflenet_v2", "shufflenet_v2_x0_5", "shufflenet_v2_x1_0"),
]

SHORT: dict[str, dict[str, Any]] = {
    "resnext50_32x4d": {"layers": (1, 1, 2, 1)},
    "resnext101_32x8d": {"layers": (1, 2, 3, 1)},
    "dpn92": {"k_sec": (1, 2, 2, 1)},
    "dpn98": {"k_sec": (1, 3, 3, 1)},
    "swin_tiny_patch4_window7_224": {"depths": (2, 2, 2, 1), "embed_dim": 48},
    "swin_small_patch4_window7_224": {"depths": (2, 2, 4, 1), "embed_dim": 48},
    "tiny_vit_11m_224": {"depths": (1, 1, 2, 1)},
    "tiny_vit_21m_224": {"depths": (1, 1, 2, 1)},
    "convnext_atto": {"depths": (1, 1, 2, 1)},
    "convnext_pico": {"depths": (1, 1, 3, 1)},
    "coat_lite_mini": {"serial_depths": (1, 1, 1, 1)},
    "coat_lite_small": {"serial_depths": (1, 2, 1, 1)},
}
"""Every kind of block once or twice; benchmarks/coverage.py has all of them."""

# Extra blocks that share a layer with the base's, channels shuffled across odd halves.
NOT_CONTAINED = {"coat_lite_mini", "shufflenet_v2_x0_5"}


@pytest.mark.slow
@pytest.mark.parametrize("pair", PAIRS, ids=str)
def test_models_of_vision_libraries(pair: coverage.Candidate, monkeypatch: pytest.MonkeyPatch) -> None:
    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, **options: create(name, **options, **SHORT[name]))
    outcome = coverage.attempt(pair)
    expected = "not contained" if pair.base in NOT_CONTAINED else "exact"
    assert outcome.status == expected, outcome.reason


TRANSFORMERS = [
    coverage.Candidate("transformers", family, base, motivated)
    for family, sizes in coverage.transformers_models().items()
    for base, motivated in zip(list(sizes), list(sizes)[1:], strict=False)
]


@pytest.mark.skipif(not TRANSFORMERS, reason="needs transformers: pip install 'seeking[transformers]'")
@pytest.mark.parametrize("pair", TRANSFORMERS or [None], ids=str)
def test_models_of_transformers(pair: coverage.Candidate) -> None:
    outcome = coverage.attempt(pair)
    # Their words are multiplied, or divided in a tied head, by the square root of the width.
    by_width = {"t5": "a constant factor", "gemma": "embed_scale", "gemma3": "embed_scale"}
    if pair.family in by_width:
        assert outcome.status == "not contained"
        assert by_width[pair.family] in outcome.reason
    else:
        assert outcome.status == "exact", outcome.reason


def test_models_on_the_meta_device_are_matched() -> None:
    """Nothing is allocated: a map of a billion parameters, in which the base's heads are the first of each layer."""
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        base = timm.create_model("vit_large_patch14_224", num_classes=10, depth=3)
        motivated = timm.create_model("vit_huge_patch14_224", num_classes=10, depth=4, num_heads=20)
        weights_map = seeking.match(base, motivated)
    entry = weights_map.entries["blocks.2.attn.qkv.weight"]
    assert [str(index) for index in entry.index] == ["0:1024, 1280:2304, 2560:3584", "0:1024"]
    with pytest.raises(seeking.NotContainedError, match="size of a head is 64 in the base and 80"):
        with torch.device("meta"):
            seeking.match(base, timm.create_model("vit_huge_patch14_224", num_classes=10, depth=4))
