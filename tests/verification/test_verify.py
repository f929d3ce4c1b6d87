import dataclasses

import pytest
import torch
from families import SMALL_FAMILIES, Family
from torch import Tensor, nn

from seeking import Index, SeekingError, WeightsMap, match, verify
from seeking.models import create
from seeking.weights_map import Entry, tensors


def broken(weights_map: WeightsMap, changes: dict[str, Entry]) -> WeightsMap:
    return WeightsMap({**weights_map.entries, **changes}, weights_map.motivated, weights_map.buffers)


def with_index(entry: Entry, dim: int, positions: list[int] | range) -> Entry:
    index = list(entry.index)
    index[dim] = Index.of(positions)
    return dataclasses.replace(entry, index=tuple(index))


RESNET, WIDE, VIT = SMALL_FAMILIES


# The ViT of SMALL_FAMILIES: 3 of 6 heads of size 4 in a width of 12 of 24; q is in rows 0:24, k in 24:48, v in 48:72.
Q, K, V = (list(range(start, start + 12)) for start in (0, 24, 48))


def swap_targets(weights_map: WeightsMap, first: str, second: str) -> WeightsMap:
    """Exchange the targets of two modules."""
    changes = {}
    for name, entry in weights_map.entries.items():
        for old, new in ((first, second), (second, first)):
            if name.startswith(old + "."):
                changes[name] = dataclasses.replace(entry, target=entry.target.replace(old, new, 1))
    return broken(weights_map, changes)


BREAKS = {
    "rows of q, k and v by position": (
        VIT,
        lambda m: broken(m, {n: with_index(m.entries[n], 0, range(36)) for n in m.entries if ".qkv." in n}),
        "blocks.0.attn.proj",
    ),
    "q and k exchanged in one block's weight": (
        VIT,
        lambda m: broken(
            m, {"blocks.1.attn.qkv.weight": with_index(m.entries["blocks.1.attn.qkv.weight"], 0, K + Q + V)}
        ),
        "blocks.1.attn.qkv",
    ),
    "heads of the projection in another order": (
        VIT,
        lambda m: broken(
            m,
            {
                "blocks.0.attn.proj.weight": with_index(
                    m.entries["blocks.0.attn.proj.weight"], 1, [*range(4, 8), *range(4), *range(8, 12)]
                )
            },
        ),
        "blocks.0.attn.proj",
    ),
    "heads of q and k in another order than those of v": (
        VIT,
        lambda m: broken(
            m,
            {
                n: with_index(m.entries[n], 0, [*Q[4:8], *Q[:4], *Q[8:], *K[4:8], *K[:4], *K[8:], *V])
                for n in ("blocks.0.attn.qkv.weight", "blocks.0.attn.qkv.bias")
            },
        ),
        "blocks.0.attn.proj",
    ),
    "blocks exchanged": (VIT, lambda m: swap_targets(m, "blocks.0", "blocks.1"), "blocks.0.norm1"),
    "one convolution in the next block": (
        RESNET,
        lambda m: broken(
            m,
            {
                "layer1.0.conv1.weight": dataclasses.replace(
                    m.entries["layer1.0.conv1.weight"], target="layer1.1.conv1.weight"
                )
            },
        ),
        "layer1.0.conv1",
    ),
    "norms of one block exchanged": (RESNET, lambda m: swap_targets(m, "layer2.0.bn1", "layer2.0.bn2"), "layer2.0.bn1"),
    "an index off by one": (
        WIDE,
        lambda m: broken(m, {"bn1.weight": with_index(m.entries["bn1.weight"], 0, range(1, 9))}),
        "bn1",
    ),
    "a running mean off by one": (
        WIDE,
        lambda m: broken(
            m, {"layer3.0.bn1.running_mean": with_index(m.entries["layer3.0.bn1.running_mean"], 0, range(1, 33))}
        ),
        "layer3.0.bn1",
    ),
    "input channels in another order than the outputs before them": (
        WIDE,
        lambda m: broken(
            m,
            {"layer1.0.conv2.weight": with_index(m.entries["layer1.0.conv2.weight"], 1, [1, 0, *range(2, 8)])},
        ),
        "layer1.0.conv2",
    ),
    "a layer norm's channels off by one": (
        VIT,
        lambda m: broken(
            m,
            {n: with_index(m.entries[n], 0, range(1, 13)) for n in ("blocks.1.norm2.weight", "blocks.1.norm2.bias")},
        ),
        "blocks.1.norm2",
    ),
    "two classes exchanged": (
        WIDE,
        lambda m: broken(m, {"fc.bias": with_index(m.entries["fc.bias"], 0, [1, 0, *range(2, 10)])}),
        "fc",
    ),
    "the position embedding off by one": (
        VIT,
        lambda m: broken(m, {"pos_embed": with_index(m.entries["pos_embed"], 2, range(1, 13))}),
        "blocks.0.norm1",
    ),
}


