"""The pairs of models that a derived map must be exact for."""

from dataclasses import dataclass, field
from typing import Any

from torch import nn

from seeking.models import create


@dataclass(frozen=True)
class Family:
    base: str
    motivated: str
    size: int
    kwargs: dict[str, Any] = field(default_factory=dict)
    base_kwargs: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        extra = [f"{key}{value}" for key, value in {**self.kwargs, **self.base_kwargs}.items()]
        return "-".join([self.base, self.motivated, *extra])

    def make(self) -> tuple[nn.Module, nn.Module]:
        return (
            create(self.base, num_classes=10, **{**self.kwargs, **self.base_kwargs}),
            create(self.motivated, num_classes=10, **self.kwargs),
        )


TINY, SMALL, BASE = (f"vit_{size}_patch16_224" for size in ("tiny", "small", "base"))

FAMILIES = [
    Family("resnet8", "resnet14", 32),
    Family("resnet20", "resnet32", 32),
    Family("resnet20", "resnet44", 32),
    Family("resnet32", "resnet56", 32),
    Family("resnet20", "resnet110", 32),
    Family("resnet8", "resnet20", 32, {"width": 24}, {"width": 16}),
    Family("resnet18", "resnet34", 32),
    Family("resnet26", "resnet50", 32),
    Family("efficientnet_b0", "efficientnet_b1", 64),
    Family("efficientnet_b0", "efficientnet_b2", 64),
    Family(TINY, SMALL, 32, {"img_size": 32, "patch_size": 4}),
    Family(TINY, SMALL, 224, {"depth": 3}, {"depth": 2}),
    Family(SMALL, BASE, 48, {"img_size": 48, "patch_size": 16, "depth": 3}, {"depth": 2}),
    Family(TINY, TINY, 32, {"img_size": 32, "patch_size": 8}, {"depth": 5}),
]

SMALL_FAMILIES = [
    Family("resnet8", "resnet14", 16),
    Family("resnet8", "resnet14", 16, {"width": 12}, {"width": 8}),
    Family(
        TINY,
        TINY,
        16,
        {"img_size": 16, "patch_size": 8, "depth": 3, "embed_dim": 24, "num_heads": 6},
        {"depth": 2, "embed_dim": 12, "num_heads": 3},
    ),
]
"""Quick ones: depth alone, width and depth with convolutions, width and depth with attention."""
