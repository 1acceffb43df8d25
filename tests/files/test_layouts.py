"""Files as programs write them: pandas, AnnData, MATLAB, Keras, netCDF, Arrow, Parquet, Zarr."""

from __future__ import annotations

import decimal
import pickle
import warnings
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet  # noqa: F401  # used as pa.parquet
import pytest
import scipy.io
import scipy.sparse
import torch

from closedform.files import columns
from closedform.files.discovery import discover
from closedform.files.opening import list_keys, open_source
from closedform.words.errors import DataTypeError, InputError, MissingExtraError, SourceError

RNG = np.random.default_rng(0)
X = RNG.standard_normal((40, 4))
Y = X @ [1.0, -2.0, 3.0, 0.5]


def read(spec: object) -> np.ndarray[Any, Any]:
    source = open_source(str(spec))
    return source.read(0, source.shape[0]).numpy()


def blocks(spec: object) -> np.ndarray[Any, Any]:
    """Read by ranges of rows, as a table larger than memory is."""
    source = open_source(str(spec), memory_share=0)
    assert not source.in_memory
    return torch.cat(
        [source.read(start, min(start + 7, source.shape[0])) for start in range(0, source.shape[0], 7)]
    ).numpy()


def is_right(path: Path, features: np.ndarray[Any, Any] = X, target: np.ndarray[Any, Any] = Y, /, **given: str) -> Any:
    """Discover, open, and hold what comes against what was written."""
    found = discover(path, **given)
    np.testing.assert_array_equal(read(found.x), features)
    np.testing.assert_array_equal(read(found.y).reshape(-1), target)
    np.testing.assert_array_equal(blocks(found.x), features)
    return found


# Records of NumPy


def records() -> np.ndarray[Any, Any]:
    fields = [("height", ">f8"), ("name", "U5"), ("rest", "<f8", (3,)), ("y", "f8")]
    table = np.zeros(len(X), np.dtype(fields, align=True))
    table["height"], table["rest"], table["y"] = X[:, 0], X[:, 1:], Y
    return table


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_fields_of_records_are_columns(tmp_path: Path, suffix: str) -> None:
    path, table = tmp_path / f"table{suffix}", records()
    if suffix == ".npy":
        np.save(path, table)
        chosen, inner = "height,rest", ""
    else:
        np.savez(path, run=table)
        chosen, inner = "run[height,rest]", "run"
    given = {"x": chosen, "y": "y"} if suffix == ".npy" else {"x": chosen}
    found = discover(path, **given)
    assert (found.x, found.y) == (f"{path}::{inner}[height,rest]", f"{path}::{inner}[y]")
    np.testing.assert_array_equal(read(found.x), X)
    np.testing.assert_array_equal(read(found.y).reshape(-1), Y)
    assert open_source(found.x).columns == ("height", "rest[0]", "rest[1]", "rest[2]")
    assert list_keys(path)[f"{inner}[rest]"] == ((40, 3), "float64")
    if suffix == ".npy":
        np.testing.assert_array_equal(blocks(found.x), X)
        np.testing.assert_array_equal(read(f"{path}::height,rest"), X)

    # Without a word all other columns are features, and a name is none.
    found = discover(path)
    with pytest.raises(DataTypeError, match=r"column 'name' of .* holds <U5 values, which are not real numbers; name"):
        open_source(found.x)
    with pytest.raises(SourceError, match="has no data set 'weight'"):
        open_source(discover(path, y="weight").y)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ([("a", "c16"), ("y", "f8")], "column 'a' of .* holds complex128 values"),
        ([("a", [("u", "f8")]), ("y", "f8")], "column 'a' of .* holds records values"),
        ([("a", "O"), ("y", "f8")], "holds .*object values|Python objects"),
    ],
)
def test_fields_that_are_no_numbers_are_named(tmp_path: Path, fields: Any, message: str) -> None:
    path = tmp_path / "table.npy"
    np.save(path, np.zeros(9, np.dtype(fields)), allow_pickle=True)
    with pytest.raises((DataTypeError, SourceError), match=message):
        open_source(discover(path).x)


