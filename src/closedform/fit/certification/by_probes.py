r"""Many targets: the gradient of each is measured on the rows by what random directions have in common with it.

Residuals of k targets cost two products of the rows with k vectors. The backward error asks for less of them: for the
lengths of ``S^-T g`` with the gradients ``g = A'(b - A z)`` and a factor S. For a Gaussian vector s the product
``s'S^-T g = (A v)'b - (A v)'A z``, with ``v = S^-1 s``, is on average as large as that length, and a fresh pass over
the rows forms ``A v`` and its products for a few such v and all targets at once (Johnson and Lindenstrauss 1984 for
lengths from few random products). The mean of p squares is below a part x of the square of the length with a
probability of at most ``(x exp(1 - x))^(p / 2)`` (Chernoff's bound). The same v say how far S is from the rows.

What is left are the squares of the residuals, which follow from ``A'A`` and ``A'B`` where they are not small beside the
targets.
"""

from __future__ import annotations

from typing import Self, final

import torch
from torch import Tensor
from typing_extensions import override

from closedform.engine.products import image, product_
from closedform.engine.sums import image_sums
from closedform.fit.certification.certifier import probes_of
from closedform.fit.certification.sums import Measured, Spread
from closedform.fit.problem import Problem
from closedform.numerics.host import Vector, as_vector
from closedform.numerics.root import Root
from closedform.rows import Block, OneHotRows, SumFold, classes_of, labelled
from closedform.rows.columns import Columns

__all__ = ["LabelProbeSums", "ProbeSums", "measure_by_probes"]

#: Random directions.
_PROBES = 16
#: By what factor lengths may be larger than they seem: one of a thousand targets is with a probability of 1e-8.
_MARGIN = 8.0
#: Rows whose products are summed at a time: few, since what is left of sums that cancel is their rounding.
_ROWS = 512
#: Part of what squares of residuals are made of that they are at least, for their digits to be those of the rows.
_LEFT = 1e-3


@final
class ProbeSums(SumFold):
    """With ``T = A V`` for a few vectors V: the products A'T and T'B.

    Args:
        columns: The design matrix.
        V: In its coordinates, ``(columns, vectors)``.
        about: About the mean of each target in its scale, ``(targets,)``.
    """

    label = "certifying"

    def __init__(self, columns: Columns, V: Tensor, about: Tensor) -> None:
        self._arguments = (columns, V, about)
        self._V, self._offset = columns.raw(V)
        self._sums = image_sums(self._V.shape[0], columns.n_targets, V.shape[1], V.device)
        self._spread = Spread(columns, about)

    @property
    def products(self) -> Tensor:
        """``A'A V``, ``(columns, vectors)``."""
        return self._arguments[0].adjoint(self._sums.ones, self._sums.features)

    @property
    def cross(self) -> Tensor:
        """``B'A V``, ``(targets, vectors)``."""
        return self._sums.targets

    @property
    def centred_squares(self) -> Tensor:
        """Squares of the targets about their means, ``(targets,)``."""
        return torch.from_numpy(self._spread.squares).to(self._V.device)

    @override
    def add(self, block: Block) -> None:
        scale = self._arguments[0].target_scale
        block.engine.image_sums_(self._sums, block.X, block.Y, self._V, self._offset, block.weight, scale)
        self._spread.add(block)

    @override
    def merge(self, other: Self) -> None:
        self.add_sums(other)
        self._spread.merge(other._spread)

    @override
    def fresh(self) -> Self:
        return type(self)(*self._arguments)

    @override
    def sums(self) -> tuple[Tensor, ...]:
        return (self._sums.flat,)

    @override
    def state(self) -> tuple[Tensor, ...]:
        return *self.sums(), *self._spread.state()

    @override
    def load_state(self, state: tuple[Tensor, ...]) -> None:
        super().load_state(state[:1])
        self._spread.load_state(state[1:])


