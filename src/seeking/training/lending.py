"""Each step gets the batch as the loader made it, whatever the steps before have done to it."""

import contextlib
from collections.abc import Iterator
from typing import Any

from torch import Tensor

from seeking.errors import SeekingError
from seeking.internals import versions
from seeking.renewed import renewed
from seeking.weights_map import tensors_in


class Lending:
    """Lends a batch to one borrower after the other: the steps of the models, or their evaluations.

    All get containers of their own. Tensors are copied for those who change them in place, and for everyone's first
    batch, on which that is seen; all others get the tensors themselves.
    """

    def __init__(self) -> None:
        self._careful: set[str] = set()
        self._changing: set[str] = set()
        self._changed: list[Tensor] = []
        self._by = ""

    @contextlib.contextmanager
    def lent(self, batch: Any, borrower: str) -> Iterator[Any]:
        """The batch for one borrower, who has it inside.

        Args:
            batch: of the loader.
            borrower: who computes with it.

        Raises:
            SeekingError: another borrower has changed a tensor of the batch, without having done so before.
        """
        if self._changed and any(tensor is changed for tensor in tensors_in(batch) for changed in self._changed):
            raise SeekingError(
                f"the loss of the {self._by} changes a tensor of its batch in place, of shape "
                f"{list(self._changed[0].shape)}, so that the {borrower} would compute on other data; let the loss and "
                "the models change copies (x = x.clone())"
            )
        own = borrower in self._careful
        given = renewed(batch) if own else renewed(batch, Tensor.clone)
        lent = tensors_in(given)
        before = versions(lent)
        yield given
        changed = [tensor for tensor, now, was in zip(lent, versions(lent), before, strict=True) if now != was]
        if changed:
            self._changing.add(borrower)
            self._careful.discard(borrower)
            if own:
                self._changed, self._by = changed, borrower
        elif borrower not in self._changing:
            self._careful.add(borrower)
