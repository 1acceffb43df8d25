"""Random files in every layout that programs write: the right target, a question, or a refusal; never a wrong target.

``python benchmarks/discovery.py --files 3000 --seed 0`` writes that many files in turn, features and a target among
row numbers, ids, times, masks and lengths under random names, and lets ``closedform`` choose from each. ``--layouts
hdf5 csv`` tries some layouts only. Each line that it prints before the table is a wrong choice; the exit status is 1
where there is one.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from layouts import LAYOUTS, Wrong, try_file

__all__ = ["main"]

OUTCOMES = ("right", "question", "refusal", "wrong")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--layouts", nargs="+", default=list(LAYOUTS), choices=list(LAYOUTS), metavar="LAYOUT")
    options = parser.parse_args()

    outcomes: dict[str, Counter[str]] = {layout: Counter() for layout in options.layouts}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(options.files):
            layout = options.layouts[number % len(options.layouts)]
            try:
                outcome = try_file(layout, options.seed + number // len(options.layouts), Path(folder))
            except Wrong as error:
                print(error, flush=True)
                outcome = "wrong"
            outcomes[layout][outcome] += 1

    for layout, counted in outcomes.items():
        print(f"{layout:20}", *(f"{counted[outcome]:5} {outcome}" for outcome in OUTCOMES))
    total = sum(outcomes.values(), Counter())
    print(f"{options.files} files:", ", ".join(f"{count} {outcome}" for outcome, count in sorted(total.items())))
    sys.exit(1 if total["wrong"] else 0)


if __name__ == "__main__":
    main()
