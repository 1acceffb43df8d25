"""The statistician's table, against NIST's certified values, many digits of arithmetic, and statsmodels where it is."""

from __future__ import annotations

import copy
import pickle
from html.parser import HTMLParser
from pathlib import Path

import mpmath
import numpy as np
import pandas as pd
import pytest
import scipy
import torch
from numpy.testing import assert_allclose
from typer.testing import CliRunner

import closedform as cf
from closedform.cli.app import app
from closedform.files.nist import nist_sets
from closedform.report.text import render_text
from closedform.words.errors import InputError

#: Relative error of a tail at SciPy's quantile of Student's t: ten digits until it took them from Boost.
QUANTILE = 1e-12 if scipy.__version__ >= "1.12" else 1e-9
SETS = {each.name: each for each in nist_sets()}

#: https://www.itl.nist.gov/div898/strd/lls/data/Longley.shtml: estimates, standard deviations of the estimates.
LONGLEY = (
    (-3482258.63459582, 890420.383607373),
    (15.0618722713733, 84.9149257747669),
    (-0.0358191792925910, 0.0334910077722432),
    (-2.02022980381683, 0.488399681651699),
    (-1.03322686717359, 0.214274163161675),
    (-0.0511041056535807, 0.226073200069370),
    (1829.15146461355, 455.478499142212),
)


def test_longley_is_as_nist_certifies_it() -> None:
    X, y = SETS["longley"].binary64()
    table = cf.solve(X[:, 1:], y, bias=True).summary()
    c = table.coefficients
    assert_allclose(c.weight[0], [weight for weight, _ in LONGLEY], rtol=1e-10)
    assert_allclose(c.standard_error[0], [error for _, error in LONGLEY], rtol=1e-10)
    assert_allclose(table.residual_std[0], 304.854073561965, rtol=1e-12)
    assert_allclose(table.r_squared[0], 0.995479004577296, rtol=1e-12)
    assert_allclose(table.adjusted_r_squared[0], 0.992465007628826, rtol=1e-12)


