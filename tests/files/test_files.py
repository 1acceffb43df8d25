"""Rows from files: every format, every way a file can be wrong, and tables read by blocks."""

from __future__ import annotations

import gc
import os
import pickle
import sys
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet  # noqa: F401  # used as pa.parquet
import pytest
import safetensors.torch
import torch

from closedform.files import raw_rows
from closedform.files.opening import list_keys, open_source
from closedform.files.raw_rows import RawRows
from closedform.files.recognition import FORMATS
from closedform.files.specs import split_spec
from closedform.words.errors import ClosedformError, DataTypeError, InputError, MissingExtraError, SourceError

RNG = np.random.default_rng(0)
X = RNG.standard_normal((50, 3))
Y = RNG.standard_normal(50)


def columns(x: np.ndarray[Any, Any]) -> dict[str, np.ndarray[Any, Any]]:
    return {f"c{i}": x[:, i] for i in range(x.shape[1])}


def write_h5(path: Path, x: np.ndarray[Any, Any]) -> str:
    with h5py.File(path, "w") as file:
        file.create_dataset("deep/group/x", data=x, chunks=(7, 2), compression="gzip")
        file["y"] = Y
    return f"{path}::deep/group/x"


def write_npy(path: Path, x: np.ndarray[Any, Any]) -> str:
    np.save(path, x)
    return str(path)


def write_npz(path: Path, x: np.ndarray[Any, Any]) -> str:
    np.savez_compressed(path, x=x, y=Y)
    return f"{path}::x"


def write_safetensors(path: Path, x: np.ndarray[Any, Any]) -> str:
    safetensors.torch.save_file({"a.x": torch.from_numpy(x.copy()), "y": torch.from_numpy(Y)}, path)
    return f"{path}::a.x"


def write_parquet(path: Path, x: np.ndarray[Any, Any]) -> str:
    pa.parquet.write_table(pa.table({**columns(x), "y": Y}), path, row_group_size=8)
    return f"{path}::c0,c1,c2"


def write_csv(path: Path, x: np.ndarray[Any, Any]) -> str:
    pa.csv.write_csv(pa.table({**columns(x), "y": Y}), path)
    return f"{path}::c0,c1,c2"


def write_tsv(path: Path, x: np.ndarray[Any, Any]) -> str:
    pa.csv.write_csv(pa.table(columns(x)), path, pa.csv.WriteOptions(delimiter="\t"))
    return f"{path}::c0,c1,c2"


def write_pt(path: Path, x: np.ndarray[Any, Any]) -> str:
    torch.save({"split": {"x": torch.from_numpy(x.copy())}, "epoch": 3, "list": [torch.ones(2)]}, path)
    return f"{path}::split/x"


WRITERS: dict[str, Callable[[Path, np.ndarray[Any, Any]], str]] = {
    ".h5": write_h5,
    ".npy": write_npy,
    ".npz": write_npz,
    ".safetensors": write_safetensors,
    ".parquet": write_parquet,
    ".csv": write_csv,
    ".tsv": write_tsv,
    ".pt": write_pt,
}
STREAMED = (".h5", ".npy", ".safetensors", ".parquet", ".pt")
#: Endings of formats that tests of their own write, or that another ending of the same format stands for.
ELSEWHERE = {".arrow", ".mat", ".zarr"}


def test_every_format_is_written_here_or_elsewhere() -> None:
    """A new format needs its line in WRITERS; then all tests of this file that take them run on it."""
    for form in FORMATS:
        assert set(form.suffixes) & {*WRITERS, *ELSEWHERE}, form.title


@pytest.mark.parametrize("suffix", WRITERS)
@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "int64", "int32", "uint8", "bool"])
def test_round_trip_keeps_values_and_dtype(tmp_path: Path, suffix: str, dtype: str) -> None:
    x = (10 * X).clip(0, 99).astype(dtype)
    if suffix in (".csv", ".tsv"):
        if dtype == "float16":
            pytest.skip("pyarrow writes no half precision to CSV")
        dtype = {"float32": "float64", "int32": "int64", "uint8": "int64"}.get(dtype, dtype)
    source = open_source(WRITERS[suffix](tmp_path / f"data{suffix}", x))
    assert source.in_memory
    assert source.shape == (50, 3)
    assert source.dtype == getattr(torch, dtype)
    read = source.read(0, 50)
    assert read.dtype == source.dtype
    # Text holds the shortest digits that give a float32 back, so it is compared as what was written.
    np.testing.assert_array_equal(read.numpy().astype(x.dtype), x)
    np.testing.assert_array_equal(source.read(10, 20).numpy(), read.numpy()[10:20])


