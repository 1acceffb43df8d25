"""The optimizers whose course on a quadratic is known. To add one is one file like its neighbours, and one line."""

from __future__ import annotations

from closedform.explain.forecasts.descent import Descent
from closedform.explain.forecasts.gradient_descent import GradientDescent
from closedform.explain.forecasts.heavy_ball import HeavyBall
from closedform.explain.forecasts.nesterov import Nesterov
from closedform.words.errors import InputError

__all__ = ["FAMILY", "best_momentum", "descent_of", "kind_named", "step_limit"]

FAMILY: tuple[type[Descent], ...] = (
    GradientDescent,
    HeavyBall,
    Nesterov,
)


def kind_named(name: str) -> type[Descent]:
    """Return the member that ``forecast()`` calls by this name.

    Raises:
        InputError: there is none.
    """
    for kind in FAMILY:
        if kind.name == name:
            return kind
    known = ", ".join(repr(kind.name) for kind in FAMILY[:-1])
    raise InputError(
        f"there is no closed form for {name!r}; forecast() knows {known} and {FAMILY[-1].name!r}, and "
        "rehearse() runs any torch optimizer."
    )


def descent_of(
    lr: float, momentum: float = 0.0, nesterov: bool = False, dampening: float = 0.0, weight_decay: float = 0.0
) -> Descent:
    """Return ``torch.optim.SGD`` with these settings as a member of the family.

    Example:
        >>> descent_of(0.1, momentum=0.9)
        HeavyBall(lr=0.1, momentum=0.9, dampening=0.0, weight_decay=0.0)
    """
    kind = next(kind for kind in FAMILY if kind.takes(momentum, nesterov))
    return kind(lr, momentum, dampening, weight_decay)


def step_limit(largest: float, momentum: float = 0.0, nesterov: bool = False, dampening: float = 0.0) -> float:
    """Return the largest stable learning rate of ``torch.optim.SGD`` on a quadratic.

    Args:
        largest: Largest eigenvalue of the Hessian, the weight decay included.
        momentum: At least 0 and less than 1.
        nesterov: As in ``torch.optim.SGD``.
        dampening: At least 0 and less than 1; without momentum it has no effect, as in torch.

    Example:
        >>> step_limit(4.0), step_limit(4.0, 0.5), step_limit(4.0, 0.5, nesterov=True)
        (0.5, 0.75, 0.375)
    """
    return descent_of(0.0, momentum, nesterov, dampening).step_limit(largest)


def best_momentum(largest: float, smallest: float, nesterov: bool = False) -> tuple[float, float]:
    """Return learning rate and momentum that shrink the error fastest when eigenvalues fill ``[smallest, largest]``.

    Example:
        >>> best_momentum(1.0, 1.0)
        (1.0, 0.0)
    """
    best, _ = (Nesterov if nesterov else HeavyBall).best(largest, smallest)
    return best.lr, best.momentum
