"""Time of a sync (in and out) relative to one flat copy each way of the same number of bytes.

Both are timed alternately in one process. Prints the median and the interquartile range of the ratio over the rounds.

    python benchmarks/sync.py
"""

import argparse

import torch
from ratios import seconds, summary

from seeking import Pair
from seeking.models import create

PAIRS = (
    ("vit_small_patch16_224", "vit_base_patch16_224"),
    ("efficientnet_b0", "efficientnet_b2"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30)
    arguments = parser.parse_args()
    print(f"sync / flat copy, {torch.get_num_threads()} threads, {arguments.rounds} rounds")
    for base, motivated in PAIRS:
        pair = Pair(create(base, num_classes=1000), create(motivated, num_classes=1000))
        size = sum(p.numel() for n, p in pair.base.named_parameters() if not pair.map.entries[n].whole)
        source, target = torch.randn(size), torch.empty(size)

        def flat(source: torch.Tensor = source, target: torch.Tensor = target) -> None:
            target.copy_(source)

        def sync(pair: Pair = pair) -> None:
            with pair.motivated():
                pass

        for warm_up in (flat, sync):
            warm_up()
        ratios = [seconds(sync) / (seconds(flat) + seconds(flat)) for _ in range(arguments.rounds)]
        print(f"{base} in {motivated}, {size * 4 / 1e6:.0f} MB each way: in and out {summary(ratios)}", flush=True)


if __name__ == "__main__":
    main()
