"""Follow a layer's output through the user's loss, so that the loss can be measured when its gradient arrives.

A gradient ``g = c (output - target)`` alone does not tell the scale c or the target. The graph of the loss tells both,
but autograd frees it node by node on the way back, before the layer sees its gradient. So the output travels as a
tensor that remembers which call of the layer it came from, and every scalar computed from it gets a hook. The hook of
the outermost scalar fires first, while the graph below it is whole; there :mod:`closedform.optim.curvature` measures
the loss.

Values that were cut off the graph (``detach()``, a comparison, ``torch.no_grad()``) remember their call as well: a loss
that is weighted by them is not the squared error that its graph shows.
"""

from __future__ import annotations

import re
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any, final

import torch
import torch._dynamo
from torch import Tensor

from closedform.optim.call import Call
from closedform.optim.curvature import measure
from closedform.optim.reductions import divided_by, is_norm, mark, mark_in_place, squares_a_norm, sums_up
from closedform.words.errors import ClosedformError, InputError

__all__ = ["NOT_FOLLOWED", "Followed", "follow", "is_traced"]

NOT_FOLLOWED = (
    "the loss could not be followed from the layer's output to the scalar whose backward() was called. It must be "
    "built from torch functions (no custom autograd.Function, numpy or compiled loss in between), be one number, and "
    "backward() may run once on each output."
)
_CUT = (
    "the loss uses values of the layer's output that no gradient passes through (detach(), no_grad(), a comparison, "
    "rounding or sorting: torch.where, a mask or weights made of the error), so it is not the squared error that it "
    "looks like here. Compute weights and targets from something else, or use another optimizer for this loss."
)
_UNCOMPILED = "RecursiveLeastSquares follows this loss: call it uncompiled, or compile it without fullgraph=True"
_CHAINED = (
    "the layer's output goes into a layer that RecursiveLeastSquares serves (another one, or the same one "
    "again); only the last layer before the loss has a closed form. Give the others to another optimizer."
)
#: Functions whose first argument meets a target element by element.
_MEETS_TARGET = {"mse_loss", "sub", "subtract", "rsub", "__sub__", "__rsub__"}
#: Functions that take the shape, the dtype or the device of a tensor and not its values, but for that of the first.
_TAKES_FIRST = {"to", "type", "type_as", "expand_as", "view_as", "reshape_as"}
#: The same, where no values are taken at all: ``zeros_like(output)``.
_TAKES_NONE = re.compile(r"(\w+_like|new_\w+)$")
#: Functions that return one tensor for each they are given.
_TAKES_EACH = {"broadcast_tensors", "atleast_1d", "atleast_2d", "atleast_3d", "meshgrid", "align_tensors"}
#: Tensors of the size of the output that are kept as what may be the target.
_MAX_TARGETS = 4
#: Under this name a tensor that is not followed remembers the calls that its values came from.
_CUT_FROM = "_closedform_cut_from"


def follow(call: Call, inputs: Tensor, deliver: Callable[[Call | ClosedformError], None]) -> Tensor:
    """Return the output of ``call`` as a tensor that is followed.

    Args:
        call: The call.
        inputs: What the layer was given; calls that it comes from are followed no further.
        deliver: Called when the gradient of the output arrives, with the call; where its own tensors are gone, which
            means that the loss was not followed to its end, with the reason.
    """
    for earlier in getattr(inputs, "calls", ()):
        earlier.refuse(InputError(_CHAINED))
    reference, lost = weakref.ref(call), call.refusal or InputError(NOT_FOLLOWED)

    def arrived(_: Tensor) -> None:
        live = reference()
        if live is None or not live.measuring:
            deliver(lost if live is None else live)

    call.output.register_hook(arrived)  # type: ignore[no-untyped-call]
    # A copy, so that in-place changes by the user leave the output, and its node in the graph, as they were.
    followed = call.output.clone().as_subclass(Followed)
    followed.calls, followed.divisor = (call,), 1.0
    return followed


