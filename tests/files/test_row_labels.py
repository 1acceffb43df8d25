"""Row numbers that pandas writes beside its frames: never a target, never counted, and never zipped by position."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import closedform as cf
from closedform.cli.app import app
from closedform.words.errors import ClosedformError, InputError, SourceError

RNG = np.random.default_rng(0)
FRAME = pd.DataFrame(RNG.standard_normal((30, 3)), columns=list("abc"))
FRAME["y"] = FRAME["a"] - 2 * FRAME["b"] + 3 * FRAME["c"]
SHUFFLED = FRAME.sample(frac=1, random_state=1)
WEIGHT = [[1.0, -2.0, 3.0]]
WRITERS: dict[str, Any] = {
    "fixed.h5": lambda frame, path: frame.to_hdf(path, key="df"),
    "table.h5": lambda frame, path: frame.to_hdf(path, key="df", format="table"),
    "frame.parquet": lambda frame, path: frame.to_parquet(path),
    "frame.feather": lambda frame, path: frame.reset_index(drop=True).to_feather(path),
}


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["solve", *map(str, arguments)], env={"COLUMNS": "300"})


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("target", ["y", "-1", "3"])
def test_numbers_of_columns_do_not_count_an_index(tmp_path: Path, name: str, target: str) -> None:
    path = tmp_path / name
    WRITERS[name](SHUFFLED, path)
    sol = cf.solve(str(path), target)
    assert sol.target_names == ("y",)
    assert sol.feature_names == ("a", "b", "c")
    np.testing.assert_allclose(sol.weight, WEIGHT, rtol=1e-12)


@pytest.mark.parametrize("target", ["0", "-5"])
def test_row_numbers_of_a_text_are_no_target_by_number(tmp_path: Path, target: str) -> None:
    FRAME.to_csv(tmp_path / "a.csv")
    result = run(tmp_path / "a.csv", "--y", target)
    assert result.exit_code == 2
    assert "column 0 is the one without a name, which holds row numbers" in result.stderr
    assert cf.solve(str(tmp_path / "a.csv"), "4").target_names == ("y",)


def write_two(path: Path, x: pd.DataFrame, y: Any, layout: str) -> None:
    x.to_hdf(path, key="X", format=layout)
    y.to_hdf(path, key="y", format=layout)


@pytest.mark.parametrize("layout", ["fixed", "table"])
@pytest.mark.parametrize("kind", ["frame", "series"])
def test_two_frames_of_a_store_are_found_by_name_and_hold_no_index(tmp_path: Path, layout: str, kind: str) -> None:
    path = tmp_path / "two.h5"
    write_two(path, FRAME[list("abc")], FRAME[["y"]] if kind == "frame" else FRAME["y"], layout)
    for arguments in ((), ("--x", "X", "--y", "y"), ("--y", "y")):
        result = run(path, *arguments)
        assert result.exit_code == 0, result.stderr
        assert "3 features (a, b, c) without a bias -> 1 target (y)" in result.stdout


INDEXES: dict[str, Any] = {
    "numbers": range(30),
    "times": pd.date_range("2020-01-01", periods=30),
    "words": [f"r{i:02}" for i in range(30)],
    "levels": pd.MultiIndex.from_product([range(5), range(6)], names=["u", "v"]),
}


@pytest.mark.parametrize("index", INDEXES)
@pytest.mark.parametrize("layout", ["fixed", "table", "parquet"])
def test_frames_in_other_orders_are_refused(tmp_path: Path, index: str, layout: str) -> None:
    if layout == "table" and index == "levels":
        pytest.skip("labels of several levels are columns of their own there")
    frame = FRAME.set_index(pd.Index(INDEXES[index])) if index != "levels" else FRAME.set_index(INDEXES[index])
    x, y = frame[list("abc")], frame[["y"]].sample(frac=1, random_state=1)
    if layout == "parquet":
        paths = str(tmp_path / "x.parquet"), str(tmp_path / "y.parquet")
        x.to_parquet(paths[0])
        y.to_parquet(paths[1])
    else:
        paths = f"{tmp_path / 'two.h5'}::X", f"{tmp_path / 'two.h5'}::y"
        write_two(tmp_path / "two.h5", x, y, layout)
    with pytest.raises(InputError, match=r"indexes of X and Y do not agree.*sort both"):
        cf.solve(*paths)
    with pytest.raises(InputError, match="do not agree"):
        cf.solve(paths[0], y)


def test_frames_that_agree_pass(tmp_path: Path) -> None:
    SHUFFLED[list("abc")].to_parquet(tmp_path / "x.parquet")
    SHUFFLED[["y"]].to_parquet(tmp_path / "y.parquet")
    for y in (str(tmp_path / "y.parquet"), SHUFFLED["y"], SHUFFLED["y"].to_numpy()):
        np.testing.assert_allclose(cf.solve(str(tmp_path / "x.parquet"), y).weight, WEIGHT, rtol=1e-12)


def test_a_row_of_targets_can_be_read_as_a_column(tmp_path: Path) -> None:
    X, y = FRAME[list("abc")].to_numpy(), FRAME[["y"]].to_numpy().T
    np.savez(tmp_path / "a.npz", X=X, y=y)
    with pytest.raises(SourceError, match=r"read it so with --y y\.T"):
        cf.solve(str(tmp_path / "a.npz"), "y")
    np.testing.assert_allclose(cf.solve(str(tmp_path / "a.npz"), "y.T").weight, WEIGHT, rtol=1e-12)

    np.save(tmp_path / "X.npy", X)
    np.save(tmp_path / "y.npy", y)
    with pytest.raises(ClosedformError, match=r"y\.npy \(1, 30\) looks transposed"):
        cf.solve(str(tmp_path / "X.npy"), str(tmp_path / "y.npy"))

    np.savez(tmp_path / "m.npz", X=X, mask=y > 0)
    result = run(tmp_path / "m.npz")
    assert result.exit_code == 2
    assert "mask.T" not in result.stderr
