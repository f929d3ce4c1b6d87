"""Memory of parameters, gradients, buffers and optimizer states of a pair, relative to the larger model trained alone.

Counts every storage that is alive right after the backward pass of a motivated step; activations are freed by then.
Also prints the activation memory of a forward pass with ``checkpoint_activations`` and with a quarter of the batch
(which ``accumulate`` allows), relative to a plain forward pass.

    python benchmarks/memory.py
"""

import argparse
import gc
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from seeking.models import create
from seeking.training import TrainConfig, Trainer
from seeking.training.performance import checkpoint_activations

VIT = {"img_size": 32, "patch_size": 8}
PAIRS: dict[str, tuple[tuple[str, dict[str, Any]], tuple[str, dict[str, Any]]]] = {
    "depth only: vit_small, 6 of 12 blocks": (
        ("vit_small_patch16_224", {**VIT, "depth": 6}),
        ("vit_small_patch16_224", VIT),
    ),
    "depth only: resnet20 in resnet32": (("resnet20", {}), ("resnet32", {})),
    "sliced: vit_tiny in vit_small": (("vit_tiny_patch16_224", VIT), ("vit_small_patch16_224", VIT)),
}


def live_bytes() -> int:
    """Bytes of the storages of all tensors."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Inspecting some objects warns.
        tensors = [item for item in gc.get_objects() if isinstance(item, Tensor)]
    tensors += [tensor.grad for tensor in tensors if tensor.is_leaf and tensor.grad is not None]
    return sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values())


def peak(sizes: Sequence[tuple[str, dict[str, Any]]], state: str) -> int:
    """Peak bytes at the end of a backward pass of a run, without data and activations."""
    torch.manual_seed(0)
    data = TensorDataset(torch.randn(8, 3, 32, 32), torch.arange(8) % 10)
    gc.collect()
    before = live_bytes()
    models = [create(name, num_classes=10, **options) for name, options in sizes]
    config = TrainConfig(epochs=1, condition="always", optimizer="adamw", optimizer_state=state, verify=False)  # type: ignore[arg-type]
    trainer = Trainer(*models, train_loader=DataLoader(data, 2), config=config, progress=False)
    measured: list[int] = []

    def measure(*args: Any) -> None:
        gc.collect()
        measured.append(live_bytes() - before)

    for learner in trainer.learners.values():
        learner.optimizer.register_step_pre_hook(measure)
    trainer.fit()
    return max(measured)


def activations(images: int = 16, checkpointed: bool = False) -> int:
    """Bytes that a forward pass of vit_small saves for the backward pass, without parameters."""
    model = create("vit_small_patch16_224", num_classes=10, **VIT)
    if checkpointed:
        checkpoint_activations(model, "larger")
    parameters = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = model(torch.randn(images, 3, 32, 32)).sum()
    loss.backward()
    return sum(kept.values())


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    for title, sizes in PAIRS.items():
        alone = peak(sizes[1:], "separate")
        for state in ("shared", "separate"):
            pair = peak(sizes, state)
            print(f"{title}, optimizer state {state}: {pair / alone:.3f} of the larger model alone", flush=True)
    plain = activations()
    print(f"checkpoint_activations, vit_small: {activations(checkpointed=True) / plain:.3f} of the activations kept")
    print(f"accumulate 4, quarter batches, vit_small: {activations(images=4) / plain:.3f} of the activations kept")


if __name__ == "__main__":
    main()
