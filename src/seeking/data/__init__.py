"""Data: labelled images by name or path, in memory."""

from seeking.data.images import Batches, Images, loader
from seeking.data.load import DataConfig, ImageData, load

__all__ = ["Batches", "DataConfig", "ImageData", "Images", "load", "loader"]
