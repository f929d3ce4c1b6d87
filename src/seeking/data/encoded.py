"""Images that are decoded on demand."""

import copy
import io
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torch.utils.data import get_worker_info

from seeking.data.decode import Extent, PixelFormat
from seeking.data.pixels import pixels
from seeking.errors import SeekingError
from seeking.files import check_regular, reason

MAX_TEXT = 300
"""Characters of a path, or of a decoder's message, that are shown."""
MAX_WORKERS = 64
CHUNK = 256
"""Images that a thread decodes at a time."""
CHUNKS_AT_ONCE = 16
"""How many of these are looked at before the next decision whether to go on."""

T = TypeVar("T")


class Files:
    """Encoded images of a data set.

    Args:
        rows: a Hugging Face data set whose image column is cast to ``Image(decode=False)``.
        column: name of the image column.
        name: name of the data set, for error messages.

    Attributes:
        unreadable: what cannot be decoded of what ``try_read`` has read: by row, the image and the cause.
    """

    def __init__(self, rows: Any, column: str, name: str) -> None:
        self.name = name
        self.unreadable: dict[int, str] = {}
        self._rows, self._column = rows, column

    def __len__(self) -> int:
        return len(self._rows)

    def read(self, rows: list[int], convert: Callable[[Image.Image], T]) -> Iterator[T]:
        """Open and convert the images in these rows, in order.

        Raises:
            SeekingError: an image is missing or cannot be decoded or converted.
        """
        for row, file in zip(rows, self._rows[rows][self._column], strict=True):
            try:
                with self._open(file) as image:
                    converted = convert(image)
            except Exception as error:  # Decoders raise errors of any kind.
                raise SeekingError(
                    f"data set {self.name}: {_describe(row, file)} cannot be decoded ({_cause(error)}); repair or "
                    "remove it, or give on_bad_image skip"
                ) from error
            yield converted

    def try_read(self, rows: list[int], convert: Callable[[Image.Image], T]) -> Iterator[T | None]:
        """Like ``read``, with None for each image that cannot be decoded, which is noted as unreadable."""
        for row, file in zip(rows, self._rows[rows][self._column], strict=True):
            converted: T | None = None
            try:
                with self._open(file) as image:
                    converted = convert(image)
            except Exception as error:
                self.unreadable.setdefault(row, f"{_describe(row, file)}: {_cause(error)}")
            yield converted

    def select(self, rows: list[int]) -> "Files":
        """The images in these rows."""
        return Files(self._rows.select(rows), self._column, self.name)

    def describe(self, row: int) -> str:
        """Number and, if known, path of an image, for messages."""
        return _describe(row, self._rows[row][self._column])

    def _open(self, file: Any) -> Image.Image:
        if file is None:
            raise ValueError("it is missing")
        if file["bytes"] is not None:
            return Image.open(io.BytesIO(file["bytes"]))
        check_regular(path := Path(file["path"]))
        return Image.open(path)


def common_format(parts: Sequence[Files], channels: int | None) -> PixelFormat:
    """The format in which all images of some parts of a data set can be decoded alike.

    Images are looked at up to the first one with color, so all of them are if there is none. Those that cannot be
    decoded are noted.

    Args:
        parts: such as the training and the test images.
        channels: 1 for gray, 3 for color; 3 by default if any image has color.
    """
    chunks = [(part, rows.tolist()) for part in parts for rows in torch.arange(len(part)).split(CHUNK) if len(rows)]

    def extent(chunk: tuple[Files, list[int]]) -> Extent:
        part, rows = chunk
        extents = []
        for image_extent in part.try_read(rows, Extent.of):
            extents.append(image_extent or Extent())
            if extents[-1].color:
                break
        return Extent.union(extents)

    extents = [extent((part, rows[:1])) for part, rows in chunks[:1]]  # Most often one image is enough.
    with ThreadPoolExecutor() as pool:  # Decoding releases the GIL.
        while chunks and not extents[-1].color:
            extents.append(Extent.union(pool.map(extent, chunks[:CHUNKS_AT_ONCE])))
            chunks = chunks[CHUNKS_AT_ONCE:]
    return Extent.union(extents).pixel_format(channels)


