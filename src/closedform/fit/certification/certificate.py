"""The certificate: what a fresh pass over the rows says about weights, by code that shares nothing with the solvers."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from typing import Any, final

from closedform.words.json_values import plain

__all__ = ["TOLERANCE", "Certificate"]

#: The largest backward error at which weights are accepted: a small multiple of eps, 7.1e-15.
TOLERANCE = 32 * sys.float_info.epsilon


@final
@dataclass(frozen=True, repr=False)
class Certificate:
    """What a fresh pass over the rows says about a set of weights.

    All relative measures are taken on the design matrix with its columns scaled to comparable norms by powers of
    two, so they hold for every column whatever its unit.

    Attributes:
        accepted: Whether the backward error is at most ``tolerance``, and the choice among many minimisers is the one
            asked for.
        backward_error: Estimate, within a factor of about sqrt(2) or from above, of the smallest relative change of
            the data (Frobenius norm, X and the target weighted alike) for which the weights of a target are its exact
            minimiser; the worst target counts (Karlson and Walden 1997).
        joint_backward_error: The same for one change of X that serves all targets at once (Hallman 2020), over groups
            of about ``max(features, 32)`` targets; or a bound from above that is as small. Not held against the
            tolerance: every solver that treats targets one by one, LAPACK's included, exceeds rounding level where
            their weights are nearly dependent. nan for the triangle of rows that were read once.
        tolerance: What ``backward_error`` is held against.
        forward_error: Estimated bound on the relative error of the weights of any target, in scaled columns;
            1 or more means that the data do not determine the weights.
        condition: Condition number of the design matrix as it came (with its column of ones, if it has one).
        scaled_condition: The same after scaling the columns. Both are of the kept part where the rank is lower.
        rank: Numerical rank.
        columns: Number of columns of the design matrix, the bias included.
        rank_cut: Relative singular value at or below which directions count as zero.
        rank_gap: Ratio between the smallest kept and the largest dropped singular value.
        ambiguous_rank: Whether that gap is not clear.
        truncated: Whether an rcond that was asked for cut directions that are more than rounding; the backward error is
            then that of the problem restricted to the directions kept.
        undetermined_columns: Features that take part in undetermined directions, most involved first (at most 32);
            -1 stands for the bias.
        loss: ``torch.nn.MSELoss()`` of the weights: mean over rows (weighted) and targets.
        gradient_norm: Euclidean norm of the gradient of that loss, with the ridge term, in the user's units.
        residual_norm: Frobenius norm of the (weighted) residual.
        factor_error: How far ``S^-T A'A S^-1`` is from the identity on random probes, for the factor S that the
            estimates use; nan where none was used.
        r_squared: Coefficient of determination of each target.
        residual_std: Residual standard deviation of each target, ``sqrt(sum of squares / (rows - rank))``; nan where
            no degrees of freedom are left.
        least_norm_error: Where the minimiser is not unique: how far the weights are, relative to their norm, from the
            ones of least norm (the bias outside the norm), or their change from those nearest to the layer given;
            None at full rank or where it could not be measured.
        forward_bound: The largest proven relative error of any weight, where ``digits`` was asked for; inf where
            nothing could be proven, None where it was not asked.
        r_squared_about_zero: The same about zero instead of the mean, as is usual for a fit without a bias.
        loss_with_bias: For a fit without a bias: about the loss that is left with one; None where that was not
            measured.
        triangle_of: Where the rows were read once and only their triangle is kept (:class:`closedform.Accumulator`),
            how many they were. All measures are then of the triangle, which has the same minimiser; else None.
        rounding_error: For X or Y narrower than float64: about how far the weights of any target would move if each
            number were rounded once more to its dtype, relative, in scaled columns; never less than that rounding
            itself. None for float64 and integers, and where the rank is lower than rows and columns.
        rounded_to: What that dtype is called, the coarser one of X and Y; or None.
        probed: Whether there are so many targets, and rows so well conditioned, that their gradients were measured on
            the rows by random directions, and squares of residuals follow from sums of the rows. The backward errors
            are then bounds from above, as is the norm of the gradient: of a thousand targets one is beyond them with a
            probability of 1e-8.
    """

    accepted: bool
    backward_error: float
    joint_backward_error: float
    tolerance: float
    forward_error: float
    condition: float
    scaled_condition: float
    rank: int
    columns: int
    rank_cut: float
    rank_gap: float
    ambiguous_rank: bool
    truncated: bool
    undetermined_columns: tuple[int, ...]
    loss: float
    gradient_norm: float
    residual_norm: float
    factor_error: float
    r_squared: tuple[float, ...]
    residual_std: tuple[float, ...]
    least_norm_error: float | None = None
    forward_bound: float | None = None
    r_squared_about_zero: tuple[float, ...] = ()
    loss_with_bias: float | None = None
    triangle_of: int | None = None
    rounding_error: float | None = None
    rounded_to: str | None = None
    probed: bool = False

    @property
    def digits(self) -> int:
        """Decimal digits of the weights that are determined: proven where a bound was asked for, else estimated."""
        return _digits(self.forward_error if self.forward_bound is None else self.forward_bound)

    @property
    def rounded_digits(self) -> int | None:
        """The same for data rounded to their dtype, where that is narrower than float64; None where it is not."""
        return None if self.rounding_error is None else _digits(self.rounding_error)

    @property
    def verdict(self) -> str:
        """Why the weights were accepted or refused, in one line."""
        if self.accepted:
            return f"accepted: backward error {self.backward_error:.1e}"
        if self.least_norm_error is not None and self.backward_error <= self.tolerance:
            return f"the weights are {self.least_norm_error:.1e} (relative) from those of least norm or nearest"
        return f"backward error {self.backward_error:.1e} is above {self.tolerance:.1e}"

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain numbers, lists and strings for JSON; what is not finite becomes None."""
        return plain(self) | {"digits": self.digits, "rounded_digits": self.rounded_digits}

    def __str__(self) -> str:
        rank = f"rank {self.rank} of {self.columns}" + (" (ambiguous)" if self.ambiguous_rank else "")
        digits = "no digit of the weights is"
        if self.digits:
            digits = f"about {self.digits} digit{'s' if self.digits > 1 else ''} of the weights are"
        verdict = "accepted" if self.accepted else "refused"
        error = f"estimated error {self.forward_error:.1e}"
        if self.forward_bound is not None:
            proven = math.isfinite(self.forward_bound)
            error = f"proven error at most {self.forward_bound:.1e}" if proven else "no error bound could be proven"

        rounded = ""
        if self.rounded_digits is not None:
            about = f"about {self.rounded_digits}" if self.rounded_digits else "none"
            rounded = f" for the data as stored, {about} for data rounded to {self.rounded_to}"

        once = "" if self.triangle_of is None else f", of the triangle of {self.triangle_of:,} rows, read once"
        targets = f", of {len(self.r_squared):,} targets by random directions" if self.probed else ""
        backward = f"backward error {self.backward_error:.1e} (tolerance {self.tolerance:.1e}{targets})"
        return (
            f"{verdict}: {backward}, {rank}{once}\n"
            f"condition {self.condition:.2g}, {self.scaled_condition:.2g} with columns scaled; {digits} "
            f"determined ({error}){rounded}\n"
            f"loss {self.loss:.6g}, gradient norm {self.gradient_norm:.1e}"
        )

    __repr__ = __str__


def _digits(error: float) -> int:
    """Return the decimal digits that a relative error leaves."""
    return 0 if not error < 1 else min(15, int(-math.log10(max(error, 1e-16))))
