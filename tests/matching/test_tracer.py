import pytest
import torch
from torch import Tensor, nn
from zoo import PICTURES, WORDS, Images, Sizes, Tokens

from seeking import MatchWarning, match, verify
from seeking.weights_map import tensors


class Branching(nn.Module):
    """Looks at its activations."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, width), nn.Linear(width, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        return self.second(x if x.sum() > 0 else x.relu())


def test_a_model_that_looks_at_its_activations_is_matched_by_names() -> None:
    base, motivated = Branching(3), Branching(5)
    with pytest.warns(MatchWarning, match=r"Branching: the channel spaces are unknown.*meta tensors.*verify"):
        weights_map = match(base, motivated, batch=torch.randn(2, 4))
    assert weights_map.entries["first.weight"].origin == "name"
    assert verify(base, motivated, weights_map, torch.randn(2, 4))


SMALL = Sizes()


LARGE = Sizes(width=7, hidden=9, heads=5, per_group=3, depth=3, words=13)


@pytest.mark.parametrize("models", [(Tokens, "grouped", WORDS), (Images, "groups", PICTURES)], ids=["tokens", "images"])
def test_in_a_callers_inference_mode_the_map_is_the_same(models: tuple[type[nn.Module], str, Tensor]) -> None:
    make, branch, batch = models
    more = [nn.LayerNorm] if make is Tokens else []
    base, motivated = make(SMALL, [branch], *more), make(LARGE, [branch], *more)
    with torch.inference_mode():
        inside = match(base, motivated, batch=batch, width="even")
    assert inside == match(base, motivated, batch=batch, width="even")


VECTORS = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))


class Remembering(nn.Module):
    """Keeps a table once made, a running mean, and writes into its batch."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.enter, self.leave = nn.Linear(8, width), nn.Linear(width, 2)
        self.table: Tensor | None = None
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("state", torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        x.mul_(2)
        x = self.enter(x)
        if self.table is None:
            self.table = torch.linspace(0, 1, len(x), device=x.device)[:, None]
            self.register_buffer("late", torch.ones(1, device=x.device), persistent=False)
        self.mean = 0.9 * self.mean + 0.1 * x.detach().mean(0)
        self.state.mul_(0.5).add_(x.detach().mean(0))
        return self.leave(x * self.table + self.state)


def test_what_a_forward_remembers_is_not_disturbed() -> None:
    base, motivated = Remembering(4), Remembering(6)
    before = [{n: (id(t), t.clone()) for n, t in tensors(model).items()} for model in (base, motivated)]
    batch = VECTORS.clone()
    weights_map = match(base, motivated, batch=batch)
    verdict = verify(base, motivated, weights_map, batch)
    assert verdict, verdict.reason
    assert torch.equal(batch, VECTORS)
    for model, was in zip((base, motivated), before, strict=True):
        assert model.table is None
        now = tensors(model)
        assert now.keys() == was.keys()
        assert all(id(now[name]) == i and torch.equal(now[name], t) for name, (i, t) in was.items())
        model(VECTORS.clone())