class Encoded:
    """Encoded images. Indexing decodes them to uint8 ``[count, channels, height, width]``, like indexing a tensor.

    Args:
        files: the encoded images.
        pixel_format: what they are decoded to.
        size: side in pixels that images are resized and cropped to; their own size by default.
    """

    def __init__(self, files: Files, pixel_format: PixelFormat, size: int | None = None) -> None:
        from torchvision.transforms import v2

        self.files, self._format = files, pixel_format
        transforms: list[Any] = [v2.Resize(size, antialias=True), v2.CenterCrop(size)] if size else []
        self._prepare = v2.Compose(transforms) if transforms else None
        self._current_rows = torch.full((MAX_WORKERS,), -1).share_memory_()
        decoded = (tensor for row in range(len(files)) for tensor in files.try_read([row], self._decode))
        first = next((tensor for tensor in decoded if tensor is not None), None)
        blank = self._decode(Image.new(pixel_format.mode, (1, 1)))
        self.shape = torch.Size((len(files), *(blank if first is None else first).shape))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, indices: Tensor) -> Tensor:
        """Decode the images with these indices.

        Raises:
            SeekingError: an image cannot be decoded, or its size is not that of the first image.
        """
        batch = torch.empty(len(indices), *self.shape[1:], dtype=torch.uint8)
        worker, rows = get_worker_info(), indices.tolist()
        images = self.files.read(rows, self._decode)
        for position, row in enumerate(rows):
            if worker and worker.id < MAX_WORKERS:
                self._current_rows[worker.id] = row
            batch[position] = self._of_one_size(row, next(images))
        return batch

    def decoded(self) -> Tensor:
        """All images in one tensor. Those that cannot be decoded are noted, and their pixels are arbitrary.

        Raises:
            SeekingError: the size of an image is not that of the first one.
        """
        every = torch.empty(self.shape, dtype=torch.uint8)
        self._read_all(lambda row, tensor: every[row].copy_(tensor))
        return every

    def check(self) -> None:
        """Decode all images, and note those that cannot be decoded.

        Raises:
            SeekingError: the size of an image is not that of the first one.
        """
        self._read_all(lambda row, tensor: None)

    def select(self, rows: Tensor) -> "Encoded":
        """The images in these rows."""
        selected = copy.copy(self)
        selected.files = self.files.select(rows.tolist())
        selected._current_rows = torch.full((MAX_WORKERS,), -1).share_memory_()
        selected.shape = torch.Size((len(rows), *self.shape[1:]))
        return selected

    def _read_all(self, use: Callable[[int, Tensor], object]) -> None:
        def read(indices: Tensor) -> None:
            rows = indices.tolist()
            for row, tensor in zip(rows, self.files.try_read(rows, self._decode), strict=True):
                if tensor is not None:
                    use(row, self._of_one_size(row, tensor))

        with ThreadPoolExecutor() as pool:  # Decoding releases the GIL.
            for _ in pool.map(read, torch.arange(len(self)).split(CHUNK)):
                pass

    def _of_one_size(self, row: int, tensor: Tensor) -> Tensor:
        if tensor.shape != self.shape[1:]:
            raise SeekingError(
                f"data set {self.files.name}: {self.files.describe(row)} is {list(tensor.shape)}, the first one "
                f"{list(self.shape[1:])}; give image_size to make them the same"
            )
        return tensor

    def images_in_progress(self) -> str:
        """Names of the images that the workers decoded last, for error messages."""
        return ", ".join(self.files.describe(row) for row in self._current_rows.tolist() if row >= 0)

    def _decode(self, image: Image.Image) -> Tensor:
        tensor = pixels(image, self._format)
        return self._prepare(tensor) if self._prepare else tensor


def _cause(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "not an image of a known format"
    return _in_short(" ".join(reason(error).split()).rstrip(".")) or type(error).__name__


def _describe(row: int, file: Any) -> str:
    path = file["path"] if file else None
    return f"image {row} ({_in_short(path)})" if path else f"image {row}"


def _in_short(text: str) -> str:
    """A path or message of a usual length; what was taken for a path may be an image in base64."""
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}…"
