"""NIST's sets, digit by digit, and what ``closedform accuracy`` and ``solve --digits`` print."""

from __future__ import annotations

import json
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

import closedform as cf
from closedform.cli.app import app
from closedform.cli.certainty import certain
from closedform.files.hard import hard_problems
from closedform.files.nist import NistSet, nist_sets, read_nist_sets
from closedform.numerics.rational import exact_least_squares
from closedform.words.errors import SourceError
from exact import errors, minimiser

SETS = {item.name: item for item in nist_sets()}
#: Certified by NIST to 15 digits, in the order of the columns; Wampler's are 1 or powers of ten by construction.
CERTIFIED = {
    "norris": ["-0.262323073774029", "1.00211681802045"],
    "pontius": ["0.673565789473684E-03", "0.732059160401003E-06", "-0.316081871345029E-14"],
    "filip": [
        *("-1467.48961422980", "-2772.17959193342", "-2316.37108160893", "-1127.97394098372", "-354.478233703349"),
        *("-75.1242017393757", "-10.8753180355343", "-1.06221498588947", "-0.670191154593408E-01"),
        *("-0.246781078275479E-02", "-0.402962525080404E-04"),
    ],
    "longley": [
        *("-3482258.63459582", "15.0618722713733", "-0.358191792925910E-01", "-2.02022980381683"),
        *("-1.03322686717359", "-0.511041056535807E-01", "1829.15146461355"),
    ],
    "wampler2": ["1", "0.1", "0.01", "0.001", "0.0001", "0.00001"],
    **{f"wampler{i}": ["1"] * 6 for i in (1, 3, 4, 5)},
    "noint1": ["2.07438016528926"],
    "noint2": ["0.727272727272727"],
}


def run(*args: object) -> Result:
    return CliRunner().invoke(app, [str(arg) for arg in args])


@pytest.mark.parametrize("item", SETS.values(), ids=SETS)
def test_the_packaged_numbers_give_the_certified_values(item: NistSet) -> None:
    X, y = item.decimal()
    found = exact_least_squares(X, y)
    assert len(found) == len(CERTIFIED[item.name])
    for value, text in zip(found, CERTIFIED[item.name], strict=True):
        # To half a unit of the fifteenth digit, which is the last one published.
        assert abs(value - Fraction(text)) <= Fraction(Decimal("0.51").scaleb(Decimal(text).adjusted() - 14))


@pytest.mark.parametrize("as_bias", [False, True], ids=["column of ones", "bias"])
@pytest.mark.parametrize("item", SETS.values(), ids=SETS)
def test_every_digit_of_the_eleven_sets(item: NistSet, as_bias: bool) -> None:
    X, y = item.binary64()
    if as_bias and not item.intercept:
        pytest.skip("a line through the origin")
    X = X[:, 1:] if as_bias else X
    sol = cf.solve(X, y, bias=as_bias, digits=15)
    found = errors(sol, minimiser(X.numpy(), y.numpy(), bias=as_bias))
    assert sol.outcome is cf.Outcome.CERTIFIED
    assert found.digits >= 15.5
    assert found.bound_holds
    # What is claimed is no more than the truth, and less by no more than two digits.
    claimed = sol.certificate.forward_bound
    assert claimed is not None
    assert found.relative <= claimed <= 100 * found.relative


def test_the_rational_oracles_agree() -> None:
    for problem in hard_problems():
        rows = [[Fraction(value) for value in row] for row in problem.X.tolist()]
        ours = exact_least_squares(rows, [Fraction(value) for value in problem.y.tolist()])
        assert [[value] for value in ours] == minimiser(problem.X.numpy(), problem.y.numpy()).weights


def test_dependent_columns_have_no_exact_answer() -> None:
    with pytest.raises(ZeroDivisionError, match="dependent"):
        exact_least_squares([[Fraction(1), Fraction(2)], [Fraction(2), Fraction(4)]], [Fraction(1), Fraction(0)])


def test_accuracy_command(tmp_path: Path) -> None:
    out = tmp_path / "digits.json"
    result = run("accuracy", "--json", out)
    assert result.exit_code == 0, result.output
    record = {"schema_version", "command", "versions", "file", "keys", "options", "data_hash"}
    data = {key: value for key, value in json.loads(out.read_text()).items() if key not in record}
    assert data.keys() == {"nist_binary64", "nist_decimal", "gallery"}
    for table, problems in data.items():
        assert {"closedform digits=15", "closedform", "numpy lstsq", "torch lstsq gels"} <= problems.keys()
        best = problems["closedform digits=15"]
        assert len(best) == (7 if table == "gallery" else 11)
        assert all(value >= 15.5 for value in best.values()) or table == "nist_decimal"
        assert all(0 <= value <= 16 for row in problems.values() for value in row.values() if value is not None)
    # Filip's powers, rounded, are another problem than its decimal ones: no solver can have more than eight digits.
    assert 7.5 < data["nist_decimal"]["closedform digits=15"]["filip"] < 8.5
    assert data["nist_binary64"]["numpy lstsq"]["filip"] < 1
    assert max(map(len, result.stdout.splitlines()[:12])) <= 80


