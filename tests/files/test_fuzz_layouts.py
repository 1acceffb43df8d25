"""Random files of every layout, with distractors: the right target, a question, or a refusal; never a wrong target.

A sample of what ``python benchmarks/discovery.py --files 3000`` tries.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from layouts import HOLDING_NO_DATA, LAYOUTS, try_file

#: Packages that write a layout and are no part of every installation.
WRITTEN_BY = {"zarr": "zarr", "pandas store": "tables"}
#: Seeds of the files of each layout.
SEEDS = range(8, 20)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_never_a_wrong_target(tmp_path: Path, layout: str) -> None:
    if layout in WRITTEN_BY:
        pytest.importorskip(WRITTEN_BY[layout])
    outcomes = Counter(try_file(layout, seed, tmp_path) for seed in SEEDS)
    assert (outcomes["right"] > 0) is (layout not in HOLDING_NO_DATA | {"anndata"}), outcomes
    assert outcomes["question"] + outcomes["refusal"] > 0, outcomes