@pytest.mark.parametrize("suffix", STREAMED)
@pytest.mark.parametrize("dtype", ["float64", "uint16"])
def test_a_table_over_the_share_is_read_by_blocks(tmp_path: Path, suffix: str, dtype: str) -> None:
    if (suffix, dtype) == (".parquet", "uint16"):
        dtype = "uint32"
    x = (10 * X).clip(0, 99).astype(dtype)
    source = open_source(WRITERS[suffix](tmp_path / f"data{suffix}", x), memory_share=0.0)
    assert not source.in_memory
    assert source.dtype == (torch.float64 if dtype == "float64" else torch.int64)
    for _ in range(2):
        blocks = [source.read(start, min(start + 11, 50)) for start in range(0, 50, 11)]
        assert {len(block) for block in blocks[:-1]} == {11}
        assert {block.dtype for block in blocks} == {source.dtype}
        np.testing.assert_array_equal(torch.cat(blocks).numpy(), x)
    np.testing.assert_array_equal(source.read(37, 41).numpy(), x[37:41])
    np.testing.assert_array_equal(source.read(3, 5).numpy(), x[3:5])
    assert source.read(5, 5).shape == (0, 3)


def test_hdf5_reads_no_more_rows_than_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "large.h5"
    x = RNG.standard_normal((4000, 100))
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=x, chunks=(300, 64), compression="gzip")
    source = open_source(path, memory_share=1e-9)
    asked: list[slice] = []
    original = h5py.Dataset.__getitem__

    def spy(self: Any, rows: slice, *rest: Any) -> Any:
        asked.append(rows)
        return original(self, rows, *rest)

    monkeypatch.setattr(h5py.Dataset, "__getitem__", spy)
    blocks = [source.read(start, min(start + 256, 4000)) for start in range(0, 4000, 256)]
    np.testing.assert_array_equal(torch.cat(blocks).numpy(), x)
    assert asked == [slice(start, min(start + 256, 4000)) for start in range(0, 4000, 256)]


def test_hdf5_chunk_cache_holds_one_row_of_chunks(tmp_path: Path) -> None:
    from closedform.files.hdf5 import Hdf5Source

    with h5py.File(tmp_path / "wide.h5", "w") as file:
        file.create_dataset("x", shape=(4000, 4000), dtype="f8", chunks=(500, 1000))
    source = Hdf5Source(tmp_path / "wide.h5", "x", budget=1 << 30)
    source.read(0, 1)
    _, slots, bytes_held, _ = source._dataset.file.id.get_access_plist().get_cache()
    assert bytes_held >= 500 * 4000 * 8
    assert slots >= 4
    source.close()
    modest = Hdf5Source(tmp_path / "wide.h5", "x", budget=5 << 20)
    modest.read(0, 1)
    assert modest._dataset.file.id.get_access_plist().get_cache()[2] == 5 << 20
    modest.close()


def test_safetensors_reads_slices_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "large.safetensors"
    x = torch.from_numpy(RNG.standard_normal((3000, 40))).to(torch.bfloat16)
    safetensors.torch.save_file({"x": x, "y": x[:, 0].clone()}, path)
    asked: list[slice] = []
    original = RawRows.read

    def read(self: RawRows, start: int, stop: int) -> Any:
        asked.append(slice(start, stop))
        return original(self, start, stop)

    monkeypatch.setattr(RawRows, "read", read)
    source = open_source(path, key="x", memory_share=1e-9)
    assert source.dtype == torch.bfloat16
    blocks = [source.read(start, start + 500) for start in range(0, 3000, 500)]
    assert torch.equal(torch.cat(blocks), x)
    assert asked == [slice(start, start + 500) for start in range(0, 3000, 500)]


