"""The rates by which costs are predicted: given, kept, measured."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

import closedform as cf
from closedform.engine import compiled
from closedform.engine import rates as machine
from closedform.fit.plan import make_plan
from closedform.words.errors import InputError

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def measured() -> machine.Rates:
    """The speeds of this machine: two seconds of work, done once."""
    return machine.measure(CPU)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv(machine.VARIABLE)
    monkeypatch.setattr(machine, "_measured_here", {})
    monkeypatch.setattr(machine, "cache_file", lambda device: str(tmp_path / "new" / "rates.json"))
    return tmp_path / "new" / "rates.json"


def test_measured_once_and_kept(cache: Path, measured: machine.Rates, monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine.known_rates(CPU) is machine.DEFAULT
    with monkeypatch.context() as patch:
        patch.setattr(machine, "measure", lambda device: measured)
        rates = machine.measured_rates(CPU)
    assert "measured on" in rates.source
    monkeypatch.setattr(machine, "measure", lambda device: pytest.fail("measured twice"))
    assert machine.measured_rates(CPU) == rates
    assert [path.name for path in cache.parent.iterdir()] == ["rates.json"]


def test_a_measurement_in_bad_company_is_not_kept_for_ever(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    speeds = iter([1e9, 3e9, 2e9, 9e9])
    slow = replace(machine.DEFAULT, source="measured on a day")
    monkeypatch.setattr(machine, "measure", lambda device: replace(slow, gram64=next(speeds)))
    for expected in (1e9, 3e9, 3e9, 3e9):
        # As a new process would.
        monkeypatch.setattr(machine, "_measured_here", {})
        assert machine.measured_rates(CPU).gram64 == expected
        assert machine.known_rates(CPU).gram64 == expected
    assert next(speeds) == 9e9


def test_a_damaged_cache_is_written_anew(cache: Path, measured: machine.Rates, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "measure", lambda device: measured)
    cache.parent.mkdir()
    cache.write_text("{")
    assert machine.known_rates(CPU) is machine.DEFAULT
    machine.measured_rates(CPU)
    assert json.loads(cache.read_text())["memory"] > 0


def test_a_cache_that_cannot_be_written_stops_nothing(
    cache: Path, measured: machine.Rates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "measure", lambda device: measured)
    cache.parent.write_text("a file where the folder should be")
    rates = machine.measured_rates(CPU)
    assert rates.gram64 > 0
    assert machine.measured_rates(CPU) == rates


@pytest.mark.parametrize("text", ["{}", "[]", "nonsense", json.dumps(asdict(replace(machine.DEFAULT, memory=-1.0)))])
def test_rates_that_are_given_must_be_rates(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "mine.json"
    file.write_text(text)
    monkeypatch.setenv(machine.VARIABLE, str(file))
    with pytest.raises(InputError, match="does not hold the rates gram16, gram32"):
        cf.solve(torch.eye(3), torch.ones(3))


def test_rates_decide_the_order_and_are_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    X = torch.randn(400, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    file = tmp_path / "mine.json"
    slow_gram = replace(machine.DEFAULT, gram32=1.0, gram64=1.0, qr64=1e15, source="a machine of my own")
    file.write_text(json.dumps(asdict(slow_gram)))
    monkeypatch.setenv(machine.VARIABLE, str(file))
    sol = cf.solve(X, X[:, 0])
    assert sol.attempts[0].method in ("householder", "sketched")
    assert "a machine of my own" in str(sol.plan)
    assert sol.to_dict()["plan"]["facts"]["rates"]["qr64"] == 1e15


def test_rows_of_a_file_are_not_passed_over_often() -> None:
    X = torch.randn(400, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    facts = cf.solve(X, X[:, 0]).plan.facts
    large = replace(facts, n_rows=100_000, n_columns=4000, row_bytes=32_008.0, rates=machine.DEFAULT, condition=1e4)
    for in_memory, first in ((True, "sketched"), (False, "gram64")):
        steps = {step.name: step.cost.seconds for step in make_plan(replace(large, in_memory=in_memory)).steps}
        assert min(("sketched", "gram64"), key=lambda name: steps[name]) == first


@pytest.mark.skipif(not compiled.available(), reason="no C compiler built the loops here")
def test_speeds_of_other_loops_are_not_taken_over(monkeypatch: pytest.MonkeyPatch) -> None:
    here = machine.cache_file(CPU)
    monkeypatch.setattr(compiled.library, "SOURCES", 0)
    other = machine.cache_file(CPU)
    monkeypatch.setattr("closedform.engine.compiled.library", None)
    assert len({here, other, machine.cache_file(CPU)}) == 3