@final
class LabelProbeSums(SumFold):
    """The same where the targets of a block are the labels of classes, one column: T is summed for each class.

    Args:
        columns: The design matrix, of as many targets as there are classes.
        V: In its coordinates, ``(columns, vectors)``.
    """

    as_stored = False
    label = "certifying"

    def __init__(self, columns: Columns, V: Tensor) -> None:
        self._arguments = (columns, V)
        self._V, self._offset = columns.raw(V)
        self._features = torch.zeros_like(self._V)
        self._classes = V.new_zeros(columns.n_targets, V.shape[1])

    @property
    def products(self) -> Tensor:
        """``A'A V``, ``(columns, vectors)``."""
        return self._arguments[0].adjoint(self._classes.sum(0), self._features)

    @property
    def classes(self) -> Tensor:
        """``A V`` summed for each class, ``(classes, vectors)``."""
        return self._classes

    @override
    def add(self, block: Block) -> None:
        labels = classes_of(block)
        for start in range(0, block.X.shape[0], _ROWS):
            part = slice(start, start + _ROWS)
            X = block.X[part]
            T = image(X, self._V)
            if self._offset is not None:
                T += self._offset
            if block.weight is not None:
                T *= block.weight[part].unsqueeze(1)
            product_(self._features, X, T)
            self._classes.index_add_(0, labels[part], T)

    @override
    def fresh(self) -> Self:
        return type(self)(*self._arguments)

    @override
    def sums(self) -> tuple[Tensor, ...]:
        return self._features, self._classes


def measure_by_probes(problem: Problem, Z: Tensor, gram: Tensor, cross: Tensor, root: Root) -> Measured | None:
    """Return what the rows say of coordinates; None where too much cancels in the squares of residuals.

    Args:
        problem: The problem.
        Z: Coordinates ``(columns, targets)``.
        gram: ``A'A`` without the ridge, ``(columns, columns)``, float64.
        cross: ``A'B``, ``(columns, targets)``, float64.
        root: S, of full rank.
    """
    V = probes_of(root, problem, _PROBES)
    scanned, labels = problem.scanned, problem.rows.y
    if isinstance(labels, OneHotRows):
        seen = labelled(problem.rows, labels).walk(LabelProbeSums(problem.columns, V))
        cross_V = labels.off * seen.classes.sum(0) + (1 - labels.off) * seen.classes
        products, cross_V = seen.products, cross_V * problem.target_scale.unsqueeze(1)
        centred = labels.centred_squares(scanned.target_means, scanned.weight_sum) * problem.target_scale.square()
    else:
        sums = problem.rows.walk(ProbeSums(problem.columns, V, scanned.target_means * problem.target_scale))
        products, cross_V, centred = sums.products, sums.cross, sums.centred_squares

    squares = _squares(problem, Z, gram, cross, centred)
    if squares is None:
        return None
    penalised = problem.penalty.square().unsqueeze(1) * Z
    slopes = cross_V.T - products.T @ Z - V.T @ penalised
    return Measured(
        gradient=cross - gram @ Z,
        probes=V,
        products=products,
        residual_sums=_residual_sums(problem, Z),
        squares=squares,
        centred_squares=as_vector(centred.clamp(min=0.0)),
        image=slopes * (_MARGIN / _PROBES**0.5),
    )


def _residual_sums(problem: Problem, Z: Tensor) -> Vector:
    """Return the weighted sums of the residuals, ``(targets,)``."""
    V, offset = problem.columns.raw(Z)
    total = problem.scanned.weight_sum
    sums = total * problem.scanned.target_means * problem.target_scale - problem.scanned.feature_sums @ V
    return as_vector(sums if offset is None else sums - total * offset)


def _squares(problem: Problem, Z: Tensor, gram: Tensor, cross: Tensor, centred: Tensor) -> Vector | None:
    """Return the squares of the residuals, ``(targets,)``; None where less than a part is left of what makes them.

    With a bias all is taken about the means, where large numbers would cancel.
    """
    own, V = (centred if problem.bias else problem.target_norms.square()), Z
    of_means = lost = torch.zeros_like(own)
    if problem.bias:
        total, means, V = gram[0, 0], gram[0, 1:] / gram[0, 0], Z[1:]
        shift, level = means @ V, cross[0] / total
        gram, cross = gram[1:, 1:] - torch.outer(means, gram[0, 1:]), cross[1:] - torch.outer(means, cross[0])
        of_means = total * (level - shift - Z[0]).square()
        lost = total * (shift.square() + 2 * (shift * level).abs())

    linear, quadratic = (V * cross).sum(0), (V * (gram @ V)).sum(0)
    squares = own - 2 * linear + quadratic + of_means
    made_of = own + 2 * linear.abs() + quadratic + of_means + lost
    return as_vector(squares) if bool((squares >= _LEFT * made_of).all()) else None
