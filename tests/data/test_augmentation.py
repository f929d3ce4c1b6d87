"""Augmentation of images."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import random_images

from seeking import SeekingError
from seeking.data import Augmentation, Batches, DataConfig, Images, load


def crops(image: torch.Tensor, padding: int, flip: bool) -> list[torch.Tensor]:
    """Every crop that augmentation may give, made the plain way."""
    size = image.shape[-1]
    padded = torch.nn.functional.pad(image, [padding] * 4)
    cropped = []
    for top in range(2 * padding + 1):
        for left in range(2 * padding + 1):
            crop = padded[:, top : top + size, left : left + size]
            cropped += [crop, crop.flip(-1)] if flip else [crop]
    return cropped


@given(st.integers(0, 2), st.booleans(), st.integers(0, 5), st.integers(0, 3))
@settings(max_examples=25)
def test_every_augmented_image_is_a_crop_of_its_own(padding: int, flip: bool, seed: int, epoch: int) -> None:
    images = random_images(count=6, size=5)
    data = Batches(images, (0, 0, 0), (1 / 255,) * 3, augmentation=Augmentation(padding=padding, flip=flip), seed=seed)
    data.set_epoch(epoch)
    x, _ = data.__getitems__(list(range(6)))
    for pixels, augmented in zip(images.pixels, x, strict=True):
        assert any(torch.equal(augmented.round().to(torch.uint8), crop) for crop in crops(pixels, padding, flip))


def test_augmentation_depends_on_seed_epoch_and_image_alone() -> None:
    images = random_images()

    def data(seed: int, epoch: int) -> Batches:
        batches = Batches(images, (0.5,) * 3, (0.2,) * 3, augmentation=Augmentation(padding=2, flip=True), seed=seed)
        batches.set_epoch(epoch)
        return batches

    whole, _ = data(0, 1).__getitems__(list(range(20)))
    single = torch.stack([data(0, 1)[index][0] for index in reversed(range(20))]).flip(0)
    assert torch.equal(whole, single)
    assert not torch.equal(whole, data(0, 2).__getitems__(list(range(20)))[0])
    assert not torch.equal(whole, data(1, 1).__getitems__(list(range(20)))[0])


@given(st.floats(0.05, 1.0), st.integers(0, 3), st.booleans(), st.integers(2, 8))
@settings(max_examples=25)
def test_resized_crops_lie_within_the_image_and_keep_its_shape(scale: float, epoch: int, flip: bool, side: int) -> None:
    rows, columns = torch.meshgrid(torch.arange(16) * 10, torch.arange(16) * 10, indexing="ij")
    images = Images(torch.stack([rows, columns]).to(torch.uint8).expand(8, 2, 16, 16), torch.zeros(8, dtype=torch.long))
    options = Augmentation(scale=scale, flip=flip)
    data = Batches(images, (0, 0), (1 / 255, 1 / 255), size=(side, side), augmentation=options, seed=1)
    data.set_epoch(epoch)
    x, _ = data.__getitems__(list(range(8)))
    assert x.shape == (8, 2, side, side)
    left, top, width, height = data.draws["crop"].unbind(1)
    assert (data.draws["crop"] >= 0).all()
    assert (left + width <= 1 + 1e-6).all()
    assert (top + height <= 1 + 1e-6).all()
    assert (width * height >= scale * 0.74 - 1e-6).all()  # A long side is cut, by a quarter at most.
    # The image is a slope down and a slope across; so is every crop, where its edge does not end the slope.
    middles = (torch.arange(side) + 0.5) / side
    down = (160 * (top[:, None] + height[:, None] * middles) - 5).clamp(0, 150)
    across = (160 * (left[:, None] + width[:, None] * middles) - 5).clamp(0, 150)
    flipped = data.draws.get("flipped", torch.zeros(8, dtype=torch.bool))
    across = torch.where(flipped[:, None], across.flip(1), across)
    torch.testing.assert_close(x[:, 0], down[:, :, None].expand(-1, -1, side), atol=1e-2, rtol=0)
    torch.testing.assert_close(x[:, 1], across[:, None, :].expand(-1, side, -1), atol=1e-2, rtol=0)


@given(st.floats(0.1, 1.0), st.integers(0, 5))
@settings(max_examples=20)
def test_erasing_puts_the_mean_in_one_rectangle_and_leaves_the_rest(share: float, epoch: int) -> None:
    images = Images(torch.randint(1, 256, (50, 3, 20, 20), dtype=torch.uint8), torch.zeros(50, dtype=torch.long))
    plain = Batches(images, (0,) * 3, (1 / 255,) * 3).__getitems__(list(range(50)))[0]
    data = Batches(images, (0,) * 3, (1 / 255,) * 3, augmentation=Augmentation(erase=share))
    data.set_epoch(epoch)
    x, _ = data.__getitems__(list(range(50)))
    gone = (x == 0).all(1)
    assert torch.equal(x * ~gone[:, None], plain * ~gone[:, None])
    assert torch.equal(gone, gone.any(1, keepdim=True) & gone.any(2, keepdim=True))  # One rectangle.
    erased = gone.flatten(1).float().mean(1)
    assert (erased <= 0.45).all()
    assert abs(float((erased > 0).float().mean()) - share) < 0.35


def test_jitter_keeps_grey_images_grey_and_without_it_nothing_changes() -> None:
    images = Images(torch.randint(0, 256, (6, 1, 5, 5), dtype=torch.uint8).expand(6, 3, 5, 5), torch.arange(6))
    data = Batches(images, (0,) * 3, (1 / 255,) * 3, augmentation=Augmentation(jitter=0.5))
    x, _ = data.__getitems__(list(range(6)))
    torch.testing.assert_close(x, x[:, :1].expand_as(x))
    assert not torch.equal(x.round(), images.pixels.float())
    assert x.min() >= 0
    assert x.max() <= 255.01
    unchanged = data.augmentation.color_jitter(images.pixels.float(), {"factors": torch.ones(6, 3)})  # type: ignore[union-attr]
    torch.testing.assert_close(unchanged, images.pixels.float())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"crop_scale": 0.0}, "crop_scale is 0.0; it is a share"),
        ({"crop_scale": 0.1, "crop_padding": 2}, "two kinds of random crops"),
        ({"color_jitter": 1.5}, r"color_jitter is 1.5; it must be in \[0, 1\]"),
        ({"random_erasing": -0.1}, "random_erasing is -0.1"),
    ],
)
def test_augmentation_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SeekingError, match=message):
        load(DataConfig(**options))
