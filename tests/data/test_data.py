import json
import logging
import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import random_images
from PIL import Image
from runs import image_folder

from seeking import SeekingError
from seeking.data import Batches, DataConfig, load, loader
from seeking.errors import LoadingError, RunWarning
from seeking.experiments.run import RunConfig, trainer
from seeking.experiments.tasks.images import ImagesOfRun
from seeking.training import RunFolder
from seeking.training.batches import draw
from seeking.training.loaders import prepare


def test_the_digits_are_real_and_apart() -> None:
    data = load(DataConfig())
    assert (len(data.train), len(data.test), data.shape, len(data.classes)) == (1438, 359, (1, 8, 8), 10)
    assert not data.augmentation.flip
    some = load(DataConfig(max_train_samples=100, max_eval_samples=50))
    assert (len(some.train), len(some.test)) == (100, 50)
    assert load(DataConfig(image_size=16)).shape == (1, 16, 16)
    seen = {tuple(image.flatten().tolist()) for image in data.train.pixels}
    repeated = sum(tuple(image.flatten().tolist()) in seen for image in data.test.pixels)
    assert repeated == 0
    assert torch.bincount(data.train.labels).min() > 100


@given(st.integers(1, 3), st.integers(2, 9))
@settings(max_examples=20)
def test_normalized_images_have_mean_zero_and_deviation_one(channels: int, size: int) -> None:
    images = random_images(count=5, channels=channels, size=size)
    mean, std = images.statistics()
    x, y = Batches(images, mean, std).__getitems__(list(range(5)))
    assert torch.equal(y, images.labels)
    torch.testing.assert_close(x.mean(dim=(0, 2, 3)), torch.zeros(channels), atol=1e-4, rtol=0)
    torch.testing.assert_close(x.std(dim=(0, 2, 3), correction=0), torch.ones(channels), atol=1e-4, rtol=0)


def test_the_order_changes_with_the_epoch_and_is_the_seeds() -> None:
    images = random_images(count=30)

    def order(seed: int, epoch: int) -> list[float]:
        batches = loader(Batches(images, (0,) * 3, (1,) * 3), 8, shuffle_seed=seed)
        batches.sampler.set_epoch(epoch)
        return torch.cat([x.flatten(1).sum(1) for x, _ in batches]).tolist()

    assert order(0, 0) == order(0, 0)
    assert len(order(0, 0)) == 24
    assert len({tuple(order(seed, epoch)) for seed in range(3) for epoch in range(3)}) == 9
    plain = torch.cat([x for x, _ in loader(Batches(images, (0,) * 3, (1 / 255,) * 3), 8)])
    assert torch.equal(plain.round().to(torch.uint8), images.pixels)


def test_a_folder_of_images(tmp_path: Path) -> None:
    data = load(DataConfig(data=str(image_folder(tmp_path))))
    assert (len(data.train), len(data.test), data.shape, data.classes) == (6, 6, (3, 6, 6), ("cat", "dog"))
    assert data.augmentation.flip
    assert data.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    with Image.open(tmp_path / "train" / "cat" / "0.png") as image:
        assert np.array_equal(data.train.pixels[0].permute(1, 2, 0).numpy(), np.asarray(image))


def test_images_of_several_sizes_need_one(tmp_path: Path) -> None:
    folder = str(image_folder(tmp_path, sizes=[6, 9]))
    with pytest.raises(
        SeekingError, match=r"image 1 \(.*\) is \[3, 9, 9\], the first one \[3, 6, 6\]; give image_size"
    ):
        load(DataConfig(data=folder))
    assert load(DataConfig(data=folder, image_size=4)).shape == (3, 4, 4)


def parquet(root: Path, rows: list[dict[str, Any]], test: list[dict[str, Any]] | None = None) -> str:
    import datasets

    root.mkdir(exist_ok=True)
    datasets.Dataset.from_list(rows).to_parquet(root / "train-00000-of-00001.parquet")
    if test is not None:
        datasets.Dataset.from_list(test).to_parquet(root / "test-00000-of-00001.parquet")
    return str(root)


def picture(value: int = 0) -> Image.Image:
    return Image.fromarray(np.full((4, 4), value, dtype=np.uint8))