@pytest.mark.parametrize("suffix", [".npy", ".safetensors"])
def test_the_memory_of_a_block_is_used_again_once_nobody_holds_it(tmp_path: Path, suffix: str) -> None:
    x, path = torch.from_numpy(RNG.standard_normal((1000, 400))), tmp_path / f"x{suffix}"
    if suffix == ".npy":
        np.save(path, x.numpy())
    else:
        safetensors.torch.save_file({"x": x}, path)
    source = open_source(path, memory_share=1e-9)
    first, second = source.read(0, 200), source.read(200, 400)
    column, places = first[:, 1:2], {first.data_ptr(), second.data_ptr()}
    assert len(places) == 2
    del first, second
    third, fourth = source.read(400, 600), source.read(600, 800)
    assert third.data_ptr() in places
    assert fourth.data_ptr() not in places, "a view holds the first block"
    for block, start in ((third, 400), (fourth, 600), (source.read(900, 1000), 900)):
        assert torch.equal(block, x[start : start + len(block)])
    assert torch.equal(column, x[:200, 1:2])


def test_whoever_holds_a_buffer_is_counted() -> None:
    """Interpreters count references of their own differently, from 3.14 on one fewer for a local variable."""
    buffers = [np.empty(10, np.uint8)]
    assert raw_rows._holders(buffers, 0) == raw_rows._LIST_ALONE
    view = buffers[0][:5].view(np.int8).reshape(5, 1)
    assert raw_rows._holders(buffers, 0) == raw_rows._LIST_ALONE + 1
    tensor = torch.from_numpy(view)
    del view
    assert raw_rows._holders(buffers, 0) == raw_rows._LIST_ALONE + 1
    del tensor
    assert raw_rows._holders(buffers, 0) == raw_rows._LIST_ALONE


def test_npy_copies_only_the_range(tmp_path: Path) -> None:
    x = np.asfortranarray(RNG.standard_normal((5000, 20)))
    np.save(tmp_path / "x.npy", x)
    source = open_source(tmp_path / "x.npy", memory_share=1e-9)
    block = source.read(100, 200)
    assert block.untyped_storage().nbytes() == 100 * 20 * 8
    np.testing.assert_array_equal(block.numpy(), x[100:200])


def test_parquet_decodes_each_batch_once_and_never_more_than_a_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from closedform.files import parquet_files as tables

    x = RNG.standard_normal((6000, 4)).astype(np.float32)
    pa.parquet.write_table(pa.table(columns(x)), tmp_path / "x.parquet", row_group_size=2500)
    monkeypatch.setattr(tables, "_BATCH_BYTES", 100 * 4 * 4)
    decoded: list[int] = []
    original = tables.ParquetSource.stack

    def spy(self: Any, table: Any, first_row: int) -> Any:
        decoded.append(table.num_rows)
        return original(self, table, first_row)

    monkeypatch.setattr(tables.ParquetSource, "stack", spy)
    source = open_source(tmp_path / "x.parquet", memory_share=1e-9)
    blocks = [source.read(start, min(start + 130, 6000)) for start in range(0, 6000, 130)]
    np.testing.assert_array_equal(torch.cat(blocks).numpy(), x)
    assert max(decoded) <= 100
    assert sum(decoded) == 6000
    np.testing.assert_array_equal(source.read(2600, 2700).numpy(), x[2600:2700])


