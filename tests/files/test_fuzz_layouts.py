"""Random files of twelve layouts, with distractors: the right target, a question, or a refusal; never a wrong target.

``CLOSEDFORM_FUZZ=3000 pytest tests/files/test_fuzz_layouts.py`` tries so many files.
"""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet  # noqa: F401  # used as pa.parquet
import pytest
import safetensors.numpy
import scipy.io
import torch

from closedform.files.discovery import discover
from closedform.files.opening import open_source
from closedform.words.errors import ClosedformError, SourceError

FILES = int(os.environ.get("CLOSEDFORM_FUZZ", "240"))
FEATURES = [
    *("X", "x", "features", "data", "embeddings", "A", "inputs", "kernel", "measured", "train/X", "m", "hidden_states"),
]
TARGETS = ["y", "Y", "targets", "labels", "target", "b", "outputs", "vector", "price", "train/y", "score", "energy"]
DISTRACTORS = [
    *("id", "image_ids", "index", "idx", "time", "timestamps", "lengths", "mask", "fold", "weights_of_rows", "row"),
    *("attention_mask", "label_ids", "y_mask", "target_lengths", "sample_no", "groups", "y_index", "seconds", "uid"),
]
Tables = dict[str, np.ndarray[Any, Any]]


def distractor(name: str, rows: int, rng: np.random.Generator) -> np.ndarray[Any, Any]:
    kinds = [
        np.arange(rows),
        rng.permutation(rows),
        np.sort(rng.random(rows)),
        rng.integers(0, 2, rows),
        rng.integers(1, 500, rows),
    ]
    return kinds[rng.integers(len(kinds))]


def write_h5(path: Path, tables: Tables) -> None:
    with h5py.File(path, "w") as file:
        for name, table in tables.items():
            file[name] = table


def write_matlab(path: Path, tables: Tables) -> None:
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, table in tables.items():
            file[name] = (table[:, None] if table.ndim == 1 else table).T
            file[name].attrs["MATLAB_class"] = np.bytes_("double")
    with path.open("r+b") as stream:
        stream.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(512, b" "))


def write_mat(path: Path, tables: Tables) -> None:
    scipy.io.savemat(path, {name.replace("/", "_"): table for name, table in tables.items()}, oned_as="column")


def write_npz(path: Path, tables: Tables) -> None:
    np.savez(path, **tables)


def write_pt(path: Path, tables: Tables) -> None:
    torch.save({name: torch.from_numpy(table.copy()) for name, table in tables.items()}, path)


def write_safetensors(path: Path, tables: Tables) -> None:
    safetensors.numpy.save_file({name: np.ascontiguousarray(table) for name, table in tables.items()}, path)


def as_columns(tables: Tables) -> Tables:
    """Spread tables into named columns; those of a table are named by its key and a number."""
    columns: Tables = {}
    for name, table in tables.items():
        if table.ndim == 1:
            columns[name] = table
        else:
            columns |= {f"{name} {i}": table[:, i] for i in range(table.shape[1])}
    return columns


def write_parquet(path: Path, tables: Tables) -> None:
    lists = {name: pa.array(list(table)) for name, table in tables.items()}
    pa.parquet.write_table(pa.table(lists), path)


def write_feather(path: Path, tables: Tables) -> None:
    pa.feather.write_feather(pa.table(as_columns(tables)), path)


def write_csv(path: Path, tables: Tables) -> None:
    columns = as_columns(tables)
    lines = [",".join(columns)] + [
        ",".join(map(repr, map(float, row))) for row in np.column_stack(list(columns.values()))
    ]
    path.write_text("\n".join(lines))


def write_semicolons(path: Path, tables: Tables) -> None:
    columns = as_columns(tables)
    rows = np.column_stack(list(columns.values()))
    lines = [";".join(columns)] + [";".join(repr(float(value)).replace(".", ",") for value in row) for row in rows]
    path.write_bytes(gzip.compress("\n".join(lines).encode()))


def write_frame(path: Path, tables: Tables) -> None:
    columns = as_columns(tables)
    with h5py.File(path, "w") as file:
        group = file.create_group("df")
        group.attrs["pandas_type"] = np.bytes_("frame")
        group["axis0"] = group["block0_items"] = np.array(list(columns), "S")
        group["axis1"] = np.arange(len(next(iter(columns.values()))))
        group["block0_values"] = np.column_stack([column.astype(float) for column in columns.values()])


def write_compound(path: Path, tables: Tables) -> None:
    columns = as_columns(tables)
    with h5py.File(path, "w") as file:
        file["table"] = np.rec.fromarrays(list(columns.values()), names=list(columns))


LAYOUTS: dict[str, tuple[str, Callable[[Path, Tables], None]]] = {
    "hdf5": ("d.h5", write_h5),
    "matlab 7.3": ("d73.mat", write_matlab),
    "matlab 5": ("d5.mat", write_mat),
    "npz": ("d.npz", write_npz),
    "pt": ("d.pt", write_pt),
    "safetensors": ("d.safetensors", write_safetensors),
    "parquet": ("d.parquet", write_parquet),
    "feather": ("d.feather", write_feather),
    "csv": ("d.csv", write_csv),
    "semicolons": ("d.csv.gz", write_semicolons),
    "pandas": ("frame.h5", write_frame),
    "compound": ("compound.h5", write_compound),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_never_a_wrong_target(tmp_path: Path, layout: str) -> None:
    rng = np.random.default_rng(sum(map(ord, layout)))
    name, write = LAYOUTS[layout]
    outcomes = {"right": 0, "question": 0, "refusal": 0}
    for number in range(FILES // len(LAYOUTS)):
        rows, width = int(rng.integers(2, 30)), int(rng.integers(2, 6))
        X, y = rng.standard_normal((rows, width)), rng.standard_normal(rows)
        x_name, y_name = (names[rng.integers(len(names))] for names in (FEATURES, TARGETS))
        tables: Tables = {x_name: X, **({y_name: y} if rng.random() < 0.8 else {})}
        for other in rng.choice(DISTRACTORS, rng.integers(0, 4), replace=False):
            tables[str(other)] = distractor(str(other), rows, rng)
        if rng.random() < 0.2:
            tables["attention_mask"] = rng.integers(0, 2, (rows, width))
        order = rng.permutation(list(tables))
        path = tmp_path / f"{number}{name}"
        write(path, {str(key): tables[key] for key in order})
        try:
            found = discover(path)
            target = open_source(found.y)
            features = open_source(found.x)
        except SourceError as error:
            outcomes["question" if "Pass --" in str(error) else "refusal"] += 1
            continue
        except ClosedformError:
            outcomes["refusal"] += 1
            continue
        finally:
            path.unlink()
        np.testing.assert_array_equal(
            target.read(0, rows).numpy().reshape(-1), tables.get(y_name, np.nan), err_msg=found.sentence
        )
        read = features.read(0, rows).numpy()
        assert not any(np.array_equal(column, y) for column in read.T), found.sentence
        outcomes["right"] += 1
    assert outcomes["right"] > 0, outcomes
    assert outcomes["question"] > 0, outcomes