@pytest.mark.parametrize(
    ("rows", "test", "message"),
    [
        (
            [{"text": "a", "label": 1}] * 3,
            None,
            r"needs one image column, found none among text \(string\), label \(int64\)",
        ),
        ([{"image": picture(), "caption": "a"}] * 3, None, "needs one label column, found none"),
        ([{"image": picture(), "label": 0.5}] * 3, None, "not classes, integers"),
        (
            [{"image": picture(), "label": 0}, {"image": picture(9), "label": 1}],
            [{"image": picture(), "label": 5}],
            "label 5 of test image 0 is out of range; there are 2 classes",
        ),
        (
            [{"image": picture(), "label": -1}, {"image": picture(9), "label": 1}],
            [{"image": picture(), "label": 1}],
            "1 of 2 training images have no label",
        ),
        ([{"image": picture(), "label": 0}], None, "cannot hold out a test split"),
        ([{"image": picture(), "label": 2**48}] * 3, None, "holds 281474976710656; integers are class numbers below"),
    ],
)
def test_data_that_cannot_be_trained_on(rows: Any, test: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(SeekingError, match=message):
        load(DataConfig(data=parquet(tmp_path / "data", rows, test)))


@pytest.mark.parametrize("bars", [True, False])
def test_settings_of_libraries_are_put_back(bars: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    before = datasets.are_progress_bars_disabled()
    (datasets.enable_progress_bars if bars else datasets.disable_progress_bars)()
    logger = logging.getLogger("huggingface_hub")
    monkeypatch.setattr(logger, "level", logging.INFO)
    load(DataConfig(data=parquet(tmp_path / "data", [{"image": picture(n), "label": n % 2} for n in range(40)])))
    with pytest.raises(SeekingError):
        load(DataConfig(data=str(tmp_path / "nowhere")))
    assert datasets.are_progress_bars_disabled() != bars
    assert logger.level == logging.INFO
    (datasets.disable_progress_bars if before else datasets.enable_progress_bars)()


def test_without_a_test_split_a_tenth_is_held_out(tmp_path: Path) -> None:
    rows = [{"image": picture(index), "label": index % 2} for index in range(40)]
    data = load(DataConfig(data=parquet(tmp_path / "data", rows)))
    assert (len(data.train), len(data.test), data.shape) == (36, 4, (1, 4, 4))
    config = DataConfig(data=str(tmp_path / "data"), max_train_samples=10, max_eval_samples=2)
    first, second = load(config), load(config)
    assert (len(first.train), len(first.test)) == (10, 2)
    assert torch.equal(first.train.pixels, second.train.pixels)
    assert torch.equal(first.test.pixels, second.test.pixels)


def test_integers_are_all_classes_of_the_data_whatever_part_is_taken(tmp_path: Path) -> None:
    folder = parquet(tmp_path / "data", [{"image": picture(index), "label": index} for index in range(40)])
    for part in ({}, {"max_train_samples": 5}, {"validation": 0.5}, {"validation": 0.5, "max_train_samples": 5}):
        assert len(load(DataConfig(data=folder, **part)).classes) == 40


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("digit", "unknown data set 'digit'; did you mean digits"),
        ("./nowhere", "no such folder"),
        (" ", "data is empty"),
    ],
)
def test_data_that_do_not_exist(name: str, message: str) -> None:
    with pytest.raises(SeekingError, match=message):
        load(DataConfig(data=name))


def test_a_broken_image_and_a_wrong_column_are_named(tmp_path: Path) -> None:
    folder = image_folder(tmp_path)
    with pytest.raises(SeekingError, match=r"column label holds .*, not images"):
        load(DataConfig(data=str(folder), image_column="label"))
    (folder / "train" / "cat" / "1.png").write_bytes(b"no picture")
    with pytest.raises(SeekingError, match=r"1 of 6 training images cannot be decoded: image 1 \(.*cat/1.png\): "):
        load(DataConfig(data=str(folder)))


def test_columns_and_statistics_that_do_not_fit(tmp_path: Path) -> None:
    folder = str(image_folder(tmp_path))
    with pytest.raises(SeekingError, match=r"unknown label_column of .* 'lable'; did you mean label"):
        load(DataConfig(data=folder, label_column="lable"))
    with pytest.raises(SeekingError, match="must have one number"):
        load(DataConfig(data=folder, mean=(0.5,)))
    assert load(DataConfig(data=folder, mean=(0.1, 0.2, 0.3), std=(1.0, 1.0, 1.0))).mean == (0.1, 0.2, 0.3)


@pytest.mark.slow
def test_cifar10_from_parquet(cifar10: Path) -> None:
    data = load(DataConfig(data=str(cifar10), max_train_samples=500))
    assert (len(data.train), len(data.test), data.shape) == (500, 10_000, (3, 32, 32))
    assert data.classes[3] == "cat"
    assert json.dumps(data.classes)
    assert torch.bincount(data.test.labels).tolist() == [1000] * 10
    assert data.mean == pytest.approx((0.49, 0.48, 0.45), abs=0.02)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("workers", "augmentation"),
    [(0, {}), (2, {}), (2, {"crop_scale": 0.3, "color_jitter": 0.4, "random_erasing": 0.5})],
)
def test_streamed_batches_are_those_from_memory(workers: int, augmentation: dict[str, Any], tmp_path: Path) -> None:
    folder = str(image_folder(tmp_path, sizes=[9, 12], per_class=5))
    passes = []
    for in_memory in (True, False):
        data = load(DataConfig(data=folder, image_size=8, in_memory=in_memory, workers=workers, **augmentation))
        assert isinstance(data.train.pixels, torch.Tensor) == in_memory
        assert ("on demand" in data.location) != in_memory
        batches = loader(data.batches(3)[0], 4, shuffle_seed=1, workers=data.workers)
        assert batches.num_workers == (0 if in_memory else workers)
        drawn = []
        for epoch in range(2):
            batches.sampler.set_epoch(epoch)
            batches.dataset.set_epoch(epoch)
            drawn += [*batches]
        passes.append(drawn)
    assert len(passes[0]) == 4
    for ours, theirs in zip(*passes, strict=True):
        assert all(map(torch.equal, ours, theirs))