def test_ratios_of_a_nearly_exact_fit_are_set_by_their_exponents() -> None:
    X = torch.randn(200, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    y = X[:, :2] @ torch.tensor([3.0, -2.0], dtype=torch.float64) + 1e-12 * X[:, 2]
    line = str(cf.solve(X[:, :2], y).summary()).split("column 1")[1].split()
    assert line[0] == "-2"
    assert "e+" in line[2]
    assert line[3] == "0"


def student_tail(t: mpmath.mpf, freedom: int) -> mpmath.mpf:
    """Two-sided probability of Student's distribution, by the incomplete beta function."""
    x = mpmath.mpf(freedom) / (freedom + t * t)
    return mpmath.betainc(mpmath.mpf(freedom) / 2, mpmath.mpf(1) / 2, 0, x, regularized=True)


@pytest.mark.parametrize("name", ["norris", "pontius", "wampler4", "wampler5", "noint1", "noint2"])
def test_every_number_is_that_of_fifty_digits(name: str) -> None:
    each = SETS[name]
    X, y = each.binary64()
    features = X[:, int(each.intercept) :]
    sol = cf.solve(features, y, bias=each.intercept)
    table, (n, p) = sol.summary(), X.shape
    with mpmath.workdps(50):
        A, b = mpmath.matrix(X.tolist()), mpmath.matrix(y.tolist())
        inverse = (A.T * A) ** -1
        weights = inverse * (A.T * b)
        squares = sum(value**2 for value in (b - A * weights))
        mean = sum(b) / n if each.intercept else 0
        errors = [mpmath.sqrt(squares / (n - p) * inverse[i, i]) for i in range(p)]
        tails = [student_tail(weight / error, n - p) for weight, error in zip(weights, errors, strict=True)]
        r_squared = 1 - squares / sum((value - mean) ** 2 for value in b)
        correct = [
            float(abs(mpmath.mpf(float(w)) / v - 1)) for w, v in zip(table.coefficients.weight[0], weights, strict=True)
        ]

    c = table.coefficients
    assert_allclose(c.standard_error[0], [float(v) for v in errors], rtol=1e-10)
    assert_allclose(c.t[0], [float(w / e) for w, e in zip(weights, errors, strict=True)], rtol=1e-9, atol=1e-13)
    assert_allclose(c.p[0], [float(v) for v in tails], rtol=1e-8)
    assert_allclose(table.r_squared[0], float(r_squared), rtol=1e-12)
    assert_allclose(
        table.adjusted_r_squared[0], 1 - (1 - float(r_squared)) * (n - each.intercept) / (n - p), rtol=1e-10
    )
    for end in (c.low, c.high):
        tail = student_tail(mpmath.mpf(float((end - c.weight)[0, 0] / c.standard_error[0, 0])), n - p)
        assert float(tail) == pytest.approx(0.05, rel=QUANTILE)
    # What is said of the digits holds.
    assert all(error <= 10.0 ** -int(digits) for error, digits in zip(correct, c.digits[0], strict=True))


def statsmodels_tables() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    datasets = pytest.importorskip("statsmodels.datasets", reason="statsmodels is not installed: a second opinion")
    grunfeld = datasets.grunfeld.load_pandas().data
    loaded = {name: getattr(datasets, name).load_pandas() for name in ("longley", "stackloss", "ccard", "scotland")}
    tables = {name: (data.exog.to_numpy(float), data.endog.to_numpy(float)) for name, data in loaded.items()}
    return tables | {"grunfeld": (grunfeld[["value", "capital"]].to_numpy(float), grunfeld["invest"].to_numpy(float))}


@pytest.mark.parametrize("name", ["longley", "grunfeld", "stackloss", "ccard", "scotland"])
@pytest.mark.parametrize("bias", [False, True])
def test_the_numbers_are_those_of_statsmodels(name: str, bias: bool) -> None:
    (X, y), api = statsmodels_tables()[name], pytest.importorskip("statsmodels.api", reason="a second opinion")
    scale = 2.0 ** -np.frexp(np.abs(X).max(0))[1]  # powers of two change nothing here, and help statsmodels
    theirs = api.OLS(y, api.add_constant(X * scale, has_constant="add") if bias else X * scale).fit()
    table = cf.solve(X * scale, y, bias=bias).summary(level=0.9)
    c = table.coefficients
    for ours, true in ((c.weight, theirs.params), (c.standard_error, theirs.bse), (c.t, theirs.tvalues)):
        assert_allclose(ours[0], true, rtol=1e-10)
    assert_allclose(c.p[0], theirs.pvalues, rtol=1e-10)
    assert_allclose(torch.stack([c.low[0], c.high[0]], 1), theirs.conf_int(0.1), rtol=1e-10)
    assert_allclose(
        [table.r_squared[0], table.adjusted_r_squared[0]], [theirs.rsquared, theirs.rsquared_adj], rtol=1e-10
    )
    assert_allclose(table.residual_std[0], theirs.scale**0.5, rtol=1e-10)


def test_weights_of_rows_are_those_of_statsmodels() -> None:
    api = pytest.importorskip("statsmodels.api", reason="statsmodels is not installed: a second opinion")
    rng = np.random.default_rng(1)
    X, weight = rng.standard_normal((40, 3)), rng.uniform(0.5, 2, 40)
    y = X @ [1.0, 2.0, 3.0] + rng.standard_normal(40)
    theirs = api.WLS(y, api.add_constant(X), weights=weight).fit()
    table = cf.solve(X, y, bias=True, sample_weight=weight).summary()
    assert_allclose(table.coefficients.standard_error[0], theirs.bse, rtol=1e-10)
    assert_allclose(
        [table.r_squared[0], table.adjusted_r_squared[0]], [theirs.rsquared, theirs.rsquared_adj], rtol=1e-10
    )


def frames(rows: int = 30, targets: int = 2) -> tuple[pd.DataFrame, pd.DataFrame]:
    rng = np.random.default_rng(2)
    X = pd.DataFrame(rng.standard_normal((rows, 3)), columns=["height", "<b>age</b>", "width"])
    return X, pd.DataFrame(rng.standard_normal((rows, targets)), columns=[f"y{i}" for i in range(targets)])


def test_a_frame_holds_every_coefficient() -> None:
    X, Y = frames()
    sol = cf.solve(X, Y, bias=True)
    frame = sol.summary().to_frame()
    assert list(frame.columns) == ["target", "name", "weight", "standard_error", "t", "p", "low", "high", "digits"]
    assert list(frame["name"]) == ["bias", *X.columns] * 2
    assert list(frame["target"]) == ["y0"] * 4 + ["y1"] * 4
    assert sol.bias is not None
    assert frame["weight"][4] == sol.bias[1].item()
    assert list(frame["weight"][5:]) == sol.weight[1].tolist()


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)


def test_a_notebook_shows_a_table_and_no_markup_of_names() -> None:
    X, Y = frames()
    text, tags = cf.solve(X, Y, bias=True).summary()._repr_html_(), Tags()
    tags.feed(text)
    assert tags.seen.count("table") == 3
    assert "b" not in tags.seen
    assert "&lt;b&gt;age&lt;/b&gt;" in text


