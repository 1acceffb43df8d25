"""How this library meets torch's tracers and compilers: it decides by the numbers, which a trace does not have."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch

__all__ = ["active_tracer", "untraced"]

_Function = TypeVar("_Function", bound=Callable[..., Any])


def untraced(function: _Function) -> _Function:
    """Mark a function that ``torch.compile`` shall neither trace nor compile, nor what it calls, and return it.

    This is what :func:`torch.compiler.disable` does, without its wrapper and without loading the compiler, which takes
    longer than most fits. A compiled caller runs the function as it is, between two graphs; where it may not
    (``fullgraph=True``, ``torch.export``), torch's own error says why.

    Args:
        function: A plain Python function.

    Returns:
        The same function; with torch before 2.7, which cannot be told of one, a wrapper that compiles nothing within.

    Example:
        >>> @untraced
        ... def size(x):
        ...     return float(x.abs().max())
        >>> torch.compile(size, backend="eager")(torch.tensor([1.0, -2.0]))
        2.0
    """
    code = getattr(function, "__code__", None)
    dynamo = torch._C._dynamo.eval_frame
    # None of these names is documented. Without them compiled callers are slow or fail; nothing else changes.
    if code is not None and hasattr(dynamo, "set_code_exec_strategy") and hasattr(dynamo, "_FrameExecStrategy"):
        skip = dynamo._FrameAction.SKIP
        dynamo.set_code_exec_strategy(code, dynamo._FrameExecStrategy(skip, skip))
    elif hasattr(dynamo, "skip_code"):
        function = _without_compiler(function)
    marks: Any = function
    marks._torchdynamo_disable = True
    marks._torchdynamo_disable_msg = (
        f"closedform.{getattr(function, '__name__', 'it')} decides by the numbers, which a graph does not have; "
        "call it outside of what is compiled or exported, and pass its weights in"
    )
    return function


def _without_compiler(function: _Function) -> _Function:
    """Wrap a function so that nothing is compiled while it runs, as torch before 2.7 does it."""
    dynamo: Any = torch._C._dynamo.eval_frame

    def wrapper(*args: Any, **keywords: Any) -> Any:
        before = dynamo.set_eval_frame(None)
        try:
            return function(*args, **keywords)
        finally:
            dynamo.set_eval_frame(before)

    dynamo.skip_code(wrapper.__code__)
    return cast("_Function", functools.wraps(function)(wrapper))


def active_tracer() -> str | None:
    """Return what is recording the operations of this thread to run them again on other numbers, or None.

    Example:
        >>> active_tracer() is None
        True
    """
    if torch._C._get_tracing_state() is not None:
        return "torch.jit.trace"
    proxies = sys.modules.get("torch.fx.experimental.proxy_tensor")
    if proxies is not None and proxies.get_proxy_mode() is not None:
        return "make_fx or torch.export"
    return None
