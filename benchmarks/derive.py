"""Time and memory to derive a map: large models on the meta device, one core, and how both grow with the tensors.

    python benchmarks/derive.py

Needs transformers. Prints seconds (best of three), what the process' memory grew by at most, and the time for each
tensor in ratio to that of the smallest model.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"

import resource
import time
import warnings
from collections.abc import Callable
from typing import Any

import timm
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

import seeking
from seeking.weights_map import tensors

LLAMA_13B = {"hidden_size": 5120, "intermediate_size": 13824, "num_attention_heads": 40}


def llama(layers: int, **sizes: Any) -> nn.Module:
    """A Llama of this depth; as wide as the one of 7 billion parameters unless told otherwise."""
    model: nn.Module = LlamaForCausalLM(LlamaConfig(num_hidden_layers=layers, **sizes))
    return model


def vit(name: str, **sizes: Any) -> nn.Module:
    """A vision transformer of timm."""
    model: nn.Module = timm.create_model(name, num_classes=1000, **sizes)
    return model


CASES: dict[str, tuple[Callable[[], nn.Module], Callable[[], nn.Module]]] = {
    "llama, 4 of 8 layers": (lambda: llama(4), lambda: llama(8, **LLAMA_13B)),
    "llama, 8 of 16 layers": (lambda: llama(8), lambda: llama(16, **LLAMA_13B)),
    "llama, 16 of 32 layers": (lambda: llama(16), lambda: llama(32, **LLAMA_13B)),
    "llama 7B in 13B": (lambda: llama(32), lambda: llama(40, **LLAMA_13B)),
    # As published, vit_huge has heads of 80 and contains no vit_large, whose heads are of 64.
    "vit_large in vit_huge with heads of 64": (
        lambda: vit("vit_large_patch14_224"),
        lambda: vit("vit_huge_patch14_224", num_heads=20),
    ),
}


def main() -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    first = 0.0
    print("| pair | parameters, billions | tensors, both | seconds | memory, MB | time a tensor, ratio |")
    print("| --- " * 6 + "|")
    for name, (make_base, make_motivated) in CASES.items():
        with torch.device("meta"):
            base, motivated = make_base(), make_motivated()
        count = len(tensors(base)) + len(tensors(motivated))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        seconds = []
        for _ in range(3):
            start = time.perf_counter()
            seeking.match(base, motivated)
            seconds.append(time.perf_counter() - start)
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        first = first or min(seconds) / count
        sizes = " in ".join(f"{sum(p.numel() for p in m.parameters()) / 1e9:.2f}" for m in (base, motivated))
        print(f"| {name} | {sizes} | {count} | {min(seconds):.2f} | {grown:.0f} | {min(seconds) / count / first:.2f} |")


if __name__ == "__main__":
    main()