def test_records_in_a_grid_and_records_cut_short_are_refused(tmp_path: Path) -> None:
    grid, short = tmp_path / "grid.npy", tmp_path / "short.npy"
    np.save(grid, records().reshape(20, 2))
    with pytest.raises(SourceError, match=r"records in the shape \(20, 2\); save one for each row"):
        open_source(grid)
    with pytest.raises(SourceError, match="records of height, name, rest, y"):
        discover(grid)
    np.save(short, records())
    short.write_bytes(short.read_bytes()[:-50])
    with pytest.raises(SourceError, match="looks damaged or cut short"):
        open_source(f"{short}::y")


@pytest.mark.parametrize("memory_share", [0.25, 0])
def test_names_of_an_enumeration_are_said(tmp_path: Path, memory_share: float) -> None:
    path, kind = tmp_path / "data.h5", h5py.enum_dtype({"cat": 0, "dog": 1, "cow": 7}, basetype="i1")
    with h5py.File(path, "w") as file:
        file["X"], file["kind"] = X, np.array([0, 1] * 20, kind)
        file.create_dataset("table", (40,), np.dtype([("kind", kind), ("y", "f8")]))
        file["flag"] = np.zeros(40, bool)
    said = "holds labels, which HDF5 stores as numbers (0 for cat, 1 for dog, 7 for cow); these numbers were read"
    assert f"{path}::kind {said}" in open_source(f"{path}::kind", memory_share=memory_share).notes
    table = open_source(f"{path}::table[kind]", memory_share=memory_share)
    assert f"column 'kind' of {path}::table {said}" in table.notes
    assert not open_source(f"{path}::flag", memory_share=memory_share).notes


# pandas' HDFStore


def write_fixed(path: Path, *, extra: bool = False) -> None:
    """The fixed layout, as pandas documents it: blocks of columns by dtype, their names beside them."""
    with h5py.File(path, "w") as file:
        group = file.create_group("df")
        group.attrs["pandas_type"] = np.bytes_("frame")
        group["axis0"] = np.array(list("abcdy") + (["n"] if extra else []), "S")
        group["axis1"] = np.arange(40)
        group["block0_items"] = np.array(list("abcdy"), "S")
        group["block0_values"] = np.c_[X, Y]
        if extra:
            group["block1_items"] = np.array(["n"], "S")
            group["block1_values"] = np.arange(40)[:, None]


def test_a_frame_of_pandas_is_read_by_its_columns_and_its_index_is_no_target(tmp_path: Path) -> None:
    path = tmp_path / "df.h5"
    write_fixed(path)
    found = is_right(path)
    assert found.sentence.startswith("By name: X = df[a,b,c,d] (40, 4), Y = df[y] (40, 1)")
    assert open_source(found.x).columns == ("a", "b", "c", "d")
    is_right(path, X[:, 1:], X[:, 0], x="df[b,c,d]", y="a")
    is_right(path, np.c_[X[:, :3], Y], X[:, 3], y="df[d]")
    is_right(path, y="-1")
    np.testing.assert_array_equal(read(f"{path}::df"), np.c_[X, Y])
    np.testing.assert_array_equal(read(f"{path}::df[0:2]"), X[:, :2])
    assert set(list_keys(path)) == {f"df[{name}]" for name in "abcdy"}
    with pytest.raises(SourceError, match="no data set 'z'"):
        discover(path, y="df[z]")


def test_a_frame_without_a_named_target_is_a_question(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "df.h5", "w") as file:
        group = file.create_group("df")
        group.attrs["pandas_type"] = np.bytes_("frame")
        group["axis0"] = group["block0_items"] = np.array(list("abcd"), "S")
        group["axis1"] = np.arange(40)
        group["block0_values"] = X
    with pytest.raises(SourceError, match=r"no column is named like the target.*--y COL"):
        discover(tmp_path / "df.h5")


def test_columns_of_several_dtypes_are_stacked_in_their_order(tmp_path: Path) -> None:
    write_fixed(tmp_path / "df.h5", extra=True)
    is_right(tmp_path / "df.h5", np.c_[X, np.arange(40)])


