"""Other ways to train two sizes of one model, over the same loop."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from seeking.training import Trainer


class Distilled(Trainer):
    """A model that learns from a larger one trained before it, as well as from the labels.

    The loss is ``(1 - weight)`` of the labels' and ``weight`` of the divergence from the teacher's outputs, both
    softened by the temperature, whose square it is multiplied by (Hinton, Vinyals and Dean, "Distilling the Knowledge
    in a Neural Network", arXiv 1503.02531). The teacher's forward passes count as training FLOPs.

    Args:
        teacher: left as it is.
        weight: of the teacher, from 0 to 1.
        temperature: by which both models' outputs are divided.
        args: of the ``Trainer``; so are the other keywords.
    """

    def __init__(
        self, *args: Any, teacher: nn.Module, weight: float = 0.9, temperature: float = 4.0, **kwargs: Any
    ) -> None:
        self.teacher = teacher.eval().requires_grad_(False)
        self.weight, self.temperature = weight, temperature
        super().__init__(*args, **kwargs)

    def _classification_loss(self, model: nn.Module, batch: Any) -> Tensor:
        if not model.training:
            return super()._classification_loss(model, batch)
        inputs, labels = batch
        with torch.no_grad(), self.accelerator.autocast():
            wanted = self.teacher.to(inputs.device)(inputs).float() / self.temperature
        logits = model(inputs)
        found = F.log_softmax(logits / self.temperature, dim=-1)
        soft = F.kl_div(found, F.log_softmax(wanted, dim=-1), reduction="batchmean", log_target=True)
        hard = F.cross_entropy(logits, labels, label_smoothing=self.config.label_smoothing)
        return (1 - self.weight) * hard + self.weight * self.temperature**2 * soft


class Sandwich(Trainer):
    """Both widths at every batch, with in-place distillation and one optimizer.

    The larger model learns from the labels, the smaller one inside it from the larger one's outputs on the same batch;
    their gradients are summed before the step (Yu and Huang, "Universally Slimmable Networks and Improved Training
    Techniques", arXiv 1903.05134). With two sizes the sandwich is its two slices of bread.
    """

    def train_epoch(self) -> None:
        """One pass over the training data, or the rest of it."""
        assert self.pair
        motivated = self.learners["motivated"]
        for batches in self._batches():
            self._row = {"lr": self._learning_rate}
            with self.pair.motivated():
                self._train_step(motivated, batches, self._both)
            self.cost.batches, self.cost.samples = self.cost.motivated_batches, self.cost.motivated_samples
            self._advance()

    def _both(self, model: nn.Module, batch: Any) -> Tensor:
        assert self.pair
        inputs, labels = batch
        logits = model(inputs)
        inside = self.pair.map.extract(dict(self.pair.motivated_model.named_parameters()))
        smaller = functional_call(self.learners["base"].model.train(), inside, (inputs,))
        hard = F.cross_entropy(logits, labels, label_smoothing=self.config.label_smoothing)
        return hard + F.cross_entropy(smaller, logits.detach().softmax(dim=-1))
