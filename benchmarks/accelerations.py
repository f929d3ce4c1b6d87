"""Time of a training step with each acceleration, relative to a step without any.

Every round runs all of them in random order, since the order affects the time as much as some of the accelerations do.

    python benchmarks/accelerations.py
"""

import argparse
import dataclasses
import random
import warnings
from collections.abc import Callable
from typing import Any

import torch
from ratios import seconds, summary
from step import CONFIG, PAIRS, Batches, motivated
from torch.utils.data import DataLoader

CHANGES: dict[str, dict[str, Any]] = {
    "bf16": {"precision": "bf16"},
    "channels_last": {"channels_last": True},
    "fused": {"fused": True},
    "all three (the default)": {"precision": "bf16", "channels_last": True, "fused": True},
    "the default, compiled": {"precision": "bf16", "channels_last": True, "fused": True, "compile": "default"},
    "checkpoint_activations": {"checkpoint_activations": True},
    "accumulate 4, quarter batches": {"accumulate": 4},
}


def epoch(pair: str, steps: int, change: dict[str, Any]) -> Callable[[], None]:
    """An epoch of a motivated run with changed options."""
    make, batch_size = PAIRS[pair]
    parts = change.get("accumulate", 1)
    data = DataLoader(Batches(steps * parts, batch_size // parts), batch_size=None)
    return motivated(make(), data, dataclasses.replace(CONFIG, **change))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--pairs", nargs="*", choices=PAIRS, default=[*PAIRS][:3])
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    print(f"time relative to the plain step, {torch.get_num_threads()} threads, {arguments.rounds} rounds")
    for pair in arguments.pairs:
        runs = {"plain": epoch(pair, arguments.steps, {})}
        for name, change in CHANGES.items():
            if "checkpoint" in name and "vit" not in pair:
                continue  # The CIFAR ResNets do not support it.
            runs[name] = epoch(pair, arguments.steps, change)
        for run in runs.values():
            run()
            run()
        generator = random.Random(0)
        times = [
            {name: seconds(runs[name]) for name in generator.sample([*runs], len(runs))}
            for _ in range(arguments.rounds)
        ]
        for name in [*runs][1:]:
            print(f"{pair:24} {name:29} {summary([time[name] / time['plain'] for time in times])}", flush=True)


if __name__ == "__main__":
    main()