@pytest.mark.parametrize("form", ["fixed", "table"])
@pytest.mark.parametrize("data_columns", [False, True])
@pytest.mark.parametrize("index", ["range", "numbers", "levels", "dates"])
def test_what_pandas_writes(tmp_path: Path, form: str, data_columns: bool, index: str) -> None:
    pytest.importorskip("tables")
    frame = pd.DataFrame(np.c_[X, Y], columns=list("abcdy"))
    if index == "numbers":
        frame.index = RNG.permutation(40)
    elif index == "levels":
        frame.index = pd.MultiIndex.from_arrays([np.arange(40), np.arange(40) % 3], names=["run", "step"])
    elif index == "dates":
        frame.index = pd.date_range("2020", periods=40)
    path = tmp_path / "df.h5"
    if form == "table":
        frame.to_hdf(path, key="group/df", format=form, data_columns=data_columns or None)
    else:
        frame.to_hdf(path, key="group/df", format=form)
    is_right(path)


@pytest.mark.parametrize("form", ["fixed", "table"])
@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (pd.Index(["a", 1, 2, "d", "y"], dtype=object), "a,1,2,d"),
        (pd.MultiIndex.from_tuples([*(("in", k) for k in "abcd"), ("y", "")]), "in.a,in.b,in.c,in.d"),
        (pd.Index(["a", ("u", 1), 2.5, "d", "y"], dtype=object), "a,u.1,2.5,d"),
    ],
    ids=["numbered", "levels", "both"],
)
def test_names_that_pandas_pickles(tmp_path: Path, form: str, labels: Any, names: str) -> None:
    pytest.importorskip("tables")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pd.DataFrame(np.c_[X, Y], columns=labels).to_hdf(tmp_path / "df.h5", key="df", format=form)
    assert f"X = df[{names}] (40, 4), Y = df[y]" in is_right(tmp_path / "df.h5").sentence


@pytest.mark.parametrize("form", ["fixed", "table"])
def test_columns_of_a_pandas_store_that_are_no_numbers(tmp_path: Path, form: str) -> None:
    pytest.importorskip("tables")
    frame = pd.DataFrame(np.c_[X, Y], columns=list("abcdy"))
    frame["when"], frame["word"] = pd.date_range("2020", periods=40), ["u", "v"] * 20
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        frame.to_hdf(tmp_path / "df.h5", key="df", format=form)
    for column in ("when", "word"):
        with pytest.raises(DataTypeError, match=f"column '{column}'"):
            open_source(f"{tmp_path / 'df.h5'}::df[a,{column}]")
    is_right(tmp_path / "df.h5", x="df[a,b,c,d]")


def write_categories(path: Path) -> None:
    """The table layout of pandas, with a column of categories, whose codes lie in a block of their own."""
    fields = np.dtype([("index", "i8"), ("values_block_0", "f8", (5,)), ("values_block_1", "i1", (1,))])
    rows = np.zeros(40, fields)
    rows["values_block_0"], rows["values_block_1"] = np.c_[X, Y], np.arange(40)[:, None] % 2
    with h5py.File(path, "w") as file:
        group = file.create_group("df")
        group.attrs["pandas_type"], group.attrs["index_cols"] = np.bytes_("frame_table"), pickled([(0, "index")])
        table = group.create_dataset("table", data=rows)
        table.attrs["values_block_0_kind"] = pickled(list("abcdy"))
        table.attrs["values_block_1_kind"] = pickled(["cell"])
        table.attrs["values_block_0_meta"] = pickled(None)
        table.attrs["values_block_1_meta"] = np.bytes_("category")


def pickled(value: object) -> np.bytes_:
    return np.bytes_(pickle.dumps(value, 0))


@pytest.mark.parametrize("writer", ["by hand", "pandas"])
def test_codes_of_categories_are_no_numbers(tmp_path: Path, writer: str) -> None:
    path = tmp_path / "df.h5"
    if writer == "pandas":
        pytest.importorskip("tables")
        frame = pd.DataFrame(np.c_[X, Y], columns=list("abcdy")).assign(cell=pd.Categorical(["T", "B"] * 20))
        frame.to_hdf(path, key="df", format="table")
    else:
        write_categories(path)
    with pytest.raises(DataTypeError, match=r"column 'cell' of .* holds category values"):
        open_source(discover(path).x)
    is_right(path, x="df[a,b,c,d]")


def test_compression_that_is_not_there_is_no_damage(tmp_path: Path) -> None:
    path = tmp_path / "data.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("X", (40, 4), "f8", chunks=(40, 4), compression=32000, allow_unknown_filter=True)
        file["X"].id.write_direct_chunk((0, 0), X.tobytes())
    with pytest.raises(SourceError, match=r"compressed by a filter .* install hdf5plugin, or write it again"):
        open_source(path)


