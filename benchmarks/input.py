"""Images per second of the input and of a training step: the input must not be the bottleneck.

Prints the speed of images in memory, of images decoded on demand by two workers, and of torchvision's transforms (v2)
in a DataLoader with two workers, relative to a training step of resnet8. The data are CIFAR-10 with random crops and
flips.

    python benchmarks/input.py --data cifar10
"""

import argparse
import statistics
from collections.abc import Callable
from itertools import islice
from typing import Any

import torch
import torch.nn.functional as F
from datasets import load_dataset
from ratios import seconds, summary
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from seeking.data import DataConfig, load, loader
from seeking.models import create


class Plain(Dataset[tuple[Tensor, int]]):
    """A plain data set: one image at a time, with torchvision's transforms."""

    def __init__(self, name: str) -> None:
        self.rows = load_dataset(name, split="train")
        self.image, self.label = "img" if "img" in self.rows.features else "image", "label"
        steps = [v2.RandomCrop(32, padding=4), v2.RandomHorizontalFlip(), v2.ToImage()]
        steps += [v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.49, 0.48, 0.45], [0.25, 0.24, 0.26])]
        self.transform = v2.Compose(steps)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        row = self.rows[index]
        return self.transform(row[self.image]), row[self.label]


def batch_loading(batches: Any, count: int) -> Callable[[], None]:
    """A function that loads the next ``count`` batches of an endless iteration."""

    def endless() -> Any:
        while True:
            yield from batches

    stream = endless()

    def load_batches() -> None:
        for _ in islice(stream, count):
            pass

    return load_batches


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--batches", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    kept, streamed = (load(DataConfig(data=arguments.data, in_memory=choice)) for choice in (True, False))
    inputs = {
        "in memory": loader(kept.batches(0)[0], arguments.batch_size, shuffle_seed=0),
        "decoded by 2 workers": loader(streamed.batches(0)[0], arguments.batch_size, shuffle_seed=0, workers=2),
        "torchvision, 2 workers": DataLoader(
            Plain(arguments.data), arguments.batch_size, shuffle=True, num_workers=2, drop_last=True
        ),
    }
    model = create("resnet8", num_classes=10).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, fused=True)
    x, y = next(iter(inputs["in memory"]))

    def train() -> None:
        for _ in range(arguments.batches):
            with torch.autocast(x.device.type, torch.bfloat16):
                loss = F.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()

    runs = {"training step of resnet8": train}
    runs |= {name: batch_loading(batches, arguments.batches) for name, batches in inputs.items()}
    for run in runs.values():
        run()
    times = [{name: seconds(run) for name, run in runs.items()} for _ in range(arguments.rounds)]
    print(f"{torch.get_num_threads()} threads, batches of {arguments.batch_size}, {arguments.rounds} rounds")
    for name in runs:
        speed = statistics.median(arguments.batches * arguments.batch_size / time[name] for time in times)
        ratios = [time["training step of resnet8"] / time[name] for time in times]
        print(f"{name:26} {speed:8,.0f} images/s, relative to the training step {summary(ratios)}")


if __name__ == "__main__":
    main()
