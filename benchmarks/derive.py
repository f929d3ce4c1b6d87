"""Time and memory to derive a map, for large models on the meta device and one core.

    python benchmarks/derive.py

Needs transformers. Prints seconds (best of three), the growth of the process's peak memory, and the time for each
tensor relative to that of the smallest model.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"

import argparse
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
    """A Llama of this depth, by default as wide as the 7B model."""
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
    # The published vit_huge has a head size of 80, so it cannot contain vit_large, whose head size is 64.
    "vit_large in vit_huge with heads of 64": (
        lambda: vit("vit_large_patch14_224"),
        lambda: vit("vit_huge_patch14_224", num_heads=20),
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", nargs="*", choices=CASES, default=[*CASES])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    reference = 0.0
    print("| pair | parameters, billions | tensors, both | seconds | memory, MB | time for each tensor, ratio |")
    print("| --- " * 6 + "|")
    for name in arguments.pairs:
        make_base, make_motivated = CASES[name]
        with torch.device("meta"):
            base, motivated = make_base(), make_motivated()
        count = len(tensors(base)) + len(tensors(motivated))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        seconds = []
        for _ in range(3):
            start = time.perf_counter()
            seeking.match(base, motivated)
            seconds.append(time.perf_counter() - start)
        growth = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        reference = reference or min(seconds) / count
        sizes = " in ".join(f"{sum(p.numel() for p in m.parameters()) / 1e9:.2f}" for m in (base, motivated))
        ratio = min(seconds) / count / reference
        print(f"| {name} | {sizes} | {count} | {min(seconds):.2f} | {growth:.0f} | {ratio:.2f} |")


if __name__ == "__main__":
    main()
