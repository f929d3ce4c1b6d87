"""Images that cannot be decoded are all named at once, or skipped and counted."""

import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from runs import image_folder

from seeking import SeekingError
from seeking.cli import main
from seeking.data import DataConfig, ImageData, load, loader
from seeking.errors import RunWarning

PATHS = [
    f"{split}/{name}/{number}.png" for split in ("train", "test") for name in ("cat", "dog") for number in (0, 1, 2)
]
BROKEN = (b"no picture", b"", None)


def broken(root: Path, paths: Sequence[str]) -> dict[str, Any]:
    """The contents of the images of a folder, before some of them are broken: made empty, cut, or no picture."""
    image_folder(root)
    whole = {path: (root / path).read_bytes() for path in PATHS}
    for number, path in enumerate(paths):
        content = BROKEN[number % len(BROKEN)]
        (root / path).write_bytes(whole[path][:60] if content is None else content)
    return whole


def batches(data: ImageData) -> list[torch.Tensor]:
    return [torch.cat([x for x, _ in loader(part, 4, workers=0)]) for part in data.batches(0)]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::seeking.errors.RunWarning")
@given(paths=st.sets(st.sampled_from(PATHS), min_size=1), in_memory=st.booleans())
@example(paths={*PATHS[:6], PATHS[8]}, in_memory=True)
@settings(max_examples=15)
def test_all_of_them_are_named_or_left_out(paths: set[str], in_memory: bool) -> None:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        broken(root, sorted(paths))
        config: dict[str, Any] = {"data": name, "in_memory": in_memory, "flip": False, "crop_padding": 0}
        lost = [{path for path in paths if path.startswith(split)} for split in ("train", "test")]
        if in_memory:
            with pytest.raises(SeekingError, match="cannot be decoded") as caught:
                load(DataConfig(**config))
            assert all(f"{len(part)} of 6 " in str(caught.value) for part in lost if part)
            assert all(path in str(caught.value) for path in paths)
        if len(lost[0]) == 6 or len(lost[1]) == 6:
            with pytest.raises(SeekingError, match="6 of 6"):
                load(DataConfig(**config, on_bad_image="skip"))
            return
        with warnings.catch_warnings(record=True) as messages:
            warnings.simplefilter("always")
            data = load(DataConfig(**config, on_bad_image="skip", mean=(0.5,) * 3, std=(0.5,) * 3))
        told = " ".join(str(message.message) for message in messages if issubclass(message.category, RunWarning))
        assert all(path in told for path in paths)
        assert [split.images for split in data.splits] == [6 - len(lost[0]), 6 - len(lost[1])]
        loaded = batches(data)
        for path in paths:
            (root / path).unlink()
        pure = load(DataConfig(**config, train_split="train", test_split="test", mean=(0.5,) * 3, std=(0.5,) * 3))
        assert all(map(torch.equal, loaded, batches(pure)))
        assert torch.equal(data.train.labels, pure.train.labels)


def test_a_long_list_is_cut(tmp_path: Path) -> None:
    image_folder(tmp_path, per_class=20)
    for number in range(15):
        (tmp_path / "train" / "cat" / f"{number}.png").write_bytes(b"")
    with pytest.raises(SeekingError, match=r"15 of 40 training images .*; and 5 more. Repair or remove them, or give"):
        load(DataConfig(data=str(tmp_path)))


def test_a_policy_that_is_not_known_is_refused() -> None:
    with pytest.raises(SeekingError, match="unknown value of on_bad_image 'skp'; did you mean skip"):
        DataConfig(on_bad_image="skp")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--base", "resnet9"], "unknown model 'resnet9'"),
        (["--motivated", "resnet15"], "unknown model 'resnet15'"),
        (["--condition", "decrese:2"], "unknown condition 'decrese'"),
        (["--base-condition", "evry:2"], "unknown condition 'evry'"),
        (["--optimizer", "adamv"], "unknown optimizer 'adamv'"),
        (["--output", "file/run"], "file/run: cannot be used as an output folder"),
        (["--output", "taken"], "taken"),
        (["--overrides", "none.yaml"], "none.yaml"),
    ],
)
@pytest.mark.parametrize("command", ["train", "compare"])
def test_wrong_options_are_found_before_images_are_decoded(
    command: str,
    options: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def decode(config: Any, sharing: int) -> None:
        raise AssertionError("images are decoded")

    monkeypatch.setattr("seeking.experiments.tasks.images.load", decode)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.tex").touch()
    assert main([command, *options]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.filterwarnings("error::ResourceWarning")
@pytest.mark.parametrize(
    ("image", "cause"),
    [
        (b"no picture", "image 0: not an image of a known format"),
        ("x" * 300_000, r"image 0 \(/.*x…\): File name too long"),
        ("nowhere/1.png", r"image 0 \(/.*/nowhere/1.png\): No such file or directory"),
        (None, "image 0: it is missing"),
    ],
)
def test_the_cause_is_told_in_short(image: Any, cause: str, tmp_path: Path) -> None:
    rows = [{"bytes": None, "path": image} if isinstance(image, str) else image and {"bytes": image, "path": None}]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    column = pa.array(rows * 4, features.arrow_schema.field("image").type)
    pq.write_table(pa.table([column, [0, 1, 0, 1]], schema=features.arrow_schema), tmp_path / "train.parquet")
    with pytest.raises(SeekingError, match=cause) as caught:
        load(DataConfig(data=str(tmp_path)))
    assert len(str(caught.value)) < 5000
