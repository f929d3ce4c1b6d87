"""Pixels mean what they meant: formats, depth, color, orientation, constant channels, plain columns of bytes."""

import importlib.util
import io
import struct
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from seeking import SeekingError
from seeking.data import Batches, DataConfig, Images, load
from seeking.data import pixels as pixels_of
from seeking.data.decode import TRANSPOSED, PixelFormat
from seeking.data.encoded import CHUNK, Encoded, Files, common_format
from seeking.data.unreadable import readable


class Column:
    """Encoded images as a data set of one column gives them."""

    def __init__(self, files: Sequence[Any]) -> None:
        self.files = [{"bytes": file, "path": None} if isinstance(file, bytes) else file for file in files]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, rows: Any) -> dict[str, Any]:
        return {"image": [self.files[row] for row in rows] if isinstance(rows, list) else self.files[rows]}


def saved(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def decoded(*splits: Sequence[Any], channels: int | None = None) -> list[torch.Tensor]:
    files = [Files(Column(split), "image", "shapes") for split in splits]
    pixel_format = common_format(files, channels)
    pixels = [Encoded(part, pixel_format).decoded() for part in files]
    named = {str(number): part for number, part in enumerate(files)}
    images = {name: Images(part, torch.zeros(len(part))) for name, part in zip(named, pixels, strict=True)}
    readable(images, named, "error")
    return pixels


NOISE = np.random.default_rng(0).random((4, 3, 5))
NOISE.flat[:2] = 0, 1

DEEP = [
    ("PNG", np.uint16, 65535, 65535),
    ("PNG", np.uint16, 4095, 4095),
    ("PNG", np.uint16, 900, 1023),
    ("PNG", np.uint16, 200, 255),
    ("TIFF", np.uint16, 65535, 65535),
    ("TIFF", np.dtype(">u2"), 40000, 65535),
    ("PPM", np.uint16, 65535, 65535),
    ("TIFF", np.int32, 255, 255),
    ("TIFF", np.int32, 1_000_000, 2**20 - 1),
    ("TIFF", np.float32, 1, 1),
    ("TIFF", np.float32, 255, 255),
    ("TIFF", np.float32, 0.3, 1),
]


@pytest.mark.parametrize(("kind", "dtype", "highest", "white"), DEEP)
@pytest.mark.parametrize("channels", [None, 1, 3])
def test_deep_greys_are_scaled_by_their_range(
    kind: str, dtype: Any, highest: float, white: float, channels: int | None
) -> None:
    values = (NOISE * highest).astype(dtype)
    (pixels,) = decoded([saved(Image.fromarray(image), kind) for image in values], channels=channels)
    assert pixels.shape == (4, channels or 1, 3, 5)
    expected = torch.from_numpy(values.astype(np.float64) / white * 255)[:, None]
    torch.testing.assert_close(pixels.double(), expected.expand_as(pixels), atol=0.51, rtol=0)


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_values_below_zero_are_kept_apart_in_all_splits(dtype: Any) -> None:
    values = (NOISE * 3000 - 1000).astype(dtype)
    files = [saved(Image.fromarray(image), "TIFF") for image in values]
    pixels = torch.cat(decoded(files[:3], files[3:]))[:, 0].double()
    values = values.astype(np.float64)
    expected = torch.from_numpy((values - values.min()) / np.ptp(values) * 255)
    torch.testing.assert_close(pixels, expected, atol=0.51, rtol=0)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_not_finite_are_refused_by_name(value: float) -> None:
    values = NOISE.astype(np.float32)
    values[2, 1, 1] = value
    with pytest.raises(
        SeekingError, match=r"1 of 4 0 images cannot be decoded: image 2: its values, .* not all finite"
    ):
        decoded([saved(Image.fromarray(image), "TIFF") for image in values])


def test_deep_greys_among_color_are_scaled_by_their_type_or_refused() -> None:
    color = saved(Image.new("RGB", (5, 3), (255, 0, 0)))
    deep = (NOISE[0] * 65535).astype(np.uint16)
    (pixels,) = decoded([color, saved(Image.fromarray(deep))])
    torch.testing.assert_close(pixels[1, 0].double(), torch.from_numpy(deep / 257.0), atol=0.51, rtol=0)
    far = (NOISE[0] * 7).astype(np.float32)
    with pytest.raises(SeekingError, match=r"image 1: its values, 0 to 7, are not all in 0 to 1; save it with 8 bits"):
        decoded([color, saved(Image.fromarray(far), "TIFF")])


COLORED, GRAY = ("RGB", "RGBA", "P", "CMYK"), ("L", "1", "LA")


MODES = st.lists(st.sampled_from(COLORED + GRAY), min_size=1, max_size=20)


@given(MODES, MODES)
@settings(max_examples=40)
def test_images_are_grey_only_if_all_of_them_are(train: list[str], test: list[str]) -> None:
    kinds = {"CMYK": "TIFF"}
    image = Image.new("RGB", (2, 2), (200, 30, 30))
    splits = [[saved(image.convert(mode), kinds.get(mode, "PNG")) for mode in split] for split in (train, test)]
    channels = 3 if any(mode in COLORED for mode in train + test) else 1
    for said, expected in ((None, channels), (1, 1), (3, 3)):
        for split, pixels in zip(splits, decoded(*splits, channels=said), strict=True):
            assert pixels.shape == (len(split), expected, 2, 2)


@pytest.mark.parametrize("position", [0, 1, CHUNK - 1, CHUNK, 17 * CHUNK, 17 * CHUNK + 1])
def test_one_color_image_is_found_wherever_it_is(position: int) -> None:
    gray, color = saved(Image.new("L", (1, 1))), saved(Image.new("RGB", (1, 1)))
    files = [gray] * (17 * CHUNK + 2)
    files[position] = color
    assert common_format([Files(Column(files), "image", "shapes")], None).mode == "RGB"


def test_color_is_decided_without_decoding_and_by_one_image_if_it_can_be() -> None:
    broken = saved(Image.new("RGB", (9, 9)))[:50]  # The header alone.
    assert common_format([Files(Column([broken, b"nothing"]), "image", "shapes")], None).mode == "RGB"


def exif(*entries: tuple[int, int, int, bytes], data: bytes = b"") -> bytes:
    directory = b"".join(struct.pack("<HHI4s", tag, kind, count, value) for tag, kind, count, value in entries)
    return b"Exif\0\0II*\0" + struct.pack("<IH", 8, len(entries)) + directory + struct.pack("<I", 0) + data


@pytest.mark.parametrize("orientation", range(10))
@pytest.mark.parametrize("malformed", [False, True])
def test_images_are_turned_as_their_exif_data_say_whatever_else_these_hold(orientation: int, malformed: bool) -> None:
    image = Image.fromarray((NOISE[0] * 255).astype(np.uint8)).resize((24, 16)).convert("RGB")
    turn = (0x0112, 3, 1, struct.pack("<HH", orientation, 0))
    text = (0x011A, 2, 6, struct.pack("<I", 38))
    clean = saved(image, "JPEG", exif=exif(turn))
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(clean)))
    file = saved(image, "JPEG", exif=exif(turn, text, data=b"72dpi\0")) if malformed else clean
    (pixels,) = decoded([file])
    assert np.array_equal(pixels[0].permute(1, 2, 0).numpy(), np.asarray(upright))


