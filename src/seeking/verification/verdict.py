"""What a verification says."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Verification:
    """The verdict of ``verify``; true if the map is exact.

    Attributes:
        exact: whether the motivated model, holding the base and nothing else, computes the base's function, layer by
            layer.
        difference: greatest difference of the outputs, relative to the base's greatest output.
        layer: the first layer of the base, in the order of the forward pass, at which the two differ.
        reason: one sentence.
        contained: False where no map between these two models can be exact: what differs is not which weights are
            shared, but something that the motivated model does besides.
        not_judged: tensors of the base that no forward pass reaches, in evaluation or in training mode.
        settings_not_judged: settings of shared parts that differ, with both values, and by which nothing on this batch
            is computed: a threshold that it does not reach, a window that is longer, a rate of dropout.
    """

    exact: bool
    difference: float
    layer: str | None
    reason: str
    contained: bool = True
    not_judged: tuple[str, ...] = ()
    settings_not_judged: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return self.exact
