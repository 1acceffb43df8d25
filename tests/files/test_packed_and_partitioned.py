"""Numbers that netCDF packed are unpacked, and columns that only the names of folders hold are not lost silently."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pyarrow.dataset
import pytest
import torch
import zarr

import closedform as cf
from closedform.files.opening import open_source
from closedform.words.errors import InputError, SourceError

RNG = np.random.default_rng(0)
STORED = RNG.integers(-500, 500, (30, 3)).astype(np.int16)
PACKED = {
    "both": {"scale_factor": 0.01, "add_offset": 273.15},
    "scale": {"scale_factor": np.array([0.01], np.float32)},
    "offset": {"add_offset": np.float64(5.0)},
}


def unpacked(attributes: dict[str, object]) -> np.ndarray:
    scale = float(np.asarray(attributes.get("scale_factor", 1.0)).reshape(-1)[0])
    return STORED * scale + float(np.asarray(attributes.get("add_offset", 0.0)))


def write(path: Path, attributes: dict[str, object]) -> None:
    if path.suffix == ".zarr":
        group = zarr.open_group(str(path), mode="w")
        array = group.create_array("X", data=STORED)
        array.attrs.update({name: np.asarray(value).reshape(-1)[0].item() for name, value in attributes.items()})
        return
    with h5py.File(path, "w") as file:
        file["X"] = STORED
        file["X"].attrs.update(attributes)


@pytest.mark.parametrize("suffix", [".nc", ".h5", ".zarr"])
@pytest.mark.parametrize("kind", PACKED)
def test_packed_numbers_are_unpacked_and_said(tmp_path: Path, suffix: str, kind: str) -> None:
    path = tmp_path / f"a{suffix}"
    write(path, PACKED[kind])
    source = open_source(f"{path}::X")
    assert source.dtype == torch.float64
    np.testing.assert_allclose(source.read(0, 30).numpy(), unpacked(PACKED[kind]), rtol=1e-15)
    assert any("packed" in note for note in source.notes)
    sol = cf.solve(f"{path}::X", np.arange(30.0), bias=True)
    expected = cf.solve(unpacked(PACKED[kind]), np.arange(30.0), bias=True)
    np.testing.assert_allclose(sol.weight, expected.weight, rtol=1e-9)


def test_the_fill_value_of_packed_numbers_is_the_stored_one(tmp_path: Path) -> None:
    stored = STORED.copy()
    stored[4, 1] = -999
    with h5py.File(tmp_path / "a.nc", "w") as file:
        file["X"] = stored
        file["X"].attrs.update({"scale_factor": 0.01, "_FillValue": np.int16(-999)})
    with pytest.raises(InputError, match="row 4"):
        open_source(f"{tmp_path}/a.nc::X").read(0, 30)


def test_attributes_that_are_no_numbers_pack_nothing(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["X"] = STORED
        file["X"].attrs["scale_factor"] = "metres"
    source = open_source(f"{tmp_path}/a.h5::X")
    assert source.dtype == torch.int16
    assert source.notes == ()


def frame() -> pd.DataFrame:
    return pd.DataFrame({"a": RNG.random(20), "y": RNG.random(20), "year": np.repeat([2020, 2021], 10)})


def test_a_partitioned_folder_is_refused_with_the_ways_to_read_it(tmp_path: Path) -> None:
    data = frame()
    data.to_parquet(tmp_path / "data", partition_cols=["year"])
    with pytest.raises(SourceError, match="partitioned by year") as seen:
        cf.solve(f"{tmp_path}/data", "y")
    said = str(seen.value)

    call = said[said.index("pyarrow.dataset.dataset(") : said.index(" and pass that")]
    table = eval(call, {"pyarrow": pyarrow})
    assert table.num_columns == 3
    assert cf.solve(table.select(["a", "year"]), table["y"]).feature_names == ("a", "year")

    pattern = said[said.index("the pattern '") :].split("'")[1]
    assert cf.solve(pattern, "y").feature_names == ("a",)


def test_partitions_that_the_files_hold_as_well_are_no_loss(tmp_path: Path) -> None:
    for year, part in frame().groupby("year"):
        folder = tmp_path / "data" / f"year={year}"
        folder.mkdir(parents=True)
        part.to_parquet(folder / "part.parquet", index=False)
    assert cf.solve(f"{tmp_path}/data", "y").feature_names == ("a", "year")