def test_a_closed_source_reads_again_and_leaves_the_file_to_others(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for suffix in STREAMED:
            spec = WRITERS[suffix](tmp_path / f"data{suffix}", X)
            source, other = open_source(spec, memory_share=0), open_source(spec, memory_share=0)
            assert torch.equal(source.read(0, 5), other.read(0, 5))
            source.close()  # type: ignore[attr-defined]
            source.close()  # type: ignore[attr-defined]
            assert torch.equal(source.read(0, 5), other.read(0, 5))
            del source, other
            gc.collect()
        # Nothing of ours keeps the file open: it can be opened for writing.
        with h5py.File(tmp_path / "data.h5", "r+") as file:
            assert "y" in file


def test_big_endian_and_extended_precision(tmp_path: Path) -> None:
    np.save(tmp_path / "big.npy", X.astype(">f4"))
    source = open_source(tmp_path / "big.npy", memory_share=0)
    assert source.dtype == torch.float32
    np.testing.assert_array_equal(source.read(0, 50).numpy(), X.astype(np.float32))
    with h5py.File(tmp_path / "big.h5", "w") as file:
        file["x"] = X.astype(">f8")
    np.testing.assert_array_equal(open_source(tmp_path / "big.h5").read(0, 50).numpy(), X)
    if np.dtype(np.longdouble).itemsize > 8:
        np.save(tmp_path / "long.npy", X.astype(np.longdouble))
        source = open_source(tmp_path / "long.npy")
        assert "float64" in source.notes[0]
        np.testing.assert_array_equal(source.read(0, 50).numpy(), X)


def test_hdf5_filters_links_and_virtual_data_sets(tmp_path: Path) -> None:
    ints = np.arange(60).reshape(20, 3)
    with h5py.File(tmp_path / "part.h5", "w") as file:
        file["x"] = X
    layout = h5py.VirtualLayout(shape=(50, 3), dtype="f8")
    layout[:] = h5py.VirtualSource("part.h5", "x", shape=(50, 3))
    with h5py.File(tmp_path / "data.h5", "w") as file:
        file.create_dataset("scaled", data=ints, scaleoffset=0, chunks=True)
        file["g/soft"] = h5py.SoftLink("/scaled")
        file["g/up"] = h5py.SoftLink("/")
        file["away"] = h5py.ExternalLink("part.h5", "/x")
        file["nowhere"] = h5py.ExternalLink("missing.h5", "/x")
        file["dangling"] = h5py.SoftLink("/nothing")
        file.create_virtual_dataset("virtual", layout)
        file["empty"] = h5py.Empty("f8")
        file["number"] = 3.0
    path = tmp_path / "data.h5"
    keys = list_keys(path)
    assert set(keys) == {"scaled", "g/soft", "away", "virtual", "number"}
    np.testing.assert_array_equal(open_source(f"{path}::/g/soft").read(0, 20).numpy(), ints)
    np.testing.assert_array_equal(open_source(f"{path}::away").read(0, 50).numpy(), X)
    np.testing.assert_array_equal(open_source(f"{path}::virtual").read(0, 50).numpy(), X)
    with pytest.raises(SourceError, match=r"'/x' in missing\.h5, which cannot be found"):
        open_source(f"{path}::nowhere")
    with pytest.raises(SourceError, match="'/nothing' in the same file"):
        open_source(f"{path}::dangling")
    with pytest.raises(SourceError, match=r"is a group.*it holds: soft, up"):
        open_source(f"{path}::g")
    for key in ("empty", "number"):
        with pytest.raises(SourceError, match="single value"):
            open_source(f"{path}::{key}")
    (tmp_path / "part.h5").unlink()
    with pytest.raises(SourceError, match=r"part\.h5 is missing"):
        open_source(f"{path}::virtual")


def test_features_of_three_dimensions_keep_their_shape(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=np.ones((4, 5, 6)))
    assert open_source(tmp_path / "x.npz").shape == (4, 5, 6)


# Files that are not there, or not what they should be


def test_no_file_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SourceError, match=r"there is no file .*none\.h5"):
        open_source(tmp_path / "none.h5")
    with pytest.raises(SourceError, match="is a directory"):
        open_source(tmp_path)
    (tmp_path / "zero.h5").touch()
    with pytest.raises(SourceError, match="is empty"):
        open_source(tmp_path / "zero.h5")
    np.save(tmp_path / "x.npy", X)

    def refuse(self: Path, *args: Any, **kwargs: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(SourceError, match=r"cannot be read.*Permission denied.*permissions"):
        open_source(tmp_path / "x.npy")


def test_a_folder_of_tables_that_cannot_be_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b", ".hidden"):
        (tmp_path / name).mkdir()
        write_parquet(tmp_path / name / "x.parquet", X)
    assert open_source(tmp_path).shape[0] == 2 * len(X)
    scandir = os.scandir

    def vanished(path: Any) -> Any:
        if Path(path).name == "b":
            raise FileNotFoundError(2, "No such file or directory", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", vanished)
    with pytest.raises(SourceError, match=r"cannot be read whole: .*b \(No such file or directory\)"):
        open_source(tmp_path)


def test_paths_that_lead_to_no_regular_file(tmp_path: Path) -> None:
    loop, other, dangling, pipe = (tmp_path / name for name in ("a.h5", "b.h5", "c.h5", "d.npy"))
    loop.symlink_to(other)
    other.symlink_to(loop)
    dangling.symlink_to(tmp_path / "gone.h5")
    os.mkfifo(pipe)
    with pytest.raises(SourceError, match="Too many levels of symbolic links"):
        open_source(loop)
    with pytest.raises(SourceError, match=r"is a link to .*gone\.h5, where there is no file"):
        open_source(dangling)
    with pytest.raises(SourceError, match="not a regular file"):
        open_source(pipe)
    with pytest.raises(SourceError, match="File name too long"):
        open_source("a" * 300 + ".npy")


def test_a_damaged_pt_file_warns_of_nothing(tmp_path: Path) -> None:
    path = tmp_path / "old.pt"
    path.write_bytes(b"\x80\x02garbage")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises(SourceError):
            open_source(path)
        torch.save({"a": torch.ones(3, 2), "b": np.ones(3)}, path)
        with pytest.raises(SourceError, match="never unpickles"):
            open_source(path)
    assert not caught


@pytest.mark.parametrize("suffix", [".h5", ".npy", ".npz", ".safetensors", ".parquet", ".pt"])
@pytest.mark.parametrize("kept", [0.5, 0.05])
def test_truncated_files(tmp_path: Path, suffix: str, kept: float) -> None:
    path = tmp_path / f"data{suffix}"
    spec = WRITERS[suffix](path, RNG.standard_normal((500, 3)) if suffix in (".npy", ".pt") else X)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(SourceError, match=r"could not be read as .*damaged or cut short") as caught:
        open_source(spec)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", [".h5", ".npy", ".npz", ".safetensors", ".parquet", ".pt"])
def test_garbage(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"data{suffix}"
    path.write_bytes(b"this is not a table of numbers at all\n" * 20)
    with pytest.raises(SourceError, match="could not be read as") as caught:
        open_source(path)
    assert "\n" not in str(caught.value)


def test_corrupt_chunk_is_an_error_when_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "data.h5"
    with h5py.File(path, "w") as file:
        data = file.create_dataset("x", data=X, chunks=(50, 3), compression="gzip")
        info = data.id.get_chunk_info(0)
        offset, size = info.byte_offset, info.size
    content = bytearray(path.read_bytes())
    content[offset : offset + size] = b"\0" * size
    path.write_bytes(content)
    source = open_source(path, memory_share=0)
    with pytest.raises(SourceError, match="could not be read as HDF5"):
        source.read(0, 10)


@pytest.mark.parametrize("suffix", WRITERS)
def test_damaged_bytes_give_one_line_or_numbers(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"data{suffix}"
    spec = WRITERS[suffix](path, X)
    intact = path.read_bytes()
    rng = np.random.default_rng(1)
    refusals = []
    for _ in range(60):
        damaged = bytearray(intact)
        for position in rng.integers(min(len(intact), 4096), size=3):
            damaged[position] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            open_source(spec).read(0, 50)
        except ClosedformError as error:
            refusals.append(str(error))
    assert refusals
    assert not any("\n" in refusal for refusal in refusals)


class Bomb:
    """Unpickling this writes a file; no test may find it."""

    def __init__(self, trace: Path) -> None:
        self.trace = str(trace)

    def __reduce__(self) -> Any:
        return (open, (self.trace, "w"))


@pytest.mark.parametrize("suffix", [".h5", ".npy", ".npz", ".safetensors", ".parquet", ".pt", ".pth", ".pkl"])
def test_a_pickle_in_disguise_is_never_loaded(tmp_path: Path, suffix: str) -> None:
    path, trace = tmp_path / f"data{suffix}", tmp_path / "trace"
    path.write_bytes(pickle.dumps(Bomb(trace)))
    with pytest.raises(SourceError, match=r"closedform never"):
        open_source(path)
    assert not trace.exists()


def test_objects_inside_array_files_are_never_loaded(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    objects = np.array([Bomb(trace), Bomb(trace)], dtype=object)
    np.save(tmp_path / "o.npy", objects, allow_pickle=True)
    np.savez(tmp_path / "o.npz", x=X, o=objects)
    torch.save({"x": torch.ones(3, 2), "o": Bomb(trace)}, tmp_path / "o.pt")
    for spec in ("o.npy", "o.npz::o"):
        with pytest.raises(DataTypeError, match="object"):
            open_source(tmp_path / spec)
    np.testing.assert_array_equal(open_source(tmp_path / "o.npz::x").read(0, 50).numpy(), X)
    with pytest.raises(SourceError, match=r"never unpickles.*torch\.save"):
        open_source(tmp_path / "o.pt::x")
    assert not trace.exists()


def test_unknown_ending(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "data.mat", "w") as file:
        file["x"] = X
    with (tmp_path / "data.array").open("wb") as stream:
        np.save(stream, X)
    with (tmp_path / "data.zip").open("wb") as stream:
        np.savez(stream, x=X)
    torch.save(torch.from_numpy(X), tmp_path / "data.bin")
    for name in ("data.mat", "data.array", "data.zip", "data.bin"):
        np.testing.assert_array_equal(open_source(tmp_path / name).read(0, 50).numpy(), X)
    (tmp_path / "data.txt").write_text("1 2 3")
    with pytest.raises(SourceError, match=r"unknown ending '\.txt'.*\.h5.*\.safetensors.*\.csv"):
        open_source(tmp_path / "data.txt")
    (tmp_path / "data.zip").rename(tmp_path / "data.h5")
    with pytest.raises(SourceError, match=r"first bytes are those of \.npz"):
        open_source(tmp_path / "data.h5")


# Keys


@pytest.mark.parametrize("suffix", [s for s in WRITERS if s != ".npy"])
def test_wrong_key_lists_what_there_is(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"data{suffix}"
    key = WRITERS[suffix](path, X).partition("::")[2].split(",")[0]
    with pytest.raises(SourceError, match="has no data set") as caught:
        open_source(path, key=f"{key}x")
    assert f"Did you mean {key}" in str(caught.value)
    assert "(50, " in str(caught.value)


def test_key_given_twice_missing_or_needless(tmp_path: Path) -> None:
    np.savez(tmp_path / "two.npz", a=X, b=Y)
    np.save(tmp_path / "x.npy", X)
    with pytest.raises(InputError, match="given twice"):
        open_source(f"{tmp_path}/two.npz::a", key="b")
    with pytest.raises(SourceError, match=r"holds 2 tables: a \(50, 3\) float64, b \(50,\) float64"):
        open_source(tmp_path / "two.npz")
    with pytest.raises(SourceError, match=r"has no data set 'a'.*unnamed"):
        open_source(tmp_path / "x.npy", key="a")
    with pytest.raises(InputError, match="memory_share is 2"):
        open_source(tmp_path / "x.npy", memory_share=2)


def test_split_spec_leaves_drives_and_odd_names_alone(tmp_path: Path) -> None:
    assert split_spec(r"C:\data\x.h5") == (Path(r"C:\data\x.h5"), None)
    assert split_spec("x.h5::a/b::c") == (Path("x.h5"), "a/b::c")
    odd = tmp_path / "a::b.npy"
    np.save(odd, X)
    assert split_spec(odd) == (odd, None)


def test_list_keys_shows_the_numeric_data_sets(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=X.astype(np.float32), s=np.array("text"), c=X * 1j)
    assert list_keys(tmp_path / "a.npz") == {"x": ((50, 3), "float32")}
    write_pt(tmp_path / "a.pt", X)
    assert list_keys(tmp_path / "a.pt") == {"split/x": ((50, 3), "float64"), "list/0": ((2,), "float32")}
    torch.save(torch.ones(2, 2), tmp_path / "b.pt")
    assert list_keys(tmp_path / "b.pt") == {"": ((2, 2), "float32")}
    write_csv(tmp_path / "a.csv", X)
    assert list_keys(tmp_path / "a.csv")["y"] == ((50, 1), "double")


# Kinds of data


def test_data_that_are_not_real_numbers(tmp_path: Path) -> None:
    compound = np.zeros(4, dtype=[("a", "c16"), ("b", "i4")])
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["text"] = ["a", "b"]
        file["compound"] = compound
        file["complex"] = X * 1j
        file.create_dataset("ragged", (2,), dtype=h5py.vlen_dtype("f8"))
    np.savez(tmp_path / "a.npz", compound=compound, complex=X * 1j, text=np.array(["a", "b"]))
    tensors = {"complex": torch.ones(3, 2, dtype=torch.complex64), "eight": torch.ones(3, 2).to(torch.float8_e4m3fn)}
    safetensors.torch.save_file(tensors, tmp_path / "a.safetensors")
    torch.save({**tensors, "sparse": torch.eye(3).to_sparse()}, tmp_path / "a.pt")
    for spec, seen in (
        ("a.h5::text", "object"),
        ("a.h5::complex", "complex128"),
        ("a.h5::ragged", "object"),
        ("a.npz::compound", "'a'"),
        ("a.npz::complex", "complex128"),
        ("a.npz::text", "<U1"),
        ("a.safetensors::complex", "C64"),
        ("a.safetensors::eight", "F8_E4M3"),
        ("a.pt::complex", "complex64"),
        ("a.pt::eight", "float8_e4m3fn"),
        ("a.pt::sparse", "sparse"),
    ):
        with pytest.raises(DataTypeError, match=seen):
            open_source(tmp_path / spec)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_columns_that_cannot_be_used(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"data{suffix}"
    table = pa.table({"a": [1.0, 2.0], "b": [1, None], "city": ["Ulm", "Bonn"], "void": pa.nulls(2)})
    (pa.csv.write_csv if suffix == ".csv" else pa.parquet.write_table)(table, path)
    with pytest.raises(DataTypeError, match=r"column 'city'.*string.*--x COL,COL"):
        open_source(path)
    with pytest.raises(InputError, match=r"column 'b'.*missing value, first in row 1"):
        open_source(path, key="a,b")
    with pytest.raises(InputError, match=r"column 'void'.*missing value, first in row 0"):
        open_source(path, key="void")
    assert open_source(path, key="a").shape == (2, 1)


def test_missing_value_far_into_a_parquet_file_names_its_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from closedform.files import parquet_files as tables

    monkeypatch.setattr(tables, "_BATCH_BYTES", 10 * 8)
    values = [float(i) for i in range(100)]
    table = pa.table({"a": [*values[:77], None, *values[78:]]})
    pa.parquet.write_table(table, tmp_path / "x.parquet", row_group_size=10)
    source = open_source(tmp_path / "x.parquet", memory_share=0)
    source.read(0, 40)
    for _ in range(2):
        with pytest.raises(InputError, match="first in row 77"):
            source.read(65, 90)
    assert source.read(90, 92).tolist() == [[90.0], [91.0]]


def test_csv_headers(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("1.5,2.5,3.5\n4,5,6\n")
    with pytest.raises(SourceError, match=r"first line .* holds numbers"):
        open_source(path)
    path.write_text("a;b\n1\n2\n")
    with pytest.raises(SourceError, match="not separated by commas"):
        open_source(path)
    path.write_text("0,1,2\n4,5,6\n")
    assert open_source(path).read(0, 1).tolist() == [[4, 5, 6]]
    path.write_text('"a, cm",b,a\n1,2,3.5\n')
    assert open_source(path, key='"a, cm",a').read(0, 1).tolist() == [[1.0, 3.5]]
    assert open_source(path, key="a, cm").read(0, 1).tolist() == [[1]]
    path.write_text("a,a\n1,2\n")
    with pytest.raises(SourceError, match="more than one column named 'a'"):
        open_source(path)
    path.write_text("a,b\n1,2\n3\n")
    with pytest.raises(SourceError, match="could not be read as CSV"):
        open_source(path)


@pytest.mark.parametrize("suffix", [".npz", ".csv"])
def test_what_cannot_be_read_by_ranges_says_what_to_convert_to(tmp_path: Path, suffix: str) -> None:
    spec = WRITERS[suffix](tmp_path / f"data{suffix}", X)
    with pytest.raises(SourceError, match=r"cannot be read by row ranges; convert it to \..*h5"):
        open_source(spec, memory_share=0)


def test_a_zip_that_lies_about_its_member_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("x.npy", b"\x93NUMPY\x01\x00" + b"\x10\x00" + b"not a header at ")
    with pytest.raises(SourceError, match=r"could not be read as \.npz"):
        open_source(tmp_path / "x.npz")


@pytest.mark.parametrize(
    ("suffix", "module"), [(".h5", "h5py"), (".safetensors", "safetensors"), (".csv", "pyarrow.csv")]
)
def test_missing_package_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, module: str
) -> None:
    spec = WRITERS[suffix](tmp_path / f"data{suffix}", X)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=r"pip install 'closedform\[files\]'"):
        open_source(spec)
