"""Tables in memory: torch tensors, NumPy arrays and memory maps, DLPack objects, pandas and Polars frames."""

from __future__ import annotations

from typing import Any, final

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from closedform.engine.threads import all_threads
from closedform.rows.source import Source
from closedform.words.errors import DataTypeError, InputError

__all__ = ["FloatSource", "TensorSource", "array_to_tensor", "as_tensor"]


@final
class TensorSource(Source):
    """A torch tensor as a source: reading is a view, nothing is copied."""

    in_memory = True

    def __init__(
        self, tensor: Tensor, name: str, notes: tuple[str, ...] = (), *, stored_dtype: torch.dtype | None = None
    ) -> None:
        self.tensor = tensor
        self.name = name
        self.shape = tuple(tensor.shape)
        self.dtype = tensor.dtype
        self.device = tensor.device
        self.notes = notes
        self._stored_dtype = stored_dtype

    @property
    @override
    def stored_dtype(self) -> torch.dtype:
        return self._stored_dtype or self.dtype

    def read(self, start: int, stop: int) -> Tensor:
        return self.tensor[start:stop]


@final
class FloatSource(Source):
    """Integers or booleans as float64, converted as they are read: no matrix product knows them as they are stored."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.name, self.shape, self.device = source.name, source.shape, source.device
        self.in_memory, self.dtype = source.in_memory, torch.float64
        stored = str(source.dtype).removeprefix("torch.")
        self.notes = (*source.notes, f"{source.name} holds {stored} values; they were converted to float64")

    @property
    @override
    def stored_dtype(self) -> torch.dtype:
        return self.source.stored_dtype

    def read(self, start: int, stop: int) -> Tensor:
        values = self.source.read(start, stop)
        with all_threads():
            return values.to(torch.float64)


def as_tensor(data: Any, name: str) -> tuple[Tensor, tuple[str, ...]]:
    """Return in-memory ``data`` as a strided real torch tensor that shares its memory where that is possible.

    Args:
        data: A torch tensor, NumPy array or memory map, DLPack object, pandas or Polars frame or series, or a
            nested sequence of numbers.
        name: What the user calls it, for messages.

    Returns:
        The tensor, and notes on any cast that was needed.

    Raises:
        DataTypeError: complex, object, string, sparse, quantized, nested or meta data.
    """
    if isinstance(data, Tensor):
        return _check_tensor(data, name), ()
    if isinstance(data, np.ndarray):
        return array_to_tensor(data, name)
    module = type(data).__module__.split(".")[0]
    if module == "pandas":
        return _pandas_to_tensor(data, name)
    if module == "polars":
        return _polars_to_tensor(data, name)
    if module == "scipy" and hasattr(data, "tocsr"):
        raise DataTypeError(
            f"{name} is a scipy sparse matrix. closedform works on dense tables; pass {name}.toarray() if it fits."
        )
    if hasattr(data, "__dlpack__"):
        try:
            return _check_tensor(torch.utils.dlpack.from_dlpack(data), name), ()
        except (RuntimeError, BufferError, TypeError) as error:
            raise DataTypeError(f"{name} could not be read through DLPack: {error}") from error
    try:
        array = np.asarray(data)
    except (ValueError, TypeError) as error:
        raise DataTypeError(f"{name} is not a table of numbers: {error}") from error
    return array_to_tensor(array, name)


def _check_tensor(tensor: Tensor, name: str) -> Tensor:
    if tensor.layout is not torch.strided:
        raise DataTypeError(
            f"{name} is a sparse tensor ({tensor.layout}). closedform works on dense tables; pass "
            f"{name}.to_dense() if it fits in memory."
        )
    if tensor.is_nested or tensor.is_quantized:
        raise DataTypeError(f"{name} is a nested or quantized tensor; pass an ordinary dense tensor.")
    if tensor.is_meta:
        raise DataTypeError(f"{name} is on the meta device and holds no numbers; load it on a real device first.")
    if tensor.dtype.is_floating_point and tensor.dtype.itemsize < 2:
        raise DataTypeError(
            f"{name} holds {tensor.dtype} values, which have no arithmetic of their own; pass {name}.half()."
        )
    if tensor.is_complex():
        raise DataTypeError(f"{name} is complex ({tensor.dtype}). Split it into real and imaginary columns.")
    return tensor.detach()


def array_to_tensor(array: np.ndarray[Any, Any], name: str) -> tuple[Tensor, tuple[str, ...]]:
    """Return a NumPy array as a tensor, sharing memory where its byte order and strides allow it.

    Raises:
        DataTypeError: complex, object, string or other data that are not real numbers.
    """
    if isinstance(array, np.ma.MaskedArray):
        if np.ma.is_masked(array):
            raise DataTypeError(f"{name} is a masked array with masked entries; drop those rows or fill them first.")
        array = array.data
    kind = array.dtype.kind
    if kind == "c":
        raise DataTypeError(f"{name} is complex ({array.dtype}). Split it into real and imaginary columns.")
    if kind not in "fiub":
        raise DataTypeError(f"{name} holds {array.dtype} values, which are not real numbers; pass a numeric array.")
    notes: tuple[str, ...] = ()
    if array.dtype.itemsize > 8:
        array = array.astype(np.float64)
        notes = (f"{name} was rounded from extended precision to float64",)
    elif array.dtype == np.uint64 and array.size and int(array.max()) > np.iinfo(np.int64).max:
        raise DataTypeError(f"{name} holds unsigned integers beyond 2**63, which float64 cannot hold exactly.")
    elif kind == "u" and array.dtype.itemsize > 1:
        array = array.astype(np.int64)
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    if any(stride < 0 or stride % array.dtype.itemsize for stride in array.strides):
        array = np.ascontiguousarray(array)
    if not array.flags.writeable:
        # torch warns about read-only memory, although nothing here writes to it: a memory map opened with
        # mode "r" must not be copied whole just to please that warning.
        import warnings

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            return torch.from_numpy(array), notes
    return torch.from_numpy(array), notes


def _pandas_to_tensor(data: Any, name: str) -> tuple[Tensor, tuple[str, ...]]:
    from pandas.api.types import is_bool_dtype, is_complex_dtype, is_numeric_dtype

    frame = data.to_frame() if data.ndim == 1 else data
    dtypes = list(frame.dtypes)
    # By position: labels may repeat.
    for position, (label, dtype) in enumerate(zip(frame.columns, dtypes, strict=True)):
        if is_complex_dtype(dtype) or not (is_numeric_dtype(dtype) or is_bool_dtype(dtype)):
            raise DataTypeError(
                f"column {label!r} of {name} holds {dtype} values; drop it or turn it into numbers first."
            )
        missing = frame.iloc[:, position].isna().to_numpy()
        if missing.any():
            raise InputError(
                f"column {label!r} of {name} has a missing value, first in row {int(missing.argmax())}; "
                "drop or fill those rows."
            )
    array = np.asarray(data.to_numpy())
    if array.dtype.kind == "O":
        # Columns of several kinds, or nullable ones, have no common NumPy dtype; they are numbers all the same.
        kinds = ", ".join(dict.fromkeys(str(dtype) for dtype in dtypes))
        tensor, notes = array_to_tensor(data.to_numpy(dtype=np.float64), name)
        return tensor, (*notes, f"{name} has columns of {kinds}; they were converted to float64")
    return array_to_tensor(array, name)


def _polars_to_tensor(data: Any, name: str) -> tuple[Tensor, tuple[str, ...]]:
    if type(data).__name__ == "LazyFrame":
        data = data.collect()
    columns = [data] if type(data).__name__ == "Series" else data.get_columns()
    for column in columns:
        if not (column.dtype.is_numeric() or str(column.dtype) == "Boolean"):
            raise DataTypeError(
                f"column {column.name!r} of {name} holds {column.dtype} values; drop it or turn it into numbers."
            )
        if column.null_count():
            row = int(column.is_null().arg_true()[0])
            raise InputError(
                f"column {column.name!r} of {name} has a missing value, first in row {row}; drop or fill those rows."
            )
    return array_to_tensor(np.asarray(data.to_numpy()), name)
