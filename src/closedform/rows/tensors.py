"""Tables in memory: what a tensor, an array, a frame or a list really is, decided before anything reads it."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from typing import Any, final

import numpy as np
import torch
from torch import Tensor
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter
from typing_extensions import override

from closedform.engine.threads import all_threads
from closedform.engine.tracing import active_tracer, untraced
from closedform.rows.arrays import array_to_tensor, export_to_tensor
from closedform.rows.frames import frame_to_tensor
from closedform.rows.refusals import refuse_other_kinds
from closedform.rows.source import Source
from closedform.words.errors import ClosedformError, DataTypeError, InputError

__all__ = ["FloatSource", "TensorSource", "array_to_tensor", "as_tensor", "is_plain", "names_for"]

#: What arithmetic is defined for; the rest are containers of bits.
_NUMBERS = frozenset(
    {torch.float16, torch.bfloat16, torch.float32, torch.float64}
    | {torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64}
)
#: Those that need no conversion but the one to float64.
_FLOATS = frozenset({torch.float32, torch.float64})
#: Unsigned integers that torch stores and does not calculate with.
_WIDE_UNSIGNED = frozenset({torch.uint16, torch.uint32, torch.uint64})
#: Integers up to this size are exact in float64.
_EXACT_INTEGER = 2**53
#: Lists that are nested deeper are no tables, and may hold themselves.
_MOST_LEVELS = 32


@final
class TensorSource(Source):
    """A torch tensor as a source: reading is a view, nothing is copied."""

    in_memory = True

    def __init__(
        self,
        tensor: Tensor,
        name: str,
        notes: tuple[str, ...] = (),
        *,
        stored_dtype: torch.dtype | None = None,
        columns: tuple[str, ...] | None = None,
    ) -> None:
        self.tensor = tensor
        self.name = name
        self.shape = tuple(tensor.shape)
        self.dtype = tensor.dtype
        self.device = tensor.device
        self.notes = notes
        self.columns = columns
        self._stored_dtype = stored_dtype

    @property
    @override
    def stored_dtype(self) -> torch.dtype:
        return self._stored_dtype or self.dtype

    @override
    def read(self, start: int, stop: int) -> Tensor:
        whole = start == 0 and stop >= self.shape[0]
        return self.tensor if whole else self.tensor[start:stop]

    def viewed(self, shape: tuple[int, ...]) -> TensorSource | None:
        """Return the same numbers as rows of another shape, or None where that would copy them."""
        try:
            tensor = self.tensor.view(shape)
        except RuntimeError:
            return None
        names = names_for(self.columns, shape)
        return TensorSource(tensor, self.name, self.notes, stored_dtype=self._stored_dtype, columns=names)


def names_for(names: tuple[str, ...] | None, shape: tuple[int, ...]) -> tuple[str, ...] | None:
    """Return the names of columns for rows of another shape: none where there would be more or fewer columns."""
    return names if names is not None and len(names) == math.prod(shape[1:]) else None


@final
class FloatSource(Source):
    """Integers or booleans as float64, converted as they are read: no matrix product knows them as they are stored."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.name, self.shape, self.device = source.name, source.shape, source.device
        self.in_memory, self.dtype = source.in_memory, torch.float64
        self.columns, self.row_labels = source.columns, source.row_labels
        stored = str(source.dtype).removeprefix("torch.")
        self.notes = (*source.notes, f"{source.name} holds {stored} values; they were converted to float64")

    @property
    @override
    def stored_dtype(self) -> torch.dtype:
        return self.source.stored_dtype

    @override
    def read(self, start: int, stop: int) -> Tensor:
        values = self.source.read(start, stop)
        with all_threads():
            return values.to(torch.float64)


