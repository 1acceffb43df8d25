"""The noise of mini-batches: how large it is, what it settles to, and from which learning rate on it feeds itself."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cached_property
from typing import final

import numpy as np
import torch
from torch import Tensor

from closedform.explain.forecasts.descent import Descent
from closedform.explain.forecasts.responses import Responses
from closedform.explain.moments import Moments

__all__ = ["BatchNoise"]

#: Applications of the noise's map for the limit and for the floor, at most.
_ROUNDS = 100
#: Relative accuracy of the eigenvalue at which they end: far below the spread of any run.
_ACCURACY = 1e-4
#: Relative residual of what noise settles to.
_RESIDUAL = 1e-9
#: Secants towards the limit, at most.
_SECANTS = 12
#: Relative accuracy of the limit.
_LIMIT_ACCURACY = 1e-3


@final
class BatchNoise:
    """The covariance of the noise in the gradient of a batch, as a map of the second moment S of the error.

    Args:
        eigenvalues: Of the Hessian, ``(rank,)``.
        share: What a batch has of the covariance of one row.
        moments: Those of the rows.
        shift: Where the descent leads, from the minimiser, ``(rank, targets)``; None for the minimiser itself.
    """

    def __init__(self, eigenvalues: Tensor, share: float, moments: Moments, shift: Tensor | None) -> None:
        self.eigenvalues = eigenvalues
        self._share = share
        self._moments = moments
        # Where diagonal matrices stay so, they are held as vectors.
        self._separate = moments.separates and shift is None
        own = moments.noise(shift)
        if shift is not None:
            mean = eigenvalues.unsqueeze(1) * shift
            own = own - mean @ mean.T
        #: What there is of it without any error.
        self.constant = share * own

    @cached_property
    def mixing(self) -> Tensor:
        """What diagonal entries of S make of those of ``N(S)``, ``(rank, rank)``."""
        return self._share * (self._moments.diagonal() - torch.diag(self.eigenvalues.square()))

    def of(self, second_moment: Tensor) -> Tensor:
        """``f (E[h S h] - H S H)``, of a matrix, or of its diagonal where that is all there is."""
        if self._separate:
            return self.mixing @ second_moment
        return self._share * (self._moments.curvature(second_moment) - self._products * second_moment)

    @cached_property
    def _products(self) -> Tensor:
        return torch.outer(self.eigenvalues, self.eigenvalues)

    def _answers(self, responses: Responses) -> Tensor:
        return responses.of_directions() if self._separate else responses.of_pairs()

    def limit(self, descent: Descent, full: float) -> float:
        """The learning rate where the answers to noise make as much of it again.

        Both the noise and the answers to it keep matrices positive, so that power iteration from a positive matrix
        converges (Krein and Rutman 1948); secants in the logarithm find where its eigenvalue is 1.
        """
        if self.eigenvalues.numel() == 0 or not float(self.eigenvalues[0]) > 0 or not math.isfinite(full):
            return math.inf
        if self._share == 0:
            return full
        vector = 1 / self.eigenvalues if self._separate else torch.diag(1 / self.eigenvalues)
        low, high, lr = 0.0, full, full / 2
        points: list[tuple[float, float]] = []
        for _ in range(_SECANTS):
            eigenvalue, vector = self._eigenvalue(Responses(replace(descent, lr=lr), self.eigenvalues), vector)
            points.append((math.log(lr), math.log(eigenvalue)))
            low, high = (lr, high) if eigenvalue < 1 else (low, lr)
            if abs(eigenvalue - 1) < _LIMIT_ACCURACY or high - low < _LIMIT_ACCURACY * high:
                break
            # While it is small the eigenvalue is proportional to the learning rate.
            (x0, y0), (x1, y1) = points[-2] if len(points) > 1 else (points[-1][0] - 1, points[-1][1] - 1), points[-1]
            slope = (y1 - y0) / (x1 - x0) if x1 != x0 else 1.0
            guess = math.exp(x1 - y1 / max(slope, 0.5))
            lr = guess if low < guess < high else (low + high) / 2
        return lr

    def _eigenvalue(self, responses: Responses, vector: Tensor) -> tuple[float, Tensor]:
        """The largest eigenvalue of ``S -> K * N(S)``, and its matrix."""
        answers, ratio = self._answers(responses), 0.0
        for _ in range(_ROUNDS):
            noisy = self.of(vector)
            moved = answers * noisy
            # The Rayleigh quotient in the form <S, N(S)>, in which the map is symmetric.
            previous, ratio = ratio, float((noisy * moved).sum() / (vector * noisy).sum())
            vector = moved / torch.linalg.vector_norm(moved)
            if abs(ratio - previous) <= _ACCURACY * ratio:
                break
        return ratio, vector

    def settled(self, responses: Responses) -> Tensor:
        """The diagonal of the fixed point of ``S = K * (N(S) + constant)``, by minimal residuals (Saad and Schultz)."""
        answers = self._answers(responses)
        wanted = answers * (self.constant.diagonal() if self._separate else self.constant)
        size = float(torch.linalg.vector_norm(wanted))
        basis: list[Tensor] = [wanted / size] if size else []
        hessenberg = np.zeros((_ROUNDS + 1, _ROUNDS))
        solution = np.zeros(0)

        for made in range(_ROUNDS if size else 0):
            image = basis[made] - answers * self.of(basis[made])
            for row, vector in enumerate(basis):
                hessenberg[row, made] = float((image * vector).sum())
                image = image - hessenberg[row, made] * vector
            hessenberg[made + 1, made] = float(torch.linalg.vector_norm(image))
            known = hessenberg[: made + 2, : made + 1]
            if not (math.isfinite(size) and np.isfinite(known).all()):
                # Fourth moments of rows whose squares are near the end of float64's range are beyond it.
                return torch.full_like(self.eigenvalues, math.inf)
            target = size * np.eye(made + 2)[0]
            solution = np.linalg.lstsq(known, target, rcond=None)[0]
            if np.linalg.norm(known @ solution - target) <= _RESIDUAL * size or hessenberg[made + 1, made] == 0:
                break
            basis.append(image / hessenberg[made + 1, made])

        found = torch.zeros_like(self.eigenvalues)
        for part, vector in zip(solution.tolist(), basis, strict=False):
            found = found + part * (vector if self._separate else vector.diagonal())
        return found