def test_top_tables_and_pages_of_the_text() -> None:
    X, Y = frames(60, 5)
    table = cf.solve(X, Y, bias=True).summary()
    text = str(table)
    assert text.splitlines()[0].startswith("certified: the weights minimise the loss")
    for word in ("rows: 60", "degrees of freedom: 56", "rank: 4 of 4", "condition: ", "certificate: accepted", "R^2"):
        assert word in text
    assert "2 more targets" in text
    assert "\ny2:\n" in text
    assert "\ny4:\n" not in text
    assert "y4" in table.page(4)
    with pytest.raises(InputError, match="there are 5 targets"):
        table.page(5)


def test_a_long_page_is_cut_and_says_so() -> None:
    rng = np.random.default_rng(3)
    table = cf.solve(rng.standard_normal((90, 60)), rng.standard_normal(90)).summary()
    assert "... and 20 more" in str(table)
    assert "column 59" not in str(table)
    assert "column 59" in table.page(0)
    assert "column 5 " in render_text(table.body(6), None)
    assert "column 6 " not in render_text(table.body(6), None)


def test_why_there_are_no_standard_errors_is_said() -> None:
    X, Y = frames()
    ridge = cf.solve(X, Y, l2=1.0).summary()
    assert any("ridge" in note for note in ridge.notes)
    assert bool(ridge.coefficients.standard_error.isnan().all())
    assert int(ridge.coefficients.digits.min()) >= 12
    square = cf.solve(np.eye(3) + 1, np.ones(3)).summary()
    assert any("no degrees of freedom" in note for note in square.notes)
    X["again"] = 2 * X["height"]
    assert any("not unique" in note for note in cf.solve(X, Y).summary().notes)


def test_rows_are_asked_for_where_the_factor_is_too_rough() -> None:
    rng = np.random.default_rng(4)
    X = rng.standard_normal((6000, 20))
    y = X @ rng.standard_normal(20) + rng.standard_normal(6000)
    sol = cf.solve(X, y, bias=True, method="gram32")
    assert any("pass them once more" in note for note in sol.summary().notes)
    exact = cf.solve(X, y, bias=True, method="householder").summary()
    again = sol.summary(X)
    assert_allclose(again.coefficients.standard_error, exact.coefficients.standard_error, rtol=1e-10)
    with pytest.raises(InputError, match="not those of the fit"):
        sol.summary(X + 1)


def test_digits_are_of_the_weights_as_stored() -> None:
    X, Y = frames()
    stored = cf.solve(X.to_numpy(np.float32), Y.to_numpy(np.float32)).summary().coefficients.digits
    assert int(stored.max()) == 7
    proven = cf.solve(X, Y, digits=12).summary()
    assert int(proven.coefficients.digits.min()) >= 12
    assert any("proven" in note for note in proven.notes)


@pytest.mark.parametrize("level", [0.0, 1.0, 95, True, "0.95", float("nan")])
def test_a_level_that_is_none_is_refused(level: object) -> None:
    X, Y = frames()
    with pytest.raises(InputError, match="between 0 and 1"):
        cf.solve(X, Y).summary(level=level)  # type: ignore[arg-type]


def test_summaries_are_copied_and_pickled() -> None:
    table = cf.solve(*frames(), bias=True).summary()
    assert str(pickle.loads(pickle.dumps(table))) == str(copy.deepcopy(table)) == str(table)


def test_the_command_prints_it(tmp_path: Path) -> None:
    X, Y = frames()
    pd.concat([X, Y], axis=1).to_csv(tmp_path / "a.csv", index=False)
    result = CliRunner().invoke(app, ["solve", str(tmp_path / "a.csv"), "--y", "y0", "--bias"])
    assert result.exit_code == 0
    words = result.stdout.split()
    assert {"height", "bias", "digits", "R^2"} <= set(words)


def test_rows_that_were_read_once_count_all_the_same() -> None:
    X, Y = frames(60)
    held = cf.Accumulator(3, 2, bias=True)
    held.fold(X.to_numpy(), Y.to_numpy())
    ours, direct = held.solve().summary(), cf.solve(X, Y, bias=True).summary()
    assert_allclose(ours.coefficients.p, direct.coefficients.p, rtol=1e-9)
    assert ours.facts[:3] == direct.facts[:3]


def test_a_note_on_a_bias_is_right_for_rows_that_were_read_once() -> None:
    X, Y = frames(60)
    held = cf.Accumulator(3, 2, bias=False)
    held.fold(X.to_numpy(), Y.to_numpy() + 9)
    with_bias = cf.solve(X, Y + 9, bias=True).certificate.loss
    assert held.solve().certificate.loss_with_bias == pytest.approx(with_bias, rel=1e-9)