def test_accuracy_reads_a_folder(tmp_path: Path) -> None:
    (tmp_path / "noint2.csv").write_text("y,x\n3,4\n4,5\n4,6\n")
    assert read_nist_sets(str(tmp_path)) == (SETS["noint2"],)
    result = run("accuracy", "--data", tmp_path)
    assert result.exit_code == 0
    assert "NI2" in result.stdout
    assert "Fil " not in result.stdout.splitlines()[1]


@pytest.mark.parametrize(("text", "message"), [(None, "none of"), ("y,x\n1,two\n", "decimal"), ("y\n1\n", "decimal")])
def test_accuracy_refuses_other_folders(tmp_path: Path, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / "norris.csv").write_text(text)
    with pytest.raises(SourceError, match=message):
        read_nist_sets(str(tmp_path))
    result = run("accuracy", "--data", tmp_path)
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    with pytest.raises(SourceError, match="no such folder"):
        read_nist_sets(str(tmp_path / "nowhere"))


@pytest.mark.parametrize("width", [30, 60, 100])
def test_accuracy_cuts_no_name_on_a_narrow_screen(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    result = run("accuracy")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert max(map(len, lines)) <= width
    assert lines == [line.rstrip() for line in lines]
    table = lines[: lines.index("")]
    rows = [line.removeprefix("closedform digits=15").split() for line in table if line.startswith("closedform digits")]
    assert [float(cell) for row in rows for cell in row] == pytest.approx([16.0] * 11, abs=0.5)
    titles = [title for line in table if line.startswith(" " * 10) for title in line.split()]
    assert titles == ["Nor", "Pon", "Fil", "Lon", "W1", "W2", "W3", "W4", "W5", "NI1", "NI2"]


def solve_digits(tmp_path: Path, X: np.ndarray, y: np.ndarray, *options: object) -> Result:
    np.savez(tmp_path / "data.npz", X=X, y=y)
    return run("solve", tmp_path / "data.npz", "--out", tmp_path / "layer.safetensors", *options)


def test_solve_prints_the_digits_that_are_certain(tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    X, y = SETS["longley"].binary64()
    result = solve_digits(tmp_path, X[:, 1:].numpy(), y.numpy(), "--bias", "--digits", 12)
    assert result.exit_code == 0, result.output
    exact = minimiser(X.numpy(), y.numpy()).weights
    printed = [line.split("  ")[1] for line in result.stdout.splitlines() if line.startswith(("bias[", "weight["))]
    for text, (value,) in zip(printed, exact, strict=True):
        assert abs(Fraction(text) - value) <= Fraction(Decimal(1).scaleb(Decimal(text).adjusted() - 16)) / 2


def test_solve_prints_twenty_weights_and_refuses_what_is_not_determined(tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    rng = np.random.default_rng(0)
    X = rng.standard_normal((40, 25))
    lines = solve_digits(tmp_path, X, X.sum(1), "--digits", 9).stdout.splitlines()
    assert sum(line.startswith("weight[") for line in lines) == 20
    assert lines[-1] == "... and 5 more"
    X[:, 1] = X[:, 0]
    result = solve_digits(tmp_path, X, X.sum(1), "--digits", 9)
    assert result.exit_code == 1
    assert "not determined" in result.stdout
    result = solve_digits(tmp_path, X, X.sum(1), "--digits", 16)
    assert result.exit_code == 2
    assert "1 to 15" in result.stderr


def test_a_weight_that_is_zero_is_told_apart_from_one_that_is_not_determined() -> None:
    assert certain(0.0, 0.0, 0.0) == "0"
    assert certain(1e-60, 0.0, 1.51e-50) == "not determined, at most 1.6e-50 in size"
    assert certain(0.0, 0.0, np.inf) == certain(1.0, 0.0, np.inf) == "not determined"


@given(
    value=st.floats(min_value=1e-200, max_value=1e200) | st.floats(min_value=-1e20, max_value=-1e-20),
    exponent=st.floats(min_value=-20, max_value=1),
    error=st.floats(min_value=-1, max_value=1),
)
@settings(derandomize=True, deadline=None)
def test_certain_digits_are_certain(value: float, exponent: float, error: float) -> None:
    """For any true number within the bound, what stands before the parenthesis is within one unit of its last digit."""
    bound = abs(value) * 10.0**exponent
    text = certain(value, 0.0, bound)
    if text.startswith("not determined"):
        assert abs(Fraction(value)) + Fraction(bound) <= Fraction(text.split()[4])
        assert 2 * Decimal(bound) > Decimal(1).scaleb(Decimal(value).adjusted())
        return
    if "(" in text:
        assert text.count("(") == 1
        head, rest = text.split("(")
        text = head + rest.split(")")[1]
    shown = Decimal(text.replace(".e", "e"))
    unit = Fraction(Decimal(1).scaleb(int(shown.as_tuple().exponent)))
    true = Fraction(value) + Fraction(bound) * Fraction(error)
    assert abs(true - Fraction(shown)) <= Fraction(3, 2) * unit
