"""Random files with a known target among distractors, in every layout that programs write, and what discovery says."""

from __future__ import annotations

import bz2
import gzip
import shutil
import warnings
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet  # noqa: F401  # used as pa.parquet
import safetensors.numpy
import scipy.io
import torch

from closedform.files.discovery import discover
from closedform.files.opening import open_source
from closedform.words.errors import ClosedformError

__all__ = ["HOLDING_NO_DATA", "LAYOUTS", "Wrong", "try_file"]

Tables = dict[str, np.ndarray[Any, Any]]
FEATURES = [
    *("X", "x", "features", "data", "embeddings", "A", "inputs", "kernel", "measured", "train/X", "m", "hidden_states"),
    *("feature matrix", "X_train", "Embedding", "merkmale", "grid.x"),
]
TARGETS = [
    *("y", "Y", "targets", "labels", "target", "b", "outputs", "vector", "price", "train/y", "score", "energy"),
    *("Target", "y_train", "LABEL", "größe", "out.y", "log price"),
]
DISTRACTORS = [
    *("id", "image_ids", "index", "idx", "time", "timestamps", "lengths", "mask", "fold", "weights_of_rows", "row"),
    *("attention_mask", "label_ids", "y_mask", "target_lengths", "sample_no", "groups", "y_index", "seconds", "uid"),
    *("sample_weight", "weight", "bias", "targets_mean", "x_offset", "n", "year", "Unnamed: 0", "split", "label_names"),
]


class Wrong(AssertionError):
    """Discovery took another table for the target or for the features."""


# Each table of its own


def write_h5(path: Path, tables: Tables) -> None:
    with h5py.File(path, "w") as file:
        for name, table in tables.items():
            file[name] = table


def write_groups(path: Path, tables: Tables) -> None:
    with h5py.File(path, "w") as file:
        for name, table in tables.items():
            file[f"run 1/{name}"] = table


def write_matlab(path: Path, tables: Tables) -> None:
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, table in tables.items():
            file[name] = (table[:, None] if table.ndim == 1 else table).T
            file[name].attrs["MATLAB_class"] = np.bytes_("double")
    with path.open("r+b") as stream:
        stream.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(512, b" "))


def write_mat(path: Path, tables: Tables) -> None:
    spelled = {
        "".join(c if c.isascii() and c.isalnum() else "_" for c in name): table for name, table in tables.items()
    }
    scipy.io.savemat(path, spelled, oned_as="column")


def write_npz(path: Path, tables: Tables) -> None:
    np.savez(path, **tables)  # type: ignore[arg-type]


def write_pt(path: Path, tables: Tables) -> None:
    torch.save({name: torch.from_numpy(table.copy()) for name, table in tables.items()}, path)


def write_safetensors(path: Path, tables: Tables) -> None:
    safetensors.numpy.save_file({name: np.ascontiguousarray(table) for name, table in tables.items()}, path)


def write_zarr(path: Path, tables: Tables) -> None:
    import zarr

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        group = zarr.open_group(str(path), mode="w")
        for name, table in tables.items():
            group[name] = table


def write_anndata(path: Path, tables: Tables) -> None:
    """A matrix, and a frame of what is known of its rows."""
    wide = next(name for name, table in tables.items() if table.ndim == 2)
    with h5py.File(path, "w") as file:
        file.attrs["encoding-type"] = "anndata"
        file["X"] = tables[wide]
        obs = file.create_group("obs")
        obs.attrs["encoding-type"], obs.attrs["_index"] = "dataframe", "_index"
        columns = {name.replace("/", "_"): table for name, table in tables.items() if table.ndim == 1}
        obs.attrs["column-order"] = np.array(list(columns), dtype=h5py.string_dtype())
        obs["_index"] = np.array([f"cell {i}" for i in range(len(tables[wide]))], dtype=h5py.string_dtype())
        for name, column in columns.items():
            obs[name] = column


# One table with named columns


