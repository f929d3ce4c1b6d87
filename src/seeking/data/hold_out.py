"""Which training images are held out."""

import collections
import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from seeking.data.config import DataConfig
from seeking.data.images import Images
from seeking.errors import RunWarning, SeekingError

Rows = npt.NDArray[np.int64]


def hold_out(labels: Rows, share: float, seed: int, *, each_class: bool) -> tuple[Rows, Rows]:
    """Hold out a share of some rows at random.

    Args:
        labels: class number of each row; negative if it has none.
        share: of the rows.
        seed: of the choice.
        each_class: whether each class keeps at least one row, if rows can be held out then.

    Returns:
        The rows that are kept, and those that are held out.

    Raises:
        SeekingError: there are too few rows.
    """
    import datasets

    rows: Any = datasets.Dataset.from_dict({"row": np.arange(len(labels))})
    try:
        parts = rows.train_test_split(test_size=share, seed=seed)
    except ValueError as error:
        raise SeekingError(f"{share:g} of {len(labels)} images cannot be held out: a split would be empty") from error
    kept, held_out = (np.asarray(parts[part].with_format("numpy")[:]["row"], np.int64) for part in ("train", "test"))
    if not each_class:
        return kept, held_out
    by_class = keep_classes(labels, kept, held_out)
    if not len(by_class[1]):
        warnings.warn("no class has images to spare, so classes of held-out images are not trained on", RunWarning, 2)
        return kept, held_out
    return by_class


def keep_classes(labels: Rows, kept: Rows, held_out: Rows) -> tuple[Rows, Rows]:
    """Give back one row of each class of which all rows are held out.

    One of the class with the most rows takes its place, if any class has more than one.
    """
    kept, held_out = kept.copy(), held_out.copy()
    counts = collections.Counter(labels[kept].tolist())
    spent: list[int] = []
    for label in sorted({*labels[held_out].tolist()} - {*counts}):
        place = int((labels[held_out] == label).argmax())
        largest, count = max(counts.items(), key=lambda item: (item[1], -item[0]), default=(0, 0))
        if label < 0:
            continue
        if count > 1:
            donor = int((labels[kept] == largest).nonzero()[0][-1])
            kept[donor], held_out[place] = held_out[place], kept[donor]
            counts[largest] -= 1
        else:
            kept = np.append(kept, held_out[place])
            spent.append(place)
        counts[label] += 1
    return kept, np.delete(held_out, spent)


def split_off(images: Images, count: int, seed: int, config: DataConfig) -> tuple[Images, Images]:
    """The images that are kept, and at most this many random ones that are held out."""
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed)).numpy()
    kept, held = order[count:], order[:count]
    if config.split_method == "classes":
        kept, held = keep_classes(images.labels.cpu().numpy(), kept, held)
    return images.select(torch.from_numpy(kept)), images.select(torch.from_numpy(held))