@given(st.binary(max_size=60))
@settings(max_examples=60)
def test_no_exif_data_stop_a_run(data: bytes) -> None:
    image = Image.new("RGB", (4, 4), (9, 99, 199))
    (plain,), (pixels,) = decoded([saved(image, "JPEG")]), decoded([saved(image, "JPEG", exif=b"Exif\0\0" + data)])
    turned = [plain[0].flip(dims) for dims in ([], [1], [2], [1, 2])]
    assert any(torch.equal(pixels[0], turn) or torch.equal(pixels[0].transpose(1, 2), turn) for turn in turned)


def test_all_orientations_are_known() -> None:
    assert sorted(TRANSPOSED) == [*range(2, 9)]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "AVIF", "WEBP", "GIF", "TIFF", "BMP"])
@pytest.mark.parametrize("damage", ["cut", "zeros", "noise"])
def test_a_damaged_image_is_named_or_read(kind: str, damage: str) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    good = saved(Image.fromarray(pixels), kind)
    middle = len(good) // 2
    bad = good[:middle] + {"cut": b"", "zeros": bytes(middle), "noise": pixels.tobytes()[:middle]}[damage]
    try:
        (images,) = decoded([good, bad])
        outcome = str(list(images.shape))
    except SeekingError as error:
        outcome = str(error)
    assert outcome == "[2, 3, 32, 32]" or "cannot be decoded: image 1: " in outcome