def as_columns(tables: Tables) -> Tables:
    """Spread tables into named columns; those of a table are named by its key and a number."""
    columns: Tables = {}
    for name, table in tables.items():
        if table.ndim == 1:
            columns[name] = table
        else:
            columns |= {f"{name} {i}": table[:, i] for i in range(table.shape[1])}
    return columns


def as_text(tables: Tables, separator: str, decimal: str = ".") -> str:
    columns = as_columns(tables)
    rows = zip(*(column.tolist() for column in columns.values()), strict=True)
    quote = {name: f'"{name}"' if separator == " " and " " in name else name for name in columns}
    lines = [separator.join(quote.values())]
    lines += [separator.join(repr(value).replace(".", decimal) for value in row) for row in rows]
    return "\n".join(lines)


def write_csv(path: Path, tables: Tables) -> None:
    path.write_text(as_text(tables, ","), encoding="utf-8")


def write_semicolons(path: Path, tables: Tables) -> None:
    path.write_bytes(gzip.compress(as_text(tables, ";", ",").encode()))


def write_tabs(path: Path, tables: Tables) -> None:
    path.write_bytes(bz2.compress(as_text(tables, "\t").encode()))


def write_marked(path: Path, tables: Tables) -> None:
    path.write_text("# written by an instrument\n# 3 channels, 2 of them broken\n" + as_text(tables, ","), "utf-8-sig")


def write_utf16(path: Path, tables: Tables) -> None:
    path.write_text("sep=;\n" + as_text(tables, ";"), encoding="utf-16")


def write_blanks(path: Path, tables: Tables) -> None:
    named = {name.replace(" ", "_"): table for name, table in as_columns(tables).items()}
    path.write_text(as_text(named, "  "), encoding="utf-8")


def write_pandas_csv(path: Path, tables: Tables) -> None:
    # The shortest text of a float32 is another number of float64.
    wide = {
        name: column.astype(np.promote_types(column.dtype, np.int64)) for name, column in as_columns(tables).items()
    }
    pd.DataFrame(wide).to_csv(path)


def write_lists(path: Path, tables: Tables) -> None:
    pa.parquet.write_table(pa.table({name: pa.array(list(table)) for name, table in tables.items()}), path)


def write_decimals(path: Path, tables: Tables) -> None:
    columns: dict[str, Any] = dict(as_columns(tables))
    for name, column in columns.items():
        if column.dtype.kind == "f":
            columns[name] = pa.array([Decimal(repr(float(value))) for value in column.tolist()], pa.decimal128(38, 20))
    pa.parquet.write_table(pa.table(columns), path)


def write_pandas_parquet(path: Path, tables: Tables) -> None:
    frame = pd.DataFrame(as_columns(tables))
    frame.index = pd.Index(np.arange(7, 7 + len(frame)), name="y" if len(frame) % 2 else "patient")
    frame.drop(columns="y", errors="ignore").to_parquet(path) if frame.index.name == "y" else frame.to_parquet(path)


def write_folder(path: Path, tables: Tables) -> None:
    path.mkdir()
    table = pa.table(as_columns(tables))
    half = table.num_rows // 2
    for number, part in enumerate((table[:half], table[half:])):
        pa.parquet.write_table(part, path / f"part-{number}.parquet")


def write_feather(path: Path, tables: Tables) -> None:
    pa.feather.write_feather(pa.table(as_columns(tables)), path)


def write_stream(path: Path, tables: Tables) -> None:
    table = pa.table(as_columns(tables))
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)


def write_frame(path: Path, tables: Tables) -> None:
    """The fixed layout of pandas, without PyTables."""
    columns = as_columns(tables)
    with h5py.File(path, "w") as file:
        group = file.create_group("df")
        group.attrs["pandas_type"] = np.bytes_("frame")
        group["axis0"] = group["block0_items"] = np.array([name.encode() for name in columns])
        group["axis1"] = np.arange(len(next(iter(columns.values()))))
        group["block0_values"] = np.column_stack([column.astype(float) for column in columns.values()])