def test_two_frames_are_a_question_until_one_is_named(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "two.h5", "w") as file:
        for name, rows in (("train", 40), ("test", 10)):
            file[name] = np.rec.fromarrays([*X[:rows].T, Y[:rows]], names=[*"abcd", "y"])
    with pytest.raises(SourceError, match=r"train \(40, 5\) with columns a, b, c, d, y"):
        discover(tmp_path / "two.h5")
    found = is_right(tmp_path / "two.h5", x="train", x_test="test", y_test="test")
    np.testing.assert_array_equal(read(found.x_test), X[:10])
    np.testing.assert_array_equal(read(found.y_test)[:, 0], Y[:10])


# Compound data sets


def test_compound_data_are_columns(tmp_path: Path) -> None:
    table = np.zeros(40, [("a", "f8"), ("wide", "f4", (2,)), ("y", "f8"), ("name", "S3")])
    table["a"], table["wide"], table["y"] = X[:, 0], X[:, 1:3], Y
    with h5py.File(tmp_path / "c.h5", "w") as file:
        file["run/table"] = table
    path = tmp_path / "c.h5"
    wide = X[:, 1:3].astype("f4").astype("f8")
    found = is_right(path, np.c_[X[:, 0], wide], x="run/table[a,wide]")
    assert open_source(found.x).columns == ("a", "wide[0]", "wide[1]")
    with pytest.raises(DataTypeError, match="column 'name'"):
        open_source(path)


# AnnData


def write_anndata(path: Path, layout: str = "dense") -> None:
    """The layout of AnnData 0.1.0: X, and a data frame of observations."""
    with h5py.File(path, "w") as file:
        file.attrs["encoding-type"] = "anndata"
        if layout == "dense":
            file["X"] = X
        else:
            sparse = (scipy.sparse.csr_matrix if layout == "csr" else scipy.sparse.csc_matrix)(X)
            group = file.create_group("X")
            group.attrs["encoding-type"], group.attrs["shape"] = f"{layout}_matrix", X.shape
            for name in ("data", "indices", "indptr"):
                group[name] = getattr(sparse, name)
        file["obsm/X_pca"] = X[:, :2]
        obs = file.create_group("obs")
        obs.attrs["encoding-type"], obs.attrs["_index"] = "dataframe", "_index"
        obs.attrs["column-order"] = np.array(["age", "n_genes", "cell", "dose"], h5py.string_dtype())
        obs["_index"] = [f"c{i}" for i in range(40)]
        obs["age"], obs["n_genes"] = Y, np.arange(40)
        for name, kind in (("cell", "categorical"), ("dose", "nullable-integer")):
            obs.create_group(name).attrs["encoding-type"] = kind
        obs["cell/codes"], obs["cell/categories"] = np.zeros(40, "i1"), ["T"]
        obs["dose/values"], obs["dose/mask"] = np.arange(40), np.arange(40) == 33


@pytest.mark.parametrize("layout", ["dense", "csr", "csc"])
def test_anndata(tmp_path: Path, layout: str) -> None:
    path = tmp_path / "cells.h5ad"
    write_anndata(path, layout)
    with pytest.raises(SourceError, match=r"obs \(40, 4\) with columns age, n_genes, cell, dose.*Pass --x KEY --y KEY"):
        discover(path)
    for y in ("age", "obs[age]"):
        found = discover(path, y=y)
        assert found.x == f"{path}::X"
        np.testing.assert_array_equal(read(found.x), X)
        np.testing.assert_array_equal(read(found.y)[:, 0], Y)
    if layout != "csc":
        np.testing.assert_array_equal(blocks(found.x), X)
    with pytest.raises(InputError, match=r"column 'dose' .* missing value, first in row 33"):
        open_source(f"{path}::obs[dose]")
    with pytest.raises(DataTypeError, match=r"column 'cell'"):
        open_source(f"{path}::obs[cell]")


def test_what_anndata_writes(tmp_path: Path) -> None:
    anndata = pytest.importorskip("anndata")
    path = tmp_path / "cells.h5ad"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        obs = pd.DataFrame({"age": Y, "cell": pd.Categorical(["T", "B"] * 20)}, index=[f"c{i}" for i in range(40)])
        anndata.AnnData(X=scipy.sparse.csr_matrix(X), obs=obs).write_h5ad(path)
    is_right(path, y="age")
    with pytest.raises(SourceError, match=r"X .* obs .*columns age, cell\. Pass --y COLUMN"):
        discover(path)


