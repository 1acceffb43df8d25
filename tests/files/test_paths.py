"""Paths where data go, tables in many files, and names of files that hold what separates."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import torch

import closedform as cf
from closedform.files import open_data, open_problem
from closedform.files.discovery import discover
from closedform.files.opening import open_source
from closedform.files.shards import missing_shards
from closedform.files.specs import join_files, split_spec
from closedform.words.errors import DataTypeError, InputError, SourceError

RNG = np.random.default_rng(0)
X = RNG.standard_normal((36, 3))
Y = X @ [1.0, -2.0, 0.5]


def weights(solution: cf.Solution) -> np.ndarray:
    return solution.weight.numpy().round(10)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", X)
    np.save("y.npy", Y)
    np.savez("xy.npz", X=X, y=Y)
    np.save("table.npy", np.c_[X, Y])
    np.savetxt("data.csv", np.c_[X, Y], delimiter=",", header="a,b,c,price", comments="")
    for i in range(12):
        np.save(f"emb_{i}.npy", X[3 * i : 3 * i + 3])
    parts = tmp_path / "parts"
    parts.mkdir()
    for i in range(12):
        rows = slice(3 * i, 3 * i + 3)
        columns = {name: X[rows, j] for j, name in enumerate("abc")}
        pa.parquet.write_table(pa.table({**columns, "y": Y[rows]}), parts / f"part-{i}.parquet")
    (parts / "_SUCCESS").touch()
    return tmp_path


@pytest.mark.parametrize(
    ("x", "y"),
    [
        ("x.npy", "y.npy"),
        (Path("x.npy"), Path("y.npy")),
        ("x.npy", Y),
        (X, "y.npy"),
        ("xy.npz", "y"),
        ("xy.npz::X", "xy.npz::y"),
        ("table.npy", "-1"),
        ("data.csv", "price"),
        ("data.csv", "data.csv::price"),
        ("data.csv::a,b,c", "data.csv::price"),
        ("emb_*.npy", "y.npy"),
        ([f"emb_{i}.npy" for i in range(12)], "y.npy"),
        ([Path(f"emb_{i}.npy") for i in range(12)], Y),
        ("parts", "y"),
        ("parts/*.parquet::a,b,c", "parts::y"),
    ],
)
def test_a_fit_takes_paths(folder: Path, x: object, y: object) -> None:
    solution = cf.solve(x, y)
    np.testing.assert_array_equal(weights(solution), [[1.0, -2.0, 0.5]])
    layer = torch.nn.Linear(3, 1, bias=False, dtype=torch.float64)
    cf.fit_(layer, x, y)
    assert cf.gap(layer, x, y).excess_loss < 1e-20


def test_the_other_doors_take_paths(folder: Path) -> None:
    assert cf.diagnose("x.npy", "y.npy").condition > 1
    comparison = cf.compare("x.npy", "y.npy", "x.npy", "y.npy", optimizers=["sgd"], budget=0.1)
    assert comparison["closed form"].test_mae < 1e-12


def test_what_was_chosen_is_noted_and_weights_are_not_taken_unasked(folder: Path) -> None:
    np.savez("w.npz", X=X, y=Y + X[:, 0] ** 2, sample_weight=np.arange(36.0))
    opened = open_problem("w.npz", "y")
    assert opened.sample_weight is None
    assert "As given" in opened.X.notes[-2] or "By name: X = X (36, 3), Y = y (36,)" in opened.X.notes[-2]
    assert "pass it as sample_weight=" in opened.X.notes[-1]
    plain, weighted = cf.solve("w.npz", "y"), cf.solve("w.npz", "y", sample_weight="sample_weight")
    expected = np.linalg.lstsq(X, Y + X[:, 0] ** 2, rcond=None)[0]
    np.testing.assert_allclose(plain.weight[0].numpy(), expected, rtol=1e-10)
    assert not torch.equal(plain.weight, weighted.weight)


def test_words_are_no_paths() -> None:
    assert open_data(["cat", "dog"]) is None
    assert open_data([1.0, 2.0]) is None
    assert open_data(()) is None
    with pytest.raises(DataTypeError):
        cf.solve(X, ["cat", "dog"] * 18)
    with pytest.raises(SourceError, match=r"there is no file none\.npy"):
        cf.solve("none.npy", Y)


def test_shards_are_read_in_the_order_in_which_people_count(folder: Path) -> None:
    source = open_source("emb_*.npy")
    np.testing.assert_array_equal(source.read(0, 36).numpy(), X)
    assert "12 files, read in this order: emb_0.npy, emb_1.npy, ..., emb_11.npy" in source.notes[0]
    streamed = open_source("emb_*.npy", memory_share=0)
    np.testing.assert_array_equal(streamed.read(5, 31).numpy(), X[5:31])
    assert streamed.read(4, 4).shape == (0, 3)
    # A list that is in another order than the alphabet's is kept as it is.
    np.testing.assert_array_equal(open_data(["emb_3.npy", "emb_1.npy"]).read(0, 6), np.r_[X[9:12], X[3:6]])


def test_shards_that_do_not_belong_together_are_refused(folder: Path) -> None:
    np.save("emb_5.npy", X[:3, :2])
    with pytest.raises(InputError, match=r"same columns"):
        open_source("emb_*.npy")
    with pytest.raises(SourceError, match="no file matches nothing_"):
        open_source("nothing_*.npy")
    with pytest.raises(SourceError, match="files of one format"):
        open_source("*.np[yz]")
    columns = {"a": X[:3, 0], "c": X[:3, 2], "b": X[:3, 1], "y": Y[:3]}
    pa.parquet.write_table(pa.table(columns), "parts/part-7.parquet")
    with pytest.raises(InputError, match="name their columns differently"):
        open_source("parts")
    np.testing.assert_array_equal(open_source("parts::c").read(0, 3)[:, 0], X[:3, 2])


def test_a_column_that_some_files_lack_is_not_left_out_without_a_word(folder: Path) -> None:
    pa.parquet.write_table(pa.table({"a": X[:3, 0], "c": X[:3, 2], "y": Y[:3]}), "parts/part-7.parquet")
    with pytest.raises(InputError, match=r"part-7\.parquet has no column 'b', which .*part-.*\.parquet has"):
        cf.solve("parts", "y")
    # Who names the columns that all have gets them.
    assert cf.solve("parts::a,c", "y").weight.shape == (1, 2)


def test_a_number_that_is_missing_among_the_files_is_said(folder: Path) -> None:
    assert not any("missing" in note for note in open_source("emb_*.npy").notes)
    Path("emb_4.npy").unlink()
    assert "by the numbers of the files emb_4.npy is missing" in open_source("emb_*.npy").notes
    named = open_source(join_files(["emb_0.npy", "emb_3.npy"]))
    assert not any("missing" in note for note in named.notes)


@pytest.mark.parametrize(
    ("names", "missing"),
    [
        (["a-00001-of-00003.npy", "a-00003-of-00003.npy"], ["a-00002-of-00003.npy"]),
        (["a-00000-of-00003.npy", "a-00001-of-00003.npy"], ["a-00002-of-00003.npy"]),
        (["e_08.npy", "e_09.npy", "e_11.npy"], ["e_10.npy"]),
        (["run2_0.npy", "run2_2.npy", "run2_3.npy"], ["run2_1.npy"]),
        (["e_0.npy", "e_100.npy", "e_200.npy"], []),
        (["a_1.npy", "b_2.npy"], []),
        (["2020-01.npy", "2020-03.npy", "2021-01.npy"], []),
        (["train.npy", "test.npy"], []),
        (["e_5.npy"], []),
    ],
)
def test_missing_files_are_known_by_their_numbers(names: list[str], missing: list[str]) -> None:
    assert missing_shards([Path("somewhere", name) for name in names]) == missing


@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_shards_may_differ_in_dtype_and_compression(folder: Path, compression: str) -> None:
    for shard, dtype in enumerate(("f4", "f8", "i4")):
        table = pa.table(
            {name: (8 * X[12 * shard : 12 * shard + 12, j]).round().astype(dtype) for j, name in enumerate("ab")}
        )
        pa.parquet.write_table(table, f"mixed-{shard}.parquet", compression=compression if shard else "snappy")
    source = open_source("mixed-*.parquet::a,b")
    assert source.dtype == torch.float64
    np.testing.assert_array_equal(source.read(0, 36).numpy(), (8 * X[:, :2]).round())


@pytest.mark.parametrize("name", ["a::b.npz", "a::b::c.npz", "::.npz", "d::e/f.npz"])
def test_names_of_files_may_hold_what_separates_keys(folder: Path, name: str) -> None:
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    np.savez(path, X=X, y=Y)
    assert split_spec(f"{path}::X") == (path, "X")
    assert split_spec(path) == (path, None)
    found = discover(path)
    np.testing.assert_array_equal(open_source(found.x).read(0, 36).numpy(), X)
    np.testing.assert_array_equal(open_source(found.y).read(0, 36).numpy(), Y)
    assert split_spec("gone.npz::X::y") == (Path("gone.npz"), "X::y")


def test_names_of_files_may_hold_brackets_and_stars(folder: Path) -> None:
    for name in ("run[1].npy", "all*.npy"):
        np.save(name, X)
        np.testing.assert_array_equal(open_source(name).read(0, 36).numpy(), X)
    assert join_files(["x.npy"]) == "x.npy"
