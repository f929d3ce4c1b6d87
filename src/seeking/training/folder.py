"""The folder that a run writes.

config.json             the options of the run
map.json                the weights map
metrics.jsonl           a row for each batch and each evaluation, as they come
base.last.safetensors   weights; likewise base.best, motivated.last and motivated.best
summary.json            written at the end
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from torch import nn

from seeking.errors import SeekingError
from seeking.weights_files import save_weights
from seeking.weights_map import WeightsMap


class RunFolder:
    """A folder of one run.

    Args:
        path: must not hold anything yet; made, with its parents, when the run starts.
        overwrite: replace what another run left there.

    Raises:
        SeekingError: the folder holds something.
    """

    def __init__(self, path: str | Path, overwrite: bool = False) -> None:
        self.path = Path(path)
        try:
            taken = self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir()))
        except OSError as error:
            raise SeekingError(f"{self.path}: cannot be used as an output folder ({error.strerror})") from error
        if taken:
            if not overwrite:
                raise SeekingError(f"{self.path} holds another run or files of yours; name another output folder")
            if not (self.path / "config.json").exists():
                raise SeekingError(f"{self.path} is not the folder of a run, so it is not overwritten")
        self.overwrite = overwrite
        self._metrics: TextIO | None = None

    def create(self, config: Mapping[str, Any], weights_map: WeightsMap | None) -> None:
        """Begin the run's record."""
        try:
            if self.overwrite and self.path.exists():
                shutil.rmtree(self.path)
            self.path.mkdir(parents=True, exist_ok=True)
            self.write_json("config.json", config)
        except OSError as error:
            raise SeekingError(f"{self.path}: cannot be written ({error.strerror})") from error
        if weights_map:
            weights_map.save(self.path / "map.json")

    def append(self, row: Mapping[str, Any]) -> None:
        """Add a row to ``metrics.jsonl``."""
        if self._metrics is None:
            self._metrics = (self.path / "metrics.jsonl").open("a", encoding="utf-8", buffering=1)
        self._metrics.write(json.dumps(row) + "\n")

    def save_weights(self, model: nn.Module, name: str, which: str) -> None:
        """Keep a model's weights as ``NAME.WHICH.safetensors``."""
        save_weights(model, self.path / f"{name}.{which}.safetensors")

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        """Write a JSON file for people."""
        (self.path / name).write_text(json.dumps(content, indent=2, default=str) + "\n", encoding="utf-8")
