"""What each acceleration gains: the time of a training step with it over that of the plain step.

python benchmarks/accelerations.py
"""

import argparse
import dataclasses
import warnings
from collections.abc import Callable
from typing import Any

import torch
from ratios import seconds, told
from step import PAIRS, Batches, made
from torch.utils.data import DataLoader

from seeking.training import TrainConfig, Trainer

PLAIN = TrainConfig(
    condition="every:6", lr=0.01, schedule="constant", precision="no", channels_last=False, fused=False, verify=False
)
CHANGES: dict[str, dict[str, Any]] = {
    "bf16": {"precision": "bf16"},
    "channels_last": {"channels_last": True},
    "fused": {"fused": True},
    "all three (the default)": {"precision": "bf16", "channels_last": True, "fused": True},
    "the default, compiled": {"precision": "bf16", "channels_last": True, "fused": True, "compile": "default"},
    "checkpoint_activations": {"checkpoint_activations": True},
}


def epoch(config: TrainConfig, pair: str, steps: int) -> Callable[[], None]:
    """An epoch of a motivated run."""
    base, larger, kwargs, batch_size = PAIRS[pair]
    data = DataLoader(Batches(steps, batch_size), batch_size=None)
    trainer = Trainer(*made((base, larger), kwargs), train_loader=data, config=config)

    def run() -> None:
        trainer.place = 0
        trainer.train_epoch()

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument(
        "--pairs", nargs="*", default=["resnet8 in resnet14", "resnet20 in resnet32", "vit_tiny in vit_small"]
    )
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    print(f"time over the plain step's, {torch.get_num_threads()} threads, {arguments.rounds} rounds")
    for pair in arguments.pairs:
        runs = {"plain": epoch(PLAIN, pair, arguments.steps)}
        for name, change in CHANGES.items():
            if "checkpoint" in name and "vit" not in pair:
                continue  # Of these models only timm's know how.
            runs[name] = epoch(dataclasses.replace(PLAIN, **change), pair, arguments.steps)
        for run in runs.values():
            run()
            run()
        times = [{name: seconds(run) for name, run in runs.items()} for _ in range(arguments.rounds)]
        for name in [*runs][1:]:
            print(f"{pair:24} {name:26} {told([one[name] / one['plain'] for one in times])}", flush=True)


if __name__ == "__main__":
    main()
