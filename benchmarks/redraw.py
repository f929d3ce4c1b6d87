"""Redraw the tables and figures of experiments from their results.json, with the code as it is now.

The folders are called NAME-SCALE:

python benchmarks/redraw.py results/front-small
"""

import sys
from pathlib import Path

from seeking.experiments.recipe import read
from seeking.experiments.result_files import render
from seeking.files import read_json

MAX_BYTES = 1 << 24


def main() -> None:
    for argument in sys.argv[1:]:
        folder = Path(argument)
        name, _, scale = folder.resolve().name.rpartition("-")
        results = read_json(folder / "results.json", MAX_BYTES)
        render(read(name, scale, {}), results["records"], results["about"], folder)


if __name__ == "__main__":
    main()
