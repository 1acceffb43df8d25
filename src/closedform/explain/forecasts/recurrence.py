"""Recurrences of one and two terms in closed form, at any step: what gradient descent and momentum are made of."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

__all__ = ["TwoTerms", "powers"]


def powers(distance: Tensor, steps: Tensor) -> Tensor:
    """Return ``(1 - distance)^steps``, ``(points, directions)``, with nothing lost where the distance is small.

    Args:
        distance: ``(directions,)``, not negative.
        steps: ``(points,)``, whole numbers.

    Example:
        >>> powers(torch.tensor([0.5, 0.0]), torch.tensor([0, 1, 2]))
        tensor([[1.0000, 1.0000],
                [0.5000, 1.0000],
                [0.2500, 1.0000]])
    """
    q, t = distance.unsqueeze(0), steps.unsqueeze(1)
    return _power(1 - q, _log_distance(q), t)


@final
class TwoTerms:
    """The recurrence ``f(t+1) = (2 - P) f(t) - D f(t-1)`` with ``f(0) = 1`` and ``f(1) = 1 - lead * s``.

    With roots ``1 - q``, q the roots of ``q^2 - P q + s``, powers come from ``log1p(-q)``: nothing is lost at a root
    next to 1, and 1e18 steps cost what one costs.

    Args:
        s: ``P + D - 1``, which is small where the error hardly moves, ``(directions,)``.
        distance: P.
        total: ``2 - P``, the sum of the roots.
        product: D, the product of the roots.
        lead: What the first step moves, as a multiple of s.
        half_slope: ``f(1) - total / 2``, computed without cancellation.
    """

    def __init__(
        self, s: Tensor, *, distance: Tensor, total: Tensor, product: Tensor, lead: float, half_slope: Tensor
    ) -> None:
        s, distance = s.unsqueeze(0), distance.unsqueeze(0)
        self._sum, self._product, self._half_slope = total.unsqueeze(0), product.unsqueeze(0), half_slope.unsqueeze(0)
        self._discriminant = distance.square() - 4 * s
        self._root = self._discriminant.abs().sqrt()
        self._first = 1 - lead * s
        q2 = (distance + self._root) / 2
        q1 = s / q2
        # The root of larger size leads; the other enters as a ratio to it.
        near = (1 - q1).abs() >= (1 - q2).abs()
        self._lead_q = torch.where(near, q1, q2)
        other = torch.where(near, 1 - q2, 1 - q1)
        self._leading = 1 - self._lead_q
        self._ratio = torch.where(self._leading == 0, torch.zeros_like(s), other / self._leading)
        self._excess_slope = torch.where(near, q1 * (1 - lead * q2), q2 * (1 - lead * q1))

    def values(self, steps: Tensor) -> Tensor:
        """Return f at some steps, ``(points, directions)``; infinite where it is beyond float64."""
        t = steps.unsqueeze(1)
        return _from_one(torch.where(self._discriminant < 0, self._oscillating(t), self._real(t)), t)

    def envelopes(self, steps: Tensor) -> Tensor:
        """Return what the sizes of f cannot exceed, without its ripples, ``(points, directions)``."""
        t = steps.unsqueeze(1)
        return _from_one(torch.where(self._discriminant < 0, self._amplitude(t), self._real(t).abs()), t)

    def _real(self, t: Tensor) -> Tensor:
        """``B^t (1 + (M - B)/B (1 - r^t)/(1 - r))`` with B the leading root, r the ratio, M the first factor."""
        leading, ratio = self._leading, self._ratio
        log_ratio = torch.log1p(-(self._root / leading.abs()).clamp(max=1.0))
        same_sign = torch.where(log_ratio == 0, t.to(log_ratio), torch.expm1(t * log_ratio) / torch.expm1(log_ratio))
        opposite = (1 - _power(ratio, ratio.abs().log(), t)) / (1 - ratio)
        growth = torch.where(ratio > 0, same_sign, opposite)
        value = _power(leading, _log_distance(self._lead_q), t) * (1 + self._excess_slope / leading * growth)
        # Both roots zero: the error is gone after the second step.
        return torch.where(leading == 0, torch.where(t == 1, self._first, torch.zeros_like(value)), value)

    def _oscillating(self, t: Tensor) -> Tensor:
        """``D^(t/2) (cos t w + (M - T/2) sin t w / (sqrt(D) sin w))`` with T and D sum and product."""
        angle = torch.atan2(self._root, self._sum)
        height = (self._half_slope / (self._root / 2)) * torch.sin(t * angle)
        return torch.exp(t / 2 * self._product.log()) * (torch.cos(t * angle) + height)

    def _amplitude(self, t: Tensor) -> Tensor:
        """What :meth:`_oscillating` cannot exceed."""
        wave = torch.hypot(torch.ones_like(self._root), self._half_slope / (self._root / 2))
        slow = 1 + self._half_slope.abs() / self._product.sqrt() * t
        return torch.exp(t / 2 * self._product.log()) * torch.minimum(wave, slow)


def _from_one(factors: Tensor, t: Tensor) -> Tensor:
    return torch.nan_to_num(torch.where(t == 0, torch.ones_like(factors), factors), nan=float("inf"))


def _log_distance(q: Tensor) -> Tensor:
    """``log |1 - q|``, accurate for small q."""
    return torch.where(q < 0.5, torch.log1p(-q.clamp(max=0.5)), (1 - q).abs().log())


def _power(base: Tensor, log_size: Tensor, t: Tensor) -> Tensor:
    """``base^t`` for whole t, from the logarithm of its size."""
    sign = torch.where((base < 0) & (t % 2 == 1), -1.0, 1.0).to(log_size)
    size = torch.exp(t * log_size)
    return sign * torch.where(t == 0, torch.ones_like(size), size)