@pytest.mark.parametrize("name", BREAKS)
def test_a_broken_map_is_caught_and_the_layer_named(name: str) -> None:
    family, change, layer = BREAKS[name]
    base, motivated = family.make()
    images = torch.randn(2, 3, family.size, family.size)
    good = match(base, motivated)
    assert verify(base, motivated, good, images)
    verdict = verify(base, motivated, change(good), images)
    assert not verdict
    assert verdict.difference > 1e-3
    assert verdict.layer == layer, verdict.reason


EFFICIENTNET = Family("efficientnet_b0", "efficientnet_b2", 32)


@pytest.mark.slow
@pytest.mark.parametrize(("family", "every"), [(WIDE, 5), (VIT, 3), (EFFICIENTNET, 199)], ids=str)
def test_any_tensor_off_by_one_is_caught(family: Family, every: int) -> None:
    """However deep: what happens at one layer must not be lost on the way to the output.

    The steps have no divisor in common with the number of tensors of a block, so that each kind of tensor has its turn.
    """
    base, motivated = family.make()
    images = torch.randn(2, 3, family.size, family.size)
    good = match(base, motivated)
    sliced = [
        (name, dim)
        for name, entry in good.entries.items()
        for dim, (index, size) in enumerate(zip(entry.index, entry.target_shape, strict=True))
        if len(index) < size
    ]
    assert len(sliced) > 20
    for name, dim in sliced[::every]:
        entry = good.entries[name]
        size = entry.target_shape[dim]
        shifted = with_index(entry, dim, [(position + 1) % size for position in entry.index[dim]])
        assert not verify(base, motivated, broken(good, {name: shifted}), images), f"{name}, dimension {dim}"


def test_a_missing_buffer_is_named() -> None:
    base, motivated = RESNET.make()
    weights_map = match(base, motivated)
    entries = {n: e for n, e in weights_map.entries.items() if n != "layer1.0.bn1.running_var"}
    verdict = verify(base, motivated, WeightsMap(entries, weights_map.motivated), torch.randn(1, 3, 16, 16))
    assert not verdict
    assert "layer1.0.bn1.running_var" in verdict.reason
    assert verdict.layer == "layer1.0.bn1"


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("family", SMALL_FAMILIES, ids=str)
def test_verify_leaves_both_models_as_they_were(family: Family, training: bool) -> None:
    base, motivated = family.make()
    models = (base.train(training), motivated.train(training))
    motivated.get_submodule("conv1" if "resnet" in family.base else "norm").eval()
    before = [{n: t.clone() for n, t in tensors(m).items()} for m in models]
    addresses = [[t.data_ptr() for t in tensors(m).values()] for m in models]
    modes = [[child.training for child in m.modules()] for m in models]
    random_state = torch.get_rng_state()
    weights_map = match(base, motivated)
    images = torch.randn(2, 3, family.size, family.size, generator=torch.Generator().manual_seed(0))
    assert verify(base, motivated, weights_map, images)
    with pytest.raises(SeekingError, match="refuses the input"):
        verify(base, motivated, weights_map, torch.zeros(3))
    assert [[t.data_ptr() for t in tensors(m).values()] for m in models] == addresses
    assert [[child.training for child in m.modules()] for m in models] == modes
    assert all(torch.equal(t, was[n]) for m, was in zip(models, before, strict=True) for n, t in tensors(m).items())
    assert not any(child._forward_hooks for m in models for child in m.modules())
    assert torch.equal(torch.get_rng_state(), random_state)


