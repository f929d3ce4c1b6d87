"""Models with habits that tests look at, and what a user could see of a model."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from seeking.weights_map import identity, tensors


class Layer(nn.Linear):
    """Counts its forwards, replaces a buffer, keeps its output, and merges an adapter on eval()."""

    def __init__(self, inputs: int, outputs: int, merges: bool) -> None:
        super().__init__(inputs, outputs)
        self.down, self.up = nn.Parameter(torch.randn(1, inputs)), nn.Parameter(torch.randn(outputs, 1))
        self.merges, self.merged = merges, False
        self.register_buffer("runs", torch.zeros(()))
        self.register_buffer("mask", torch.ones(3), persistent=False)
        self.history: list[int] = []

    def train(self, mode: bool = True) -> "Layer":
        if self.merges and mode == self.merged:
            self.weight.data += (-1 if mode else 1) * (self.up @ self.down)
            self.merged = not mode
        return super().train(mode)

    def forward(self, x: Tensor) -> Tensor:
        self.runs = self.runs + 1
        self.history.append(len(x))
        self.last = x
        return super().forward(x) + (0 if self.merged else x @ self.down.T @ self.up.T)


def state(model: nn.Module) -> list[Any]:
    """All that a user could see of a model, tensors by identity and value."""
    seen: list[Any] = [(name, type(module), module.training) for name, module in model.named_modules()]
    for name, tensor in tensors(model).items():
        gradient = None if tensor.grad is None else (identity(tensor.grad), tensor.grad.tolist())
        seen.append((name, id(tensor), identity(tensor), tensor.requires_grad, tensor.tolist(), gradient))
    for module in model.modules():
        for key, value in sorted(vars(module).items()):
            content = dict(value) if isinstance(value, dict) else list(value) if isinstance(value, list) else value
            seen.append((key, id(value), content if not isinstance(value, Tensor) else None))
    return seen


def unlike(before: list[Any], after: list[Any]) -> list[Any]:
    return [pair for pair in zip(before, after, strict=True) if repr(pair[0]) != repr(pair[1])]


class Ends(nn.Module):
    """A first and a last layer; subclasses say what they do with them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.enter, self.leave = nn.Linear(3, width), nn.Linear(width, 2)


def pair_of(make: Callable[[int], nn.Module]) -> tuple[nn.Module, nn.Module]:
    return make(4), make(6)


def mlp(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, width), nn.ReLU(), nn.Linear(width, 2))


class Packed(Tensor):
    """A tensor that stands for others, as quantized weights and states do."""

    @staticmethod
    def __new__(cls, numbers: Tensor) -> "Packed":
        made = Tensor._make_wrapper_subclass(cls, numbers.shape, dtype=numbers.dtype)  # type: ignore[attr-defined]
        made.numbers = numbers.to(torch.int8)
        return made

    def __init__(self, numbers: Tensor) -> None: ...

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["numbers"], None

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.detach.default:
            return cls(args[0].numbers.float())
        raise NotImplementedError(f"{func} is not implemented")
