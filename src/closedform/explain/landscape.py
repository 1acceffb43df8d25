"""What the rows say of a fit, whoever trains on it: the spectrum, condition numbers, moments, the broadcast loss."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self, final

import torch
from torch import Tensor
from typing_extensions import override

from closedform.explain.conditioning import condition_numbers, standardised
from closedform.explain.moments import RowMoments, row_moments
from closedform.explain.partial import partial_spectrum
from closedform.explain.readers.criteria import Criterion
from closedform.explain.spectra import Spectrum, compress, spectrum_of, spectrum_of_rows
from closedform.numerics.triangle import Triangle
from closedform.rows import Block, Fold, Rows, Scan, Source, TensorSource
from closedform.rows.block import Extent

__all__ = ["Evaluation", "Landscape", "survey"]

#: A share of the excess loss that rounding of the bias may hide.
_ROUNDING = 1e-10
#: Rows times features up to which the user's own loss is evaluated at the minimiser.
_EVALUATE = 5e7
#: Numbers of a triangle above this leave no room in float64 for its singular values.
_LARGEST = 1e300


@final
@dataclass(frozen=True)
class Evaluation:
    """The user's own loss at the least-squares weights, on the user's rows.

    Attributes:
        loss: Its value.
        gradient: Euclidean length of its gradient.
    """

    loss: float
    gradient: float


@final
@dataclass(frozen=True)
class Landscape:
    """The loss over the weights, from one reading of the rows; they are not kept.

    Attributes:
        spectrum: What decides how first-order optimizers move.
        whole: The triangle of the rows with a column of ones, or None where there are too many columns for one.
        l2: Ridge strength.
        moments: Fourth moments of the rows, or None where no mini-batches were asked about.
        target_variance: Variance of Y, where the loss broadcasts, else nan.
        broadcast_loss: The lowest loss with every output compared with every target; nan where it does not broadcast.
        evaluation: The user's own loss at the minimiser where it is no squared error, or None.
    """

    spectrum: Spectrum
    whole: Triangle | None
    l2: float
    moments: RowMoments | None
    target_variance: float
    broadcast_loss: float
    evaluation: Evaluation | None

    @cached_property
    def triangle(self) -> Triangle | None:
        """The triangle of the model's own columns, or None where there are too many for one."""
        return self.whole if self.whole is None or self.spectrum.bias else self.whole.without_ones()

    @cached_property
    def centred(self) -> Triangle | None:
        """The triangle of features and targets less their means."""
        return None if self.whole is None else self.whole.centred()

    @cached_property
    def reference_excess(self) -> float:
        """The excess loss that the goal is a share of: that of zero weights, or with a bias that of the best constant.

        A constant is found in a few steps and says nothing about the features. Where it explains nearly all, rounding
        sets the scale.
        """
        zero, triangle = self.spectrum.excess_at_zero, self.triangle
        if triangle is None or not self.spectrum.bias:
            return zero
        unexplained = self.spectrum.target_components[self.spectrum.rank :].square().sum()
        count = triangle.weight_sum * triangle.targets
        constant = float(triangle.C[1:].square().sum() - unexplained) / count
        return min(zero, max(constant, _ROUNDING * zero))

    @cached_property
    def conditions(self) -> dict[str, float]:
        """Condition numbers of the matrix as it is, centred, with its columns scaled, and both."""
        if self.triangle is None or self.centred is None or self._normal is None:
            return {"as it is": self.spectrum.condition}
        return condition_numbers(self.triangle, self.centred.R, self.spectrum, self._normal)

    @property
    def standardised(self) -> Spectrum | None:
        """The spectrum with the features standardised; None with a ridge, which would be another one then."""
        return None if self.l2 > 0 else self._normal

    @cached_property
    def _normal(self) -> Spectrum | None:
        if self.triangle is None or not self.spectrum.in_range:
            return None
        return standardised(self.triangle)

    def weight_distance(self, weights: Tensor) -> float:
        """Relative distance of weights ``(columns, targets)`` from the nearest minimiser."""
        spectrum, rank = self.spectrum, self.spectrum.rank
        best = spectrum.target_components[:rank] / spectrum.singular_values[:rank].unsqueeze(1)
        size = float(torch.linalg.vector_norm(best))
        return float(torch.linalg.vector_norm(spectrum.directions[:rank] @ weights - best)) / (size or 1.0)


def survey(
    rows: Rows,
    *,
    bias: bool,
    l2: float,
    exact_up_to: int,
    batches: bool,
    crosses: bool,
    criterion: Criterion | None,
    scanned: Scan | None = None,
) -> Landscape:
    """Read the rows and return what they say.

    Args:
        rows: The table.
        bias: Whether the layer has a bias.
        l2: Ridge strength.
        exact_up_to: With more features than this (and many rows) only the leading part of the spectrum is computed.
        batches: Whether mini-batches are asked about.
        crosses: Whether the loss compares every output with every target.
        criterion: A loss that is no multiple of the squared error, or None.
        scanned: What a scan of these rows has told, where there was one.
    """
    whole, spectrum = _spectrum(rows, bias, l2, exact_up_to, scanned)
    variance = lowest = math.nan
    if crosses and spectrum.in_range:
        variance, lowest = _broadcast_loss(rows, bias)
    return Landscape(
        spectrum=spectrum,
        whole=whole,
        l2=l2,
        moments=row_moments(rows, spectrum) if batches and spectrum.in_range and spectrum.rank else None,
        target_variance=variance,
        broadcast_loss=lowest,
        evaluation=None if criterion is None or not spectrum.in_range else _evaluate(rows, spectrum, criterion),
    )


