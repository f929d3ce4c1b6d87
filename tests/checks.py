"""Assertions about maps that many tests share."""

import math
from typing import Any

import torch
from torch import nn

from seeking import WeightsMap, match, verify
from seeking.weights_map import tensors


def assert_invertible(weights_map: WeightsMap, base: nn.Module, motivated: nn.Module) -> None:
    """Embedding and extracting gives the base's tensors back, and changes nothing else."""
    small, large = tensors(base), tensors(motivated)
    embedded = weights_map.embed(small, large)
    extracted = weights_map.extract(embedded)
    assert extracted.keys() == small.keys()
    assert all(torch.equal(extracted[name], tensor) for name, tensor in small.items())
    marked = weights_map.embed({n: torch.ones_like(t) for n, t in small.items()}, {n: t * 0 for n, t in large.items()})
    shared = {entry.target: math.prod(entry.shape) for entry in weights_map.entries.values()}
    assert {n: int(t.sum()) for n, t in marked.items()} == {n: shared.get(n, 0) for n in large}
    assert all(torch.equal(embedded[n][marked[n] == 0], t[marked[n] == 0]) for n, t in large.items())


def assert_exact(base: nn.Module, motivated: nn.Module, batch: Any, **policies: str) -> None:
    """The derived map is proven by verify, and extracting gives back what was embedded."""
    weights_map = match(base, motivated, batch=batch, **policies)
    verdict = verify(base, motivated, weights_map, batch)
    assert verdict, verdict.reason
    embedded = weights_map.embed(tensors(base), tensors(motivated))
    extracted = weights_map.extract(embedded)
    assert all(torch.equal(extracted[name], tensor) for name, tensor in tensors(base).items())
