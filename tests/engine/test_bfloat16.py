"""A Gram matrix in bfloat16 as the factor: what refinement makes of it, and where it gives up."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

import closedform as cf
from closedform.engine import compiled
from closedform.engine import rates as machine
from closedform.fit.factors import gram
from closedform.fit.plan import make_plan
from closedform.words.errors import InputError, MethodRefusedError
from data import gaussian, of_condition

needs_bfloat16 = pytest.mark.skipif(
    not compiled.multiplies_bfloat16(), reason="this processor does not multiply bfloat16 numbers"
)


@needs_bfloat16
@pytest.mark.parametrize("logarithm", [0.0, 1.0, 1.8], ids=["condition 1", "condition 10", "condition 60"])
@pytest.mark.parametrize("options", [{}, {"bias": True, "l2": 3.0}], ids=["plain", "bias and ridge"])
def test_refinement_repairs_it(logarithm: float, options: dict[str, object]) -> None:
    X = of_condition(logarithm, 3000, 40)
    Y = X @ gaussian(40, 3, seed=2) + gaussian(3000, 3, seed=3)
    coarse, exact = (cf.solve(X, Y, method=method, **options) for method in ("gram16", "svd"))
    assert coarse.certificate.accepted
    torch.testing.assert_close(coarse.weight, exact.weight, rtol=1e-11, atol=1e-12)
    # It did the work, and not a more accurate one that passed under its name.
    single = cf.solve(X, Y, method="gram32", **options)
    assert coarse.certificate.factor_error > max(1e-4, 3 * single.certificate.factor_error)


@needs_bfloat16
def test_short_directions_are_left_to_more_digits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    X = of_condition(3.0, 3000, 40)
    file = tmp_path / "rates.json"
    file.write_text(json.dumps(asdict(replace(machine.DEFAULT, gram16=1e30))))
    monkeypatch.setenv(machine.VARIABLE, str(file))
    monkeypatch.setattr(gram.Gram16, "passes", 0)
    first, *others = cf.solve(X, gaussian(3000, 1, seed=2)).attempts
    assert first.method == "gram16"
    assert "condition number" in first.reason
    assert others[-1].method in ("gram32", "gram64")
    assert others[-1].certificate is not None


@needs_bfloat16
@pytest.mark.parametrize("rows", [250, 4000])
def test_rounding_does_not_hide_that_columns_depend(rows: int) -> None:
    X = gaussian(rows, 40)
    X = torch.cat([X, X.sum(1, keepdim=True)], 1)
    # Rounded, the columns are independent, however few rows the sample is of.
    rounded = X.to(torch.bfloat16).to(torch.float64)
    assert torch.linalg.cond(rounded) < 1e4
    with pytest.raises(InputError, match="in a sample of the rows"):
        cf.solve(X, gaussian(rows, 1, seed=1), method="gram16")


@needs_bfloat16
@pytest.mark.parametrize(("rows", "columns"), [(90, 30), (30, 30), (20, 30)])
def test_no_sample_no_bfloat16(rows: int, columns: int) -> None:
    with pytest.raises(MethodRefusedError, match="no sample would be much smaller"):
        cf.solve(gaussian(rows, columns), gaussian(rows, 1, seed=1), method="gram16", l2=1.0)


@pytest.mark.skipif(not compiled.available(), reason="no C compiler built the loops here")
def test_a_processor_without_it_says_so() -> None:
    assert compiled.library is not None
    try:
        compiled.library.use_vectors(32)
        with pytest.raises(MethodRefusedError, match="not multiplied by this processor"):
            cf.solve(gaussian(30, 3), gaussian(30, 1, seed=1), method="gram16")
    finally:
        compiled.library.use_vectors(compiled.library.WIDEST)


@pytest.mark.parametrize(
    "X",
    [
        gaussian(20, 800).T,
        gaussian(800, 20).half(),
        gaussian(800, 40)[:, ::2],
    ],
    ids=["columns", "half precision", "every second column"],
)
def test_rows_that_no_compiled_loop_reads_take_another(X: torch.Tensor) -> None:
    sol = cf.solve(X, gaussian(800, 1, seed=1))
    assert not sol.plan.facts.bfloat16
    with pytest.raises(MethodRefusedError, match="not in this layout of rows"):
        cf.solve(X, gaussian(800, 1, seed=1), method="gram16")


@needs_bfloat16
def test_cost_decides_whether_it_is_worth_its_passes() -> None:
    facts = replace(cf.solve(gaussian(3000, 20), gaussian(3000, 1, seed=1)).plan.facts, rates=machine.DEFAULT)
    for columns, targets, cheaper in ((50, 1, False), (2000, 1, True), (2000, 1000, False)):
        size = replace(facts, n_rows=100_000, n_columns=columns, n_targets=targets, row_bytes=8.0 * (columns + targets))
        costs = {step.name: step.cost.seconds for step in make_plan(size).steps}
        assert (costs["gram16"] < costs["gram32"]) == cheaper
        assert (make_plan(size).ladder[0].name == "gram16") == cheaper


@needs_bfloat16
def test_what_rounding_adds_to_the_condition_number_is_not_claimed_of_the_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A column whose numbers bfloat16 rounds to 1, but for a few: beside a bias less is left of it than there is.
    generator = torch.Generator().manual_seed(0)
    column = 1 + torch.tensor([-0.0019, 0.0038], dtype=torch.float64).repeat(20_000)
    column[torch.rand(40_000, generator=generator) < 0.02] = 1.005
    X = torch.cat([gaussian(40_000, 20), column.unsqueeze(1)], 1)
    file = tmp_path / "rates.json"
    file.write_text(json.dumps(asdict(replace(machine.DEFAULT, gram16=1e30))))
    monkeypatch.setenv(machine.VARIABLE, str(file))
    monkeypatch.setattr(gram.Gram16, "passes", 0)
    monkeypatch.setattr(gram.Gram32, "passes", 1)
    monkeypatch.setattr(gram.Gram16, "sample_excess", 1e9)
    first, second = cf.solve(X, gaussian(40_000, 1, seed=1), bias=True).attempts
    assert (first.method, second.method) == ("gram16", "gram32")
    assert "condition number about" in first.reason
    assert second.certificate is not None
