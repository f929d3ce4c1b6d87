"""Language models over the bytes of a text."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from seeking.choices import Loss
from seeking.data.batched import in_batches
from seeking.data.config import DataConfig
from seeking.data.split_use import NOT_USED, SET_ASIDE, SplitUse
from seeking.data.text import PYTHON, Windows, read_text
from seeking.errors import SeekingError
from seeking.experiments.config import RunConfig
from seeking.experiments.tasks.base import RunLoaders, Samples, Task, TaskData, cut
from seeking.report.metric import BITS_PER_BYTE
from seeking.training.next_byte import NextByte
from seeking.training.objective import Objective

TEST = 0.1
"""Share of the text, at its end, that models are tested on."""


@dataclass(frozen=True)
class TextOfRun:
    """A text in parts; each is uint8 of one dimension.

    Attributes:
        name: of the text.
        train: to train on.
        test: to evaluate on.
        held_out: of the training text, for conditions; None if there is none.
        length: bytes in a window.
        windows: number of training windows in an epoch; None for as many as lie side by side.
        test_windows: number of test windows; None for the same.
        unused: bytes of the test part that are not used, since the end of the training part is held out instead.
    """

    name: str
    train: Tensor
    test: Tensor
    held_out: Tensor | None
    length: int
    windows: int | None
    test_windows: int | None
    unused: int = 0
    unit: str = "windows"

    @property
    def train_samples(self) -> int:
        """Number of training windows in an epoch."""
        return len(self._training(0))

    @property
    def example(self) -> Tensor:
        """Two windows, int64 ``[2, length]``."""
        return self._training(0).__getitems__([0, 0])[0]

    @property
    def model_arguments(self) -> Mapping[str, Any]:
        """Size of the vocabulary, and length of a window."""
        return {"num_classes": 256, "sequence_length": self.length}

    @property
    def splits(self) -> tuple[SplitUse, ...]:
        """What each part of the text is used for."""
        parts = {"training": self._training(0), "test": self._testing(), SET_ASIDE: self._held_out()}
        uses = [SplitUse(use, f"{len(part.text):,} bytes", None, len(part)) for use, part in parts.items() if part]
        unused = SplitUse(NOT_USED, f"{self.unused:,} bytes", None, max(0, self.unused - 1) // self.length)
        return (*uses, unused) if self.unused else tuple(uses)

    def describe(self) -> str:
        """Bytes of each part, and length of a window."""
        return (
            f"{len(self.train):,} training and {len(self.test):,} test bytes, {self.train_samples:,} windows of "
            f"{self.length} bytes an epoch"
        )

    def loaders(self, config: RunConfig) -> RunLoaders:
        """Random windows to train on, and evenly spread ones."""
        held_out = self._held_out()
        return RunLoaders(
            in_batches(self._training(config.seed), config.batch_size, shuffle_seed=config.seed),
            in_batches(self._testing(), config.batch_size),
            in_batches(held_out, config.batch_size) if held_out else None,
        )

    def parts(self) -> tuple[Samples, Samples]:
        """Evenly spread windows."""
        return Windows(self.train, self.length, self.windows), self._testing()

    def objective(self, config: RunConfig) -> Objective:
        """The cross-entropy of the next byte."""
        return self.taught(config, config.teach, 1.0)

    def taught(self, config: RunConfig, weight: float, temperature: float) -> Objective:
        """The same with a teacher."""
        return NextByte(config.label_smoothing, weight, temperature)

    def _training(self, seed: int) -> Windows:
        return Windows(self.train, self.length, self.windows, seed)

    def _testing(self) -> Windows:
        return Windows(self.test, self.length, self.test_windows)

    def _held_out(self) -> Windows | None:
        return None if self.held_out is None else Windows(self.held_out, self.length)


def _load(config: DataConfig, sharing: int, loss: Loss) -> TaskData:
    """The last tenth of the text is for tests; before it lies what is held out, and before that what is trained on."""
    text, length = read_text(config.data), config.sequence_length
    train, test = cut(text, round(len(text) * TEST))
    unused = 0
    if config.validation:
        unused = len(test)
        train, test = cut(train, round(len(train) * config.validation))
    held_out = None
    if config.held_out:
        train, held_out = cut(train, config.held_out * length + 1)
    shortened = "sequence_length or held_out" if config.held_out else "sequence_length"
    for part, content, smaller in (("training", train, shortened), ("test", test, "sequence_length")):
        if len(content) <= length:
            raise SeekingError(
                f"{config.data}: the {part} part has {len(content):,} bytes, of which a window needs {length + 1}; "
                f"give a longer text or a smaller {smaller}"
            )
    return TextOfRun(
        name=config.data,
        train=train,
        test=test,
        held_out=held_out,
        length=length,
        windows=config.max_train_samples,
        test_windows=config.max_eval_samples,
        unused=unused,
    )


TASK = Task(
    "text",
    {"cross_entropy": BITS_PER_BYTE},
    {"cross_entropy": NextByte.METRICS},
    _load,
    frozenset({"sequence_length"}),
    (PYTHON,),
)
