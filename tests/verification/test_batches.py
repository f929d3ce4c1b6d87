"""What a map is verified on: batches of any form, in any precision."""

import dataclasses
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from families import SMALL_FAMILIES
from torch import Tensor, nn

from seeking import SeekingError, match, verify
from seeking.weights_map import tensors


def test_keyword_batches_and_custom_forwards_are_verified() -> None:
    class Named(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.hidden, self.out = nn.Linear(3, width), nn.Linear(width, 2)

        def forward(self, *, x: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"logits": self.out(self.hidden(x).relu())}

    base, motivated = Named(4), Named(7)
    weights_map = match(base, motivated, width="even")
    assert verify(base, motivated, weights_map, {"x": torch.randn(5, 3)})
    forward = lambda model, x: model(x=x)["logits"].sum()  # noqa: E731
    assert verify(base, motivated, weights_map, torch.randn(5, 3), forward=forward)
    parts = lambda model, x: model.out(model.hidden(x)).sum()  # noqa: E731
    assert verify(base, motivated, weights_map, torch.randn(5, 3), forward=parts)


def test_half_precision_is_judged_in_single() -> None:
    family = SMALL_FAMILIES[2]
    base, motivated = (model.bfloat16() for model in family.make())
    images = torch.randn(2, 3, family.size, family.size).bfloat16()
    assert verify(base, motivated, match(base, motivated), images)
    assert {tensor.dtype for tensor in tensors(base).values()} == {torch.bfloat16}


def test_a_batch_without_samples_proves_nothing() -> None:
    base, motivated = (nn.Sequential(nn.Linear(6, width), nn.ReLU(), nn.Linear(width, 3)) for width in (8, 16))
    weights_map = match(base, motivated)
    assert verify(base, motivated, weights_map, torch.randn(4, 6))
    with pytest.raises(SeekingError, match="no sample in the batch"):
        verify(base, motivated, weights_map, torch.randn(0, 6))


class Emptied(nn.Module):
    """Makes something without elements of its features, as detectors do of images without objects."""

    def __init__(self, width: int, empty: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.last, self.empty = nn.Linear(6, width), nn.Linear(width, 3), empty

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.last(self.first(x).relu())
        return torch.cat([output, self.empty(output)])


@pytest.mark.parametrize(
    "empty",
    [
        lambda x: x[:0].reshape(-1, 3),
        lambda x: x.new_zeros(0, 6).view(-1, 3),
        lambda x: x.new_zeros(0, 3, 2).flatten(1)[:, :3],
        lambda x: x[:0].repeat_interleave(2, 0),
        lambda x: x.new_zeros(0, 1).expand(0, 3),
    ],
)
def test_tensors_without_elements_are_followed(empty: Callable[[Tensor], Tensor]) -> None:
    base, motivated = Emptied(8, empty), Emptied(16, empty)
    x = torch.randn(4, 6)
    assert verify(base, motivated, match(base, motivated, batch=x), x)


@dataclasses.dataclass
class Batch:
    x: Tensor


CONTAINERS: dict[str, Callable[[Tensor], Any]] = {
    "dataclass": lambda x: Batch(x),
    "namespace": lambda x: SimpleNamespace(x=x),
    "list of dataclasses": lambda x: [Batch(x)],
}


def of_container(model: nn.Module, batch: Any) -> Tensor:
    x = (batch[0] if isinstance(batch, list) else batch).x
    return model(x.mul_(0.5))


@pytest.mark.parametrize("kind", CONTAINERS)
@pytest.mark.parametrize("scale", [0.1, 0.0])
def test_batches_of_any_form_prove_as_much_as_the_tensor_and_are_left_as_they_are(kind: str, scale: float) -> None:
    def network(width: int, activation: nn.Module) -> nn.Module:
        return nn.Sequential(nn.Linear(5, width, bias=False), activation, nn.Linear(width, 2))

    x = torch.linspace(-1, 1, 20).reshape(4, 5) * scale
    for activation, exact in ((nn.ReLU(), True), (nn.ReLU6() if scale else nn.Tanh(), False)):
        base, motivated = network(6, nn.ReLU()), network(9, activation)
        batch = CONTAINERS[kind](x.clone())
        weights_map = match(base, motivated, batch=batch, forward=of_container)
        assert verify(base, motivated, weights_map, batch, forward=of_container).exact is exact
        assert torch.equal(batch[0].x if kind.startswith("list") else batch.x, x)
