"""The first line says of which model it speaks: rows, features, bias, targets, their names; and one note on a bias."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import polars
import pyarrow
import pytest
import torch

import closedform as cf
from closedform.words.errors import NonFiniteError

NAMES = ("height", "age")


def table() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    X = rng.standard_normal((50, 2))
    return X, X @ [1.0, 2.0] + 3 + 0.1 * rng.standard_normal(50)


@pytest.mark.parametrize("bias", [False, True])
def test_sizes_and_bias_stand_in_the_first_line(bias: bool) -> None:
    X, y = table()
    first = str(cf.solve(X, np.stack([y, y], 1), bias=bias)).splitlines()[0]
    assert f"(50 rows, 2 features {'with' if bias else 'without'} a bias -> 2 targets)" in first
    one = str(cf.solve(X[:, :1], y, bias=bias)).splitlines()[0]
    assert "1 feature " in one
    assert "1 target)" in one


def squares_left(X: np.ndarray, Y: np.ndarray, weight: np.ndarray, l2: float) -> float:
    """Least weighted loss with a bias, by LAPACK on rows scaled by the roots of their weights."""
    root = np.sqrt(weight)[:, None]
    A = np.concatenate([np.ones((len(X), 1)), X], 1) * root
    ridge = np.sqrt(l2) * np.eye(X.shape[1] + 1)
    ridge[0] = 0
    A, B = np.concatenate([A, ridge]), np.concatenate([Y * root, np.zeros((X.shape[1] + 1, Y.shape[1]))])
    W = np.linalg.lstsq(A, B, rcond=None)[0]
    return float(((A @ W - B) ** 2).sum() / weight.sum() / Y.shape[1])


@pytest.mark.parametrize("method", ["auto", "householder", "gram32", "sketched"])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_loss_with_a_bias_is_that_of_a_fit_with_one(method: str, weighted: bool) -> None:
    rng = np.random.default_rng(6)
    X = rng.standard_normal((400, 5)) + 2
    Y = X @ rng.standard_normal((5, 2)) + [4.0, 0.0] + rng.standard_normal((400, 2))
    weight = rng.uniform(0, 2, 400) if weighted else np.ones(400)
    sol = cf.solve(X, Y, sample_weight=weight if weighted else None, method=method)
    assert sol.certificate.loss_with_bias == pytest.approx(
        squares_left(X, Y, weight, 0.0), rel=1e-6 if method != "sketched" else 1
    )
    assert cf.solve(X, Y, bias=True).certificate.loss_with_bias is None


def test_a_note_says_where_a_bias_halves_the_loss() -> None:
    X, y = table()
    sol = cf.solve(X, y)
    notes = [note for note in sol.notes if "bias" in note]
    assert len(notes) == 1
    told = float(re.findall(r"about ([0-9.e+-]+),", notes[0])[0])
    assert told == pytest.approx(squares_left(X, y[:, None], np.ones(50), 0.0), rel=1e-5)
    assert not any("bias" in note for note in cf.solve(X, y - 3).notes)
    assert not any("bias" in note for note in cf.solve(X, y, bias=True).notes)


def test_ones_among_the_features_leave_nothing_to_a_bias() -> None:
    X, y = table()
    group = np.arange(50) % 3
    for columns in (np.ones((50, 1)), np.eye(3)[group], 1e-6 * np.eye(3)[group]):
        sol = cf.solve(np.concatenate([X, columns], 1), y)
        assert not any("bias" in note for note in sol.notes)
    assert not any("bias" in note for note in cf.solve(X, X @ [1.0, 2.0]).notes)  # an exact fit


def as_frames(X: np.ndarray, y: np.ndarray) -> dict[str, tuple[object, object]]:
    columns = dict(zip(NAMES, X.T, strict=True))
    return {
        "pandas": (pd.DataFrame(columns), pd.Series(y, name="price")),
        "polars": (polars.DataFrame(columns), polars.Series("price", y)),
        "arrow": (pyarrow.table(columns), pyarrow.table({"price": y})),
    }


@pytest.mark.parametrize("kind", ["pandas", "polars", "arrow"])
def test_names_of_a_frame_stand_in_the_solution(kind: str) -> None:
    X, y = as_frames(*table())[kind]
    sol = cf.solve(X, y, bias=True)
    assert sol.feature_names == NAMES
    assert sol.target_names == ("price",)
    assert sol.to_dict()["feature_names"] == list(NAMES)
    assert "2 features (height, age) with a bias -> 1 target (price)" in str(sol)
    layer = torch.nn.Linear(2, 1)
    assert cf.fit_(layer, X, y).feature_names == NAMES


def test_names_of_a_file_stand_in_the_solution(tmp_path: pytest.TempPathFactory) -> None:
    X, y = table()
    frame = pd.DataFrame({"height": X[:, 0], "age": X[:, 1], "price": y})
    for name, write in {
        "a.csv": lambda path: frame.to_csv(path, index=False),
        "a.parquet": frame.to_parquet,
        "a.h5": lambda path: frame.to_hdf(path, key="df", format="table"),
    }.items():
        path = f"{tmp_path}/{name}"
        write(path)
        sol = cf.solve(path, "price")
        assert sol.feature_names == NAMES, name
        assert sol.target_names == ("price",), name


def test_tables_without_names_have_none() -> None:
    X, y = table()
    sol = cf.solve(X, y)
    assert sol.feature_names is None
    assert sol.to_dict()["target_names"] is None


def test_undetermined_columns_are_named() -> None:
    X, y = table()
    frame = pd.DataFrame({"height": X[:, 0], "age": X[:, 1], "twice": 2 * X[:, 1]})
    sol = cf.solve(frame, y)
    (note,) = [note for note in sol.notes if "not determined" in note]
    assert "age" in note
    assert "twice" in note
    assert "height" not in note


def test_a_column_that_is_not_finite_is_named() -> None:
    X, y = table()
    X[7, 1] = np.inf
    with pytest.raises(NonFiniteError, match=r"column 1 \(age\), first in row 7"):
        cf.solve(pd.DataFrame(X, columns=list(NAMES)), y)


def test_a_diagnosis_takes_the_names_of_a_frame() -> None:
    X, y = table()
    frame = pd.DataFrame({"height": X[:, 0], "age": X[:, 1], "twice": 2 * X[:, 1]})
    text = str(cf.diagnose(frame, y, bias=True, steps=10))
    assert "twice" in text


def test_names_cannot_act_on_a_terminal() -> None:
    X, y = table()
    sol = cf.solve(pd.DataFrame(X, columns=["\x1b[2Jheight", "a\nge"]), y)
    assert "\x1b" not in str(sol)
    assert sol.feature_names == ("\\x1b[2Jheight", "a ge")


def test_targets_keep_their_names_with_strengths_of_their_own() -> None:
    X, y = table()
    Y = pd.DataFrame({"a": y, "b": 2 * y, "c": 3 * y})
    sol = cf.solve(X, Y, l2=[1.0, 0.0, 1.0])
    assert sol.target_names == ("a", "b", "c")