def is_traced(output: Tensor) -> bool:
    """Whether the pass is no training pass: transformed by ``torch.func``, traced by ``torch.jit`` or ``torch.export``.

    Example:
        >>> is_traced(torch.ones(2))
        False
    """
    wrapped = type(output) not in (Tensor, Followed) or torch._C._functorch.is_functorch_wrapped_tensor(output)
    return wrapped or torch._C._is_tracing()


def _uncompiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Keep a function out of compiled code, and say why where that is not allowed."""
    disable: Any = torch._dynamo.disable
    try:
        disabled: Callable[..., Any] = disable(function, reason=_UNCOMPILED)
    except TypeError:  # torch before 2.7 gives no reasons
        disabled = disable(function)
    return disabled


@final
class Followed(Tensor):
    """A tensor that comes from the output of a layer and remembers from which call.

    Attributes:
        calls: The calls that gradients of it reach.
        divisor: By what its elements were divided in means; None where that is not known.
        summed: Whether it is a scalar that a sum or mean ended in, or was made of such scalars alone.
        is_root: Whether it is a norm that was not squared yet.
    """

    calls: tuple[Call, ...] = ()
    divisor: float | None = None
    summed: bool = False
    is_root: bool = False

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
    @_uncompiled
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        keywords = kwargs or {}
        with torch._C.DisableTorchFunctionSubclass():
            result = func(*args, **keywords)
            name = getattr(func, "__name__", "a function")
            if isinstance(result, Tensor | tuple | list):
                return _Step(name, args, keywords).followed(result)
            if name == "__setitem__":
                _Step(name, args, keywords).followed(args[0])
            return result


# A compiled function that is given a followed tensor runs it function by function, uncompiled, and is followed. Torch
# before 2.7 traces only the subclasses that are named to it, and has no list of the others.
if hasattr(torch._dynamo.config, "nontraceable_tensor_subclasses"):
    torch._dynamo.config.nontraceable_tensor_subclasses.add(Followed)


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _tensors(item)
    elif isinstance(value, dict):
        yield from _tensors(tuple(value.values()))


def _cut_from(tensor: Tensor) -> list[Call]:
    """The calls whose rows are still waiting, that the values of a tensor outside the graph came from."""
    found = (reference() for reference in getattr(tensor, _CUT_FROM, ()))
    return [call for call in found if call is not None and call.inputs is not None]


@final
class _Step:
    """One function that was given followed tensors, and what it did to them."""

    def __init__(self, name: str, args: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        self.name = name
        self.args = args
        self.keywords = keywords
        self.given = list(_tensors((args, keywords)))
        self.sources = [tensor for tensor in self.given if isinstance(tensor, Followed) and tensor.calls]

    def followed(self, result: Any) -> Any:
        """Return what the function returned, followed; several tensors each by itself."""
        if isinstance(result, Tensor):
            if result.requires_grad and self.sources:
                return self._in_graph(result)
            return self._cut_off(result)
        if isinstance(result, tuple | list) and any(isinstance(item, Tensor) for item in result):
            if self.name in _TAKES_EACH and len(result) == len(self.given):
                own = [_Step(self.name, (tensor,), {}) for tensor in self.given]
                items = [step.followed(item) for step, item in zip(own, result, strict=True)]
            else:
                items = [self.followed(item) for item in result]
            return type(result)(*items) if hasattr(result, "_fields") else type(result)(items)
        return result

    def _in_graph(self, result: Tensor) -> Followed:
        calls = tuple(dict.fromkeys(call for source in self.sources for call in source.calls))
        # Read before the result is written on: in place it is one of the sources.
        summed = all(source.summed for source in self.sources)
        divisor = self._divisor(result)
        norm = is_norm(self.name)
        squared = squares_a_norm(self.name, self.args, [source.is_root for source in self.sources])
        self._refuse_cut(calls, scalars=summed and result.numel() == 1)
        self._note_targets(calls, result)

        if self.name.endswith("_") and any(result is tensor for tensor in self.given):
            mark_in_place(result, self.name, self.args, others=sum(source is not result for source in self.sources))
        followed = result if isinstance(result, Followed) else result.as_subclass(Followed)
        ends = result.numel() == 1 and (sums_up(self.name, self.keywords) or squared)
        followed.calls, followed.divisor, followed.is_root = calls, divisor, norm
        followed.summed = result.numel() == 1 and (summed or ends or norm)
        if ends and divisor is not None:
            mark(followed, divisor, (call.number for call in calls))
        if result.numel() == 1:
            _hook_scalar(followed, calls)
        return followed

    def _divisor(self, result: Tensor) -> float | None:
        own = divided_by(self.name, self.sources[0], result, self.given, self.keywords)
        before = {source.divisor for source in self.sources}
        (first, *others) = before
        return None if own is None or first is None or others else first * own

    def _cut_off(self, result: Tensor) -> Tensor:
        """Let a tensor outside the graph remember whose values it holds, while their rows are waiting."""
        given = self.given[:1] if self.name in _TAKES_FIRST else self.given
        waiting = {call for tensor in given for call in _cut_from(tensor)}
        for source in given:
            if isinstance(source, Followed):
                waiting |= {call for call in source.calls if call.inputs is not None}
        if not waiting or _TAKES_NONE.match(self.name):
            return result
        # In place, or into out=, the tensor is the user's own and stays what it is.
        own = any(result is tensor for tensor in self.given)
        cut = result if own or isinstance(result, Followed) else result.as_subclass(Followed)
        setattr(cut, _CUT_FROM, tuple(weakref.ref(call) for call in waiting))
        return cut

    def _refuse_cut(self, calls: tuple[Call, ...], scalars: bool) -> None:
        """Refuse values cut off the same call, but for a factor on a finished loss, which means nothing."""
        if scalars:
            return
        for tensor in self.given:
            for call in _cut_from(tensor):
                if call in calls:
                    call.refuse(InputError(_CUT))

    def _note_targets(self, calls: tuple[Call, ...], result: Tensor) -> None:
        """Remember the tensors that may be the targets, and refuse one that is broadcast against the output."""
        others = [t.detach() for t in self.given if not isinstance(t, Followed) and not t.requires_grad]
        source = self.sources[0]
        for call in calls:
            for other in others:
                size = other.numel()
                if size == call.output.numel() and len(call.targets) < _MAX_TARGETS:
                    call.targets.append(other)
                if self.name in _MEETS_TARGET and size == source.numel() > 1 and other.shape != source.shape:
                    self._refuse_broadcast(call, source.shape, other.shape)

    def _refuse_broadcast(self, call: Call, shape: Sequence[int], other: Sequence[int]) -> None:
        together = torch.broadcast_shapes(shape, other)  # type: ignore[no-untyped-call]
        if together.numel() > torch.Size(shape).numel():
            call.refusal = InputError(
                f"the loss compares an output of shape {tuple(shape)} with a target of shape "
                f"{tuple(other)}; broadcasting makes {tuple(together)} of them, every output against "
                f"every target. Reshape the target: target.reshape({tuple(shape)})."
            )


def _hook_scalar(scalar: Tensor, calls: tuple[Call, ...]) -> None:
    # Weak: the hook lives in the graph of the scalar, which would else keep itself alive.
    reference = weakref.ref(scalar)

    def arrived(gradient: Tensor) -> None:
        root = reference()
        waiting = [call for call in calls if call.found is None and call.inputs is not None]
        if root is None or not waiting or any(call.measuring for call in calls):
            return
        for call in waiting:
            call.measuring = True
        try:
            found = measure(waiting, root, float(gradient.detach()))
        finally:
            for call in waiting:
                call.measuring = False
        for call, outcome in zip(waiting, found, strict=True):
            call.found = outcome

    scalar.register_hook(arrived)  # type: ignore[no-untyped-call]