@untraced
def as_tensor(data: Any, name: str) -> tuple[Tensor, tuple[str, ...]]:
    """Return in-memory ``data`` as a strided real torch tensor that shares its memory where that is possible.

    What comes back is an ordinary tensor: its numbers are the ones in its memory, on the device it names, and it is
    detached from any graph. Integers and booleans stay what they are. Other errors than these are those of frames: a
    missing value or a path (InputError), an Arrow table without pyarrow (MissingExtraError).

    Args:
        data: A torch tensor, NumPy array or memory map, an array of another library (DLPack, ``__array__`` and its
            kin), a pandas, Polars or Arrow frame or column, or a nested sequence of numbers or tensors.
        name: What the user calls it, for messages.

    Returns:
        The tensor, and notes on any cast that was needed.

    Raises:
        DataTypeError: complex, object, string, sparse, quantized, nested or meta data; a tensor whose values are not
            its memory (fake, traced, distributed, a wrapper); or something else that holds no table.
        ClosedformError: what was refused further in, as it is.
        MemoryError: the table does not fit.

    Example:
        >>> as_tensor([[1.0, 2.0]], "X")
        (tensor([[1., 2.]], dtype=torch.float64), ())
        >>> as_tensor(torch.tensor([1 + 2j]).conj().imag, "X")
        (tensor([-2.]), ())
    """
    notes: tuple[str, ...] = ()
    try:
        if isinstance(data, Tensor):
            tensor = _ordinary(data, name)
        elif isinstance(data, np.ndarray):
            tensor, notes = frame_to_tensor(data, name) or array_to_tensor(data, name)
        else:
            tensor, notes = _foreign(data, name)
        if tensor.dtype is torch.int64 and _rounds(tensor):
            notes = (*notes, f"{name} holds integers beyond 2**53, which float64 rounds")
    except (ClosedformError, MemoryError):
        raise
    except Exception as error:
        # Classes of others, subclasses of tensors among them, may raise what they like when they are read.
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataTypeError(f"{name} is not a table of numbers: {reason}") from error
    return tensor, notes


def is_plain(tensor: Any) -> bool:
    """Return whether :func:`as_tensor` would give a tensor back as it is, of float32 or float64.

    Asking that costs a tenth of what finding out what something is does, and most batches of a stream are plain.

    Example:
        >>> is_plain(torch.ones(2)), is_plain(torch.ones(2, dtype=torch.int64)), is_plain([1.0])
        (True, False, False)
    """
    if type(tensor) is not Tensor or tensor.dtype not in _FLOATS or tensor.layout is not torch.strided:
        return False
    if tensor.requires_grad or tensor.is_nested or tensor.is_neg() or not tensor.is_contiguous():
        return False
    try:
        stored = tensor.untyped_storage().nbytes() // tensor.element_size()
        return tensor.data_ptr() != 0 and stored >= tensor.storage_offset() + tensor.numel() > 0
    except (RuntimeError, NotImplementedError):
        return False  # what torch.func hands to the functions that it maps or differentiates


def _rounds(values: Tensor) -> bool:
    """Say whether int64 values are so large that float64 rounds them."""
    if not values.numel():
        return False
    least, most = torch.aminmax(values)
    return int(most) > _EXACT_INTEGER or int(least) < -_EXACT_INTEGER


def _ordinary(tensor: Tensor, name: str) -> Tensor:
    """Return a tensor as an ordinary one, on the same memory where its values are the ones that stand there.

    Raises:
        DataTypeError: values that are not real numbers, or stand somewhere else.
    """
    if type(tensor) is Tensor:
        return _checked(tensor, name)
    if isinstance(tensor, UninitializedParameter | UninitializedBuffer):
        raise DataTypeError(f"{name} has no values yet; run one batch through its module first.")
    # A subclass may answer in its own way all that is asked below.
    with torch._C.DisableTorchFunctionSubclass():
        return _checked(tensor, name)


