"""Checks on a ``torch.nn.Linear`` that several doors make."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from closedform.numerics.host import as_vector
from closedform.numerics.scaling import peak
from closedform.words.errors import DataTypeError, InputError, OutOfRangeError

__all__ = [
    "check_finite",
    "check_linear",
    "check_range",
    "check_storage",
    "check_writable",
    "linear_layers",
    "own_output_note",
    "round_to",
    "write",
]

#: What weights may be held in: other floating types have no arithmetic of their own.
_DTYPES = frozenset({torch.float16, torch.bfloat16, torch.float32, torch.float64})


def linear_layers(module: nn.Module) -> list[tuple[str, nn.Linear]]:
    """Return the linear layers in a module, with their names in it; each once, in the order of ``modules()``.

    Example:
        >>> linear_layers(nn.Sequential(nn.Flatten(), nn.Linear(3, 2)))
        [('1', Linear(in_features=3, out_features=2, bias=True))]
    """
    return [(name, part) for name, part in module.named_modules() if isinstance(part, nn.Linear)]


def check_linear(layer: Any, name: str = "layer") -> None:
    """Refuse what is not an ``nn.Linear`` with real weights in storage.

    Raises:
        DataTypeError: another module, a lazy, sharded, quantised or meta layer, or a dtype that is not real floating.
    """
    if not isinstance(layer, nn.Linear):
        kind = type(layer)
        called = f"{kind.__module__}.{kind.__name__}" if kind.__name__ == "Linear" else kind.__name__
        raise DataTypeError(f"{name} is a {called}; a torch.nn.Linear is needed{_inner_layer(layer, name)}.")
    if isinstance(layer, nn.LazyLinear):
        raise DataTypeError(f"{name} is lazy and has no weights yet; run one batch through it first.")
    check_storage(layer, name)
    if layer.weight.is_meta:
        raise DataTypeError(f"{name} is on the meta device and has no storage; call to_empty(device=...) on it first.")
    for parameter in layer.parameters(recurse=False):
        if parameter.dtype not in _DTYPES:
            raise DataTypeError(f"{name} has {parameter.dtype} weights; a real floating dtype is needed.")


def _inner_layer(module: Any, name: str) -> str:
    """Return how to reach the linear layer that a module wraps; nothing where it has other parameters."""
    if not isinstance(module, nn.Module):
        return ""
    found = [(path, inner) for path, inner in module.named_modules() if isinstance(inner, nn.Linear)]
    if len(found) != 1 or len(list(module.parameters())) != len(list(found[0][1].parameters())):
        return ""
    return f": pass {name}.get_submodule({found[0][0]!r})"


def check_storage(layer: nn.Linear, name: str = "layer") -> None:
    """Refuse a layer whose values are not tables of numbers in this process's memory.

    Raises:
        DataTypeError: a weight or bias is sharded (FSDP, tensor parallel), quantised, sparse, or of another kind of its
            own.
    """
    for label, parameter in layer.named_parameters(recurse=False):
        _check_storage(label, parameter, layer, name)


def _check_storage(label: str, parameter: nn.Parameter, layer: nn.Linear, name: str) -> None:
    if isinstance(parameter, nn.parameter.UninitializedParameter):
        raise DataTypeError("layer is lazy and has no weights yet; run one batch through it first.")

    kind = type(parameter)
    if nn.Parameter not in kind.__mro__ and kind is not Tensor:
        raise DataTypeError(
            f"the {label} of {name} is a {kind.__name__}, not a plain nn.Parameter: its values are sharded over "
            "processes (FSDP2 and tensor parallel make a DTensor) or quantised. Fit a whole, unquantised copy of the "
            "layer in one process, and load its weights into this one."
        )

    if parameter.is_quantized or parameter.layout != torch.strided:
        raise DataTypeError(
            f"the {label} of {name} is {'quantised' if parameter.is_quantized else str(parameter.layout)}; a dense "
            "tensor of floating numbers is needed."
        )
    shapes = {"weight": (layer.out_features, layer.in_features), "bias": (layer.out_features,)}
    shape = shapes.get(label, tuple(parameter.shape))
    if tuple(parameter.shape) != shape:
        raise DataTypeError(
            f"the {label} of {name} has shape {tuple(parameter.shape)}, not {shape}; is it a shard (FSDP)? "
            "Fit a whole copy of the layer in one process."
        )


def own_output_note(layer: nn.Linear) -> tuple[str, ...]:
    """Return what to say of a layer whose output is not that of its weight and bias alone; mostly nothing.

    Example:
        >>> layer = nn.Linear(2, 1)
        >>> own_output_note(layer)
        ()
        >>> _ = layer.register_forward_hook(lambda module, inputs, output: 2 * output)
        >>> own_output_note(layer)
        ('the layer has forward hooks, which may change its output: what is said is of its weight and bias alone',)
    """
    what = ""
    if "forward" in vars(layer) or type(layer).forward is not nn.Linear.forward:
        what = f"{type(layer).__name__} computes its output in its own way"
    elif layer._forward_hooks or layer._forward_pre_hooks:
        what = "the layer has forward hooks, which may change its output"
    return (f"{what}: what is said is of its weight and bias alone",) if what else ()


def check_writable(layer: nn.Linear, name: str = "layer") -> None:
    """Refuse a layer whose weights are computed from something else, or cannot be written in place.

    Raises:
        InputError: a weight or bias that is parametrized, normalised or pruned, an inference tensor, or memory that
            several entries share.
    """
    for parameter in ("weight", "bias"):
        value = getattr(layer, parameter)
        if not isinstance(value, Tensor):
            continue
        plain = layer._parameters.get(parameter) is value
        if not plain:
            raise InputError(
                f"the {parameter} of {name} is computed from other parameters (a parametrization, weight_norm or "
                "pruning), so writing it would not last; remove that first."
            )
        if value.is_inference() and not torch.is_inference_mode_enabled():
            raise InputError(f"the {parameter} of {name} was made under torch.inference_mode and cannot be written.")
        if any(stride == 0 and size > 1 for stride, size in zip(value.stride(), value.shape, strict=True)):
            raise InputError(
                f"the {parameter} of {name} is an expanded view whose entries share memory; clone it first."
            )


def write(layer: nn.Linear, weight: Tensor, bias: Tensor | None) -> None:
    """Write both or neither.

    Raises:
        InputError: the layer does not hold afterwards what was written, since entries share memory.
    """
    pairs = [(layer.weight, weight)] if bias is None else [(layer.weight, weight), (layer.bias, bias)]
    before = [target.detach().clone() for target, _ in pairs]
    with torch.no_grad():
        try:
            for target, value in pairs:
                target.copy_(value)
            if not all(_holds(target, value) for target, value in pairs):
                raise InputError(
                    "entries of the layer's weight and bias share memory, so that they cannot hold the minimiser; "
                    "clone them first."
                )
        except BaseException:
            for (target, _), old in zip(pairs, before, strict=True):
                target.copy_(old)
            raise


def _holds(target: Tensor, value: Tensor) -> bool:
    written = value.to(target)
    return bool(((target == written) | written.isnan()).all())


def check_finite(layer: nn.Linear, name: str = "layer") -> None:
    """Refuse a layer that holds NaN or infinities.

    Raises:
        InputError: with the name of the parameter.
    """
    for parameter, value in layer.named_parameters(recurse=False):
        if not bool(torch.isfinite(value).all()):
            bad = float(value.detach()[~torch.isfinite(value)][0])
            raise InputError(f"{name} holds {bad} in its {parameter}; reset it to finite values first.")


def check_range(Z: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    """Refuse weights that left the range of float64 when they were brought back to the user's units.

    Args:
        Z: The coordinates they came from, ``(columns, targets)``.
        weight: ``(targets, features)``.
        bias: ``(targets,)`` or None.

    Raises:
        InputError: all weights of a target underflow, or one overflows.
    """
    size, wanted = (as_vector(torch.linalg.vector_norm(each, math.inf, dim=0)) for each in (weight.T, Z))
    if bias is not None:
        size = np.maximum(size, np.abs(as_vector(bias)))
    lost = (wanted > 0) & (size < torch.finfo(weight.dtype).tiny)
    if lost.any() or (np.isfinite(wanted).all() and not np.isfinite(size).all()):
        raise InputError(
            "the minimiser has weights beyond the range of float64 (about 1e-308 to 1e308); scale X or Y by a constant."
        )


def _called(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def round_to(value: Tensor, dtype: torch.dtype) -> Tensor:
    """Round weights to a narrower dtype.

    Raises:
        OutOfRangeError: a weight is beyond the range of that dtype.
    """
    rounded = value.to(dtype)
    largest = peak(value)
    if 0 < largest < torch.finfo(dtype).tiny:
        raise OutOfRangeError(
            f"all weights of the minimiser are below {largest:.1e}, which {_called(dtype)} cannot hold; "
            "use a wider dtype or scale the data."
        )
    if not math.isfinite(largest if rounded is value else peak(rounded)):
        raise OutOfRangeError(
            f"the minimiser has weights as large as {largest:.3g}, which {_called(dtype)} cannot hold; "
            "use a wider dtype or scale the data."
        )
    return rounded
