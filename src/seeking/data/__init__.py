"""Labelled image data sets, loaded by name or path."""

from seeking.data.augment import Augmentation
from seeking.data.config import DataConfig
from seeking.data.images import Batches, Images, loader
from seeking.data.load import ImageData, load
from seeking.data.select import SplitUse

__all__ = ["Augmentation", "Batches", "DataConfig", "ImageData", "Images", "SplitUse", "load", "loader"]
