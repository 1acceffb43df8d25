"""The one place where the memory of a tensor is taken for its values.

Compiled loops and BLAS read memory by its address. A tensor may be a promise about memory instead: its values may be
the negatives of what stands there, stand in other tensors, or not stand anywhere.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import Parameter

from closedform.words.errors import DataTypeError

__all__ = ["Table", "address", "held", "keep_freed_memory", "resolved", "table"]

#: Types of tensors that are nothing but a view of memory; any other may answer for its numbers in its own way.
_PLAIN = frozenset((Tensor, Parameter))
#: How the compiled loops take rows: address, whether they hold float32, rows, columns, numbers from row to row.
Table = tuple[int, bool, int, int, int]
#: Bytes of the largest block by which glibc raises its thresholds, but for what it keeps beside a block.
_LARGEST_FREED = 32 * 2**20 - 2**16
#: What stands for a tensor's own answers where a subclass has none.
_NO_ANSWERS = torch._C._disabled_torch_dispatch_impl


def keep_freed_memory() -> None:
    """Have the C library keep what a pass frees block after block, where it would give it back to the system.

    glibc gives freed memory back beyond thresholds that follow the largest block freed so far, up to 32 MiB. What comes
    from the system anew is cleared page by page, which takes longer than most of what is computed with it. Freeing one
    such block, which nothing has touched, settles that; other libraries are left as they are.

    Example:
        >>> keep_freed_memory()
    """
    torch.empty(_LARGEST_FREED, dtype=torch.uint8, device="cpu")


def held(values: Tensor) -> Tensor:
    """Return a tensor of the same values whose memory holds them: this one, or a copy with its signs resolved.

    Refused is what has no memory: a sparse or distributed tensor, or one that is being traced.

    Args:
        values: A tensor on a CPU, of float32, float64 or integers.

    Example:
        >>> import torch
        >>> values = torch.fft.ihfft(torch.tensor([0.0, 1.0, 0.0, 0.0])).imag
        >>> values.is_neg(), held(values).is_neg(), torch.equal(values, held(values))
        (True, False, True)
    """
    # What costs least, because each call of each pass asks it of each tensor.
    if type(values) in _PLAIN and not values.is_neg():
        return values
    return resolved(values)


def table(values: Tensor) -> tuple[Tensor, Table]:
    """Return the same as :func:`held` for rows that a user gave, and how loops take them: their storage holds them all.

    Rows that loops cannot read, because a block is not like the rest of its table, come as a copy in float64.

    Args:
        values: ``(rows, columns)``, of float32 or float64, the numbers of a row one after the other.

    Raises:
        DataTypeError: there is no memory, or less than the shape needs.
    """
    values = held(values)
    single = values.dtype is torch.float32
    (rows, columns), (distance, step) = values.shape, values.stride()
    in_rows = (step == 1 or columns <= 1) and (distance >= columns or rows <= 1)
    if not in_rows or not (single or values.dtype is torch.float64):
        return table(resolved(values).to(torch.float64).contiguous())

    place = address(values)
    reach = (values.storage_offset() + (rows - 1) * distance + columns) * (4 if single else 8)
    if place and reach > (storage := values.untyped_storage().nbytes()):
        raise DataTypeError(
            f"A tensor of shape {tuple(values.shape)} reaches over {reach} bytes of a storage of {storage}: its memory "
            "was given back or made smaller. Give a copy that was made before."
        )
    if not values.is_cpu:
        raise DataTypeError(_no_memory(values))
    return values, (place, single, rows, columns, distance)


def address(values: Tensor | None) -> int:
    """Return where the numbers of a tensor stand, which has to be one that :func:`held` returned; 0 for None.

    Raises:
        DataTypeError: the tensor has no memory.
    """
    if values is None:
        return 0
    try:
        place = values.data_ptr()
    except RuntimeError as error:  # torch.func, torch.export, opaque layouts
        raise DataTypeError(_no_memory(values)) from error
    if not place and values.numel():
        raise DataTypeError(_no_memory(values))
    return place


def resolved(values: Tensor) -> Tensor:
    """Return the same as :func:`held`, after all questions and not only those that tell what loops can read.

    Args:
        values: Any tensor, quantised ones as well, whose memory holds other numbers.

    Raises:
        DataTypeError: there is no memory.
    """
    if type(values) not in _PLAIN:
        if type(values).__torch_dispatch__ is not _NO_ANSWERS:
            raise DataTypeError(_no_memory(values))
        with torch._C.DisableTorchFunctionSubclass():
            values = values.as_subclass(Tensor)
    if values.layout is not torch.strided or values.is_quantized or values.device.type != "cpu":
        raise DataTypeError(_no_memory(values))
    return values.resolve_conj().resolve_neg()


def _no_memory(values: Tensor) -> str:
    return (
        f"A tensor of type {type(values).__name__}, {values.dtype}, {values.layout} on {values.device.type}, has no "
        "memory of its own to read numbers from. Give a plain one: full_tensor() of a DTensor, dequantize() of a "
        "quantised tensor, to_dense() of a sparse one; and do it outside of torch.func, torch.export and fake tensors."
    )
