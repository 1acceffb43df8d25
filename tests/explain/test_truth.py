"""A sample of the truth harness: random set-ups really trained, every claim scored, and nothing false."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

HARNESS = Path(__file__).parents[2] / "benchmarks" / "truth.py"


@pytest.fixture(scope="module")
def truth() -> ModuleType:
    spec = importlib.util.spec_from_file_location("truth", HARNESS)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up by name.
    sys.modules["truth"] = module
    with pytest.MonkeyPatch.context() as patch:
        # It is run as a script, from among what it imports.
        patch.syspath_prepend(str(HARNESS.parent))
        spec.loader.exec_module(module)
    return module


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler")
# Those after the first ones had something false said of them once.
@pytest.mark.parametrize(
    "seed",
    [0, 2, 3, 85, 118, 386, 467, 562, 809, 1058, 1220, 1247, 1361, 1411, 1480, 1508, 1578, 1776],
)
def test_nothing_that_is_said_is_false(truth: ModuleType, seed: int) -> None:
    score = truth.Score()
    truth.judge(truth.draw(seed), score)
    assert score.false == []
    assert score.counts


@pytest.mark.parametrize("seed", [*range(5), 47, 146])
def test_nothing_is_wrong_with_healthy_runs(truth: ModuleType, seed: int) -> None:
    score = truth.Score()
    truth.judge_healthy(truth.healthy(seed), score)
    assert score.false == []


def test_a_false_claim_is_counted_as_false(truth: ModuleType) -> None:
    score = truth.Score()
    score.add("claim", False, "why")
    score.add("claim", None, "")
    assert score.false == ["claim: why"]
    assert "| claim | 0 | 1 | 1 |" in score.table()
