"""NumPy arrays, and whatever says by a protocol that it is an array, as torch tensors."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor

from closedform.rows.dlpack import from_dlpack
from closedform.words.errors import DataTypeError

__all__ = ["array_to_tensor", "export_to_tensor"]

#: DLPack's number for the memory of the processor, which NumPy reads as well.
_DLPACK_CPU = 1


def array_to_tensor(array: np.ndarray[Any, Any], name: str) -> tuple[Tensor, tuple[str, ...]]:
    """Return a NumPy array as a tensor, sharing memory where its byte order and strides allow it.

    Args:
        array: Any shape and strides; bool, integers, floating numbers, or the bfloat16 of the package ml_dtypes.
        name: What the user calls it, for messages.

    Returns:
        The tensor, and notes on any cast that was needed.

    Raises:
        DataTypeError: complex, object, string or other data that are not real numbers.

    Example:
        >>> array_to_tensor(np.ones((1, 2), dtype=">f4")[::-1], "X")
        (tensor([[1., 1.]]), ())
    """
    if isinstance(array, np.ma.MaskedArray):
        if np.ma.is_masked(array):
            raise DataTypeError(f"{name} is a masked array with masked entries; drop those rows or fill them first.")
        array = array.data
    brain = array.dtype.isbuiltin == 2 and array.dtype.name == "bfloat16"
    if brain:
        # A type of NumPy's plug-ins, which torch knows by another name.
        array = array.view(np.int16)
    _check_numbers(array.dtype, name)
    notes: tuple[str, ...] = ()
    if array.dtype.itemsize > 8:
        array = array.astype(np.float64)
        notes = (f"{name} was rounded from extended precision to float64",)
    elif array.dtype == np.uint64 and array.size and int(array.max()) > np.iinfo(np.int64).max:
        raise DataTypeError(f"{name} holds unsigned integers beyond 2**63, which float64 cannot hold exactly.")
    elif array.dtype.kind == "u" and array.dtype.itemsize > 1:
        array = array.astype(np.int64)
    tensor = _on_same_memory(array)
    return tensor.view(torch.bfloat16) if brain else tensor, notes


def _check_numbers(dtype: np.dtype[Any], name: str) -> None:
    if dtype.kind == "c":
        raise DataTypeError(f"{name} is complex ({dtype}). Split it into real and imaginary columns.")
    if dtype.isbuiltin == 2 and np.can_cast(dtype, np.float64):
        wider = "np.float32" if np.can_cast(dtype, np.float32) else "np.float64"
        raise DataTypeError(
            f"{name} holds {dtype} values, which have no arithmetic of their own; pass {name}.astype({wider})."
        )
    if dtype.names is not None:
        raise DataTypeError(
            f"{name} holds {dtype} values, which are not real numbers; pass a numeric array: "
            f"numpy.lib.recfunctions.structured_to_unstructured({name}) makes one of the fields."
        )
    if dtype.kind not in "fiub" or dtype.isbuiltin == 2:
        raise DataTypeError(f"{name} holds {dtype} values, which are not real numbers; pass a numeric array.")


def _on_same_memory(array: np.ndarray[Any, Any]) -> Tensor:
    """Return an array of torch's own types as a tensor, copied only where torch cannot hold it as it lies in memory."""
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    item = array.dtype.itemsize
    if not array.flags.aligned or any(stride < 0 or stride % item for stride in array.strides):
        # Not ascontiguousarray: axes of length one may have any stride, and it leaves them theirs.
        array = array.copy(order="C")
    if array.flags.writeable:
        return torch.from_numpy(array)
    # torch warns about read-only memory, although nothing here writes to it: a memory map opened with
    # mode "r" must not be copied whole just to please that warning.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return torch.from_numpy(array)


def export_to_tensor(data: Any, name: str) -> tuple[Tensor, tuple[str, ...]] | None:
    """Return an array of another library as a tensor, or None where it follows no protocol of arrays.

    What cannot be read, or does not hold real numbers, is refused; other errors are those of its own class.

    Args:
        data: An object with ``__dlpack__``, ``__cuda_array_interface__``, ``__array_interface__``,
            ``__array_struct__`` or ``__array__``.
        name: What the user calls it, for messages.

    Returns:
        The tensor, and notes on what was done on the way.

    Example:
        >>> export_to_tensor([1.0], "X") is None
        True
    """
    kind = type(data)
    if hasattr(kind, "__dlpack__"):
        return _by_dlpack(data, name)
    if hasattr(kind, "__cuda_array_interface__"):
        return torch.as_tensor(data, device="cuda"), ()
    if hasattr(kind, "__array_interface__") or hasattr(kind, "__array_struct__"):
        return array_to_tensor(np.asarray(data), name)
    if hasattr(kind, "__array__"):
        tensor, notes = array_to_tensor(np.asarray(data), name)
        if hasattr(kind, "shape") and hasattr(kind, "__getitem__"):
            # Its numbers have no address until they are asked for: a data set of a file, say.
            whole = f"{name} is a {kind.__qualname__} of {kind.__module__}, which was read into memory as a whole"
            notes = (*notes, whole)
        return tensor, notes
    return None


def _by_dlpack(data: Any, name: str) -> tuple[Tensor, tuple[str, ...]]:
    try:
        return from_dlpack(data), ()
    except Exception as error:
        array = _by_numpy(data)
        if array is None:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise DataTypeError(f"{name} could not be read through DLPack: {reason}") from error
    return array_to_tensor(array, name)


def _by_numpy(data: Any) -> np.ndarray[Any, Any] | None:
    """Return what torch cannot hold as NumPy may: negative strides, read-only memory. None where it cannot either."""
    try:
        if data.__dlpack_device__()[0] != _DLPACK_CPU:
            return None  # nothing is fetched from another device without being asked
    except Exception:
        return None  # the first error of this exporter is the one to tell
    for read in (np.from_dlpack, np.asarray):
        try:
            array = read(data)
        except Exception:
            continue
        if array.dtype.kind != "O":
            return array
    return None