def write_store(path: Path, tables: Tables) -> None:
    """What pandas itself writes: the layouts fixed and table, labels that are words, numbers or several levels."""
    frame = pd.DataFrame(as_columns(tables))
    style = len(frame) % 4
    if style == 1:
        frame.columns = pd.Index([i if " " in name else name for i, name in enumerate(frame)], dtype=object)
    if style == 2:
        parts = [name.partition(" ") for name in frame]
        frame.columns = pd.MultiIndex.from_tuples([(first, last) for first, _, last in parts])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        frame.to_hdf(path, key="df", format="table" if len(frame) % 3 else "fixed")


def write_compound(path: Path, tables: Tables) -> None:
    columns = as_columns(tables)
    with h5py.File(path, "w") as file:
        file["table"] = np.rec.fromarrays(list(columns.values()), names=list(columns))


def write_records(path: Path, tables: Tables) -> None:
    columns = as_columns(tables)
    np.save(path, np.rec.fromarrays(list(columns.values()), names=list(columns)))


# One table without names, and files that hold no data


def write_bare(path: Path, tables: Tables) -> None:
    np.save(path, np.column_stack([np.asarray(column, float) for column in as_columns(tables).values()]))


def write_state_dict(path: Path, tables: Tables) -> None:
    wide = next(table for table in tables.values() if table.ndim == 2)
    state = {"encoder.weight": torch.from_numpy(wide.astype(np.float32)), "encoder.bias": torch.zeros(len(wide))}
    torch.save(state, path)


def write_keras(path: Path, tables: Tables) -> None:
    wide = next(table for table in tables.values() if table.ndim == 2)
    with h5py.File(path, "w") as file:
        if len(wide) % 2:
            file.attrs["layer_names"], file.attrs["backend"] = ["dense"], "tensorflow"
            file["dense/dense/kernel:0"], file["dense/dense/bias:0"] = wide, np.zeros(len(wide))
        else:
            file["layers/dense/vars/0"], file["layers/dense/vars/1"] = wide, np.zeros(len(wide))


def write_pickle(path: Path, tables: Tables) -> None:
    pd.DataFrame(as_columns(tables)).to_pickle(path)


#: Layouts: the ending of their files, and who writes them.
LAYOUTS: dict[str, tuple[str, Callable[[Path, Tables], None]]] = {
    "hdf5": (".h5", write_h5),
    "hdf5 groups": (".hdf5", write_groups),
    "matlab 7.3": (".mat", write_matlab),
    "matlab 5": (".mat", write_mat),
    "npz": (".npz", write_npz),
    "pt": (".pt", write_pt),
    "safetensors": (".safetensors", write_safetensors),
    "zarr": (".zarr", write_zarr),
    "anndata": (".h5ad", write_anndata),
    "parquet lists": (".parquet", write_lists),
    "parquet decimals": (".parquet", write_decimals),
    "parquet of pandas": (".parquet", write_pandas_parquet),
    "parquet folder": (".d", write_folder),
    "feather": (".feather", write_feather),
    "arrow stream": (".arrow", write_stream),
    "csv": (".csv", write_csv),
    "csv of pandas": (".csv", write_pandas_csv),
    "semicolons": (".csv.gz", write_semicolons),
    "tabs": (".tsv.bz2", write_tabs),
    "marked": (".csv", write_marked),
    "utf-16": (".csv", write_utf16),
    "blanks": (".txt", write_blanks),
    "pandas": (".h5", write_frame),
    "pandas store": (".h5", write_store),
    "compound": (".h5", write_compound),
    "records": (".npy", write_records),
    "npy": (".npy", write_bare),
    "state_dict": (".pt", write_state_dict),
    "keras": (".weights.h5", write_keras),
    "pickle": (".npy", write_pickle),
}
#: Those that hold no data, or do not say of any column what it is: nothing in them may be taken.
HOLDING_NO_DATA = frozenset({"npy", "state_dict", "keras", "pickle"})
#: Layouts in which the features are a table of their own.
_WITH_TABLES = frozenset(
    {"hdf5", "hdf5 groups", "matlab 7.3", "matlab 5", "npz", "pt", "safetensors", "zarr", "anndata"}
)


