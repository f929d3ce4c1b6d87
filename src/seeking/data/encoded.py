"""Images that are decoded on demand."""

import contextlib
import copy
import io
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import get_worker_info

from seeking.data.decode import Extent, PixelFormat
from seeking.errors import SeekingError

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
    """

    def __init__(self, rows: Any, column: str, name: str) -> None:
        self.name = name
        self._rows, self._column = rows, column

    def __len__(self) -> int:
        return len(self._rows)

    def read(self, rows: list[int], convert: Callable[[Image.Image], T]) -> Iterator[T]:
        """Open and convert the images in these rows, in order.

        Raises:
            SeekingError: an image is missing or cannot be decoded or converted.
        """
        for row, file in zip(rows, self._rows[rows][self._column], strict=True):
            with self._named(row, file):
                yield convert(self._open(row, file))

    def select(self, rows: list[int]) -> "Files":
        """These rows alone."""
        return Files(self._rows.select(rows), self._column, self.name)

    def describe(self, row: int) -> str:
        """Number and, if known, path of an image, for messages."""
        return _describe(row, self._rows[row][self._column])

    def _open(self, row: int, file: Any) -> Image.Image:
        if file is None:
            raise SeekingError(f"data set {self.name}: image {row} is missing; remove the row")
        return Image.open(Path(file["path"]) if file["bytes"] is None else io.BytesIO(file["bytes"]))

    @contextlib.contextmanager
    def _named(self, row: int, file: Any) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # Decoders raise errors of any kind.
            if file is None:
                raise
            reason = str(error).strip() or type(error).__name__
            raise SeekingError(
                f"data set {self.name}: {_describe(row, file)} cannot be decoded ({reason}); repair or remove it"
            ) from error


def common_format(parts: Sequence[Files], channels: int | None) -> PixelFormat:
    """The format in which all images of some parts of a data set can be decoded alike.

    Images are looked at up to the first one with colour, so all of them are if there is none.

    Args:
        parts: such as the training and the test images.
        channels: 1 for grey, 3 for colour; 3 by default if any image has colour.

    Raises:
        SeekingError: an image cannot be decoded.
    """
    chunks = [(part, rows.tolist()) for part in parts for rows in torch.arange(len(part)).split(CHUNK) if len(rows)]

    def extent(chunk: tuple[Files, list[int]]) -> Extent:
        part, rows = chunk
        extents = []
        for image_extent in part.read(rows, Extent.of):
            extents.append(image_extent)
            if image_extent.colour:
                break
        return Extent.union(extents)

    extents = [extent((part, rows[:1])) for part, rows in chunks[:1]]  # Most often one image is enough.
    with ThreadPoolExecutor() as pool:  # Decoding releases the GIL.
        while chunks and not extents[-1].colour:
            extents.append(Extent.union(pool.map(extent, chunks[:CHUNKS_AT_ONCE])))
            chunks = chunks[CHUNKS_AT_ONCE:]
    return Extent.union(extents).pixel_format(channels)


class Encoded:
    """Encoded images. Indexing decodes them to uint8 ``[count, channels, height, width]``, like indexing a tensor.

    Args:
        files: the encoded images.
        pixel_format: what they are decoded to.
        size: side in pixels that images are resized and cropped to; their own size by default.

    Raises:
        SeekingError: the first image cannot be decoded.
    """

    def __init__(self, files: Files, pixel_format: PixelFormat, size: int | None = None) -> None:
        from torchvision.transforms import v2

        self._files, self._format = files, pixel_format
        transforms: list[Any] = [v2.Resize(size, antialias=True), v2.CenterCrop(size)] if size else []
        self._prepare = v2.Compose([*transforms, v2.PILToTensor()])
        self._current_rows = torch.full((MAX_WORKERS,), -1).share_memory_()
        blank = self._prepare(Image.new(pixel_format.mode, (1, 1)))
        self.shape = torch.Size(
            (len(files), *next(files.read([0], self._decode) if len(files) else iter([blank])).shape)
        )

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, indices: Tensor) -> Tensor:
        """Decode the images with these indices.

        Raises:
            SeekingError: an image cannot be decoded, or its size is not that of the first image.
        """
        pixels = torch.empty(len(indices), *self.shape[1:], dtype=torch.uint8)
        worker, rows = get_worker_info(), indices.tolist()
        images = self._files.read(rows, self._decode)
        for position, row in enumerate(rows):
            if worker and worker.id < MAX_WORKERS:
                self._current_rows[worker.id] = row
            tensor = next(images)
            if tensor.shape != pixels.shape[1:]:
                raise SeekingError(
                    f"data set {self._files.name}: {self._files.describe(row)} is {list(tensor.shape)}, the first one "
                    f"{list(pixels.shape[1:])}; give image_size to make them the same"
                )
            pixels[position] = tensor
        return pixels

    def select(self, indices: Tensor) -> "Encoded":
        """The images with these indices, still encoded."""
        selected = copy.copy(self)
        selected._files = self._files.select(indices.tolist())
        selected._current_rows = torch.full((MAX_WORKERS,), -1).share_memory_()
        selected.shape = torch.Size((len(indices), *self.shape[1:]))
        return selected

    def decoded(self) -> Tensor:
        """All images in one tensor."""
        pixels = torch.empty(self.shape, dtype=torch.uint8)

        def decode(indices: Tensor) -> None:
            pixels[indices[0] : indices[-1] + 1] = self[indices]

        with ThreadPoolExecutor() as pool:  # Decoding releases the GIL.
            for _ in pool.map(decode, torch.arange(len(self)).split(CHUNK)):
                pass
        return pixels

    def images_in_progress(self) -> str:
        """Names of the images that the workers decoded last, for error messages."""
        return ", ".join(self._files.describe(row) for row in self._current_rows.tolist() if row >= 0)

    def _decode(self, image: Image.Image) -> Tensor:
        tensor: Tensor = self._prepare(self._format.convert(image))
        return tensor


def _describe(row: int, file: Any) -> str:
    path = file["path"] if file else None
    return f"image {row} ({path})" if path else f"image {row}"
