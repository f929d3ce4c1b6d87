"""What tests assert of maps in many places."""

import math

import torch
from torch import Tensor, nn

from seeking import WeightsMap, match, verify
from seeking.weights_map import tensors


def assert_invertible(weights_map: WeightsMap, base: nn.Module, motivated: nn.Module) -> None:
    """Embedded and extracted, the base's tensors are what they were, and nothing else has changed."""
    ours, theirs = tensors(base), tensors(motivated)
    embedded = weights_map.embed(ours, theirs)
    extracted = weights_map.extract(embedded)
    assert extracted.keys() == ours.keys()
    assert all(torch.equal(extracted[name], tensor) for name, tensor in ours.items())
    marked = weights_map.embed({n: torch.ones_like(t) for n, t in ours.items()}, {n: t * 0 for n, t in theirs.items()})
    shared = {entry.target: math.prod(entry.shape) for entry in weights_map.entries.values()}
    assert {n: int(t.sum()) for n, t in marked.items()} == {n: shared.get(n, 0) for n in theirs}
    assert all(torch.equal(embedded[n][marked[n] == 0], t[marked[n] == 0]) for n, t in theirs.items())


def assert_exact(base: nn.Module, motivated: nn.Module, batch: Tensor, **policies: str) -> None:
    weights_map = match(base, motivated, batch=batch, **policies)
    verdict = verify(base, motivated, weights_map, batch)
    assert verdict, verdict.reason
    embedded = weights_map.embed(tensors(base), tensors(motivated))
    extracted = weights_map.extract(embedded)
    assert all(torch.equal(extracted[name], tensor) for name, tensor in tensors(base).items())
