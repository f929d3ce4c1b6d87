"""Data sets: images with their classes, texts and tables, loaded by name or path."""

from typing import TYPE_CHECKING

from seeking.lazy import lazy

if TYPE_CHECKING:
    from seeking.data.augment import Augmentation
    from seeking.data.config import DataConfig
    from seeking.data.images import Batches, Images, loader
    from seeking.data.loading import ImageData, load
    from seeking.data.split_use import SplitUse

__all__ = ["Augmentation", "Batches", "DataConfig", "ImageData", "Images", "SplitUse", "load", "loader"]

__getattr__ = lazy(
    __name__,
    {
        "seeking.data.augment": "Augmentation",
        "seeking.data.config": "DataConfig",
        "seeking.data.images": "Batches Images loader",
        "seeking.data.loading": "ImageData load",
        "seeking.data.split_use": "SplitUse",
    },
)
