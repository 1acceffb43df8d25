"""A sample of ``benchmarks/gaps.py``: random problems beside oracles, and nearly divided classes decided exactly."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

HARNESS = Path(__file__).parents[3] / "benchmarks" / "gaps.py"


@pytest.fixture(scope="module")
def gaps() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gaps", HARNESS)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("kind", ["absolute", "quantile", "hinge", "binary", "classes", "poisson", "huber"])
def test_no_gap_is_below_the_excess(gaps: ModuleType, kind: str) -> None:
    assert {gaps.check(kind, seed) for seed in range(2)} == {"certified"}


@pytest.mark.parametrize("seed", range(10))
def test_classes_that_are_nearly_divided_are_decided(gaps: ModuleType, seed: int) -> None:
    assert gaps.check("near", 900 + seed) == "told"
