"""What the splits of a data set are used for."""

from dataclasses import dataclass

from torch import Tensor

NOT_USED = "not used"
SET_ASIDE = "held out for conditions"


@dataclass(frozen=True)
class SplitUse:
    """What a split of a data set is used for.

    Attributes:
        use: training, test or not used.
        source: where the images come from.
        classes: how many classes have images; None if the split is not used, or has values.
        images: how many there are.
    """

    use: str
    source: str
    classes: int | None
    images: int

    @classmethod
    def of(cls, use: str, source: str, labels: Tensor) -> "SplitUse":
        """The use of images, or rows of a table, with these labels."""
        return cls(use, source, None if labels.is_floating_point() else len(labels.unique()), len(labels))


def held_out_source(share: float, source: str) -> str:
    """Where held-out images come from, for messages."""
    return f"{share:.3g} of {source}, held out"
