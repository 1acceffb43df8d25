"""The hook on the layer that sees its rows, and hands out an output that is followed."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from closedform.optim.call import Call
from closedform.optim.following import follow, is_traced
from closedform.words.errors import ClosedformError, InputError

__all__ = ["ForwardHook"]


@final
class ForwardHook:
    """Does not keep the optimizer alive that it delivers to; copies of the layer get a hook without one.

    Args:
        deliver: A method of the optimizer, called with each call of the layer whose gradient arrived.
    """

    def __init__(self, deliver: Callable[[Call | ClosedformError], None] | None) -> None:
        self._deliver = (lambda: None) if deliver is None else weakref.WeakMethod(deliver)
        self._looked_below = False

    def __reduce__(self) -> tuple[type[ForwardHook], tuple[None]]:
        return ForwardHook, (None,)

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def __call__(
        self, layer: nn.Module, args: tuple[Any, ...], keywords: dict[str, Any], output: Tensor
    ) -> Tensor | None:
        """Return the output of the layer as one that is followed, or None for a pass that is no training's."""
        if self._deliver() is None or not torch.is_grad_enabled() or is_traced(output) or not output.requires_grad:
            return None
        reference = self._deliver

        def deliver(found: Call | ClosedformError) -> None:
            live = reference()
            if live is not None:
                live(found)

        inputs = args[0] if args else keywords["input"]
        look_below, self._looked_below = not self._looked_below, True
        call = Call(inputs, output, tuple(layer.parameters(recurse=False)), look_below)
        if _is_passed_on_by_ddp():
            call.refuse(InputError(_DDP))
        return follow(call, inputs, deliver)


_DDP = (
    "DistributedDataParallel with find_unused_parameters=True or static_graph=True passes the output through a "
    "function of its own, behind which the loss cannot be followed; leave both off, or train without DDP."
)


def _is_passed_on_by_ddp() -> bool:
    """Whether a ``DistributedDataParallel`` is at work that puts its own function between output and loss."""
    wrapper = getattr(DistributedDataParallel, "_active_ddp_module", None)
    return wrapper is not None and (bool(wrapper.find_unused_parameters) or bool(wrapper.static_graph))
