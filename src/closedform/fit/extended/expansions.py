"""The gradient in sums of three doubles by the compiled pass, with a bound on all that is left out of it.

It costs little more than a pass in double precision; products of slices serve other devices, wide systems and what
lies beyond. The errors of this kind of dot product were studied by Ogita, Rump and Oishi (2005).
"""

from __future__ import annotations

import torch
from torch import Tensor

from closedform.engine.choice import engine_for
from closedform.engine.compiled import depths
from closedform.fit.extended.fixed_point import MAX_SLICES, Gradient, coefficients
from closedform.fit.extended.operand import PASS_ROWS, SLACK, Operand, Tall, U, readable_rows
from closedform.numerics.expansion import accumulate, renormalise, two_sum
from closedform.numerics.slices import carry, convolve, levels_for, limbs, scaled
from closedform.rows import Design

__all__ = ["dot_additions", "foreseen_errors", "gradient_in_expansions", "served", "sum_additions"]

#: Sums of one call, so that those of all its parts do not fill the memory.
_ENTRIES = 2**17
#: More than products and scaling can lose to the ends of the range of doubles while scales stay within 2**300.
_UNDERFLOW = 2.0**-500
#: Additions that a dot product goes through beside those of its lanes: one for a lane that has a column more than
#: others, the target, the offset, and one to spare.
_MERGED = 4
#: Factors by which the first part of an expansion dwarfs it, and those below it.
_DWARFED = (1.0, 2.0**52, 2.0**104)


def served(operand: Operand) -> bool:
    """Whether the compiled pass serves the operand."""
    return isinstance(operand, Tall) and operand.compiled


def dot_additions(columns: int) -> float:
    """Return how many additions to a first part a product of so many columns goes through in the compiled pass.

    Each lane of a register adds up its share of the columns, and then the lanes are added up.
    """
    lanes = depths().lanes
    return columns / lanes + lanes + _MERGED


def sum_additions(rows: int) -> int:
    """Return how many additions to a first part an entry of a gradient over so many rows goes through.

    A call takes :data:`PASS_ROWS` of them, or what is left. Rows are added to their group, groups to a part, parts to
    what the call adds up, and that to the sums of all calls.
    """
    split = depths()
    groups = -(-split.part_rows(PASS_ROWS) // split.expansion_group)
    return split.expansion_group + groups + split.parts + _calls(rows)


def _calls(rows: int) -> int:
    return -(-rows // PASS_ROWS)


def _loss(additions: float) -> float:
    """Bound what a sum that goes through so many additions leaves out, relative to the absolute values."""
    return 16 * (additions + 3) ** 3 * U**3 * SLACK


def _sizes(z: Tensor) -> Tensor:
    """Bound expansions, and the parts below the first one by how much it dwarfs them."""
    return torch.stack([part.abs() * factor for part, factor in zip(z, _DWARFED, strict=True)]).amax(0)


def _errors(operand: Tall, z: Tensor, residual_norms: Tensor) -> tuple[Tensor, Tensor]:
    """Bound the error of an entry of the gradient, and the norm of that of the residual, ``(targets,)``."""
    design = operand.design
    residuals = (design.column_norms @ _sizes(z) + design.target_norms) * SLACK
    lost = _loss(dot_additions(operand.columns)) * residuals
    summed = residual_norms + (0.0 if operand.penalty is None else 1.0) * residuals
    error = _loss(sum_additions(design.rows.n_rows)) * (summed * SLACK + _UNDERFLOW)
    return error + _UNDERFLOW, lost + _UNDERFLOW


def foreseen_errors(operand: Operand, z: Tensor, residual_norms: Tensor) -> tuple[Tensor, Tensor]:
    """Return what :func:`gradient_in_expansions` would bound by, ``(targets,)``."""
    assert isinstance(operand, Tall)
    return _errors(operand, z, residual_norms)


def gradient_in_expansions(operand: Operand, z: Tensor) -> Gradient:
    """Return ``A'W(b - A z) - penalty z`` for an expansion z ``(3, columns, targets)``."""
    assert isinstance(operand, Tall)
    design = operand.design
    V = z * design.scale.unsqueeze(1)
    g, residual_norms = _summed(design, V)
    g = g * design.scale.unsqueeze(1)
    if operand.penalty is not None:
        x = coefficients(z, operand.peaks, operand.graded, MAX_SLICES)
        penalty = limbs(operand.penalty.reshape(1, -1, 1), levels_for(MAX_SLICES))
        for level in carry(convolve(penalty, x.limbs)):
            accumulate(g, -scaled(level, x.exponents))
    error, residual_error = _errors(operand, z, residual_norms)
    value, rounded = _rounded(renormalise(g))
    error = error + rounded
    # What scaling could not do exactly, or took out of range, is not known at all.
    known = torch.isfinite(value).all(0) & torch.isfinite(error) & (V / design.scale.unsqueeze(1) == z).all(0).all(0)
    return Gradient(torch.where(known, value, 0.0), torch.where(known, error, torch.inf), residual_error)


def _summed(design: Design, V: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``[1 | X]' T`` (3, columns, targets) for ``T = W (Y - [1 | X] V)``, and norms of residuals (targets,)."""
    _, p, k = V.shape
    first, n = int(design.bias), p - int(design.bias)
    vectors = V[:, first:].transpose(1, 2)
    offset = V[:, 0] if design.bias else V.new_zeros(3, k)
    width = max(1, _ENTRIES // (n + 1))
    groups = [slice(start, min(start + width, k)) for start in range(0, k, width)]
    sums = [V.new_zeros((group.stop - group.start) * (3 * (n + 1) + 1)) for group in groups]
    for block in design.blocks(PASS_ROWS, "extending", as_stored=True):
        X = readable_rows(block.X)
        engine = engine_for(X)
        for group, total in zip(groups, sums, strict=True):
            engine.expansion_sums_(
                total,
                X,
                block.Y[:, group],
                vectors[:, group],
                offset[:, group],
                block.weight,
                design.target_scale[group],
            )
    gradients, squares = [], []
    for group, total in zip(groups, sums, strict=True):
        q = group.stop - group.start
        parts, rest = total[: 3 * q * (n + 1)].view(3, -1), total[3 * q * (n + 1) :]
        features, ones = parts[:, : q * n].view(3, q, n).transpose(1, 2), parts[:, q * n :].unsqueeze(1)
        gradients.append(torch.cat([ones, features], 1) if design.bias else features)
        squares.append(rest)
    return torch.cat(gradients, 2), torch.cat(squares).sqrt()


def _rounded(g: Tensor) -> tuple[Tensor, Tensor]:
    """Return expansions as doubles, within 100 U of the truth, and what exceeds that, ``(targets,)``."""
    low, lost = two_sum(g[1], g[2])
    value, missing = two_sum(g[0], low)
    excess = (lost.abs() + missing.abs()) * SLACK - 100 * U * value.abs()
    return value, excess.clamp(min=0.0).amax(0)
