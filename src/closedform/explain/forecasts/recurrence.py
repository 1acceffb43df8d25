"""Gradient descent with momentum along one singular direction: a two-term recurrence, in closed form at any step."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

__all__ = ["error_envelopes", "error_factors", "step_limit"]

# Below this a momentum of zero is meant, and the recurrence has one term.
_TINY = 1e-300


def step_limit(largest: float, momentum: float = 0.0, nesterov: bool = False, dampening: float = 0.0) -> float:
    """Return the largest stable learning rate of ``torch.optim.SGD`` on a quadratic.

    Both roots of the recurrence lie inside the unit circle below ``2 (1 + m) / ((1 - d) h)``, and with Nesterov's
    momentum below ``2 (1 + m) / ((1 + 2 m) h)``; at the limit -1 is a root (Polyak 1964; Flammarion and Bach 2015).

    Args:
        largest: Largest eigenvalue h of the Hessian, the weight decay included.
        momentum: m, at least 0 and less than 1.
        nesterov: As in ``torch.optim.SGD``.
        dampening: d, at least 0 and less than 1; without momentum it has no effect, as in torch.

    Example:
        >>> step_limit(4.0), step_limit(4.0, 0.5), step_limit(4.0, 0.5, nesterov=True)
        (0.5, 0.75, 0.375)
    """
    if largest <= 0:
        return float("inf")
    gradient = 1 + 2 * momentum if nesterov else 1 - dampening if momentum else 1.0
    return 2 * (1 + momentum) / (gradient * largest)


def error_factors(
    scaled: Tensor, steps: Tensor, momentum: float = 0.0, nesterov: bool = False, dampening: float = 0.0
) -> Tensor:
    """Return the error after some steps, as a multiple of the error at the start.

    With momentum m, dampening d and s = (1 - d) * lr * eigenvalue, ``torch.optim.SGD`` (its buffer starting at the
    first gradient, which is not dampened) makes of the error f the recurrence ``f(t+1) = (2 - P) f(t) - D f(t-1)`` with
    ``f(0) = 1``, where

        heavy ball  P = 1 - m + s          D = m            f(1) = 1 - s / (1 - d)
        Nesterov    P = 1 - m + s (1 + m)  D = m (1 - s)    f(1) = 1 - s (1 + m)

    With roots ``1 - q``, q the roots of ``q^2 - P q + s``, powers come from ``log1p(-q)``: nothing is lost at a root
    next to 1, and 1e18 steps cost what one costs.

    Args:
        scaled: lr times eigenvalue, ``(directions,)``, float64, not negative.
        steps: Numbers of steps, ``(points,)``, int64.
        momentum: At least 0 and less than 1.
        nesterov: As in ``torch.optim.SGD``.
        dampening: At least 0 and less than 1; 0 with Nesterov's momentum.

    Returns:
        ``(points, directions)``; infinite where the number is beyond float64.

    Example:
        >>> s = torch.tensor([0.5, 0.0], dtype=torch.float64)
        >>> error_factors(s, torch.tensor([0, 1, 2]), momentum=0.25).round(decimals=6)
        tensor([[1.0000, 1.0000],
                [0.5000, 1.0000],
                [0.1250, 1.0000]], dtype=torch.float64)
    """
    s, t = scaled.unsqueeze(0), steps.unsqueeze(1)
    if momentum < _TINY:
        return _power(1 - s, _log_distance(s), t)
    shape = _Roots(s, momentum, nesterov, dampening)
    factors = torch.where(shape.discriminant < 0, shape.oscillating(t), shape.real(t))
    return torch.nan_to_num(torch.where(t == 0, torch.ones_like(factors), factors), nan=float("inf"))


def error_envelopes(
    scaled: Tensor, steps: Tensor, momentum: float = 0.0, nesterov: bool = False, dampening: float = 0.0
) -> Tensor:
    """Return bounds on the size of :func:`error_factors` that do not oscillate and fall monotonically in the end."""
    s, t = scaled.unsqueeze(0), steps.unsqueeze(1)
    if momentum < _TINY:
        return error_factors(scaled, steps).abs()
    shape = _Roots(s, momentum, nesterov, dampening)
    envelope = torch.where(shape.discriminant < 0, shape.amplitude(t), shape.real(t).abs())
    return torch.nan_to_num(torch.where(t == 0, torch.ones_like(envelope), envelope), nan=float("inf"))


@final
class _Roots:
    """The two roots of the recurrence for every direction, ``(1, directions)``."""

    def __init__(self, scaled: Tensor, momentum: float, nesterov: bool, dampening: float) -> None:
        m, s = momentum, (1 - dampening) * scaled
        # What the first gradient moves, as a multiple of s; with dampening that is more than later ones do.
        lead = 1 + m if nesterov else 1 / (1 - dampening)
        self.sum = (1 + m) * (1 - s) if nesterov else 1 + m - s
        self.product = m * (1 - s) if nesterov else torch.full_like(s, m)
        P = 1 - m + ((1 + m) * s if nesterov else s)
        self.discriminant = P.square() - 4 * s
        self.root = self.discriminant.abs().sqrt()
        self.first = 1 - lead * s
        self.half_slope = (1 - m - (lead if nesterov else 2 * lead - 1) * s) / 2
        q2 = (P + self.root) / 2
        q1 = s / q2
        # The root of larger size leads; the other enters as a ratio to it.
        near = (1 - q1).abs() >= (1 - q2).abs()
        self.lead_q = torch.where(near, q1, q2)
        other = torch.where(near, 1 - q2, 1 - q1)
        self.leading = 1 - self.lead_q
        self.ratio = torch.where(self.leading == 0, torch.zeros_like(s), other / self.leading)
        self.excess_slope = torch.where(near, q1 * (1 - lead * q2), q2 * (1 - lead * q1))

    def real(self, t: Tensor) -> Tensor:
        """``B^t (1 + (M - B)/B (1 - r^t)/(1 - r))`` with B the leading root, r the ratio, M the first factor."""
        leading, ratio = self.leading, self.ratio
        log_ratio = torch.log1p(-(self.root / leading.abs()).clamp(max=1.0))
        same_sign = torch.where(log_ratio == 0, t.to(log_ratio), torch.expm1(t * log_ratio) / torch.expm1(log_ratio))
        opposite = (1 - _power(ratio, ratio.abs().log(), t)) / (1 - ratio)
        growth = torch.where(ratio > 0, same_sign, opposite)
        value = _power(leading, _log_distance(self.lead_q), t) * (1 + self.excess_slope / leading * growth)
        # Both roots zero: the error is gone after the second step.
        return torch.where(leading == 0, torch.where(t == 1, self.first, torch.zeros_like(value)), value)

    def oscillating(self, t: Tensor) -> Tensor:
        """``D^(t/2) (cos t w + (M - T/2) sin t w / (sqrt(D) sin w))`` with T and D sum and product."""
        angle = torch.atan2(self.root, self.sum)
        height = (self.half_slope / (self.root / 2)) * torch.sin(t * angle)
        return torch.exp(t / 2 * self.product.log()) * (torch.cos(t * angle) + height)

    def amplitude(self, t: Tensor) -> Tensor:
        """What :meth:`oscillating` cannot exceed."""
        wave = torch.hypot(torch.ones_like(self.root), self.half_slope / (self.root / 2))
        slow = 1 + self.half_slope.abs() / self.product.sqrt() * t
        return torch.exp(t / 2 * self.product.log()) * torch.minimum(wave, slow)


def _log_distance(q: Tensor) -> Tensor:
    """``log |1 - q|``, accurate for small q."""
    return torch.where(q < 0.5, torch.log1p(-q.clamp(max=0.5)), (1 - q).abs().log())


def _power(base: Tensor, log_size: Tensor, t: Tensor) -> Tensor:
    """``base^t`` for whole t, from the logarithm of its size."""
    sign = torch.where((base < 0) & (t % 2 == 1), -1.0, 1.0).to(log_size)
    size = torch.exp(t * log_size)
    return sign * torch.where(t == 0, torch.ones_like(size), size)