def _checked(tensor: Tensor, name: str) -> Tensor:
    if tensor.dtype not in _NUMBERS or tensor.layout is not torch.strided or tensor.is_nested:
        _refuse_other_tensors(tensor, name)
    tracer = active_tracer()
    if tracer is not None:
        raise DataTypeError(
            f"{name} is being traced by {tracer}, which would keep the weights of these numbers for all others; "
            "call closedform outside of what is traced, and pass the weights in."
        )

    _check_memory(tensor, name)
    plain = tensor.detach()
    if type(plain) is not Tensor:
        # A subclass that answers for itself, or a mode that makes every result something else.
        plain = plain.as_subclass(Tensor)
        _check_memory(plain, name)
    if plain.is_neg():
        plain = plain.resolve_neg()
    # Wide unsigned integers are stored by torch, which does not calculate with them; NumPy does.
    return array_to_tensor(plain.cpu().numpy(), name)[0].to(plain.device) if plain.dtype in _WIDE_UNSIGNED else plain


def _refuse_other_tensors(tensor: Tensor, name: str) -> None:
    """Refuse tensors that are no dense tables of real numbers.

    Raises:
        DataTypeError: with the call that makes one.
    """
    dtype = tensor.dtype
    if tensor.is_nested or tensor.is_quantized:
        raise DataTypeError(f"{name} is a nested or quantized tensor; pass an ordinary dense tensor.")
    if tensor.layout is not torch.strided:
        raise DataTypeError(
            f"{name} is a sparse tensor ({tensor.layout}). closedform works on dense tables; pass "
            f"{name}.to_dense() if it fits in memory."
        )
    if tensor.is_complex():
        raise DataTypeError(f"{name} is complex ({dtype}). Split it into real and imaginary columns.")

    if dtype.is_floating_point:
        # The type of exponents alone reaches 2**127, and others come two to a byte.
        in_half = "float8_e4" in str(dtype) or "float8_e5" in str(dtype)
        wider = f"{name}.half()" if in_half else "its float32 values"
        raise DataTypeError(f"{name} holds {dtype} values, which have no arithmetic of their own; pass {wider}.")
    if dtype not in _WIDE_UNSIGNED:
        raise DataTypeError(f"{name} holds {dtype} values, which are not real numbers; pass a numeric tensor.")


def _check_memory(tensor: Tensor, name: str) -> None:
    """Refuse a tensor whose values are not in memory of its own: whoever reads there would find nothing, or noise.

    Raises:
        DataTypeError: with the call that gives an ordinary tensor, where its class has one.
    """
    try:
        address = tensor.data_ptr()
    except RuntimeError:
        address = 0  # what torch.func hands to the functions that it maps or differentiates
    if not tensor.numel():
        return
    if address == 0:
        raise DataTypeError(_no_memory(tensor, name))

    last = tensor.numel() - 1
    if not tensor.is_contiguous():
        last = sum(stride * (size - 1) for stride, size in zip(tensor.stride(), tensor.shape, strict=True))
    if (tensor.storage_offset() + last + 1) * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise DataTypeError(f"the memory of {name} was released or made smaller; load or compute it again.")


def _no_memory(tensor: Tensor, name: str) -> str:
    if tensor.is_meta:
        return f"{name} is on the meta device and holds no numbers; load it on a real device first."

    kind = type(tensor)
    if kind is not Tensor and kind is not torch.nn.Parameter:
        for method, what, call in _UNWRAPPED_BY:
            inherited = getattr(Tensor, method, None)
            if hasattr(tensor, method) and (inherited is None or getattr(kind, method) is not inherited):
                return f"{name} is a {kind.__name__}, {what}; {call.format(name=name)}."
        return (
            f"{name} is a {kind.__name__}, a tensor whose values are not its memory; "
            "pass the ordinary tensor it stands for."
        )

    if tensor.device.type not in ("cpu", "cuda"):
        return f"{name} is on the {tensor.device} device, which shows no memory; pass {name}.cpu()."
    if torch._C._has_storage(tensor) and not tensor.untyped_storage().nbytes():
        return f"the memory of {name} was released or made smaller; load or compute it again."
    return (
        f"{name} stands for numbers that come later (torch.func, torch.export or another transform hands it in); "
        "call closedform outside of what is transformed, and pass the weights in."
    )