def test_what_does_not_fit_is_streamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = str(image_folder(tmp_path))
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=12 * 108 * 2))
    monkeypatch.setattr("os.sched_getaffinity", lambda process: range(6), raising=False)
    alone, one_of_two = (load(DataConfig(data=folder), sharing) for sharing in (1, 2))
    assert isinstance(alone.train.pixels, torch.Tensor)
    assert not isinstance(one_of_two.train.pixels, torch.Tensor)
    assert (alone.workers, one_of_two.workers) == (6, 3)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    in_two_processes = load(DataConfig(data=folder))
    assert not isinstance(in_two_processes.train.pixels, torch.Tensor)
    assert in_two_processes.workers == 3


def test_no_more_workers_are_started_than_a_machine_can_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    folder = str(image_folder(tmp_path))
    monkeypatch.setattr("os.sched_getaffinity", lambda process: range(3), raising=False)
    assert load(DataConfig(data=folder, in_memory=False, workers=48)).workers == 48
    assert load(DataConfig(data=folder, in_memory=True, workers=999)).workers == 48
    assert not [warning for warning in recwarn if "workers" in str(warning.message)]
    with pytest.warns(RunWarning, match="workers is 999, .* for the 3 cores of this machine; 48 are started"):
        assert load(DataConfig(data=folder, in_memory=False, workers=999)).workers == 48


def run_of(folder: Path, output: Path, **kwargs: Any) -> Any:
    config = RunConfig(
        data=str(folder), batch_size=4, epochs=2, in_memory=False, workers=2, verify=False, model_kwargs={"width": 4}
    )
    return trainer(config, ImagesOfRun(load(config)), output=RunFolder(output, resume=True), **kwargs)


@pytest.mark.slow
def test_a_file_that_breaks_during_training_is_named_and_the_run_resumes_when_it_is_repaired(tmp_path: Path) -> None:
    folder = image_folder(tmp_path / "data", sizes=[8], per_class=12)
    broken = folder / "train" / "dog" / "3.png"
    good = broken.read_bytes()

    def listen(row: dict[str, Any]) -> None:
        if row["kind"] == "eval":
            broken.write_bytes(good[:40])

    with pytest.raises(LoadingError, match=r"image 17 \(.*dog/3.png\) cannot be decoded .*saved at step \d+") as caught:
        run_of(folder, tmp_path / "run", listeners=[listen]).fit()
    assert "\n" not in str(caught.value)
    broken.write_bytes(good)
    went_on = run_of(folder, tmp_path / "run").fit()
    assert went_on.history == run_of(folder, tmp_path / "whole").fit().history


@pytest.mark.slow
def test_a_worker_that_dies_says_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = image_folder(tmp_path / "data", sizes=[8], per_class=12)
    decode = Image.open

    def deadly(file: Any) -> Any:
        if str(file).endswith("/train/cat/5.png") and torch.utils.data.get_worker_info() and dying:
            os.kill(os.getpid(), signal.SIGKILL)
        return decode(file)

    def listen(row: dict[str, Any]) -> None:
        if row["kind"] == "step":  # PyTorch's own handler would raise in the midst of a step.
            handlers.add(signal.getsignal(signal.SIGCHLD))
        elif row["kind"] == "eval":
            dying.append(True)

    handlers: set[Any] = set()
    dying: list[bool] = []
    monkeypatch.setattr(Image, "open", deadly)
    run = run_of(folder, tmp_path / "run", listeners=[listen])
    with pytest.raises(LoadingError, match=r"exited unexpectedly.* at .*image 7 \(.*\).*saved at step"):
        run.fit()
    assert handlers == {signal.SIG_DFL}
    dying.clear()
    assert run_of(folder, tmp_path / "run").fit().cost.batches == 12


class Counted(torch.utils.data.Dataset[torch.Tensor]):
    """Says which of its items have been loaded, in whichever process."""

    stateless = True

    def __init__(self) -> None:
        self.loaded = torch.zeros(20).share_memory_()

    def __len__(self) -> int:
        return 20

    def __getitem__(self, index: int) -> torch.Tensor:
        self.loaded[index] += 1
        return torch.tensor(index)


@pytest.mark.parametrize("workers", [0, 2])
def test_what_is_passed_over_is_not_loaded(workers: int) -> None:
    data = Counted()
    plain = torch.utils.data.DataLoader(data, 2, num_workers=workers)
    drawn = [*draw(prepare(plain, "train_loader", 0, 1, 0), torch.device("cpu"), skip=7)]
    assert torch.cat([part.batch for part in drawn]).tolist() == [14, 15, 16, 17, 18, 19]
    assert data.loaded.tolist() == [0.0] * 14 + [1.0] * 6
