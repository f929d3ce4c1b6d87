"""Training data that no step trains on, for conditions on the held-out loss."""

import torch
from accelerate import Accelerator

from seeking.copies import copied
from seeking.errors import SeekingError
from seeking.training.batches import draw
from seeking.training.learner import Learner
from seeking.training.loaders import Loader
from seeking.training.modes import evaluating
from seeking.training.objective import Objective
from seeking.training.rng import RandomState


class HeldOut:
    """A few held-out batches, loaded once.

    Args:
        loader: the prepared loader; all of its batches are taken.
        accelerator: for the device and the other processes.
        generators: whose states a measurement leaves as they are.

    Attributes:
        samples: number of samples, over all processes.

    Raises:
        SeekingError: the loader yields no batch.
    """

    def __init__(self, loader: Loader, accelerator: Accelerator, generators: RandomState) -> None:
        self._accelerator, self._generators = accelerator, generators
        with RandomState(accelerator.device, loader).preserved():
            self._parts = [*draw(loader, accelerator.device)]
        self.samples = sum(part.samples for part in self._parts)
        if not self._parts:
            raise SeekingError("the held-out data yield no batch")

    @torch.no_grad()
    def loss(self, learner: Learner, objective: Objective) -> float:
        """The mean loss of a model in evaluation mode, the same in every process."""
        sums = torch.zeros(2, dtype=torch.float64)
        with self._generators.preserved(), evaluating(learner.model) as model:
            for part in self._parts:
                losses = objective.evaluate(model, copied(part.batch))["loss"].cpu().double()
                sums += torch.stack([losses.sum(), torch.tensor(float(len(losses)))]) / part.copies
        if self._accelerator.num_processes > 1:
            sums = self._accelerator.reduce(sums.to(self._accelerator.device)).cpu()
        return float(sums[0] / sums[1])