#: Methods that a class of tensors adds to those of all tensors, what that says of it, and the call to make.
_UNWRAPPED_BY = (
    ("full_tensor", "whose rows are spread over processes", "pass {name}.full_tensor()"),
    ("get_mask", "which has masked entries", "pass {name}.to_tensor(0.0), or the rows that are whole"),
    ("fake_mode", "which has a shape and no numbers", "pass the real tensor"),
    ("wait", "which another process still computes", "pass {name}.wait()"),
    ("dequantize", "whose numbers are packed", "pass {name}.dequantize()"),
    ("to_dense", "whose numbers are packed", "pass {name}.to_dense()"),
)


def _foreign(data: Any, name: str) -> tuple[Tensor, tuple[str, ...]]:
    """Return what is neither a tensor nor an array as a tensor: by the first protocol that it follows."""
    if isinstance(data, (list, tuple)):
        return _nested(data, name)
    xarray = sys.modules.get("xarray")
    if xarray is not None and isinstance(data, xarray.DataArray):
        return as_tensor(data.data, name)
    read = frame_to_tensor(data, name)
    if read is not None:
        return read
    kind = type(data)
    if hasattr(kind, "__dask_graph__") and data.__dask_graph__() is not None:
        tensor, notes = as_tensor(data.compute(), name)
        size = f"{tensor.numel() * tensor.element_size() / 2**20:.3g} MiB"
        return tensor, (*notes, f"{name} is a Dask collection; it was computed and read into memory as a whole, {size}")
    read = export_to_tensor(data, name)
    if read is not None:
        return read
    refuse_other_kinds(data, name)
    return _nested(data, name)


def _nested(data: Any, name: str) -> tuple[Tensor, tuple[str, ...]]:
    """Return a sequence of numbers, of sequences, or of tensors as a tensor.

    Raises:
        DataTypeError: no table, or nested without end.
    """
    levels, inner = 0, data
    while _is_sequence(inner) and len(inner):
        if levels == _MOST_LEVELS:
            raise DataTypeError(f"{name} is not a table of numbers: it is nested more than {levels} levels deep.")
        levels, inner = levels + 1, inner[0]
    if isinstance(inner, Tensor):
        return _stacked(data, name)
    array = np.asarray(data)
    if array.ndim == 0 and array.dtype.kind == "O":
        name = f"{name} is a {type(data).__qualname__} and"
    return array_to_tensor(array, name)


def _is_sequence(data: Any) -> bool:
    kind = type(data)
    if isinstance(data, (str, bytes, Mapping)) or hasattr(kind, "shape"):
        return False
    return hasattr(kind, "__len__") and hasattr(kind, "__getitem__")


def _stacked(items: Any, name: str) -> tuple[Tensor, tuple[str, ...]]:
    """Return a sequence that holds tensors as one tensor, in float64 where their types differ.

    Raises:
        InputError: tensors of several shapes, or on several devices.
    """
    read = [as_tensor(item, f"{name}[{position}]") for position, item in enumerate(items)]
    parts = [tensor for tensor, _ in read]
    for position, part in enumerate(parts):
        for what, seen, wanted in (("shape", part.shape, parts[0].shape), ("device", part.device, parts[0].device)):
            if seen != wanted:
                raise InputError(
                    f"{name} is not a table of numbers: {name}[0] has {what} {_shown(wanted)}, but {name}[{position}] "
                    f"has {_shown(seen)}."
                )
    if len({part.dtype for part in parts}) > 1:
        parts = [part.to(torch.float64) for part in parts]
    return torch.stack(parts), tuple(dict.fromkeys(note for _, notes in read for note in notes))


def _shown(value: Any) -> str:
    return str(tuple(value)) if isinstance(value, torch.Size) else str(value)
