"""Arrays of other libraries by DLPack, looked at before torch takes them.

The layout is that of ``dlpack.h``, version 1 (DLPack, https://dmlc.github.io/dlpack, 2017-2023).
"""

from __future__ import annotations

import ctypes
from typing import Any, final

import torch
from torch import Tensor

__all__ = ["UnusableStrides", "from_dlpack"]


@final
class UnusableStrides(Exception):
    """An exported array that torch cannot hold as it lies in memory."""


# Given these by a C++ header; the fields of the class of the same name there, in their order.
@final
class _DLTensor(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    ]


@final
class _DLManagedTensorVersioned(ctypes.Structure):
    _fields_ = [
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        ("manager_ctx", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
        ("flags", ctypes.c_uint64),
        ("dl_tensor", _DLTensor),
    ]


_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)
_is_valid = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.c_char_p)(("PyCapsule_IsValid", ctypes.pythonapi))


def from_dlpack(data: Any) -> Tensor:
    """Return an array that exports itself by DLPack as a tensor on the same memory.

    Negative strides and released memory raise :class:`UnusableStrides`: torch ends the process when it meets the
    first. Other errors are those of the exporter, and of torch.

    Args:
        data: An object with ``__dlpack__`` and ``__dlpack_device__``.

    Returns:
        The tensor.

    Example:
        >>> import numpy as np
        >>> from_dlpack(np.ones(2))
        tensor([1., 1.], dtype=torch.float64)
    """
    return torch.utils.dlpack.from_dlpack(_Checked(data))


@final
class _Checked:
    """An exporter that looks at what it hands on."""

    def __init__(self, data: Any) -> None:
        self._data = data

    def __dlpack_device__(self) -> Any:
        return self._data.__dlpack_device__()

    def __dlpack__(self, **options: Any) -> Any:
        capsule = self._data.__dlpack__(**options)
        if _is_valid(capsule, b"dltensor_versioned"):
            address = _pointer(capsule, b"dltensor_versioned")
            _check(_DLManagedTensorVersioned.from_address(address).dl_tensor)
        elif _is_valid(capsule, b"dltensor"):
            _check(_DLTensor.from_address(_pointer(capsule, b"dltensor")))
        return capsule


def _check(array: _DLTensor) -> None:
    shape = array.shape[: array.ndim] if array.ndim else []
    strides = array.strides[: array.ndim] if array.ndim and array.strides else []
    if any(size < 0 for size in shape) or any(stride < 0 for stride in strides):
        raise UnusableStrides(f"its shape is {tuple(shape)} and its strides {tuple(strides)}")
    if not array.data and 0 not in shape:
        raise UnusableStrides("its memory was released")
