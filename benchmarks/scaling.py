"""How the cost grows with the models: pairs from 0.1 million to a billion parameters, in one or several processes.

Prints a Markdown table with one row for each pair. Every figure is a ratio within one run: the time of a motivated run
relative to a bare loop with the same steps; the time of a sync, of deriving the map, and of the stall for a save, each
relative to a step; the bytes of a checkpoint relative to those of both models' parameters.

    python benchmarks/scaling.py
    OMP_NUM_THREADS=1 torchrun --nproc-per-node 2 benchmarks/scaling.py
"""

import argparse
import os
import statistics
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
from ratios import seconds
from step import CONFIG, bare, rounds
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from seeking import WeightsMap, match
from seeking.models import create
from seeking.training import Trainer

VIT = {"img_size": 32, "patch_size": 16}
# The published vit_huge has a head size of 80, so it cannot contain vit_large, whose head size is 64.
PAIRS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "resnet8 in resnet14": ({"name": "resnet8"}, {"name": "resnet14"}),
    "resnet20 in resnet56": ({"name": "resnet20"}, {"name": "resnet56"}),
    "vit_tiny in vit_small": ({"name": "vit_tiny_patch16_224", **VIT}, {"name": "vit_small_patch16_224", **VIT}),
    "vit_small in vit_base": ({"name": "vit_small_patch16_224", **VIT}, {"name": "vit_base_patch16_224", **VIT}),
    "vit_base in vit_large": ({"name": "vit_base_patch16_224", **VIT}, {"name": "vit_large_patch16_224", **VIT}),
    "vit_large in vit_huge": (
        {"name": "vit_large_patch16_224", **VIT},
        {"name": "vit_huge_patch14_224", **VIT, "num_heads": 20},
    ),
}


def row(title: str, arguments: argparse.Namespace) -> str:
    """Measure one pair; returns a row of the table."""
    base, larger = (
        create(options["name"], num_classes=10, **{k: v for k, v in options.items() if k != "name"})
        for options in PAIRS[title]
    )
    small, large = (sum(p.numel() for p in model.parameters()) for model in (base, larger))
    count = max(6, min(arguments.max_steps, 6 * (20_000_000 // (small + large))))
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    size = count * arguments.batch_size
    same = torch.Generator().manual_seed(0)  # In all processes.
    images, labels = torch.randn(size * processes, 3, 32, 32, generator=same), torch.arange(size * processes) % 10
    # A run splits each batch over its processes; a bare loop takes its loader's whole.
    data: DataLoader[Any] = DataLoader(TensorDataset(images, labels), arguments.batch_size * processes)
    data_of_process: DataLoader[Any] = DataLoader(TensorDataset(images[:size], labels[:size]), arguments.batch_size)
    match_time = min(seconds(lambda: match(base, larger)) for _ in range(3))
    weights_map, ratios, step, sync_time = loop(base, larger, data, data_of_process, arguments.rounds)
    stall, checkpoint_size = save(base, larger, data, weights_map)
    median, quarter = statistics.median(ratios), len(ratios) // 4
    cells = [
        title,
        f"{small / 1e6:.3g} in {large / 1e6:.3g}",
        f"{median:.3f} ({ratios[quarter]:.3f} to {ratios[-1 - quarter]:.3f})",
        f"{sync_time / step:.3f}",
        f"{match_time / step:.1f}",
        f"{stall / step:.2f}",
        f"{checkpoint_size / 4 / (small + large):.2f}",
    ]
    return f"| {' | '.join(cells)} |"


def loop(
    base: nn.Module, larger: nn.Module, data: DataLoader[Any], data_of_process: DataLoader[Any], count: int
) -> tuple[WeightsMap, list[float], float, float]:
    """The map; ratios of a run to a bare loop, sorted; the times of a step and of a sync."""
    trainer = Trainer(base, larger, train_loader=data, config=CONFIG)
    learners, pair = trainer.learners, trainer.pair
    assert pair

    def run_epoch() -> None:
        trainer.progress.step_in_epoch = 0
        trainer.train_batches()

    def sync() -> None:
        with pair.motivated():
            pass

    reference_epoch = bare(
        [learner.model for learner in learners.values()],
        data_of_process,
        [learner.optimizer for learner in learners.values()],
    )
    ratios = sorted(rounds(run_epoch, reference_epoch, count))
    batches = len(data_of_process)
    step = seconds(reference_epoch) / (batches + batches // 6)
    return pair.map, ratios, step, statistics.median(seconds(sync) for _ in range(5))


def save(base: nn.Module, larger: nn.Module, data: DataLoader[Any], weights_map: WeightsMap) -> tuple[float, int]:
    """The stall for a checkpoint, in seconds, and its size, in bytes."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "run"
        trainer = Trainer(base, larger, train_loader=data, config=CONFIG, weights_map=weights_map, output=output)
        trainer.begin()
        trainer.train_batches()  # Creates the optimizer states.
        stall = seconds(trainer.save)
        trainer.saver.wait()
        # Processes other than the first write no checkpoint, and their rows are not printed.
        newest = max((output / "checkpoints").glob("step-*"), default=output)
        size = sum(file.stat().st_size for file in newest.glob("*"))
        trainer.saver.close()
    return stall, size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--max-steps", type=int, default=24, help="batches in a round, at most")
    parser.add_argument("--batch-size", type=int, default=8, help="of each process")
    parser.add_argument("--pairs", nargs="*", choices=PAIRS, default=[*PAIRS])
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    for number, title in enumerate(arguments.pairs):
        line = row(title, arguments)
        main_process = not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0
        if main_process and not number:
            print("| pair | M parameters | run / bare loop | sync / step | map / step | save / step | checkpoint |")
            print("| --- " * 7 + "|")
        if main_process:
            print(line, flush=True)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
