"""Results compare, copy and pickle without surprise, and hold none of the user's rows."""

from __future__ import annotations

import copy
import gc
import pickle
import re
import weakref
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import closedform as cf


def table() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    X, Y = (torch.randn(3000, k, dtype=torch.float64, generator=generator) for k in (8, 2))
    return X, Y


def layer() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(8, 2, dtype=torch.float64)


RESULTS: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "solve": lambda X, Y: cf.solve(X, Y, bias=True),
    "solve, digits": lambda X, Y: cf.solve(X, Y, digits=10),
    "solve, strengths": lambda X, Y: cf.solve(X, Y, l2=[1.0, 2.0]),
    "solve, nearest": lambda X, Y: cf.solve(torch.cat([X, X], 1), Y),
    "solve, wide": lambda X, Y: cf.solve(X.T.contiguous(), Y[:8]),
    "certificate": lambda X, Y: cf.solve(X, Y).certificate,
    "plan": lambda X, Y: cf.solve(X, Y).plan,
    "fit_": lambda X, Y: cf.fit_(layer(), X, Y),
    "gap": lambda X, Y: cf.gap(layer(), X, Y),
    "batched": lambda X, Y: cf.solve_batched(X.view(30, 100, 8), Y.view(30, 100, 2)),
    "forecast": lambda X, Y: cf.diagnose(X, Y).forecast("sgd", lr=0.1, steps=100),
    "comparison": lambda X, Y: cf.compare(X, Y, optimizers=["sgd"], budget=0.2, progress=False),
}


@cache
def result_of(name: str) -> Any:
    return RESULTS[name](*table())


EVERY_RESULT = pytest.mark.parametrize("name", RESULTS)


@EVERY_RESULT
def test_results_compare_without_an_error(name: str) -> None:
    first, second = result_of(name), RESULTS[name](*table())
    assert (first == first) is True
    assert (first == second) in (True, False)
    assert (first != first) is False


@EVERY_RESULT
@pytest.mark.parametrize("way", [copy.copy, copy.deepcopy, lambda result: pickle.loads(pickle.dumps(result))])
def test_results_are_copied(name: str, way: Callable[[Any], Any]) -> None:
    result = result_of(name)
    again = way(result)
    assert type(again) is type(result)
    assert str(again) == str(result)
    for attribute in ("weight", "bias", "loss"):
        one, other = getattr(result, attribute, None), getattr(again, attribute, None)
        if isinstance(one, Tensor):
            assert torch.equal(one, other)
        else:
            assert one == other


@EVERY_RESULT
def test_results_keep_no_rows(name: str) -> None:
    X, Y = table()
    memory = [weakref.ref(X.untyped_storage()), weakref.ref(Y.untyped_storage())]
    result = RESULTS[name](X, Y)
    size = len(pickle.dumps(result))
    del X, Y
    gc.collect()
    assert size < 100_000, "as much as the rows"
    assert [reference() for reference in memory] == [None, None]
    assert result is not None


@pytest.mark.parametrize("name", ["solve", "solve, wide", "fit_", "gap", "comparison"])
def test_results_are_flat_floats_for_trackers(name: str) -> None:
    result = result_of(name)
    found = result.metrics()
    assert all(type(value) is float for value in found.values())
    assert all(re.fullmatch(r"[\w\-./ ]+", key) for key in found)
    solution = getattr(result, "solution", result)
    key = "solution/condition" if name == "gap" else "condition"
    assert found[key] == (result.condition if name == "comparison" else solution.certificate.condition)


def test_paths_probes_and_diagnoses_are_flat_floats_too() -> None:
    X, Y = table()
    path = cf.ridge_path(X, Y, l2=[0.1, 1.0])
    probe = cf.probe(X, Y[:, 0] > 0, l2=[1.0])
    diagnosis = cf.diagnose(X, Y)
    convex = cf.solve(X, (Y[:, 0] > 0).double(), criterion=torch.nn.BCEWithLogitsLoss(), l2=1.0)
    for result in (path, probe, diagnosis, convex):
        found = result.metrics()
        assert all(type(value) is float for value in found.values())
    assert path.metrics()["left_out_error"] == float(path.error.mean())
    assert probe.metrics()["accuracy"] == probe.accuracy
    assert diagnosis.metrics()["condition"] == diagnosis.condition
    assert sum(diagnosis.metrics()[f"findings/{kind}"] for kind in ("error", "warning", "info", "ok")) == len(
        diagnosis.findings
    )
    assert convex.metrics()["certified"] == 1.0