# Keras and other parameters of layers


def write_keras(path: Path, layout: str) -> None:
    kernel, bias = RNG.standard_normal((40, 4)), np.zeros(40)
    with h5py.File(path, "w") as file:
        if layout == "2 weights":
            file.attrs["layer_names"], file.attrs["backend"] = ["dense"], "tensorflow"
            file["dense/dense/kernel:0"], file["dense/dense/bias:0"] = kernel, bias
        elif layout == "2 model":
            file.attrs["model_config"] = "{}"
            file.create_group("model_weights").attrs["layer_names"] = ["dense"]
            file["model_weights/dense/kernel:0"], file["model_weights/dense/bias:0"] = kernel, bias
        elif layout == "2 without attributes":
            file["dense/kernel:0"], file["dense/bias:0"] = kernel, bias
        elif layout == "2 renamed":
            file.attrs["keras_version"] = "2.15.0"
            file["X"], file["y"] = kernel, bias
        else:
            file["layers/dense/vars/0"], file["layers/dense/vars/1"] = kernel, bias
            file["optimizer/vars/0"] = np.int64(7)


@pytest.mark.parametrize("layout", ["2 weights", "2 model", "2 without attributes", "2 renamed", "3"])
def test_the_weights_of_keras_are_no_data(tmp_path: Path, layout: str) -> None:
    path = tmp_path / "model.weights.h5"
    write_keras(path, layout)
    with pytest.raises(SourceError, match=r"holds the parameters of a layer, not data.*--x KEY --y KEY"):
        discover(path)
    keys = list(list_keys(path))
    assert discover(
        path, x=max(keys, key=lambda key: len(list_keys(path)[key][0])), y=keys[-1] if layout == "3" else keys[0]
    )


def test_a_model_of_keras_in_a_zip_is_no_data(tmp_path: Path) -> None:
    import zipfile

    with zipfile.ZipFile(tmp_path / "model.keras", "w") as archive:
        archive.writestr("model.weights.h5", b"")
    with pytest.raises(SourceError, match="Keras model"):
        discover(tmp_path / "model.keras")


# MATLAB


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"X": X, "y": Y}, "one struct, data, which is .*;.*: save\\('FILE.mat', '-struct', 'data'\\)"),
        (np.zeros((1, 2), object), "one cell, data, .* cell2mat\\(data\\)"),
        (scipy.sparse.csc_matrix(X), "one sparse, data, .* save full\\(data\\)"),
    ],
)
def test_what_to_save_instead_of_a_structure(tmp_path: Path, value: Any, message: str) -> None:
    path = tmp_path / "data.mat"
    if isinstance(value, np.ndarray):
        value = np.empty((1, 2), object)
        value[0, 0], value[0, 1] = X, Y
    scipy.io.savemat(path, {"data": value})
    with pytest.raises(SourceError, match=message):
        discover(path)
    with pytest.raises(DataTypeError, match=message.rpartition(".*")[2]):
        open_source(path)


def test_matlab_before_7_3(tmp_path: Path) -> None:
    path = tmp_path / "data.mat"
    counts = np.arange(40.0).reshape(-1, 1)
    scipy.io.savemat(
        path, {"X": X, "y": Y[:, None], "counts": counts, "word": "hello", "s": scipy.sparse.eye(3).tocsc()}
    )
    found = discover(path)
    np.testing.assert_array_equal(read(found.x), X)
    np.testing.assert_array_equal(read(found.y)[:, 0], Y)
    assert set(list_keys(path)) == {"X", "y", "counts"}
    assert read(f"{path}::counts").dtype == np.float64
    for key in ("word", "s"):
        with pytest.raises(DataTypeError, match="no table of numbers"):
            open_source(f"{path}::{key}")


def write_matlab(path: Path, x: np.ndarray[Any, Any], y: np.ndarray[Any, Any], *, head: bool) -> None:
    """Version 7.3: HDF5 behind 512 bytes, every array with its axes in reverse."""
    with h5py.File(path, "w", userblock_size=512 if head else 0) as file:
        for name, value in (("X", x), ("y", y), ("word", np.array([[104], [105]], "u2"))):
            file[name] = value.T
            file[name].attrs["MATLAB_class"] = np.bytes_("char" if name == "word" else "double")
    if head:
        with path.open("r+b") as stream:
            stream.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(512, b" "))


