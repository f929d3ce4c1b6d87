"""What a model keeps from its first forward pass: the verdict is the same whichever of the two has run before."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from seeking import NotContainedError, match, verify

BATCH = torch.randn(2, 6, 3, generator=torch.Generator().manual_seed(0))


class Positions(nn.Module):
    """Adds a table of positions, which its first forward pass makes and it keeps in some way."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        if kind == "buffer":
            self.register_buffer("kept", None)
        elif kind != "no attribute":
            self.kept: Any = {"attribute": None, "mapping": {}, "list": []}[kind]

    def forward(self, x: Tensor) -> Tensor:
        kept = getattr(self, "kept", None)
        if kept is None or (isinstance(kept, dict) and x.shape[1] not in kept) or (isinstance(kept, list) and not kept):
            table = torch.linspace(0, 1, x.shape[1])[:, None].to(x)
            if self.kind == "mapping":
                self.kept[x.shape[1]] = table
            elif self.kind == "list":
                self.kept.append(table)
            else:
                self.kept = table
            kept = self.kept
        if not isinstance(kept, Tensor):
            kept = kept[x.shape[1] if isinstance(kept, dict) else 0]
        return x + kept


def make(width: int, kind: str) -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, width), Positions(kind), nn.Linear(width, 2))


@pytest.mark.parametrize("kind", ["attribute", "no attribute", "mapping", "list"])
@pytest.mark.parametrize("ran", [{}, {0: 6}, {1: 6}, {0: 6, 1: 6}, {0: 6, 1: 5}])
def test_it_does_not_matter_which_models_have_run_before_and_on_what(kind: str, ran: dict[int, int]) -> None:
    models = make(4, kind), make(6, kind)
    with torch.no_grad():
        for place, length in ran.items():
            models[place](BATCH[:, : length if kind == "mapping" else 6])
    before = [vars(model[1]).get("kept") for model in models]
    verdict = verify(*models, match(*models, batch=BATCH), BATCH)
    assert verdict, verdict.reason
    assert all(vars(model[1]).get("kept") is kept for model, kept in zip(models, before, strict=True))


def test_tables_in_half_precision_are_made_by_both() -> None:
    models = [model.to(torch.bfloat16) for model in (make(4, "attribute"), make(6, "attribute"))]
    batch = BATCH.to(torch.bfloat16)
    with torch.no_grad():
        models[1](batch)
    verdict = verify(*models, match(*models, batch=batch), batch)
    assert verdict, verdict.reason


def test_a_difference_as_small_as_rounding_is_still_one() -> None:
    base, motivated = (nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4, eps=eps)) for eps in (1e-5, 2e-5))
    verdict = verify(base, motivated, match(base, motivated, batch=BATCH), BATCH)
    assert not verdict and verdict.difference < 1e-2


def test_what_only_one_model_was_made_with_is_not_taken_for_a_memory() -> None:
    base, motivated = make(4, "attribute"), make(6, "attribute")
    motivated[1].kept = torch.ones(6, 1)
    assert not verify(base, motivated, match(base, motivated, batch=BATCH), BATCH)


def test_a_buffer_that_a_first_forward_makes_is_told_of() -> None:
    base, motivated = make(4, "buffer"), make(6, "buffer")
    with torch.no_grad():
        base(BATCH)
        with pytest.raises(
            NotContainedError, match=r"1\.kept: .* no tensor 1\.kept.* None there .* run both models once"
        ):
            match(base, motivated, batch=BATCH)
        motivated(BATCH)
    assert verify(base, motivated, match(base, motivated, batch=BATCH), BATCH)


class Scaled(nn.Module):
    def __init__(self, by: float) -> None:
        super().__init__()
        self.by = by

    def forward(self, x: Tensor) -> Tensor:
        return self.by * x


def test_models_that_differ_little_and_make_a_buffer_in_their_first_pass_are_told_apart() -> None:
    base, motivated = (nn.Sequential(make(w, "buffer"), Scaled(by)) for w, by in ((4, 1.0), (6, 1.001)))
    verdict = verify(base, motivated, match(base, motivated, batch=BATCH), BATCH)
    assert not verdict
    assert "1.001" in verdict.reason
