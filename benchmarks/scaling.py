"""How the cost grows with the models: pairs from 0.1 million to a billion parameters, in one or several processes.

Prints a Markdown table with one row for each pair. Every figure is a ratio within one run: the time of a motivated run
relative to a bare loop with the same steps; the time of a sync, of deriving the map, and of the stall for a save, each
relative to a step; the bytes of a checkpoint relative to those of both models' parameters.

    python benchmarks/scaling.py
    OMP_NUM_THREADS=1 torchrun --nproc-per-node 2 benchmarks/scaling.py
"""

import argparse
import statistics
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
from ratios import seconds
from step import CONFIG, bare, rounds
from torch.utils.data import DataLoader, TensorDataset

from seeking import match
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
    images = TensorDataset(
        torch.randn(count * arguments.batch_size, 3, 32, 32), torch.arange(count * arguments.batch_size) % 10
    )
    data: DataLoader[Any] = DataLoader(images, arguments.batch_size)
    match_time = min(seconds(lambda: match(base, larger)) for _ in range(3))
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(base, larger, train_loader=data, config=CONFIG)
        learners, pair = trainer.learners, trainer.pair
        assert pair

        def run_epoch() -> None:
            trainer.progress.step_in_epoch = 0
            trainer.train_batches()

        reference_epoch = bare(
            [learner.model for learner in learners.values()],
            data,
            [learner.optimizer for learner in learners.values()],
        )
        ratios = sorted(rounds(run_epoch, reference_epoch, arguments.rounds))
        step = seconds(reference_epoch) / (count + count // 6)

        def sync() -> None:
            with pair.motivated():
                pass

        sync_time = statistics.median(seconds(sync) for _ in range(5))
        output = Path(folder) / "run"
        saving_trainer = Trainer(base, larger, train_loader=data, config=CONFIG, weights_map=pair.map, output=output)
        saving_trainer.begin()
        saving_trainer.train_batches()  # Creates the optimizer states.
        stall = seconds(saving_trainer.save)
        saving_trainer.saver.wait()
        newest = max((output / "checkpoints").glob("step-*"))
        size = sum(file.stat().st_size for file in newest.iterdir())
        saving_trainer.saver.close()
    median, quarter = statistics.median(ratios), len(ratios) // 4
    cells = [
        title,
        f"{small / 1e6:.3g} in {large / 1e6:.3g}",
        f"{median:.3f} ({ratios[quarter]:.3f} to {ratios[-1 - quarter]:.3f})",
        f"{sync_time / step:.3f}",
        f"{match_time / step:.1f}",
        f"{stall / step:.2f}",
        f"{size / 4 / (small + large):.2f}",
    ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--max-steps", type=int, default=24, help="batches in a round, at most")
    parser.add_argument("--batch-size", type=int, default=8)
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
