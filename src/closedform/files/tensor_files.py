"""Tensor files: .safetensors by slices, .pt by ``torch.load(weights_only=True)`` and nothing less safe."""

from __future__ import annotations

import json
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from closedform.files.formats import (
    Entry,
    FileFormat,
    FileSource,
    UnknownKey,
    import_extra,
    native_dtype,
    reading,
    table_name,
)
from closedform.files.raw_rows import RawRows
from closedform.rows.tensors import array_to_tensor, as_tensor
from closedform.words.errors import DataTypeError, SourceError

__all__ = ["PtFormat", "PtSource", "SafetensorsFormat", "SafetensorsSource"]

# What safetensors calls its dtypes. Floats of eight bits are left out: their scale is kept elsewhere.
_SAFETENSORS_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_TABLE_DTYPES = frozenset(_SAFETENSORS_DTYPES.values())
#: Entries of a file, beyond which its containers are taken for a trap: each may be named by many others.
_MOST_ENTRIES = 100_000
#: Containers in containers.
_DEEPEST = 500
_END = object()
_WIDE_UNSIGNED = frozenset({torch.uint16, torch.uint32, torch.uint64})


def _dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _source_dtype(dtype: torch.dtype, name: str) -> torch.dtype:
    if dtype in _WIDE_UNSIGNED:
        return native_dtype(np.dtype(_dtype_name(dtype)), name)[0]
    return dtype


def _widen(tensor: Tensor, name: str) -> Tensor:
    """Return an unsigned tensor in the signed dtype that torch can compute with; any other as it is."""
    return array_to_tensor(tensor.numpy(), name)[0] if tensor.dtype in _WIDE_UNSIGNED else tensor


def _not_real(dtype: str, name: str) -> DataTypeError:
    return DataTypeError(
        f"{name} holds {dtype} values, not plain real numbers; convert them to float16 or wider first."
    )


@final
class SafetensorsFormat(FileFormat):
    """Named tensors, read by row slices."""

    title = ".safetensors"
    suffixes = (".safetensors",)

    @override
    def entries(self, path: Path) -> dict[str, Entry]:
        library = _safetensors()
        with (
            reading(path, self.title, library.SafetensorError, OSError),
            library.safe_open(path, framework="pt") as file,
        ):
            found = {}
            for key in file.keys():  # noqa: SIM118 - the handle is not a mapping
                tensor = file.get_slice(key)
                dtype = _SAFETENSORS_DTYPES.get(tensor.get_dtype())
                name = tensor.get_dtype() if dtype is None else _dtype_name(dtype)
                found[key] = Entry(tuple(tensor.get_shape()), name, dtype is not None)
            return found

    @override
    def open(self, path: Path, key: str, budget: int) -> FileSource:
        entries = self.entries(path)
        if key not in entries:
            raise UnknownKey(key)
        return SafetensorsSource(path, key, entries[key])


def _safetensors() -> Any:
    return import_extra("safetensors", "safetensors", "reading .safetensors files")


