"""What models keep from earlier forward passes, such as a table that the first one computes, in its precision."""

import contextlib
from typing import Any

from torch import nn

from seeking.copies import copied, random_state_preserved
from seeking.deterministic import Deterministic
from seeking.forward import Forward

ROUNDED = 1e-2
"""Greatest relative difference that a table in half precision makes."""


def run_once(model: nn.Module, batch: Any, run: Forward, seed: int) -> None:
    """Let a copy of a model keep what it keeps from a first pass, as the user's own models do.

    Args:
        model: a copy, with its own weights and in its own precision.
        batch: one input, as ``run`` takes it; it is not changed.
        run: runs a model on the batch; where it fails, so it does later.
        seed: of the random numbers in the forward pass.
    """
    with contextlib.suppress(Exception), Deterministic(), random_state_preserved(seed):
        run(model, copied(batch))
