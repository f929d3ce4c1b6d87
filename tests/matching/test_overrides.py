import pytest
import torch
from families import SMALL_FAMILIES
from torch import nn

from seeking import NotContainedError, Override, SeekingError, match, verify
from seeking.models.resnet import ResNet


def test_overrides_of_names_and_indices_hold() -> None:
    base, motivated = ResNet(8, width=4), ResNet(14, width=8)
    chosen = {"layer2.0": Override(target="layer2.0"), "fc.weight": Override(index=[None, "16:32"])}
    weights_map = match(base, motivated, overrides=chosen)
    assert str(weights_map.entries["fc.weight"].index[1]) == "16:32"
    assert weights_map.entries["fc.weight"].origin == "user"
    assert weights_map.entries["fc.bias"].origin == "structure"
    assert not verify(base, motivated, weights_map, torch.randn(1, 3, 16, 16))
    # The inputs of layer2.1 are not those of a first block.
    for name, target in (("layer2.0", "layer2.1"), ("layer2.0", "layer3.0.conv1")):
        with pytest.raises(NotContainedError, match="layer2"):
            match(base, motivated, overrides={name: Override(target=target)})
    with pytest.raises(SeekingError, match=r"names 2 positions, the base tensor has 16"):
        match(base, motivated, overrides={"fc.weight": Override(index=[None, [1, 2]])})
    with pytest.raises(SeekingError, match=r"leaves the dimension's size 32"):
        match(base, motivated, overrides={"fc.weight": Override(index=[None, "20:36"])})
    with pytest.raises(SeekingError, match=r"'fc.wait'; did you mean fc.weight"):
        match(base, motivated, overrides={"fc.wait": Override(target="fc.bias")})


def test_a_whole_space_is_pinned() -> None:
    base, motivated = ResNet(8, width=4), ResNet(14, width=8)
    chosen = {"layer3.0.conv1.weight": Override(index=["1:32:2", None, None, None], space=True)}
    weights_map = match(base, motivated, overrides=chosen)
    entries = weights_map.entries
    assert str(entries["layer3.0.bn1.running_var"].index[0]) == "1:32:2"
    assert str(entries["layer3.0.conv2.weight"].index[1]) == "1:32:2"
    assert entries["layer3.0.conv2.weight"].origin == "user"
    assert entries["layer3.0.bn2.weight"].origin == "structure"
    assert verify(base, motivated, weights_map, torch.randn(1, 3, 16, 16))

    small, large = SMALL_FAMILIES[2].make()
    with pytest.raises(SeekingError, match=r"qkv.weight, dimension 0: several channel spaces meet"):
        match(small, large, overrides={"blocks.0.attn.qkv.weight": Override(index=[list(range(36)), None], space=True)})
    with pytest.raises(SeekingError, match="length of the output is the same in both models; there is nothing to pin"):
        match(base, motivated, overrides={"fc.weight": Override(index=["0:10", None], space=True)})


@pytest.mark.parametrize("second", ["4:8", "0:4"])
def test_overrides_of_one_space_agree_or_are_refused(second: str) -> None:
    models = [nn.Sequential(nn.Linear(3, width), nn.ReLU(), nn.Linear(width, 2)) for width in (4, 8)]
    overrides = {
        "0.weight": Override(index=["4:8", None], space=True),
        "2.weight": Override(index=[None, second], space=True),
    }
    if second == "4:8":
        assert str(match(*models, overrides=overrides).entries["0.bias"].index[0]) == "4:8"
    else:
        message = r"2\.weight, dimension 1: its override has 0:4 .* 0\.weight, dimension 0, .* 4:8"
        with pytest.raises(SeekingError, match=message):
            match(*models, overrides=overrides)


def test_malformed_overrides_are_refused() -> None:
    base, motivated = (nn.Sequential(nn.Linear(8, w), nn.Linear(w, 2)) for w in (4, 6))
    for bad, message in (
        ({"0": Override(index=["0:4"])}, "takes a target, not an index"),
        ({"0.weight": Override(index="0:4")}, "is a list with an item for each dimension"),
        ({"0.weight": Override(index=[[1.5, 2, 3, 4], None])}, "by numbers from 0 up"),
        ({"0.weight": Override(index=[slice(1, 5), None])}, r"a list or text .*, not slice\(1, 5"),
        ({"0.weight": {"index": ["1:5", None]}}, r"0\.weight: its override is {'index'.*give seeking\.Override"),
        ([Override(target="1")], "overrides is a list, not a mapping"),
    ):
        with pytest.raises(SeekingError, match=message):
            match(base, motivated, overrides=bad)
