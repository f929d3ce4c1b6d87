"""Labelled image data sets, loaded by name or path."""

from typing import TYPE_CHECKING

from seeking.lazy import lazy

if TYPE_CHECKING:
    from seeking.data.augment import Augmentation
    from seeking.data.config import DataConfig
    from seeking.data.images import Batches, Images, loader
    from seeking.data.loading import ImageData, SplitUse, load

__all__ = ["Augmentation", "Batches", "DataConfig", "ImageData", "Images", "SplitUse", "load", "loader"]

__getattr__ = lazy(
    __name__,
    {
        "Augmentation": "seeking.data.augment:Augmentation",
        "Batches": "seeking.data.images:Batches",
        "DataConfig": "seeking.data.config:DataConfig",
        "ImageData": "seeking.data.loading:ImageData",
        "Images": "seeking.data.images:Images",
        "SplitUse": "seeking.data.loading:SplitUse",
        "load": "seeking.data.loading:load",
        "loader": "seeking.data.images:loader",
    },
)
