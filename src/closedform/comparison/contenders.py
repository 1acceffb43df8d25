"""The optimizers of a comparison. To add one is one line in ``CONTENDERS``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

from torch import nn
from torch.optim import LBFGS, SGD, Adam, Optimizer

__all__ = ["CONTENDERS", "SAFETY", "Contender"]

SAFETY = 0.9  # of the largest stable step: the top singular value itself is known to rounding only
_BETA = 0.99


@final
@dataclass(frozen=True)
class Contender:
    """How one optimizer takes part.

    Attributes:
        name: Its name in the table.
        settings: A template for its settings, filled with ``rate``.
        make: Makes the optimizer for a layer at a learning rate.
        rates: The learning rates to try, given the largest stable step of plain gradient descent; where there
            are several, a short search within the method's own time picks one.
        line_search: Whether it evaluates the loss at trial points that are no iterates.
    """

    name: str
    settings: str
    make: Callable[[nn.Linear, float], Optimizer]
    rates: Callable[[float], tuple[float, ...]]
    line_search: bool = False


def _recursive_least_squares(layer: nn.Linear, rate: float) -> Optimizer:
    from closedform.optim import RecursiveLeastSquares  # loaded only when asked for

    return RecursiveLeastSquares(layer, lr=rate)


# With beta the momentum and s = lr * lambda, the error along one eigenvector obeys
#   heavy ball  z^2 - (1 + beta - s) z + beta = 0              stable for s < 2 (1 + beta)
#   Nesterov    z^2 - (1 + beta)(1 - s) z + beta (1 - s) = 0   stable for s < 2 (1 + beta) / (1 + 2 beta)
# (both roots inside the unit circle; z = -1 is where it is lost), so with limit = 2 / lambda_max:
_HEAVY_BALL = 1 + _BETA
_NESTEROV = (1 + _BETA) / (1 + 2 * _BETA)

CONTENDERS: tuple[Contender, ...] = (
    Contender(
        "sgd",
        "lr {rate:.3g}",
        lambda layer, rate: SGD(layer.parameters(), lr=rate),
        lambda limit: (SAFETY * limit,),
    ),
    Contender(
        "momentum",
        f"lr {{rate:.3g}}, momentum {_BETA}",
        lambda layer, rate: SGD(layer.parameters(), lr=rate, momentum=_BETA),
        lambda limit: (SAFETY * _HEAVY_BALL * limit,),
    ),
    Contender(
        "nesterov",
        f"lr {{rate:.3g}}, momentum {_BETA}",
        lambda layer, rate: SGD(layer.parameters(), lr=rate, momentum=_BETA, nesterov=True),
        lambda limit: (SAFETY * _NESTEROV * limit,),
    ),
    Contender(
        "adam",
        "lr {rate:.3g}",
        lambda layer, rate: Adam(layer.parameters(), lr=rate),
        lambda limit: (1e-3, 1e-2, 1e-1, 1.0),
    ),
    Contender(
        "lbfgs",
        "lr 1, max_iter 1000, step() repeated",
        lambda layer, rate: LBFGS(layer.parameters(), lr=rate, max_iter=1000),
        lambda limit: (1.0,),
    ),
    Contender(
        "lbfgs strong wolfe",
        "tolerances 0, step() repeated",
        lambda layer, rate: LBFGS(
            layer.parameters(), lr=rate, tolerance_grad=0, tolerance_change=0, line_search_fn="strong_wolfe"
        ),
        lambda limit: (1.0,),
        line_search=True,
    ),
    Contender(
        "rls",
        "RecursiveLeastSquares(layer)",
        _recursive_least_squares,
        lambda limit: (1.0,),
    ),
)
