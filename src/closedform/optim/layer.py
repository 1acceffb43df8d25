"""Find the one linear layer that an optimizer is asked to serve, and refuse layers it cannot serve."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from closedform.fit.layers import check_linear, check_writable, linear_layers
from closedform.words.errors import DataTypeError, InputError

__all__ = ["find_linear"]


def find_linear(module: Any) -> nn.Linear:
    """Return ``module`` if it is a usable Linear, or the only Linear in it that holds all its parameters.

    Raises:
        DataTypeError: not a module, lazy, on the meta device, or not of a real floating dtype.
        InputError: several layers, other parameters beside it, shared, frozen or reparametrised weights.

    Example:
        >>> from torch import nn
        >>> find_linear(nn.Sequential(nn.Flatten(), nn.Linear(3, 2)))
        Linear(in_features=3, out_features=2, bias=True)
    """
    if not isinstance(module, nn.Module):
        raise DataTypeError(
            f"module is a {type(module).__name__}; pass the torch.nn.Linear itself, not its parameters."
        )
    layers = [part for _, part in linear_layers(module)]
    if len(layers) != 1:
        raise InputError(
            f"the module has {len(layers)} linear layers; pass the one to fit, for example "
            "RecursiveLeastSquares(net.head), and give the rest to another optimizer."
        )

    layer = layers[0]
    _check(layer)
    others = [name for name, p in module.named_parameters() if p is not layer.weight and p is not layer.bias]
    if others:
        raise InputError(
            f"the module has parameters beside those of its linear layer ({', '.join(others[:3])}); pass the layer "
            "itself and give the rest to another optimizer."
        )

    names = [name for name, p in module.named_parameters(remove_duplicate=False) if p is layer.weight]
    users = {id(part) for part in module.modules() for p in part._parameters.values() if p is layer.weight}
    if len(users) > 1:
        raise InputError(
            f"the weight is shared by several modules ({', '.join(names)}); it has no closed form of its own."
        )
    return layer


def _check(layer: nn.Linear) -> None:
    for name, parameter in layer.named_parameters(recurse=False):
        _check_storage(name, parameter, layer)
    check_linear(layer)
    check_writable(layer)
    if type(layer).forward is not nn.Linear.forward:
        raise InputError(
            f"{type(layer).__name__} computes its output in its own way; a plain torch.nn.Linear is needed."
        )
    frozen = [name for name, parameter in layer.named_parameters() if not parameter.requires_grad]
    if frozen:
        raise InputError(
            f"{' and '.join(frozen)} of the layer needs no gradient (requires_grad=False); weight and bias are fitted "
            "together, so set requires_grad=True for both."
        )


def _check_storage(name: str, parameter: nn.Parameter, layer: nn.Linear) -> None:
    """Refuse a parameter whose values are not a table of numbers in this process's memory.

    Raises:
        DataTypeError: it is sharded (FSDP, tensor parallel), quantised, sparse, or of another kind of its own.
    """
    if isinstance(parameter, nn.parameter.UninitializedParameter):
        raise DataTypeError("layer is lazy and has no weights yet; run one batch through it first.")

    kind = type(parameter)
    shape = (layer.out_features, layer.in_features) if name == "weight" else (layer.out_features,)
    if nn.Parameter not in kind.__mro__ and kind is not Tensor:
        raise DataTypeError(
            f"the {name} of the layer is a {kind.__name__}, not a plain nn.Parameter: its values are sharded over "
            "processes (FSDP2 and tensor parallel make a DTensor) or quantised. Fit a whole, unquantised copy of the "
            "layer in one process, and load its weights into this one."
        )

    if parameter.is_quantized or parameter.layout != torch.strided:
        raise DataTypeError(
            f"the {name} of the layer is {'quantised' if parameter.is_quantized else str(parameter.layout)}; a dense "
            "tensor of floating numbers is needed."
        )
    if tuple(parameter.shape) != shape:
        raise DataTypeError(
            f"the {name} of the layer has shape {tuple(parameter.shape)}, not {shape}; is it a shard (FSDP)? "
            "Fit a whole copy of the layer in one process."
        )
