"""Find the one linear layer that an optimizer is asked to serve, and refuse layers it cannot serve."""

from __future__ import annotations

from typing import Any

from torch import nn

from closedform.fit.layers import check_linear, check_storage, check_writable, linear_layers
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
    check_storage(layer, "the layer")
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
