"""The plan: which methods can take a problem, why the others cannot, and in which order they are tried."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import torch

import closedform as cf
from closedform.engine import compiled
from closedform.engine.rates import DEFAULT
from closedform.fit.plan import METHOD_NAMES, Plan, make_plan
from closedform.numerics.arithmetic import ByTorch
from closedform.numerics.root import DenseRoot
from closedform.words.errors import InputError
from data import gaussian


def plan_of(rows: int, columns: int, targets: int = 1) -> Plan:
    """The plan for a table of these sizes by the usual rates, without its rows."""
    facts = cf.solve(gaussian(30, 3), gaussian(30, 1)).plan.facts
    size = {"n_rows": rows, "n_columns": columns, "n_targets": targets, "row_bytes": 8.0 * (columns + targets)}
    return make_plan(replace(facts, **size, bfloat16=False, rates=DEFAULT))


@pytest.mark.parametrize(
    ("rows", "columns", "first"),
    [
        (100_000, 200, "gram32"),
        (300, 300, "square"),
        (2000, 2000, "square32"),
        (200, 5000, "dual gram32"),
        (300, 200, "gram32"),
    ],
)
def test_the_cheapest_method_comes_first(rows: int, columns: int, first: str) -> None:
    plan = plan_of(rows, columns)
    assert plan.ladder[0].name == first
    costs = {step.name: step.cost.seconds for step in plan.steps}
    seconds = [costs[method.name] for method in plan.ladder]
    assert seconds == sorted(seconds)
    assert plan.seconds == seconds[0]


def test_what_the_extremes_of_a_factor_cost_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    # The others call these. Compiled loops take the steps of a chain without coming back.
    monkeypatch.setattr(compiled, "library", None)
    for kind, name, times in ((DenseRoot, "product", 1), (DenseRoot, "solve", 1), (ByTorch, "normal_product", 2)):
        method = getattr(kind, name)

        def counted(self: Any, *given: Any, method: Any = method, times: int = times, **options: Any) -> Any:
            read.append(times)
            return method(self, *given, **options)

        monkeypatch.setattr(kind, name, counted)
    sol = cf.solve(gaussian(300, 300), gaussian(300, 1, seed=1), method="square")
    counted_as = sol.plan.able[0].cost.flops - 2 / 3 * 300**3 - 4 * sol.plan.able[0].cost.passes * 300**2
    assert counted_as / 2 / 300**2 == pytest.approx(sum(read), rel=0.5)


@pytest.mark.parametrize(("rows", "columns"), [(50, 5), (40, 40), (5, 50)])
def test_every_method_is_on_the_ladder_or_says_why_not(rows: int, columns: int) -> None:
    plan = plan_of(rows, columns)
    assert [step.name for step in plan.steps] == list(METHOD_NAMES)
    assert {method.name for method in plan.ladder} == {step.name for step in plan.steps if not step.refusals}
    assert all(reason for step in plan.steps for reason in step.refusals)


def test_the_most_robust_method_takes_everything() -> None:
    for rows, columns in ((50, 5), (40, 40), (5, 50), (1, 1)):
        assert METHOD_NAMES[-1] in [method.name for method in plan_of(rows, columns).ladder]


def test_a_method_asked_for_is_alone_on_the_ladder() -> None:
    sol = cf.solve(gaussian(30, 3), gaussian(30, 1), method="svd")
    assert [method.name for method in sol.plan.ladder] == ["svd"]
    others = [step.refusals for step in sol.plan.steps if step.name != "svd"]
    assert set(others) == {("method='svd' was asked for",)}


def test_an_unknown_method_is_refused_with_the_names() -> None:
    with pytest.raises(InputError, match=r"method='qr' is not known; use 'auto' or one of square, .*svd at precision"):
        cf.solve(gaussian(30, 3), gaussian(30, 1), method="qr")


def test_only_a_refused_attempt_climbs() -> None:
    X = gaussian(5000, 60) * torch.logspace(0, -3, 60, dtype=torch.float64) @ gaussian(60, 60, seed=1)
    sol = cf.solve(X, gaussian(5000, 1, seed=2))
    *refused, accepted = sol.attempts
    assert refused
    assert all(attempt.certificate is None and attempt.reason for attempt in refused)
    assert accepted.certificate is not None
    ladder = [method.name for method in sol.plan.ladder]
    assert [ladder.index(attempt.method) for attempt in sol.attempts] == sorted(
        ladder.index(attempt.method) for attempt in sol.attempts
    )


def test_a_plan_is_read_and_is_json() -> None:
    plan = plan_of(1000, 10)
    text = str(plan)
    assert text.startswith("plan, cheapest first:")
    assert all(name in text for name in METHOD_NAMES)
    assert "not tried: the matrix is not square" in text
    assert json.loads(json.dumps(plan.to_dict()))["facts"]["n_rows"] == 1000


def test_a_plan_says_where_nothing_was_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "library", None)
    sol = cf.solve(gaussian(30, 3), gaussian(30, 1))
    assert "no C compiler" in str(sol.plan)
    assert sol.plan.to_dict()["facts"]["compiled"] is False
    assert "no C compiler" not in str(Plan(replace(sol.plan.facts, compiled=True), sol.plan.steps))