def _data_offset(path: Path, key: str) -> int:
    """Return how many bytes stand before the numbers of a tensor: the length of the header, it, and other tensors."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        return 8 + length + int(json.loads(file.read(length))[key]["data_offsets"][0])


@final
class SafetensorsSource(FileSource):
    """One tensor of a .safetensors file, read where the header says that it is: its library would map the file."""

    notes = ()

    def __init__(self, path: Path, key: str, entry: Entry) -> None:
        self.name = table_name(path, key)
        self._path = path
        if not entry.numeric:
            raise _not_real(entry.dtype, self.name)
        if entry.shape == ():
            raise SourceError(f"{self.name} holds a single number, not a table; choose another key.")
        self.shape = entry.shape
        self._stored: torch.dtype = getattr(torch, entry.dtype)
        self.dtype = _source_dtype(self._stored, self.name)
        with reading(path, SafetensorsFormat.title, OSError, ValueError):
            offset = _data_offset(path, key)
        # NumPy does not know all of these dtypes; integers of their size carry the bits.
        carrier = np.dtype(f"i{self._stored.itemsize}")
        self._rows = RawRows(path, offset, carrier, self.shape)

    @override
    def read(self, start: int, stop: int) -> Tensor:
        with reading(self._path, SafetensorsFormat.title, OSError, EOFError):
            numbers = torch.from_numpy(self._rows.read(start, stop))
        return _widen(numbers.view(self._stored), self.name)


@final
class PtFormat(FileFormat):
    """What ``torch.save`` wrote: a tensor (key ``""``), or nested dicts and lists (keys joined by ``/``)."""

    title = ".pt"
    suffixes = (".pt", ".pth")

    @override
    def entries(self, path: Path) -> dict[str, Entry]:
        return {
            key: Entry(tuple(tensor.shape), _kind(tensor), _is_table(tensor)) for key, tensor in _load(path).items()
        }

    @override
    def open(self, path: Path, key: str, budget: int) -> FileSource:
        tensors = _load(path)
        if key not in tensors:
            raise UnknownKey(key)
        return PtSource(path, key, tensors[key])


def _kind(tensor: Tensor) -> str:
    """Return what a tensor holds, for messages."""
    name = _dtype_name(tensor.dtype)
    return name if tensor.layout is torch.strided else f"sparse {name}"


def _is_table(tensor: Tensor) -> bool:
    return tensor.dtype in _TABLE_DTYPES and tensor.layout is torch.strided and not tensor.is_meta


def _load(path: Path) -> dict[str, Tensor]:
    # Old .pt files are bare pickles, which cannot be mapped. Unpickling damaged bytes, even under the
    # restricted reader, can raise any exception at all, so all mean the same here: the file cannot be read.
    with reading(path, PtFormat.title, Exception):
        mapped = zipfile.is_zipfile(path)
        try:
            with warnings.catch_warnings():
                # Torch warns of what it is about to refuse; the error says it on one line.
                warnings.simplefilter("ignore")
                loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
        except Exception as error:
            if "weights_only" not in str(error) and "Weights only" not in str(error):
                raise
            raise SourceError(
                f"{path} holds Python objects other than tensors; closedform never unpickles them. Save the "
                "tensors alone: torch.save({'X': X, 'y': y}, path)."
            ) from error
    tensors = _tensors_in(path, loaded)
    if not tensors:
        raise SourceError(f"{path} holds no tensors; save them with torch.save({{'X': X, 'y': y}}, path).")
    return tensors


def _tensors_in(path: Path, loaded: object) -> dict[str, Tensor]:
    """Return the tensors in nested dicts, lists and tuples, in order, without recursion.

    Raises:
        SourceError: a container is in itself, or containers are shared so often that there is no end of names.
    """
    tensors: dict[str, Tensor] = {}
    # Each container on the way down, with what is still to be seen of it.
    trail: list[tuple[object, str, Iterator[tuple[object, object]]]] = [(None, "", iter([("", loaded)]))]
    seen = 0
    while trail:
        _, prefix, items = trail[-1]
        name, value = next(items, (None, _END))
        if value is _END:
            trail.pop()
            continue

        if not isinstance(value, Tensor | dict | list | tuple):
            continue

        key = f"{prefix}/{name}" if prefix else str(name)
        seen += 1
        if seen > _MOST_ENTRIES or len(trail) > _DEEPEST:
            raise SourceError(f"{path} holds more than {_MOST_ENTRIES:,} entries, or too deep ones; save fewer.")

        if isinstance(value, Tensor):
            tensors[key] = value.detach()
            continue

        if any(value is above for above, _, _ in trail):
            raise SourceError(f"{path} holds a container that contains itself ({key}); save the tensors alone.")

        inner = value.items() if isinstance(value, dict) else enumerate(value)
        trail.append((value, key, iter(inner)))

    return tensors


@final
class PtSource(FileSource):
    """One tensor of a .pt file, which ``torch.load`` has mapped; a read copies its range."""

    notes = ()

    def __init__(self, path: Path, key: str, tensor: Tensor) -> None:
        self.name = table_name(path, key)
        self._tensor, _ = as_tensor(tensor, self.name)
        if not _is_table(tensor):
            raise _not_real(_dtype_name(tensor.dtype), self.name)
        if tensor.ndim == 0:
            raise SourceError(f"{self.name} holds a single number, not a table; choose another key.")
        self.shape = tuple(tensor.shape)
        self.dtype = _source_dtype(tensor.dtype, self.name)
        self.streams = zipfile.is_zipfile(path)

    @override
    def read(self, start: int, stop: int) -> Tensor:
        return _widen(self._tensor[start:stop].clone(), self.name)