def test_a_refusal_without_a_message_names_the_error() -> None:
    class Sevens(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.enter = nn.Conv2d(3, width, 1)

        def forward(self, x: Tensor) -> Tensor:
            if x.shape[-1] % 7:
                raise AssertionError
            y: Tensor = self.enter(x).mean(1)
            return y

    base, motivated = Sevens(4), Sevens(8)
    weights_map = match(base, motivated, batch=torch.randn(2, 3, 7, 7))
    with pytest.raises(SeekingError, match=r"the base model refuses the input: AssertionError$"):
        verify(base, motivated, weights_map, torch.randn(2, 3, 8, 8))


def test_fresh_symmetric_weights_hide_nothing() -> None:
    """A shifted block of norms that are all at their initialization would go unseen without random weights."""
    base, motivated = RESNET.make()
    wrong = swap_targets(match(base, motivated), "layer1.0.bn1", "layer1.0.bn2")
    assert not verify(base, motivated, wrong, torch.randn(2, 3, 16, 16))


@pytest.mark.parametrize(("names", "size"), [("convnext", 192), ("convnext", 64), ("convnextv2", 64)])
def test_norms_over_channels_are_narrowed_wherever_they_are(names: str, size: int) -> None:
    """Also where a side of the image is as long as there are channels, and where the norm looks at the image, too."""
    base, motivated = (create(f"{names}_{size}", num_classes=4) for size in ("atto", "femto"))
    verdict = verify(base, motivated, match(base, motivated), torch.randn(1, 3, size, size))
    assert verdict, verdict.reason


@pytest.mark.parametrize("tolerance", [float("nan"), float("inf"), -1e-9])
def test_a_tolerance_with_which_nothing_is_compared_is_refused(tolerance: float) -> None:
    base, motivated = RESNET.make()
    with pytest.raises(SeekingError, match="tolerance is"):
        verify(base, motivated, match(base, motivated), torch.randn(2, 3, 8, 8), tolerance=tolerance)


def test_models_with_a_head_of_no_classes_are_verified() -> None:
    base, motivated = (create(name, num_classes=0, in_chans=1) for name in ("resnet8", "resnet14"))
    assert verify(base, motivated, match(base, motivated), torch.randn(2, 1, 8, 8))


def test_a_constant_buffer_in_another_order_is_caught() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(3, 4)
            self.register_buffer("scale", torch.ones(4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.linear(x) * self.scale

    base, motivated = Scaled(), Scaled()
    good = match(base, motivated)
    assert verify(base, motivated, good, torch.randn(2, 3))
    assert not verify(
        base, motivated, broken(good, {"scale": with_index(good.entries["scale"], 0, [3, 2, 1, 0])}), torch.randn(2, 3)
    )


def test_a_pair_verifies_too() -> None:
    from seeking import Pair

    base, motivated = create("resnet8", num_classes=10), create("resnet14", num_classes=10)
    pair = Pair(base, motivated)
    assert verify(base, motivated, pair.map, torch.randn(2, 3, 16, 16))
    assert base.conv1.weight.data_ptr() == motivated.conv1.weight.data_ptr()


def test_models_without_numbers_are_refused() -> None:
    base, motivated = (nn.Sequential(nn.Linear(8, w), nn.Linear(w, 2)) for w in (4, 6))
    weights_map = match(base, motivated)
    with pytest.raises(SeekingError, match="is on the meta device, where nothing is computed"):
        verify(base.to("meta"), motivated, weights_map, torch.randn(4, 8))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::seeking.MatchWarning")
@pytest.mark.parametrize("kind", ["attention", "branch"])
def test_operations_that_take_functions_are_run(kind: str) -> None:
    from torch.nn.attention.flex_attention import flex_attention

    class Model(nn.Module):
        def __init__(self, heads: int) -> None:
            super().__init__()
            self.q, self.k, self.v = (nn.Linear(6, 16 * heads) for _ in range(3))
            self.leave = nn.Linear(16 * heads, 2)

        def forward(self, x: Tensor) -> Tensor:
            q, k, v = (layer(x).unflatten(-1, (-1, 16)).transpose(1, 2) for layer in (self.q, self.k, self.v))
            if kind == "attention":
                mixed = flex_attention(q, k, v, score_mod=lambda score, batch, head, i, j: score - (i - j).abs())
            else:
                mixed = torch.cond(x.sum() > 0, torch.add, torch.sub, (q, v))
            out: Tensor = self.leave(mixed.transpose(1, 2).flatten(2))
            return out

    models, batch = (Model(1), Model(2)), torch.randn(2, 5, 6)
    with torch.compiler.set_stance("force_eager"), torch.no_grad():
        models[0](batch)
    verdict = verify(*models, match(*models, batch=batch), batch)
    assert verdict, verdict.reason
