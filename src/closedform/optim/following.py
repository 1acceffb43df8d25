"""Follow a layer's output through the user's loss, so that the loss can be measured when its gradient arrives.

A gradient ``g = c (output - target)`` alone does not tell the scale c or the target. The graph of the loss tells both,
but autograd frees it node by node on the way back, before the layer sees its gradient. So the output travels as a
tensor that remembers which call of the layer it came from, and every scalar computed from it gets a hook. The hook of
the outermost scalar fires first, while the graph below it is whole; there :mod:`closedform.optim.curvature` measures
the loss.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from typing import Any, final

import torch
from torch import Tensor

from closedform.optim.curvature import Curvature, measure
from closedform.words.errors import ClosedformError, InputError

__all__ = ["Call", "Followed", "follow", "is_traced"]

#: Functions whose first argument meets a target element by element.
_MEETS_TARGET = {"mse_loss", "sub", "subtract", "rsub", "__sub__", "__rsub__"}
_MAX_TARGETS = 4
_SUMS = {"dot", "einsum", "inner", "linalg_vecdot", "matmul", "mm", "nansum", "sum", "tensordot", "trace", "vdot"}
_NORMS = {"dist", "linalg_matrix_norm", "linalg_norm", "linalg_vector_norm", "norm"}


@final
class Call:
    """One call of the layer: its rows, its output, and what was seen of the loss on the way.

    Attributes:
        inputs: What the layer was given, ``(..., features)``; None once its rows were handed over.
        output: The output as a node of the graph; the user gets a copy of it.
        parameters: The layer's parameters.
        source: Where the inputs came from in the graph, if it is still to be looked at; else None.
        targets: Tensors of the same size that met the output in the loss.
        refusal: Why the loss cannot be used, or None.
        curvature: What was measured when the gradient came back.
        unit: What the loss gives to one element of the sum or mean it ends in.
    """

    def __init__(self, inputs: Tensor, output: Tensor, parameters: tuple[Tensor, ...], look_below: bool) -> None:
        self.inputs: Tensor | None = inputs.detach()
        self.output = output
        self.parameters = parameters
        self.source = inputs if look_below and inputs.requires_grad else None
        self.targets: list[Tensor] = []
        self.refusal: ClosedformError | None = None
        self.curvature: Curvature | None = None
        self.unit: float | None = None
        self.measuring = False


def follow(call: Call, inputs: Tensor, deliver: Callable[[Call | None, Tensor], None]) -> Tensor:
    """Return the output of ``call`` as a tensor that is followed.

    When its gradient arrives, ``deliver(call, gradient)`` is called. The call is None where its own tensors are gone,
    which means that the loss was not followed to its end. Calls that ``inputs`` come from are followed no further.
    """
    for earlier in getattr(inputs, "calls", ()):
        earlier.refusal = earlier.refusal or InputError(
            "the layer's output goes into a layer that RecursiveLeastSquares serves (another one, or the same one "
            "again); only the last layer before the loss has a closed form. Give the others to another optimizer."
        )
    reference = weakref.ref(call)

    def arrived(gradient: Tensor) -> None:
        live = reference()
        if live is None or not live.measuring:
            deliver(live, gradient)

    call.output.register_hook(arrived)  # type: ignore[no-untyped-call]
    # A copy, so that in-place changes by the user leave the output, and its node in the graph, as they were.
    followed = call.output.clone().as_subclass(Followed)
    followed.calls = (call,)
    return followed


def is_traced(output: Tensor) -> bool:
    """Whether the pass is no training pass: transformed by ``torch.func``, traced by ``torch.jit`` or ``torch.export``.

    Example:
        >>> is_traced(torch.ones(2))
        False
    """
    wrapped = type(output) not in (Tensor, Followed) or torch._C._functorch.is_functorch_wrapped_tensor(output)
    return wrapped or torch._C._is_tracing()


class Followed(Tensor):
    """A tensor that comes from the output of a layer and remembers from which call."""

    calls: tuple[Call, ...]

    def plain(self) -> Tensor:
        """Return the same tensor, in the same graph, without what it remembers."""
        with torch._C.DisableTorchFunctionSubclass():
            return self.as_subclass(Tensor)

    def __format__(self, specification: str) -> str:
        return format(self.plain(), specification)

    def __repr__(self) -> str:  # type: ignore[override]
        return repr(self.plain())

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.plain().__reduce_ex__(protocol)  # type: ignore[no-untyped-call]

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        keywords = kwargs or {}
        if torch.compiler.is_compiling():  # a compiled loss has no second derivative: let it run, step() will refuse
            return super().__torch_function__(func, types, args, keywords)  # type: ignore[no-untyped-call]
        with torch._C.DisableTorchFunctionSubclass():
            result = func(*args, **keywords)
            if isinstance(result, Tensor | tuple | list):
                given = list(_tensors((args, keywords)))
                sources = [tensor for tensor in given if isinstance(tensor, Followed) and hasattr(tensor, "calls")]
                name = getattr(func, "__name__", "a function")
                return _follow_result(result, sources, given, name, keywords)
            return result


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _tensors(item)
    elif isinstance(value, dict):
        yield from _tensors(tuple(value.values()))


def _follow_result(
    result: Any, sources: list[Followed], given: list[Tensor], name: str, keywords: dict[str, Any]
) -> Any:
    if isinstance(result, Tensor):
        if not result.requires_grad or not sources:
            return result
        calls = tuple(dict.fromkeys(call for source in sources for call in source.calls))
        followed = result if isinstance(result, Followed) else result.as_subclass(Followed)
        followed.calls = calls
        _note(calls, sources[0], followed, given, name)
        if followed.numel() == 1:
            _hook_scalar(followed, calls, _divisor(name, sources[0], followed, keywords))
        return followed
    if isinstance(result, tuple | list) and any(isinstance(item, Tensor) for item in result):
        items = [_follow_result(item, sources, given, name, keywords) for item in result]
        return type(result)(*items) if hasattr(result, "_fields") else type(result)(items)
    return result


def _note(calls: tuple[Call, ...], source: Tensor, result: Tensor, given: list[Tensor], name: str) -> None:
    """Remember the tensors that may be the targets."""
    others = [tensor.detach() for tensor in given if not isinstance(tensor, Followed) and not tensor.requires_grad]
    for call in calls:
        for other in others:
            size = other.numel()
            if size == call.output.numel() and len(call.targets) < _MAX_TARGETS:
                call.targets.append(other)
            if name in _MEETS_TARGET and size == source.numel() > 1 and other.shape != source.shape:
                together = torch.broadcast_shapes(source.shape, other.shape)  # type: ignore[no-untyped-call]
                if together.numel() > size:
                    call.refusal = InputError(
                        f"the loss compares an output of shape {tuple(source.shape)} with a target of shape "
                        f"{tuple(other.shape)}; broadcasting makes {tuple(together)} of them, every output against "
                        f"every target. Reshape the target: target.reshape({tuple(source.shape)})."
                    )


def _divisor(name: str, source: Tensor, result: Tensor, keywords: dict[str, Any]) -> float | None:
    """By what the sum over elements was divided, where the function is a sum, mean or norm of elements; else None."""
    if name in ("mse_loss", "gaussian_nll_loss"):
        if keywords.get("reduction", "mean") == "sum":
            return 1.0
        weight = keywords.get("weight")
        return float(source.numel()) if weight is None else float(weight.sum())
    if name in _NORMS:  # of the squared norm, whose slope is that of the norm divided by twice the norm
        return 2.0 * float(result.detach())
    if name in ("mean", "nanmean"):
        return source.numel() / result.numel()
    return 1.0 if name in _SUMS else None


def _hook_scalar(scalar: Tensor, calls: tuple[Call, ...], divisor: float | None) -> None:
    # Weak: the hook lives in the graph of the scalar, which would else keep itself alive.
    reference = weakref.ref(scalar)

    def arrived(gradient: Tensor) -> None:
        root = reference()
        waiting = [call for call in calls if call.curvature is None and call.inputs is not None]
        if any(call.measuring for call in calls):
            return
        if root is not None and waiting:
            for call in waiting:
                call.measuring = True
            try:
                measure(waiting, root, float(gradient.detach()))
            finally:
                for call in waiting:
                    call.measuring = False
        # Its sign is no matter: minus a log-likelihood is a squared error too.
        unit = abs(float(gradient.detach())) / divisor if divisor else 0.0
        if unit > 0:
            for call in calls:
                if call.unit is None:
                    call.unit = unit

    scalar.register_hook(arrived)  # type: ignore[no-untyped-call]