def _spectrum(
    rows: Rows, bias: bool, l2: float, exact_up_to: int, scanned: Scan | None
) -> tuple[Triangle | None, Spectrum]:
    small = min(rows.n_rows, rows.n_features)
    if rows.n_features > exact_up_to and small > exact_up_to // 10:
        return None, partial_spectrum(rows, bias=bias, l2=l2)
    whole = compress(rows, l2=l2, scanned=scanned)
    largest = max(float(whole.R.abs().max()), float(whole.C.abs().max()))
    if largest < _LARGEST and bool(torch.isfinite(whole.residual_squares).all()):
        return whole, spectrum_of(whole if bias else whole.without_ones())
    return None, _overflowing_spectrum(rows, bias, l2)


def _overflowing_spectrum(rows: Rows, bias: bool, l2: float) -> Spectrum:
    """The spectrum of numbers whose squares are none, from a table scaled by powers of two; it is out of range."""
    largest = rows.walk(_Largest()).sizes
    exponents = [math.frexp(value)[1] if value > 0 else 0 for value in largest]
    down = Rows(
        x=_Scaled(rows.x, -exponents[0]),
        y=_Scaled(rows.y, -exponents[1]),
        weight=rows.weight,
        single_target=rows.single_target,
        notes=rows.notes,
    )
    found = spectrum_of_rows(down, bias=bias, l2=0.0)
    too_large = [name for name, value in zip("XY", largest, strict=True) if value >= 1e150]
    name = too_large[0] if too_large else "X"
    size = largest["XY".index(name)]
    note = f"{name} holds numbers of about {size:.1e}, whose squares are beyond float64; scale {name} to about 1"
    limit = torch.finfo(torch.float64).max

    return replace(
        found,
        singular_values=torch.ldexp(found.singular_values, torch.tensor(exponents[0], device="cpu")).clamp(max=limit),
        # Beside numbers that large a column of ones is nothing.
        known_condition=math.inf if bias else found.condition,
        range_note=note,
    )


@final
class _Largest(Fold):
    """The largest sizes in X and in Y."""

    as_stored = False

    def __init__(self) -> None:
        self.sizes = [0.0, 0.0]

    @override
    def rows_at_a_time(self, extent: Extent) -> int:
        return extent.cached_rows()

    @override
    def add(self, block: Block) -> None:
        seen = (float(block.X.abs().max()), float(block.Y.abs().max()))
        self.sizes = [max(pair) for pair in zip(self.sizes, seen, strict=True)]

    @override
    def merge(self, other: Self) -> None:
        self.sizes = [max(pair) for pair in zip(self.sizes, other.sizes, strict=True)]

    @override
    def fresh(self) -> Self:
        return type(self)()

    @override
    def state(self) -> tuple[Tensor, ...]:
        return (torch.tensor(self.sizes, dtype=torch.float64, device="cpu"),)

    @override
    def load_state(self, state: tuple[Tensor, ...]) -> None:
        self.sizes = state[0].tolist()


@final
class _Scaled(Source):
    """A source whose numbers are multiplied by a power of two."""

    def __init__(self, source: Source, exponent: int) -> None:
        self.source, self.exponent = source, exponent
        self.name, self.dtype, self.device = source.name, torch.float64, source.device
        self.in_memory, self.notes = source.in_memory, source.notes
        self.shape = source.shape

    @override
    def read(self, start: int, stop: int) -> Tensor:
        numbers = self.source.read(start, stop).to(torch.float64)
        # In two steps: one factor alone may be beyond float64.
        half = self.exponent // 2
        return numbers * 2.0**half * 2.0 ** (self.exponent - half)


def _broadcast_loss(rows: Rows, bias: bool) -> tuple[float, float]:
    """Variance of Y, and the lowest loss with every output compared with every target."""
    Y = rows.gather().Y
    mean = Y.mean()
    variance = float((Y - mean).square().mean())
    if bias:
        return variance, variance
    # mean_ij (o_i - y_j)^2 = mean_i (o_i - mean y)^2 + var y: regression of a constant on the features.
    constant = TensorSource(torch.full_like(Y, float(mean)), "mean of Y")
    table = Rows(x=rows.x, y=constant, weight=rows.weight, single_target=True)
    return variance, variance + spectrum_of_rows(table, bias=False, l2=0.0).optimal_loss


def _evaluate(rows: Rows, spectrum: Spectrum, criterion: Criterion) -> Evaluation | None:
    """Value and gradient of the user's loss at the least-squares weights; None where it cannot be evaluated there."""
    if not rows.in_memory or rows.n_rows * rows.n_features > _EVALUATE or not spectrum.complete:
        return None
    minimiser = spectrum.minimiser
    weight = (minimiser[1:] if spectrum.bias else minimiser).T.clone().requires_grad_()
    bias = minimiser[0].clone().requires_grad_() if spectrum.bias else None
    whole = rows.gather()
    X, Y = whole.X, whole.Y
    try:
        with torch.enable_grad(), torch.random.fork_rng(devices=[]):
            loss = criterion(torch.nn.functional.linear(X, weight, bias), Y)
            parts = torch.autograd.grad(loss, [weight] if bias is None else [weight, bias])
    except (TypeError, ValueError, RuntimeError):
        # A criterion that cannot be evaluated here leaves no evidence, and the finding says so by its absence.
        return None
    length = math.sqrt(sum(float(part.square().sum()) for part in parts))
    return Evaluation(float(loss.detach()), length)
