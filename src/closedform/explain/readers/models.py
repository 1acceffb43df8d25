"""Read a user's model: its one linear layer, and what the rest of the model does to rows on their way."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn

from closedform.fit.layers import linear_layers
from closedform.words.errors import DataTypeError, InputError

__all__ = ["ModelReading", "read_model"]

#: Roundings of the sum behind one output by which a model may differ from its layer alone: it may add up in another
#: order, and no more than that.
_ROUNDINGS = 64
#: The layer's outputs are tried up to this many times the largest target, where training may well bring them.
_REACH = 10.0
#: Rows of which statistics over the batch are taken, if a model takes any.
_PAIR = 2


@final
@dataclass(frozen=True, eq=False)
class ModelReading:
    """The one linear layer of a model, its weights as they were at the call, and the shape of the model's output.

    Attributes:
        weight: A copy of its weight, ``(targets, features)``, in its own dtype.
        bias: A copy of its bias, ``(targets,)``, or None.
        path: The layer as code, seen from ``model``: ``model``, ``model[1]``, ``model.head``.
        output_shape: Shape of what the model returns for the rows that it was tried on.
        finite: Whether all weights are finite.
    """

    weight: Tensor
    bias: Tensor | None
    path: str
    output_shape: tuple[int, ...]
    finite: bool


def find_layer(model: Any) -> tuple[nn.Linear, str]:
    """Return the one linear layer of a model, and its name in ``named_modules()``.

    Raises:
        DataTypeError: not a module, a lazy layer, or one without storage.
        InputError: a model with more than one layer, or whose weight is computed from other parameters.
    """
    if not isinstance(model, nn.Module):
        raise DataTypeError(f"model is a {type(model).__name__}; a torch.nn.Linear, or a module around one, is needed.")

    owners = [module for module in model.modules() if any(True for _ in module.parameters(False))]
    layers = [(name, layer) for name, layer in linear_layers(model) if any(layer is module for module in owners)]
    if len(owners) != 1 or len(layers) != 1:
        found = ", ".join(type(module).__name__ for module in owners) or "no layer with weights"
        raise InputError(
            f"model holds {found}; diagnose supports exactly one nn.Linear, alone or with modules that only "
            "reshape. For "
            "the last layer of a network pass the layer as model= and its inputs as X."
        )

    name, layer = layers[0]
    if isinstance(layer, nn.LazyLinear):
        raise DataTypeError("the layer is lazy and has no weights yet; run one batch through it first.")
    if layer.weight.is_meta:
        raise DataTypeError("the layer is on the meta device and holds no numbers; call to_empty(device=...) first.")
    if set(dict(layer.named_parameters(recurse=False))) - {"weight", "bias"} or "weight" not in layer._parameters:
        raise InputError(
            "the layer computes its weight from other parameters (weight_norm, spectral_norm, pruning); diagnose "
            "supports a plain nn.Linear. Remove that first, or pass a plain layer as model= and its inputs as X."
        )

    return layer, name


def read_model(model: Any, rows: Tensor, largest_target: float) -> ModelReading:
    """Copy the linear layer of a model, and check on rows that the model does nothing else but reshape.

    It is run on a copy, in train mode as training does, on the rows as they are and on two of them, with other weights:
    what is the identity for the outputs of today need not be so for those of tomorrow.

    Args:
        model: A ``torch.nn.Linear``, or a module around one.
        rows: Features in the shape that the user trains with, ``(..., features)``.
        largest_target: Largest absolute value of the targets, which outputs are to reach.

    Raises:
        DataTypeError: not a module, a lazy layer, or one without storage.
        InputError: a model with more than one layer, or that computes something else; it names what.
    """
    layer, name = find_layer(model)
    finite = all(bool(torch.isfinite(p).all()) for p in layer.parameters())
    plain = model is layer and type(layer) is nn.Linear and not _hooked(layer)
    fits = rows.shape[-1] == layer.in_features
    if plain or not fits:
        shape = (*rows.shape[:-1], layer.out_features)
    else:
        shape = _try_out(model, name, rows.to(layer.weight), largest_target)
    if _gradient_hooks(layer):
        raise InputError(
            "a hook on the layer's parameters changes or uses up their gradients, so they are not those of the loss; "
            "remove it, or pass a plain copy of the layer as model=."
        )
    weight = layer.weight.detach().clone()
    bias = None if layer.bias is None else layer.bias.detach().clone()
    return ModelReading(weight, bias, _as_code(model, name), tuple(shape), finite)


def _hooked(module: nn.Module) -> bool:
    return bool(
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    )


def _gradient_hooks(layer: nn.Linear) -> bool:
    names = ("_backward_hooks", "_post_accumulate_grad_hooks")
    return any(getattr(parameter, name, None) for parameter in layer.parameters() for name in names)


def _as_code(model: nn.Module, name: str) -> str:
    """Write the way from the model to a module in it as Python."""
    code, module = "model", model
    for part in name.split(".") if name else []:
        inside = isinstance(module, nn.Sequential | nn.ModuleList) and part.isdigit()
        code += f"[{part}]" if inside else f".{part}" if part.isidentifier() else f'.get_submodule("{part}")'
        module = module.get_submodule(part)
    return code


def _try_out(model: nn.Module, name: str, rows: Tensor, largest_target: float) -> torch.Size:
    try:
        # A copy, because a forward pass may change buffers.
        twin = copy.deepcopy(model).train()
    except (TypeError, RuntimeError, NotImplementedError) as error:
        raise InputError(
            f"model ({type(model).__name__}) cannot be copied to be tried out: {error}. Pass the layer as model=."
        ) from error

    layer = twin.get_submodule(name)
    if not isinstance(layer, nn.Linear):  # a deep copy keeps its class; this tells mypy so
        raise DataTypeError(f"{name} is a {type(layer).__name__}, not an nn.Linear.")

    with _own_random_numbers(rows.device), torch.enable_grad():
        _spread_weights(layer, rows, largest_target)
        output = _run(model, twin, layer, rows)
        _compare(model, twin, layer, rows, output)
        if rows.shape[0] > _PAIR:
            pair = rows[:_PAIR]
            try:
                found = twin(pair)
            except (TypeError, ValueError, RuntimeError):
                # A model that is written for one number of rows takes no statistics of others.
                return output.shape
            _compare(model, twin, layer, pair, found)

    return output.shape


@contextmanager
def _own_random_numbers(device: torch.device) -> Iterator[None]:
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        yield


def _spread_weights(layer: nn.Linear, rows: Tensor, largest_target: float) -> None:
    """Give the layer weights whose outputs are of both signs and some times as large as the targets."""
    generator = torch.Generator().manual_seed(0)
    size = rows.detach().abs().reshape(-1, layer.in_features).amax(0)
    with torch.no_grad():
        for parameter in layer.parameters():
            drawn = torch.randn(parameter.shape, generator=generator, dtype=torch.float64, device="cpu")
            parameter.copy_(drawn.to(parameter))
        layer.weight.div_(torch.where(size > 0, size, 1.0))
        largest = float(nn.functional.linear(rows, layer.weight, layer.bias).abs().max())
        factor = _REACH * max(largest_target, 1.0) / (largest or 1.0)
        for parameter in layer.parameters():
            parameter.mul_(factor)


def _run(model: nn.Module, twin: nn.Module, layer: nn.Linear, rows: Tensor) -> Tensor:
    try:
        output = twin(rows)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"model could not be run on rows of {layer.in_features} features: {error}") from error
    if not isinstance(output, Tensor):
        raise InputError(f"model returns a {type(output).__name__}; diagnose needs one tensor. {_ADVICE}")
    return output


_ADVICE = "Pass the layer as model= and its inputs as X."


def _compare(model: nn.Module, twin: nn.Module, layer: nn.Linear, rows: Tensor, output: Tensor) -> None:
    """Refuse a model whose output or gradient is not that of its layer.

    Raises:
        InputError: its output or its gradient is another one, or it has no gradient.
    """
    alone = nn.functional.linear(rows, layer.weight, layer.bias)
    size = nn.functional.linear(rows.abs(), layer.weight.abs(), None if layer.bias is None else layer.bias.abs())
    bound = _ROUNDINGS * torch.finfo(rows.dtype).eps * size.detach().reshape(-1)
    same = output.numel() == alone.numel()
    if not same or bool(((output - alone.reshape(output.shape)).detach().reshape(-1).abs() > bound).any()):
        raise InputError(
            "model does more than one nn.Linear and a reshape; diagnose supports the linear layer alone. "
            f"{_ADVICE} {_culprit(model, twin, layer, rows)}"
        )

    wanted = [parameter for parameter in layer.parameters() if parameter.requires_grad]
    if not wanted:
        return

    weights = torch.randn(
        alone.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64, device="cpu"
    ).to(alone)
    if not output.requires_grad:
        raise InputError(
            f"the model's output carries no gradient (detach or no_grad), so nothing is trained. {_ADVICE}"
        )

    found = torch.autograd.grad((output * weights.reshape(output.shape)).sum(), wanted, allow_unused=True)
    expected = torch.autograd.grad((alone * weights).sum(), wanted)
    for ours, theirs in zip(expected, found, strict=True):
        if theirs is None or not torch.allclose(ours, theirs, rtol=1e-3, atol=1e-3 * float(ours.abs().max())):
            raise InputError(
                "model passes rows on unchanged but changes their gradients; diagnose supports the linear layer "
                f"alone. {_ADVICE}"
            )


def _culprit(model: nn.Module, twin: nn.Module, layer: nn.Linear, rows: Tensor) -> str:
    """Say which module changes the numbers, and what to pass instead."""
    seen: list[tuple[str, nn.Module, bool]] = []
    passed = [False]

    def watch(name: str, module: nn.Module) -> Any:
        def hook(_: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            if module is layer:
                passed[0] = True
                return
            entered = inputs[0] if inputs and isinstance(inputs[0], Tensor) else None
            same = (
                entered is not None
                and isinstance(output, Tensor)
                and entered.numel() == output.numel()
                and bool(torch.equal(entered.reshape(-1), output.reshape(-1)))
            )
            if not same:
                seen.append((name, module, passed[0]))

        return module.register_forward_hook(hook)

    handles = [
        watch(name, module) for name, module in twin.named_modules() if module is layer or not list(module.children())
    ]
    try:
        with torch.no_grad():
            twin(rows)
    finally:
        for handle in handles:
            handle.remove()
    if not seen:
        where = "" if model is layer else ".forward"
        return f"Here {type(model).__name__}{where} itself changes the numbers, in train mode."
    name, module, behind = seen[0]
    which = f"{_as_code(model, name)} ({type(module).__name__})"
    if behind:
        return f"Here {which} changes the layer's output in train mode; leave it out, or move it into criterion=."
    if any(True for _ in module.buffers()) or getattr(module, "p", None):
        return (
            f"Here {which} changes the layer's inputs from batch to batch in train mode; to see the layer alone, pass "
            "as X what it returns in eval mode."
        )
    return f"Here {which} changes the layer's inputs in train mode; pass as X what it returns."
