"""Images that cannot be decoded: all of them are named at once, and the data set goes on without them if it may."""

import warnings
from collections.abc import Mapping

import torch

from seeking.choices import OnBadImage
from seeking.data.encoded import Files
from seeking.data.folders import shown
from seeking.data.images import Images
from seeking.errors import RunWarning, SeekingError

NAMED_IMAGES = 10
"""How many images a message names."""


def readable(splits: Mapping[str, Images], files: Mapping[str, Files], policy: OnBadImage) -> list[Images]:
    """The images of each split without those that could not be decoded.

    Args:
        splits: the images, by name of the split.
        files: likewise, where they were read from, with notes of what could not be decoded.
        policy: what to do if there are any: ``error``, or ``skip`` them with a warning.

    Raises:
        SeekingError: there are some, and they may not be skipped; or none is left in a split.
    """
    texts, left, empty = [], [], False
    for name, images in splits.items():
        bad = files[name].unreadable
        kept = [row for row in range(len(images)) if row not in bad]
        left.append(images.select(torch.tensor(kept, dtype=torch.long)) if bad else images)
        if bad:
            empty = empty or not kept
            listed = [shown([bad[row]], 1) for row in sorted(bad)[:NAMED_IMAGES]]
            listed += [f"and {len(bad) - NAMED_IMAGES:,} more"] if len(bad) > NAMED_IMAGES else []
            texts.append(
                f"data set {files[name].name}: {len(bad):,} of {len(images):,} {name} images cannot be decoded: "
                + "; ".join(listed)
            )
    if texts and (policy == "error" or empty):
        ways = "" if empty else ", or give on_bad_image skip to go on without them"
        raise SeekingError(f"{'. '.join(texts)}. Repair or remove them{ways}")
    for text in texts:
        warnings.warn(f"{text}. The run goes on without them", RunWarning, stacklevel=2)
    return left
