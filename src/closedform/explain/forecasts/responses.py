"""How a descent answers to noise in its gradients, direction by direction and for pairs of directions."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from closedform.explain.forecasts.descent import Descent

__all__ = ["Responses"]

#: Places within one pass over the rows that an average over it is taken of.
_PLACES = 200
#: Numbers of 3 x 3 systems that are solved at a time.
_BLOCK = 2**18
#: Errors that shrink by less than this share in a pass keep this much of it, so that what they settle to is finite.
_LEAST = 1e-15


@final
class Responses:
    """Answers of a descent to noise of size one in the gradient, along directions of the Hessian.

    A disturbance of the gradient enters error and buffer by a vector c and goes on by the matrix A of its direction, so
    that after t steps ``u(t) = (A^t c)[0]`` of it is in the error.

    Args:
        descent: The optimizer with its settings.
        eigenvalues: Of the Hessian, ``(rank,)``, float64; its weight decay is added here.
    """

    def __init__(self, descent: Descent, eigenvalues: Tensor) -> None:
        self.lr = descent.lr
        scaled = descent.lr * (eigenvalues + descent.weight_decay)
        self.matrix, self.entry = descent.transition(scaled)
        # 1 - A[0, 0], without cancellation.
        self._taken = -self.entry[0] * scaled
        self._remembers = bool(self.matrix[:, :, 1].any())

    @property
    def shrinking(self) -> Tensor:
        """What a step takes away from the square of an error in the end, as a share of it, ``(rank,)``."""
        A = self.matrix
        determinant = A[:, 0, 0] * A[:, 1, 1] - A[:, 0, 1] * A[:, 1, 0]
        # 1 - z over both roots z: their product and their sum.
        product = self._taken * (1 - A[:, 1, 1]) - A[:, 0, 1] * A[:, 1, 0]
        total = self._taken + 1 - A[:, 1, 1]
        discriminant = total.square() - 4 * product
        far = (total + discriminant.clamp(min=0.0).sqrt()) / 2
        near = torch.where(far > 0, product / far, torch.zeros_like(far))
        slowest = torch.minimum(near * (2 - near), far * (2 - far))
        return torch.where(discriminant < 0, 1 - determinant, slowest)

    def of_directions(self) -> Tensor:
        """Return ``lr^2`` times the sum over t of ``u(t)^2``, ``(rank,)``: what independent noise adds up to."""
        return self._answers(self.matrix, self.matrix, self._taken, self._taken)

    def of_pairs(self) -> Tensor:
        """Return ``lr^2`` times the sum over t of ``u_i(t) u_j(t)``, ``(rank, rank)``."""
        rank = self._taken.numel()
        blocks = torch.split(torch.arange(rank, device=self._taken.device), max(1, _BLOCK // max(1, rank)))
        parts = [
            self._answers(
                self.matrix[some].unsqueeze(1), self.matrix, self._taken[some].unsqueeze(1), self._taken.unsqueeze(0)
            )
            for some in blocks
        ]
        return torch.cat(parts) if parts else self._taken.new_zeros(0, 0)

    def _answers(self, A: Tensor, B: Tensor, a: Tensor, b: Tensor) -> Tensor:
        """The first entry of X in Stein's equation ``X = A X B' + c c'``; a and b are what A and B take away."""
        both, c = a + b - a * b, self.entry
        if not self._remembers:
            return (self.lr * c[0]) ** 2 / both
        kron = torch.einsum("...ab,...cd->...acbd", A, B).flatten(-2).flatten(-3, -2)
        system, constant = torch.eye(4, dtype=kron.dtype, device=kron.device) - kron, torch.outer(c, c).reshape(4)
        # All but the first unknown first: what is left for it is a sum of small numbers, in which nothing cancels.
        sides = torch.stack([system[..., 1:, 0], constant[1:].expand_as(system[..., 1:, 0])], dim=-1)
        across = (system[..., 0, 1:].unsqueeze(-2) @ torch.linalg.solve(system[..., 1:, 1:], sides)).squeeze(-2)
        return self.lr**2 * (constant[0] - across[..., 1]) / (both - across[..., 0])

    def share_by_epochs(self, row_count: int, batch_size: int) -> Tensor:
        """Return what shuffled passes leave of the answer to independent noise along each direction, ``(rank,)``.

        Means of b_i and b_j rows of one pass have noise of covariance ``-1 / (rows - 1)``, and a single one of
        ``(rows - b) / (rows - 1) / b``, in units of that of one row; passes are independent.

        Args:
            row_count: Rows of a pass.
            batch_size: Rows in a batch; the last one of a pass has what is left.
        """
        batches, n = -(-row_count // batch_size), float(row_count)
        if batches < 2:
            return torch.ones_like(self._taken)

        last = row_count - (batches - 1) * batch_size
        places = torch.unique(
            torch.linspace(1, batches, min(batches, _PLACES), dtype=torch.float64, device="cpu").round()
        ).int()
        one = torch.eye(2, dtype=self.matrix.dtype, device=self.matrix.device)
        answers = self._stein(self._outer(self.entry.expand(self._taken.numel(), 2)))
        unmoved = torch.linalg.solve(one - self._held(), self.entry.unsqueeze(-1)).squeeze(-1)
        power, made = one.expand_as(self.matrix), 0
        powers, within = [], []

        for place in places.tolist():
            power, made = power @ torch.linalg.matrix_power(self.matrix, place - made), place
            sums = unmoved - (power @ unmoved.unsqueeze(-1)).squeeze(-1)
            squares = (answers - power @ answers @ power.mT) / batch_size
            if place == batches:
                squares = squares + self._outer(self.entry) * (1 / last - 1 / batch_size)
            within.append((n * squares - self._outer(sums)) / (n - 1))
            powers.append(power)

        # What the passes before have left, and what this one has added so far.
        before = self._stein(within[-1], powers[-1])
        total = torch.zeros_like(self._taken)
        for part, so_far in zip(powers, within, strict=True):
            total = total + (so_far + part @ before @ part.mT)[:, 0, 0]
        independent = answers[:, 0, 0] * (n - batch_size) / (n - 1) / batch_size
        return (total / len(within) / independent).nan_to_num(nan=0.0).clamp(min=0.0)

    def _held(self) -> Tensor:
        return self.matrix * (1 - _LEAST)

    @staticmethod
    def _outer(vectors: Tensor) -> Tensor:
        return vectors.unsqueeze(-1) * vectors.unsqueeze(-2)

    def _stein(self, constant: Tensor, matrix: Tensor | None = None) -> Tensor:
        """Solve ``X = A X A' + constant`` for every direction."""
        A = self._held() if matrix is None else matrix * (1 - _LEAST)
        kron = torch.einsum("nab,ncd->nacbd", A, A).reshape(-1, 4, 4)
        solved = torch.linalg.solve(torch.eye(4, dtype=A.dtype, device=A.device) - kron, constant.reshape(-1, 4, 1))
        return solved.reshape(-1, 2, 2)
