"""The training and the test images of a data set: which splits and which columns they are."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from seeking.data.config import DataConfig
from seeking.data.encoded import Encoded, Files, common_format
from seeking.data.folders import Splits
from seeking.data.hold_out import hold_out
from seeking.data.images import Images
from seeking.data.labels import Labelled, numbers_of, read_labels, unite
from seeking.data.named_images import beside
from seeking.data.sources import read
from seeking.data.split_use import NOT_USED, SplitUse, held_out_source
from seeking.errors import SeekingError, unknown

LABEL_COLUMNS = ("label", "labels", "fine_label")
TEST_SPLITS = ("test", "validation")


def select_images(config: DataConfig) -> tuple[Images, Images, tuple[str, ...], tuple[str, str], list[SplitUse]]:
    """Both splits, the classes, where the splits come from, and the splits that are not used.

    Raises:
        SeekingError: the data set cannot be read, or has no such columns, labels or splits.
    """
    name = config.data
    splits = read(name, config.chosen_splits, config.subset)
    image_column, label_column = _columns(splits["train"].rows[0].features, config)
    splits = {split: beside(rows, image_column) for split, rows in splits.items()}
    test_split, test_labels = _test_labels(splits, label_column, config)
    train_labels = read_labels(splits["train"], label_column, name)
    train, evaluation, classes = unite(train_labels, test_labels, label_column, name)
    train_source = splits["train"].source
    test_source = splits[test_split].source if test_split else ""
    unused = [
        SplitUse(NOT_USED, rows.source, None, len(rows))
        for split, rows in splits.items()
        if split not in ("train", test_split)
    ]
    if evaluation is None:
        train, evaluation = _hold_out(train, 0.1, 0, label_column, config)
        test_source = held_out_source(0.1, train_source)
    if config.validation is not None:
        unused.append(SplitUse(NOT_USED, test_source, None, len(evaluation)))
        train, evaluation = _hold_out(train, config.validation, 1, label_column, config)
        test_source = held_out_source(config.validation, train_source)
    train, evaluation = (
        split if count is None or count >= len(split) else split.shuffle(seed=0).select(range(count))
        for split, count in ((train, config.max_train_samples), (evaluation, config.max_eval_samples))
    )

    if image_column not in evaluation.features:
        raise SeekingError(
            f"data set {name}: {test_source} has no column {image_column}; it has {', '.join(evaluation.features)}. "
            "Call the columns the same in both splits"
        )
    images = _images((train, evaluation), image_column, label_column, config)
    return *images, classes, (train_source, test_source), unused


def _hold_out(rows: Any, share: float, seed: int, label_column: str, config: DataConfig) -> tuple[Any, Any]:
    """The rows that are kept, and a share that is held out.

    Raises:
        SeekingError: there are too few.
    """
    if len(rows) < 2:
        raise SeekingError(
            f"data set {config.data}: {len(rows)} images and no test split; cannot hold out a test split"
        )
    each_class = config.split_method == "classes"
    kept, held_out = hold_out(numbers_of(rows, label_column), share, seed, each_class=each_class)
    return rows.select(kept), rows.select(held_out)


def _images(parts: tuple[Any, Any], image_column: str, label_column: str, config: DataConfig) -> tuple[Images, Images]:
    """The images of the training and the test rows, all in one format of pixels.

    Raises:
        SeekingError: a file is of no known kind.
    """
    train, evaluation = (Files(_encoded(part, image_column, config.data), image_column, config.data) for part in parts)
    pixel_format = common_format([train, evaluation], config.channels)

    def labelled(files: Files, part: Any) -> Images:
        numbers = torch.from_numpy(numbers_of(part, label_column).astype(np.int64))
        return Images(Encoded(files, pixel_format, config.stored_size), numbers)

    return labelled(train, parts[0]), labelled(evaluation, parts[1])


def _columns(features: Mapping[str, Any], config: DataConfig) -> tuple[str, str]:
    """The columns of images and of labels.

    Raises:
        SeekingError: there is no such column, or there are several.
    """
    import datasets

    class_columns = [column for column, feature in features.items() if isinstance(feature, datasets.ClassLabel)]
    labels = next(([column] for column in LABEL_COLUMNS if column in features), class_columns)
    label_column = _column("label", config.label_column, features, labels, config.data)
    images = [column for column, feature in features.items() if isinstance(feature, datasets.Image)]
    images = images or [column for column, feature in features.items() if _holds_bytes(feature)]
    return _column("image", config.image_column, features, images, config.data), label_column


def _test_labels(splits: Splits, column: str, config: DataConfig) -> tuple[str | None, Labelled | None]:
    """The first test split that has labels, and these; None if none has.

    Raises:
        SeekingError: the split that is asked for has no labels.
    """
    for split in TEST_SPLITS:
        if split in splits:
            labels = read_labels(splits[split], column, config.data)
            if labels.used:
                return split, labels
            if config.test_split:
                raise SeekingError(
                    f"data set {config.data}: {splits[split].source} has no labels; name another split with "
                    "test_split, or hold images out of the training split with validation"
                )
    return None, None


def _holds_bytes(feature: Any) -> bool:
    """Whether a column may hold encoded images as plain bytes, alone or with the path of their file."""
    feature = feature.get("bytes") if isinstance(feature, dict) else feature
    return "binary" in str(getattr(feature, "dtype", ""))


def _encoded(rows: Any, column: str, name: str) -> Any:
    """The image column alone, as encoded images: from images, their bytes, or the paths of their files."""
    import datasets

    rows = rows.select_columns([column])
    feature = rows.features[column]
    if not isinstance(feature, datasets.Image | dict):
        if getattr(feature, "dtype", "") not in ("string", "large_string") and not _holds_bytes(feature):
            raise SeekingError(
                f"data set {name}: column {column} holds {feature}, not images; store them encoded (PNG, JPEG), or "
                "name another column with image_column"
            )
        if _holds_bytes(feature):
            rows = rows.cast_column(column, datasets.Value("large_binary"))  # Not every kind of bytes is an Image yet.
    try:
        return rows.cast_column(column, datasets.Image(decode=False))
    except Exception as error:
        raise SeekingError(
            f"data set {name}: column {column} holds {feature}, which cannot be read as images ({error})"
        ) from error


def _column(kind: str, requested: str | None, columns: Mapping[str, Any], candidates: Sequence[str], name: str) -> str:
    if requested is not None:
        if requested not in columns:
            raise unknown(f"{kind}_column of {name}", requested, columns)
        return requested
    if len(candidates) != 1:
        held = [
            f"{column} ({textwrap.shorten(str(getattr(feature, 'dtype', feature)), 40)})"
            for column, feature in columns.items()
        ]
        candidate_names = f"several ({', '.join(candidates)})" if candidates else "none"
        raise SeekingError(
            f"data set {name}: needs one {kind} column, found {candidate_names} among {', '.join(held)}; "
            f"name it with {kind}_column"
        )
    return candidates[0]