@pytest.mark.parametrize("head", [True, False])
@pytest.mark.parametrize("square", [True, False])
def test_matlab_7_3_is_transposed_and_says_so(tmp_path: Path, head: bool, square: bool) -> None:
    x, y = (X[:4], X[4:8]) if square else (X, Y[:, None])
    path = tmp_path / "data.mat"
    write_matlab(path, x, y, head=head)
    found = discover(path)
    np.testing.assert_array_equal(read(found.x), x)
    np.testing.assert_array_equal(read(found.y), y)
    np.testing.assert_array_equal(blocks(found.x), x)
    assert "MATLAB stores columns first" in open_source(found.x).notes[0]
    with pytest.raises(DataTypeError, match="char"):
        open_source(f"{path}::word")


def test_tables_that_are_both_transposed_say_how_to_read_them(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file["X"], file["y"] = X.T, Y[None]
    with pytest.raises(SourceError, match=r"both look transposed.*--x X.T --y y.T"):
        discover(tmp_path / "m.h5")
    found = discover(tmp_path / "m.h5", x="X.T", y="y.T")
    np.testing.assert_array_equal(read(found.x), X)
    np.testing.assert_array_equal(read(found.y)[:, 0], Y)
    assert "was transposed" in open_source(found.x).notes[0]


# netCDF, and what was never written


def test_coordinates_are_no_targets(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.nc", "w") as file:
        file["X"], file["y"] = X, np.arange(40.0)
        file["y"].make_scale("row")
    with pytest.raises(SourceError, match="Pass"):
        discover(tmp_path / "x.nc")


@pytest.mark.parametrize("kind", ["chunks", "contiguous", "attribute", "fill value", "virtual"])
def test_rows_that_were_never_written_are_no_numbers(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        if kind == "chunks":
            file.create_dataset("X", (40, 4), "f8", chunks=(10, 4))[:20] = X[:20]
        elif kind == "contiguous":
            file.create_dataset("X", (40, 4), "f8")
        elif kind == "attribute":
            holes = X.copy()
            holes[20, 1] = 9.969e36
            file["X"] = holes
            file["X"].attrs["_FillValue"] = np.array([9.969e36])
        elif kind == "fill value":
            file.create_dataset("X", (40, 4), "f8", fillvalue=-999.0, chunks=(40, 4))[:20] = X[:20]
        else:
            file["part"] = X[:20]
            layout = h5py.VirtualLayout((40, 4), "f8")
            layout[:20] = h5py.VirtualSource(file["part"])
            file.create_virtual_dataset("X", layout)
    row = {"chunks": "first in row 20", "contiguous": "at all", "virtual": "in all of its parts"}.get(kind, "in row 20")
    with pytest.raises(InputError, match=rf"never written.*{row}|{row}.*never written"):
        open_source(path, key="X")


# Arrow, Parquet


def test_arrow_files(tmp_path: Path) -> None:
    table = pa.table({**{name: X[:, i] for i, name in enumerate("abcd")}, "y": Y})
    pa.feather.write_feather(table, tmp_path / "a.feather", chunksize=9, compression="lz4")
    with pa.ipc.new_file(tmp_path / "b.arrow", table.schema) as writer:
        writer.write_table(table, max_chunksize=11)
    for name in ("a.feather", "b.arrow"):
        is_right(tmp_path / name)
    (tmp_path / "b.arrow").rename(tmp_path / "b.bin")
    is_right(tmp_path / "b.bin")


@pytest.mark.parametrize("kind", ["list", "large_list", "fixed"])
@pytest.mark.parametrize("suffix", [".parquet", ".feather"])
def test_lists_of_numbers_are_wide_columns(tmp_path: Path, kind: str, suffix: str) -> None:
    value = {"list": pa.list_, "large_list": pa.large_list, "fixed": lambda of: pa.list_(of, 4)}[kind](pa.float64())
    table = pa.table({"embedding": pa.array(X.tolist(), value), "label": Y})
    path = tmp_path / f"e{suffix}"
    if suffix == ".parquet":
        pa.parquet.write_table(table, path, row_group_size=9)
    else:
        pa.feather.write_feather(table, path, chunksize=9)
    found = is_right(path)
    assert "X = embedding (40, 4), Y = label (40, 1)" in found.sentence
    assert open_source(found.x).columns == tuple(f"embedding[{i}]" for i in range(4))


def test_lists_of_several_lengths_name_the_row(tmp_path: Path) -> None:
    rows = [*X[:30].tolist(), [1.0], *X[31:].tolist()]
    pa.parquet.write_table(pa.table({"e": rows, "y": Y}), tmp_path / "e.parquet")
    with pytest.raises(InputError, match=r"lists of 4 numbers, but row 30 .* has 1"):
        open_source(tmp_path / "e.parquet", key="e")
    rows[30] = [1.0, None, 3.0, 4.0]
    pa.parquet.write_table(pa.table({"e": rows, "y": Y}), tmp_path / "e.parquet")
    with pytest.raises(InputError, match="missing value, first in row 30"):
        open_source(tmp_path / "e.parquet", key="e")


def test_decimals_and_dictionaries_are_numbers(tmp_path: Path) -> None:
    prices = [decimal.Decimal(i) / 4 for i in range(40)]
    codes = pa.array(np.arange(40.0) % 3).dictionary_encode()
    pa.parquet.write_table(
        pa.table({"price": pa.array(prices, pa.decimal128(9, 2)), "c": codes, "y": Y}), tmp_path / "d.parquet"
    )
    found = is_right(tmp_path / "d.parquet", np.c_[np.arange(40) / 4, np.arange(40) % 3])
    assert any("decimal numbers" in note and "float64" in note for note in open_source(found.x).notes)


@pytest.mark.parametrize("names", [None, ["run", "step"]])
def test_what_pandas_calls_an_index_is_no_feature(tmp_path: Path, names: list[str] | None) -> None:
    frame = pd.DataFrame(np.c_[X, Y], columns=list("abcdy"))
    frame.index = pd.MultiIndex.from_arrays([np.arange(40), np.arange(40) % 3], names=names)
    for path in (tmp_path / "m.parquet", tmp_path / "m.feather"):
        if path.suffix == ".parquet":
            frame.to_parquet(path)
        else:
            pa.feather.write_feather(pa.Table.from_pandas(frame), path)
        assert "row numbers left out" in is_right(path).sentence
        assert open_source(path).columns == tuple("abcdy")


# Zarr


def test_zarr(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zarr = pytest.importorskip("zarr")
    path = tmp_path / "data.zarr"
    root = zarr.open_group(str(path), mode="w")
    for name, value, chunks in (("run/X", X, (9, 4)), ("run/y", Y, (40,))):
        root.create_array(name, shape=value.shape, dtype="f8", chunks=chunks)[...] = value
    is_right(path)
    root.create_array("holes", shape=(40, 4), dtype="f8", chunks=(9, 4))[:9] = X[:9]
    with pytest.raises(SourceError, match="never written in 4 of 5 chunks"):
        open_source(f"{path}::holes")
    with pytest.raises(SourceError, match="no data set 'nope'"):
        open_source(f"{path}::nope")


def test_zarr_without_its_package_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    (tmp_path / "a.zarr").mkdir()
    (tmp_path / "a.zarr" / "zarr.json").write_text("{}")
    monkeypatch.setitem(sys.modules, "zarr", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'closedform\[files\]'"):
        open_source(tmp_path / "a.zarr")


# NumPy, and integers


def test_version_3_of_npy(tmp_path: Path) -> None:
    with (tmp_path / "x.npy").open("wb") as stream:
        np.lib.format.write_array(stream, X, version=(3, 0))
    np.testing.assert_array_equal(read(tmp_path / "x.npy"), X)
    np.testing.assert_array_equal(blocks(tmp_path / "x.npy"), X)


@pytest.mark.parametrize("suffix", [".npy", ".parquet"])
def test_integers_that_float64_cannot_hold_are_named(tmp_path: Path, suffix: str) -> None:
    ids = np.arange(40) + 2**53 - 10
    path = tmp_path / f"ids{suffix}"
    if suffix == ".npy":
        np.save(path, ids[:, None])
    else:
        pa.parquet.write_table(pa.table({"a": ids}), path)
    assert "beyond 2**53, first in row 11" in open_source(path).notes[-1]
    np.save(tmp_path / "small.npy", ids[:11, None])
    assert open_source(tmp_path / "small.npy").notes == ()


def test_the_target_is_a_column_of_the_one_table(tmp_path: Path) -> None:
    np.save(tmp_path / "t.npy", np.c_[X, Y])
    is_right(tmp_path / "t.npy", y="-1")
    is_right(tmp_path / "t.npy", np.c_[X[:, 1:], Y], X[:, 0], y="0")
    found = discover(tmp_path / "t.npy", y="-1")
    assert found.sentence.startswith("As given: X = [0:4] (40, 4), Y = [4] (40, 1)")
    np.savez(tmp_path / "t.npz", table=np.c_[X, Y], note=np.array("x"))
    found = discover(tmp_path / "t.npz", y="-1")
    np.testing.assert_array_equal(read(found.x), X)
    found = discover(tmp_path / "t.npz", y="table[3:5]")
    np.testing.assert_array_equal(read(found.x), X[:, :3])
    np.testing.assert_array_equal(read(found.y), np.c_[X[:, 3], Y])
    with pytest.raises(SourceError, match="no column 7 in a table of 5 columns"):
        discover(tmp_path / "t.npy", y="7")
    with pytest.raises(SourceError, match=r"holds one table.*--y FILE.*--y -1"):
        discover(tmp_path / "t.npy")


@pytest.mark.parametrize("suffix", [".parquet", ".arrow", ".csv", ".npy", ".h5"])
def test_integers_beside_other_columns_are_named_where_float64_rounds_them(tmp_path: Path, suffix: str) -> None:
    path, ids = tmp_path / f"data{suffix}", 2**60 + np.arange(40)
    frame = pd.DataFrame({"a": X[:, 0], "id": ids, "y": Y})
    records = frame.to_records(index=False)
    if suffix == ".h5":
        with h5py.File(path, "w") as file:
            file["table"] = records
    elif suffix == ".npy":
        np.save(path, records)
    elif suffix == ".csv":
        frame.to_csv(path, index=False)
    elif suffix == ".arrow":
        pa.feather.write_feather(frame, path)
    else:
        frame.to_parquet(path)
    found = discover(path, y="y")
    notes = [note for note in open_source(found.x).notes if "beyond" in note]
    assert len(notes) == 1
    assert notes[0].startswith("column 'id' of")
    assert "holds integers beyond 2**53, first in row 0" in notes[0]
    assert not any("beyond" in note for note in open_source(found.y).notes)


@pytest.mark.parametrize("compression", [None, "zstd"])
def test_streams_of_arrow_in_files(tmp_path: Path, compression: str | None) -> None:
    path, table = tmp_path / "data.arrow", pa.table({**{f"x{i}": X[:, i] for i in range(4)}, "y": Y})
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema, options=options) as writer:
        writer.write_table(table, max_chunksize=11)
    is_right(path)
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(SourceError, match="could not be read as Arrow"):
        open_source(path)


def test_other_archives_and_sparse_tensors_say_what_to_save(tmp_path: Path) -> None:
    archive, sparse = tmp_path / "data.csv.zip", tmp_path / "data.pt"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("data.csv", "a,y\n1,2\n")
    with pytest.raises(SourceError, match="is a zip archive without arrays of NumPy; unpack it, and name a file of it"):
        open_source(archive)
    torch.save({"X": torch.eye(3).to_sparse(), "y": torch.ones(3)}, sparse)
    with pytest.raises(SourceError, match=r"X \(3, 3\) holds sparse float32 values; save it dense"):
        discover(sparse)


def test_numbers_of_arrow_are_read_without_pandas(tmp_path: Path) -> None:
    """Older Arrow loads pandas to tell NumPy's name of a type, and pandas is an extra of its own."""
    assert "to_pandas" not in Path(columns.__file__).read_text(encoding="utf-8")
    whole = [getattr(pa, f"{sign}int{width}")() for sign in ("", "u") for width in (8, 16, 32, 64)]
    for kind in [*whole, pa.float16(), pa.float32(), pa.float64(), pa.bool_()]:
        held = pa.array(np.array([1, 0, 1], dtype="float16" if kind == pa.float16() else "int64")).cast(kind)
        pa.feather.write_feather(pa.table({"a": held}), path := tmp_path / "a.arrow")
        assert read(path)[:, 0].tolist() == [1, 0, 1], kind
