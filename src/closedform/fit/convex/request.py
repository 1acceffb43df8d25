"""What is asked of a fit by a convex criterion, checked once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn

from closedform.fit.request import Watcher, check_bias
from closedform.fit.weights import Weights
from closedform.losses import criterion_by_name, is_squared_error, recognised
from closedform.words.errors import InputError

__all__ = ["ConvexRequest"]


@final
@dataclass(frozen=True, eq=False)
class ConvexRequest:
    """What is asked of a convex fit, besides the rows.

    Attributes:
        criterion: The module.
        bias: Whether the layer has a bias.
        l2: Ridge strength, one number or one for each output.
        outputs: How many outputs the layer has, or None to take as many as the targets call for.
        dtype: The dtype the weights are rounded to, or None for that of the rows.
        start: Weights to start from, or None.
        progress: Who is told how far the fit has come.
        function: The function that the criterion was recognised in, or None where it came as a module or a name.
    """

    criterion: Any
    bias: bool
    l2: Any = 0.0
    outputs: int | None = None
    dtype: torch.dtype | None = None
    start: Weights | None = None
    progress: Watcher = None
    function: Callable[[Tensor, Tensor], Any] | None = None

    @staticmethod
    def checked(
        criterion: Any,
        *,
        bias: Any,
        l2: Any = 0.0,
        outputs: int | None = None,
        dtype: torch.dtype | None = None,
        progress: Watcher = None,
        **for_squares: Any,
    ) -> ConvexRequest | None:
        """Check the arguments of a fit by a criterion; return None where it is squared error.

        Args:
            criterion: A module, a name, a function that is one of them by its numbers, or None.
            bias: A boolean.
            l2: Ridge strength.
            outputs: How many outputs the layer has, or None.
            dtype: That of the weights; that of the rows where it is None.
            progress: None, a boolean, or a function of a label and the part done.
            **for_squares: Arguments that only squared error has, refused where they are set.

        Raises:
            InputError: an argument that cannot be used.
        """
        if isinstance(criterion, str):
            criterion = criterion_by_name(criterion)
        function = None if isinstance(criterion, nn.Module) or not callable(criterion) else criterion
        criterion = recognised(criterion)
        if criterion is None or is_squared_error(criterion):
            return None
        for name, value in for_squares.items():
            if value is not None and value is not False and value != "auto":
                raise InputError(
                    f"{name}= is for squared error; leave it out with criterion={type(criterion).__name__}()."
                )
        return ConvexRequest(criterion, check_bias(bias), l2, outputs, dtype, None, progress, function)

    @staticmethod
    def asked(request: ConvexRequest | None) -> list[tuple[str, Any]]:
        """Return what processes that share a fit have to agree in: the criterion with its options, the layer and ridge.

        Args:
            request: That of one process; None for squared error.
        """
        if request is None:
            nothing = ("bias", "l2", "outputs", "dtype")
            return [("criterion", "squared error"), *((name, None) for name in nothing)]
        criterion = request.criterion
        options = {name: value for name, value in vars(criterion).items() if not name.startswith("_")}
        options |= {name: buffer.tolist() for name, buffer in criterion.named_buffers()}
        named = ", ".join(f"{name}={value!r}" for name, value in sorted(options.items()) if name != "training")
        return [
            ("criterion", f"{type(criterion).__name__}({named})"),
            ("bias", request.bias),
            ("l2", str(request.l2)),
            ("outputs", request.outputs),
            ("dtype", str(request.dtype)),
        ]
