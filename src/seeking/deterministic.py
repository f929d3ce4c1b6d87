"""Deterministic forward passes: dropout is the identity, and noise is the same number everywhere."""

from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

DROPOUT = {
    f"{name}{suffix}"
    for name in ("dropout", "dropout1d", "dropout2d", "dropout3d", "feature_dropout", "alpha_dropout")
    for suffix in ("", "_")
} | {"feature_alpha_dropout", "feature_alpha_dropout_"}

DROPOUT_PLACES = {"scaled_dot_product_attention": 4, "multi_head_attention_forward": 10}
"""Functions that drop out in between, and the place of the rate among their arguments; what they call meets no mode."""

NOISE = {"rand": 0.5, "rand_like": 0.5, "randn": 0.7, "randn_like": 0.7, "normal": 0.7}
NOISE_IN_PLACE = {"uniform_": 0.5, "normal_": 0.7, "exponential_": 0.7}


class Deterministic(TorchFunctionMode):
    """Inside, two models of different shapes meet the same noise, in training mode as well."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        # By name, the first argument is "tensor" in torch.nn.init, and otherwise "input".
        first = args[0] if args else kwargs.get("input", kwargs.get("tensor"))
        if name in DROPOUT:
            return first
        if name in DROPOUT_PLACES:
            place = DROPOUT_PLACES[name]
            if len(args) > place:
                args = (*args[:place], 0.0, *args[place + 1 :])
            else:
                kwargs["dropout_p"] = 0.0
        if name in ("bernoulli", "bernoulli_") and isinstance(first, Tensor):
            # A mask that keeps with some probability is often divided by it.
            in_place = name == "bernoulli_"
            kept = args[1] if len(args) > 1 else kwargs.get("p", 0.5 if in_place else first)
            mask = first if in_place else torch.empty_like(first)
            return mask.copy_(kept) if isinstance(kept, Tensor) else mask.fill_(kept)
        if name in NOISE_IN_PLACE and isinstance(first, Tensor):
            return first.fill_(NOISE_IN_PLACE[name])
        output = func(*args, **kwargs)
        if name in NOISE and isinstance(output, Tensor):
            with torch.no_grad():
                output.fill_(NOISE[name])
        return output
