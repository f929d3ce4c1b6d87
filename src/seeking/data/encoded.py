"""Images that stay encoded until they are asked for."""

import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import get_worker_info

from seeking.errors import SeekingError

MAX_WORKERS = 64


class Encoded:
    """Files of images; indexing decodes them to uint8 ``[count, channels, height, width]``, as a tensor would.

    Args:
        rows: of a data set of Hugging Face's ``datasets``, whose column of images is cast to ``Image(decode=False)``.
        column: of the images.
        name: of the data set, for errors.
        mode: ``L`` for grey images, ``RGB`` for others; the first image's if not given.
        size: side to which images are resized and cropped; their own if not given.

    Raises:
        SeekingError: the first image cannot be decoded.
    """

    def __init__(self, rows: Any, column: str, name: str, *, mode: str | None = None, size: int | None = None) -> None:
        from torchvision.transforms import v2

        self._rows, self._column, self._name = rows, column, name
        transforms: list[Any] = [v2.Resize(size, antialias=True), v2.CenterCrop(size)] if size else []
        self._prepare = v2.Compose([*transforms, v2.PILToTensor()])
        self._at_work = torch.full((MAX_WORKERS,), -1).share_memory_()
        first = self._open(0, rows[0][column]) if len(rows) else Image.new(mode or "RGB", (1, 1))
        self.mode = mode or ("L" if first.mode in ("L", "1") else "RGB")
        self.shape = torch.Size((len(rows), *self._prepare(first.convert(self.mode)).shape))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, at: Tensor) -> Tensor:
        """The images at these places.

        Raises:
            SeekingError: one cannot be decoded, or is of another size than the first.
        """
        pixels = torch.empty(len(at), *self.shape[1:], dtype=torch.uint8)
        worker = get_worker_info()
        rows = at.tolist()
        for number, (row, file) in enumerate(zip(rows, self._rows[rows][self._column], strict=True)):
            if worker and worker.id < MAX_WORKERS:
                self._at_work[worker.id] = row
            tensor = self._prepare(self._open(row, file).convert(self.mode))
            if tensor.shape != pixels.shape[1:]:
                raise SeekingError(
                    f"data set {self._name}: {_named(row, file)} is {list(tensor.shape)}, the first one "
                    f"{list(pixels.shape[1:])}; give image_size to make them the same"
                )
            pixels[number] = tensor
        return pixels

    def decoded(self) -> Tensor:
        """All of them in one tensor."""
        pixels = torch.empty(self.shape, dtype=torch.uint8)

        def put(at: Tensor) -> None:
            pixels[at[0] : at[-1] + 1] = self[at]

        with ThreadPoolExecutor() as pool:  # Decoding leaves the interpreter free.
            for _ in pool.map(put, torch.arange(len(self)).split(256)):
                pass
        return pixels

    def under_way(self) -> str:
        """The images that workers decoded last, in words."""
        rows = [row for row in self._at_work.tolist() if row >= 0]
        return ", ".join(_named(row, self._rows[row][self._column]) for row in rows)

    def _open(self, row: int, file: Any) -> Image.Image:
        if file is None:
            raise SeekingError(f"data set {self._name}: image {row} is missing; remove the row")
        try:
            image = Image.open(Path(file["path"]) if file["bytes"] is None else io.BytesIO(file["bytes"]))
            return ImageOps.exif_transpose(image)  # This loads it, too.
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise SeekingError(
                f"data set {self._name}: {_named(row, file)} cannot be decoded ({error}); mend or remove it"
            ) from error


def _named(row: int, file: Any) -> str:
    path = file["path"] if file else None
    return f"image {row} ({path})" if path else f"image {row}"