@pytest.mark.parametrize("error", [RuntimeError, TypeError, struct.error, KeyError, EOFError, MemoryError, Exception])
def test_whatever_a_decoder_raises_the_image_is_named(error: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    file = saved(Image.new("RGB", (2, 2)), "BMP")
    (pixels,) = [Encoded(part := Files(Column([file] * 3), "image", "shapes"), common_format([part], None))]

    def broken(*args: Any, **kwargs: Any) -> None:
        raise error

    monkeypatch.setattr(Image.Image, "convert", broken)
    with pytest.raises(SeekingError, match=rf"data set shapes: image 1 cannot be decoded \({error.__name__}\)"):
        pixels[torch.tensor([1])]


@given(st.integers(0, 255), st.integers(1, 9))
@settings(max_examples=60)
def test_a_constant_channel_is_divided_by_one(value: int, size: int) -> None:
    pixels = torch.randint(0, 256, (5, 3, size, size), dtype=torch.uint8)
    pixels[:, 1] = value
    images = Images(pixels, torch.zeros(5, dtype=torch.long))
    mean, std = images.statistics()
    assert std[1] == 1
    x, _ = Batches(images, mean, std).__getitems__([*range(5)])
    assert x[:, 1].abs().max() < 1e-5
    assert x.isfinite().all()


def test_the_digits_are_grey_unless_said_otherwise() -> None:
    gray, color = (load(DataConfig(channels=channels)) for channels in (None, 3))
    assert (gray.shape[0], color.shape[0]) == (1, 3)
    assert isinstance(gray.train.pixels, torch.Tensor)
    assert torch.equal(gray.train.pixels.expand(-1, 3, -1, -1), color.train.pixels)


def test_a_set_of_one_constant_loads(tmp_path: Path) -> None:
    for split in ("train", "test"):
        for name in ("a", "b"):
            (tmp_path / split / name).mkdir(parents=True)
            Image.new("L", (4, 4), 77).save(tmp_path / split / name / "0.png")
    data = load(DataConfig(data=str(tmp_path)))
    assert (data.mean, data.std) == ((pytest.approx(77 / 255),), (1.0,))


KINDS: list[Any] = [pa.binary(), pa.large_binary(), pa.binary_view()]
KINDS += [pa.struct({"bytes": pa.binary(), "path": pa.string()}), pa.struct({"bytes": pa.large_binary()})]


@pytest.mark.parametrize("kind", [*KINDS, pa.string(), "fixed"], ids=str)
@pytest.mark.parametrize("named", [False, True])
def test_columns_of_bytes_are_images(kind: Any, named: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [saved(Image.new("RGB", (3, 2), (index, 0, 0)), "BMP") for index in range(8)]
    values: list[Any] = files
    if kind == "fixed":
        kind = pa.binary(len(files[0]))
    elif pa.types.is_struct(kind):
        values = [{"bytes": file, "path": None} for file in files]
    elif kind == pa.string():
        values = [str(tmp_path / f"{index}.bmp") for index in range(8)]
        for path, file in zip(values, files, strict=True):
            Path(path).write_bytes(file)
    folder = tmp_path / "data"
    folder.mkdir()
    for split in ("train", "test"):
        table = pa.table({"picture": pa.array(values, kind), "label": [0, 1] * 4})
        pyarrow.parquet.write_table(table, folder / f"{split}.parquet")
    config = DataConfig(data=str(folder), image_column="picture" if named else None)
    if kind == pa.string() and not named:
        with pytest.raises(SeekingError, match=r"needs one image column, found none .*; name it with image_column"):
            load(config)
        return
    data = load(config)
    assert isinstance(data.train.pixels, torch.Tensor)
    assert data.train.pixels[:, 0, 0, 0].tolist() == [*range(8)]


def test_columns_that_are_no_images_are_refused_with_a_way_round(tmp_path: Path) -> None:
    table = pa.table({"picture": [[0, 1, 2]] * 4, "label": [0, 1] * 2})
    pyarrow.parquet.write_table(table, tmp_path / "train.parquet")
    with pytest.raises(SeekingError, match=r"holds .*, not images; store them encoded \(PNG, JPEG\), or name another"):
        load(DataConfig(data=str(tmp_path), image_column="picture"))
    with pytest.raises(SeekingError, match=r"channels is 2; it must be 1 \(gray\) or 3 \(color\)"):
        DataConfig(channels=2)


@st.composite
def files(draw: st.DrawFn) -> bytes:
    """JPEG and PNG files of all modes and options, some of them damaged."""
    width, height, seed = draw(st.tuples(st.integers(1, 40), st.integers(1, 40), st.integers(0, 9)))
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 4), dtype=np.uint8)
    kind = draw(st.sampled_from(["JPEG", "PNG"]))
    modes = ["L", "RGB", "CMYK"] if kind == "JPEG" else ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"]
    mode = draw(st.sampled_from(modes))
    options: dict[str, Any] = {"exif": exif((0x0112, 3, 1, struct.pack("<HH", draw(st.integers(0, 9)), 0)))}
    if kind == "JPEG":
        options |= {"quality": draw(st.integers(1, 100)), "progressive": draw(st.booleans())}
        options |= {"subsampling": draw(st.integers(0, 2))} if mode == "RGB" else {}
    elif mode in ("L", "RGB") and draw(st.booleans()):
        options["transparency"] = 3 if mode == "L" else (1, 2, 3)
    if draw(st.booleans()):
        del options["exif"]
    image = Image.fromarray(noise, "RGBA")
    image = Image.fromarray(noise[..., 0].astype(np.uint16) * 257) if mode == "I;16" else image.convert(mode)
    file = bytearray(saved(image, kind, **options))
    if draw(st.booleans()):
        return bytes(file)
    place = draw(st.integers(0, len(file) - 1))
    if draw(st.booleans()):
        return bytes(file[:place])
    file[place] ^= draw(st.integers(1, 255))
    return bytes(file)