def _distractor(rows: int, rng: np.random.Generator) -> np.ndarray[Any, Any]:
    kinds = [
        np.arange(rows),
        rng.permutation(rows),
        np.sort(rng.random(rows)),
        rng.integers(0, 2, rows),
        rng.integers(1, 500, rows),
        rng.standard_normal(rows),
    ]
    return kinds[rng.integers(len(kinds))]


def _tables(rng: np.random.Generator) -> tuple[Tables, str, str]:
    """Return features, a target or none, and distractors in random order, with the keys of the first two."""
    rows, width = int(rng.integers(2, 30)), int(rng.integers(2, 6))
    kinds: list[Any] = [np.float64, np.float32, np.int64]
    X = (8 * rng.standard_normal((rows, width))).astype(kinds[rng.integers(3)])
    y = (8 * rng.standard_normal(rows)).astype(kinds[rng.integers(3)])
    x_name, y_name = (names[rng.integers(len(names))] for names in (FEATURES, TARGETS))
    tables: Tables = {x_name: X, **({y_name: y} if rng.random() < 0.8 else {})}
    for other in rng.choice(DISTRACTORS, rng.integers(0, 5), replace=False):
        tables[str(other)] = _distractor(rows, rng)
    if rng.random() < 0.2:
        tables["attention_mask"] = rng.integers(0, 2, (rows, width))
    order = [str(key) for key in rng.permutation(list(tables))]
    return {key: tables[key] for key in order}, x_name, y_name


def try_file(layout: str, seed: int, folder: Path) -> str:
    """Write a random file and let discovery choose from it.

    Args:
        layout: One of :data:`LAYOUTS`.
        seed: Of the file.
        folder: Where it is written; nothing is left there.

    Returns:
        ``"right"``, ``"question"`` or ``"refusal"``.

    Raises:
        Wrong: another target was taken, or other features, or an error was raised that is not the house's own.
    """
    rng = np.random.default_rng([sum(map(ord, layout)), seed])
    tables, x_name, y_name = _tables(rng)
    ending, write = LAYOUTS[layout]
    path = folder / f"{seed}{ending}"
    write(path, tables)
    try:
        found = discover(path)
        features, targets = (open_source(spec) for spec in (found.x, found.y))
        read = [source.read(0, source.shape[0]).double().numpy() for source in (features, targets)]
    except ClosedformError as error:
        return "question" if "Pass --" in str(error) else "refusal"
    except Exception as error:
        raise Wrong(f"{layout}, seed {seed}: {type(error).__name__}: {error}") from error
    finally:
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    problem = _what_is_wrong(layout, tables, x_name, y_name, *read)
    if problem is not None:
        raise Wrong(f"{layout}, seed {seed}: {problem}. It said: {found.sentence}")
    return "right"


def _what_is_wrong(
    layout: str,
    tables: Tables,
    x_name: str,
    y_name: str,
    features: np.ndarray[Any, Any],
    targets: np.ndarray[Any, Any],
) -> str | None:
    if layout in HOLDING_NO_DATA:
        return "nothing in it may be taken"
    if y_name not in tables:
        return "there is no target in it"
    y = tables[y_name].astype(np.float64)
    if targets.size != y.size or not np.array_equal(targets.reshape(-1), y):
        return "that is not the target"
    if any(np.array_equal(column, y) for column in features.T):
        return "the target is among the features"
    X = tables[x_name].astype(np.float64)
    if layout in _WITH_TABLES and not np.array_equal(features, X):
        return "those are not the features"
    if not all(any(np.array_equal(column, each) for each in features.T) for column in X.T):
        return "a feature is missing"
    return None
