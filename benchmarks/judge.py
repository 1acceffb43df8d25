"""How good an answer is, measured against the exact minimiser and with no code of closedform's."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, final

import torch
from problems import Data, Problem
from torch import Tensor

__all__ = ["Judge", "Verdict"]

#: Ordinary rounding grows with the root of the sizes; beyond this many units of it an answer is not one.
WRONG = 1000
_BLOCK_ELEMENTS = 2**24


@final
@dataclass(frozen=True)
class Verdict:
    """What an answer is worth.

    Attributes:
        backward_error: The smallest relative change of the data (Frobenius norm, X and a target weighted alike) that
            makes the answer an exact minimiser, the worst target; an estimate within a factor of sqrt(2).
        weight_error: Distance to the minimiser (where there are many, to that of least norm) relative to its length,
            the worst target.
        word: ``ok``; ``wrong``; or ``another minimiser``: it minimises the loss and is not the one of least norm.
    """

    backward_error: float
    weight_error: float
    word: str


@final
class Judge:
    """Judges the answers to one problem.

    Where x is the minimiser, X'r of an answer x + d is -X'X d, so the gradient is known without cancellation. The
    backward error is the estimate of Karlson and Walden (1997) as given by Grcar, Saunders and Su (2007); where X x = y
    has a solution it is the residual relative to the data.

    Args:
        problem: The problem.
        data: Its data.
    """

    def __init__(self, problem: Problem, data: Data) -> None:
        self._problem, self._data = problem, data
        self._norm = math.sqrt(sum(float(X.square().sum()) for X, _ in self._blocks()))
        self._target_norms = torch.linalg.vector_norm(data.Y.to(torch.float64), dim=0)
        self._consistent = problem.kind not in ("tall", "deficient")
        if not self._consistent:
            gram = torch.zeros(problem.columns, problem.columns, dtype=torch.float64)
            for X, _ in self._blocks():
                gram.addmm_(X.T, X)
            values, self._vectors = torch.linalg.eigh(gram)
            self._values = values.clamp(min=0.0)

    def __call__(self, weight: Any) -> Verdict:
        """Judge an answer ``(columns, targets)``."""
        W = torch.as_tensor(weight).to(torch.float64).reshape(self._data.truth.shape)
        if not bool(W.isfinite().all()):
            return Verdict(math.inf, math.inf, "wrong")
        d = self._data.truth - W
        truth_norms = torch.linalg.vector_norm(self._data.truth, dim=0)
        weight_error = float((torch.linalg.vector_norm(d, dim=0) / truth_norms).max())
        backward = float(self._backward_errors(W, d).max()) / self._norm
        eps = torch.finfo(self._problem.dtype).eps
        word = "ok"
        if not backward <= WRONG * eps:
            word = "wrong"
        elif self._problem.rank < self._problem.columns and weight_error > math.sqrt(eps):
            word = "another minimiser"
        return Verdict(backward, weight_error, word)

    def _backward_errors(self, W: Tensor, d: Tensor) -> Tensor:
        """One for each target, in the units of X."""
        # y counts relative to its own length as X does to its: a change f of y costs theta |f|.
        theta = self._norm / self._target_norms
        alpha = theta**2 / (1 + theta**2 * W.square().sum(0))
        if self._consistent:
            squares = sum(((X @ d).square().sum(0) for X, _ in self._blocks()), torch.zeros(d.shape[1]))
            return alpha.sqrt() * squares.sqrt()
        squares = sum(((Y - X @ W).square().sum(0) for X, Y in self._blocks()), torch.zeros(d.shape[1]))
        shift = alpha * squares
        values = self._values.unsqueeze(1)
        gradient = values * (self._vectors.T @ d)
        return alpha.sqrt() * (gradient.square() / (values + shift)).sum(0).sqrt()

    def _blocks(self) -> Iterator[tuple[Tensor, Tensor]]:
        """X and Y in float64, by blocks of rows, so that no second copy of X stands in memory."""
        size = max(1, _BLOCK_ELEMENTS // self._problem.columns)
        for X, Y in zip(self._data.X.split(size), self._data.Y.split(size), strict=True):
            yield X.to(torch.float64), Y.to(torch.float64)
