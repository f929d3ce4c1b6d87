"""Time of a motivated run relative to a bare PyTorch loop with the same forward, backward and optimizer steps.

Both are timed alternately in one process. Prints the median and the interquartile range of the ratio over the rounds.

    python benchmarks/step.py
"""

import argparse
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from ratios import seconds, summary
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from seeking.models import create
from seeking.training import TrainConfig, Trainer

Models = list[nn.Module]


def image_models(*names: str, **kwargs: int) -> Models:
    """Two image models with the same initial weights at every call."""
    torch.manual_seed(0)
    return [create(name, num_classes=10, **kwargs) for name in names]


def convnexts() -> Models:
    """Two ConvNeXts for small images; the second is wider and deeper."""
    torch.manual_seed(0)
    sizes = ((2, 2, 2, 2), (24, 48, 96, 192)), ((2, 2, 4, 2), (32, 64, 128, 256))
    return [create("convnext_atto", num_classes=10, depths=depths, dims=dims, patch_size=2) for depths, dims in sizes]


def llamas() -> Models:
    """Byte-level Llamas of 4 and 8 layers; all tensors of the smaller one are tied."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    size: dict[str, Any] = {"vocab_size": 256, "hidden_size": 128, "intermediate_size": 256, "num_attention_heads": 4}
    return [LlamaForCausalLM(LlamaConfig(**size, num_hidden_layers=layers)) for layers in (4, 8)]


VIT = {"img_size": 32, "patch_size": 4}
PAIRS: dict[str, tuple[Callable[[], Models], int]] = {
    "resnet8 in resnet14": (functools.partial(image_models, "resnet8", "resnet14"), 32),
    "resnet20 in resnet32": (functools.partial(image_models, "resnet20", "resnet32"), 64),
    "vit_tiny in vit_small": (
        functools.partial(image_models, "vit_tiny_patch16_224", "vit_small_patch16_224", **VIT),
        16,
    ),
    "vit_small in vit_base": (
        functools.partial(image_models, "vit_small_patch16_224", "vit_base_patch16_224", img_size=32, patch_size=8),
        16,
    ),
    "convnext": (convnexts, 16),
    "llama, 4 in 8 layers": (llamas, 8),
}
"""For each pair, a function that creates the models, and the batch size."""


def classify(model: nn.Module, batch: Any) -> Tensor:
    """Cross-entropy of image labels or next bytes."""
    x, y = batch
    output = model(x)
    logits: Tensor = output if isinstance(output, Tensor) else output.logits
    return F.cross_entropy(logits.flatten(0, -2), y.flatten())


def bare(
    models: Sequence[nn.Module],
    batches: DataLoader[tuple[Tensor, Tensor]],
    optimizers: Sequence[torch.optim.Optimizer] = (),
) -> Callable[[], None]:
    """An epoch of a hand-written loop: the base on every batch, the larger model on every sixth."""
    optimizers = optimizers or [torch.optim.SGD(m.parameters(), lr=0.01, momentum=0.9, nesterov=True) for m in models]

    def step(model: nn.Module, optimizer: torch.optim.Optimizer, batch: Any) -> float:
        model.train()
        loss = classify(model, batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    def epoch() -> None:
        for number, batch in enumerate(batches):
            step(models[0], optimizers[0], batch)
            if number % 6 == 5:
                step(models[1], optimizers[1], batch)

    return epoch


CONFIG = TrainConfig(
    condition="every:6",
    lr=0.01,
    weight_decay=0.0,
    schedule="constant",
    precision="no",
    channels_last=False,
    fused=False,
)
"""Options that match the steps of the bare loop."""


def motivated(
    models: Models, batches: DataLoader[tuple[Tensor, Tensor]], config: TrainConfig = CONFIG
) -> Callable[[], None]:
    """An epoch of the trainer with the same steps."""
    trainer = Trainer(models[0], models[1], train_loader=batches, config=config, loss_fn=classify)

    def epoch() -> None:
        trainer.progress.step_in_epoch = 0
        trainer.train_batches()

    return epoch


class Batches(Dataset[tuple[Tensor, Tensor]]):
    """Batches of random images or bytes, generated in advance."""

    def __init__(self, count: int, batch_size: int, tokens: bool = False) -> None:
        generator = torch.Generator().manual_seed(0)
        if tokens:
            text = torch.randint(256, (count, batch_size, 129), generator=generator)
            self.x, self.y = text[..., :-1], text[..., 1:]
        else:
            self.x = torch.randn(count, batch_size, 3, 32, 32, generator=generator)
            self.y = torch.randint(10, (count, batch_size), generator=generator)

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.x[index], self.y[index]


def rounds(run: Callable[[], None], reference: Callable[[], None], count: int) -> Iterator[float]:
    """Ratios of the times of two functions, called alternately; each comes first in every other round."""
    run()
    reference()
    for number in range(count):
        if number % 2:
            yield seconds(run) / seconds(reference)
        else:
            yield 1 / (seconds(reference) / seconds(run))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--steps", type=int, default=12, help="batches in each round")
    parser.add_argument("--pairs", nargs="*", choices=PAIRS, default=[*PAIRS])
    arguments = parser.parse_args()
    print(f"motivated run / bare loop, {torch.get_num_threads()} threads, {arguments.rounds} rounds")
    for title in arguments.pairs:
        make, batch_size = PAIRS[title]
        data = Batches(arguments.steps, batch_size, tokens=title.startswith("llama"))
        run = motivated(make(), DataLoader(data, batch_size=None))
        reference = bare(make(), DataLoader(data, batch_size=None))
        print(f"{title:24} {summary(list(rounds(run, reference, arguments.rounds)))}", flush=True)


if __name__ == "__main__":
    main()