@given(files(), st.sampled_from(["RGB", "L"]))
@settings(max_examples=150)
def test_pixels_do_not_depend_on_the_decoder(file: bytes, mode: Any) -> None:
    pytest.importorskip("torchcodec")

    def outcome() -> Any:
        try:
            return pixels_of.pixels(Image.open(io.BytesIO(file)), PixelFormat(mode)).tolist()
        except Exception as error:
            return type(error)

    quick = outcome()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pixels_of, "decoders", dict)
        assert outcome() == quick


def test_plain_files_are_decoded_quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """If torchcodec is there; and by PIL, if it cannot be loaded."""
    image = Image.fromarray((NOISE[:3].transpose(1, 2, 0) * 255).astype(np.uint8))
    kept = pixels_of.decoders()
    assert kept or not importlib.util.find_spec("torchcodec")
    with monkeypatch.context() as patch:
        patch.setattr(PixelFormat, "convert", lambda *_: pytest.fail("PIL decodes it"))
        for kind in kept:
            assert pixels_of.pixels(Image.open(io.BytesIO(saved(image, kind))), PixelFormat("RGB")).shape == (3, 3, 5)
    pixels_of.decoders.cache_clear()
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", None)  # As if it were not installed.
    assert pixels_of.decoders() == {}
    pixels_of.decoders.cache_clear()
