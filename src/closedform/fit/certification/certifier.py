"""The check of given weights on a fresh pass over the rows."""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from closedform.engine.threads import one_thread, spectrum_of
from closedform.fit.certification.certificate import TOLERANCE, Certificate
from closedform.fit.certification.choice import CHOICE_TOLERANCE, least_norm_error
from closedform.fit.certification.conditions import condition_numbers
from closedform.fit.certification.rounding import rounding_error
from closedform.fit.certification.sums import CertificateSums, Measured
from closedform.fit.certification.wide import WideEvidence, wide_evidence
from closedform.fit.claims import Claims
from closedform.fit.problem import Problem
from closedform.fit.statistics import r_squared, r_squared_about_zero, residual_std
from closedform.fit.weights import Weights
from closedform.numerics.host import Vector, lengths, norm_of
from closedform.numerics.karlson_walden import Evidence, backward_error, joint_backward_error
from closedform.numerics.rank import columns_involved
from closedform.numerics.root import Root
from closedform.numerics.scaling import peak, safe_norm

__all__ = ["certify", "measure", "probes_of"]

_EPS = sys.float_info.epsilon
#: Random vectors by which a root is held against the rows.
_PROBES = 2
#: Seed of those vectors; any serves.
_SEED = 20
#: Sizes for which they are kept: small problems of one shape often come again.
_SHAPES = 8
#: Beyond this distance, as probed, a root is probed more closely before it bounds anything.
_SUSPECT = 0.5
#: Products with the matrix in that closer look, which spans this many times more directions than the first.
_ROUNDS = 3
#: What the smallest eigenvalue may be below the one that the closer look found, as a factor.
_UNSEEN = 0.5
#: Columns of the smallest group of targets that one perturbation of the matrix is to serve.
_GROUP = 32
#: Part of a column of ones that has to be left beside the features, for a bias to be another column than these.
_LEAST_LEFT = 1e-12
#: Residuals up to this part of the targets are rounding.
_ROUNDING = 1e-12
#: Undetermined columns that are named at most.
_NAMED = 32


def certify(
    problem: Problem,
    weights: Weights,
    claims: Claims,
    nearest: Tensor | None = None,
    multipliers: Tensor | None = None,
    sums: Measured | None = None,
    *,
    stepped: bool = False,
) -> Certificate:
    """Check weights against the rows.

    Args:
        problem: The problem; only its rows, norms and scales are used.
        weights: The weights, in float64.
        claims: What the factor that they came from says of the matrix. It is checked here, not trusted.
        nearest: Coordinates that the weights are to be near to where they are not unique, or None for least norm.
        multipliers: Of the rows that the weights are a combination of, as refinement kept them, or None.
        sums: What :func:`measure` returned for these weights, where they were measured already; or None.
        stepped: Whether the loss, the norm of the gradient and the joint backward error are those of the weights after
            one more step by the factor. The backward error is then bounded without singular values.
    """
    with np.errstate(all="ignore"):
        if sums is None:
            sums = _measure(problem, weights, probes_of(claims.root, problem), _groups(problem))
        return _certify(problem, weights, claims, nearest, multipliers, sums, stepped)


def _certify(
    problem: Problem,
    weights: Weights,
    claims: Claims,
    nearest: Tensor | None,
    multipliers: Tensor | None,
    sums: Measured,
    stepped: bool,
) -> Certificate:
    Z, root, rank = problem.from_weights(weights), claims.root, claims.rank
    probes, products = sums.probes, sums.products
    if problem.l2 > 0:
        products = products + problem.penalty.square().unsqueeze(1) * probes
    gradient, residual = _with_ridge(problem, claims, Z, sums.gradient, sums.squares)
    of_probes, of_gradient, of_ones = _images(problem, root, products, gradient)
    factor_error, least = _compare(problem, root, probes, of_probes)

    compared = factor_error, least, math.inf if stepped else TOLERANCE / 4
    evidence = _evidence(problem, claims, Z, (gradient, of_gradient), compared)
    if sums.image is not None:
        evidence = _by_image(evidence, sums.image)
    error = backward_error(evidence, residual)
    after, squares = _after_step(evidence, sums.squares) if stepped else (evidence, sums.squares)
    joint = error if problem.n_targets == 1 else _joint(after, problem, sums.grams)

    seen = _seen(problem, claims, Z, nearest, multipliers, factor_error)
    choice = least_norm_error(problem, claims, Z, nearest, seen.no_combination)
    chosen = choice is None or rank.ambiguous or choice <= CHOICE_TOLERANCE
    rounded, dtype = rounding_error(problem, claims, Z, residual, seen, probes)

    unscaled = np.sqrt(squares) / problem.target_units
    residual_norm, count = norm_of(unscaled), problem.scanned.weight_sum * problem.n_targets
    loss = residual_norm / count * residual_norm
    return Certificate(
        accepted=error <= TOLERANCE and chosen,
        backward_error=error,
        joint_backward_error=joint,
        tolerance=TOLERANCE,
        forward_error=_forward_error(problem, claims, Z, residual, seen, error),
        condition=seen.raw.condition,
        scaled_condition=seen.scaled.condition,
        rank=rank.rank,
        columns=rank.columns,
        rank_cut=rank.cut,
        rank_gap=rank.gap,
        ambiguous_rank=rank.ambiguous,
        truncated=claims.restricted,
        undetermined_columns=_undetermined(problem, claims),
        loss=loss,
        gradient_norm=2.0 * _slope(problem, after.gradient) / count,
        residual_norm=residual_norm,
        factor_error=factor_error,
        r_squared=r_squared(problem, squares, sums.centred_squares),
        residual_std=residual_std(problem, unscaled, rank.rank),
        least_norm_error=choice,
        r_squared_about_zero=r_squared_about_zero(problem, squares),
        loss_with_bias=_loss_with_bias(problem, claims, (squares, sums.residual_sums), (of_ones, factor_error), loss),
        triangle_of=problem.rows.triangle_of,
        rounding_error=rounded,
        rounded_to=dtype,
        probed=sums.image is not None,
    )


def _slope(problem: Problem, gradient: Tensor) -> float:
    """Return the length of a gradient in the user's units, or a bound on it where its lengths alone are known."""
    column = problem.columns.column if gradient.shape[0] == problem.n_columns else problem.columns.column.min()
    return safe_norm(gradient / column / problem.target_scale)


def _by_image(evidence: Evidence, image: Tensor) -> Evidence:
    """Return the evidence where the rows have told the lengths of ``S^-T`` times the gradients, and not these.

    Lengths of the gradients are at most the norm of S times those.
    """
    root = evidence.root
    assert root is not None
    gradient = torch.linalg.vector_norm(image, dim=0, keepdim=True) * torch.linalg.vector_norm(root.dense())
    return replace(evidence, image=image, gradient=gradient, spectrum=None)


def _with_ridge(
    problem: Problem, claims: Claims, Z: Tensor, gradient: Tensor, squares: Vector
) -> tuple[Tensor, Vector]:
    """Return gradient and lengths of residuals with what the ridge rows add, the gradient within the space kept."""
    if problem.l2 > 0:
        penalised = problem.penalty.unsqueeze(1) * Z
        gradient = gradient - problem.penalty.unsqueeze(1) * penalised
        squares = squares + lengths(penalised) ** 2
    if claims.restricted and claims.row_space is not None:
        gradient = claims.row_space.T @ (claims.row_space @ gradient)
    return gradient, np.sqrt(squares)


def measure(problem: Problem, weights: Weights, root: Root) -> Measured:
    """Walk the rows once for all that a certificate of these weights, after one more step, needs.

    Args:
        problem: The problem.
        weights: The weights, in float64.
        root: That of the factor they came from, which is probed.
    """
    return _measure(problem, weights, probes_of(root, problem), ())


def probes_of(root: Root | None, problem: Problem, count: int = _PROBES) -> Tensor:
    """Return vectors v whose images S v are Gaussian, so that small singular directions are probed as large ones are.

    Args:
        root: S, or None for no vectors.
        problem: The problem.
        count: How many.
    """
    if root is None or not root.shape[0]:
        return problem.scale.new_zeros(problem.n_columns, 0)
    return root.solve(_gaussian(root.shape[0], count).to(root.device))


@lru_cache(maxsize=_SHAPES)
def _gaussian(size: int, count: int) -> Tensor:
    generator = torch.Generator().manual_seed(_SEED)
    return torch.randn(size, count, dtype=torch.float64, device="cpu", generator=generator)


def _groups(problem: Problem) -> tuple[range, ...]:
    """Return the groups of targets that one perturbation of the matrix is to serve.

    One Gram matrix of residuals for each keeps their cost below that of the gradient; compiled passes take them in
    eights. A triangle of other rows keeps the lengths of the residuals, and not the angles between them.
    """
    k, size = problem.n_targets, -(-max(problem.n_columns, _GROUP) // 8) * 8
    grouped = k > 1 and not problem.rows.triangle_of
    return tuple(range(start, min(start + size, k)) for start in range(0, k, size)) if grouped else ()


def _measure(problem: Problem, weights: Weights, probes: Tensor, groups: tuple[range, ...]) -> Measured:
    V = weights.weight.T * problem.target_scale
    offset = None if weights.bias is None else weights.bias * problem.target_scale
    about = problem.scanned.target_means * problem.target_scale
    return problem.rows.walk(CertificateSums(problem.columns, V, offset, probes, about, groups)).measured


def _loss_with_bias(
    problem: Problem,
    claims: Claims,
    sums: tuple[Vector, Vector],
    ones: tuple[Tensor, float],
    loss: float,
) -> float | None:
    """Return about the loss that is left with a bias; None where there is one, or the factor does not tell.

    A column of ones lowers the squares by ``(1'r)^2 / 1'q``, with r the residual and q what is left of the ones after
    a fit of their own to the features.

    Args:
        problem: The problem.
        claims: What the factor says.
        sums: Those of the squares of the residuals, and of the residuals, ``(targets,)``.
        ones: The image of the ones, as :func:`_images` returns it, and how far the factor is from the matrix.
        loss: What is left without a bias.
    """
    root, total = claims.root, problem.scanned.weight_sum
    if root is None or not root.shape[0] or not _misses_bias(problem):
        return None
    squares, gains = sums[0], sums[1] ** 2 / total
    noticed = (gains > _LEAST_LEFT / 2 * squares) & (squares > (_ROUNDING * problem.target_sizes) ** 2)
    if not noticed.any():
        return loss

    image, factor_error = ones
    left = 1 - float(torch.linalg.vector_norm(image)) ** 2
    if not left > factor_error:
        # |1 - A z|^2 is never less than its minimum, so that an error of z takes from the gain and adds nothing.
        z, products = root.solve(image), _common(problem)
        left = 1 - float(((2 * products - problem.normal_product(z)) * z).sum())
    if not left > _LEAST_LEFT:
        return loss
    norm = norm_of(np.sqrt(np.maximum(squares - gains / left, 0.0)) / problem.target_units)
    return norm / (total * problem.n_targets) * norm


def _misses_bias(problem: Problem) -> bool:
    """Whether a bias could lower the loss: there is none, and the equations are not met without."""
    return not problem.bias and problem.rows.n_rows > problem.n_columns


def _common(problem: Problem) -> Tensor:
    """Return what a column of ones of unit length has in common with each column of A, ``(columns, 1)``."""
    share = problem.columns.column / math.sqrt(problem.scanned.weight_sum)
    return problem.scanned.feature_sums.unsqueeze(1) * share


def _images(
    problem: Problem, root: Root | None, products: Tensor, gradient: Tensor
) -> tuple[Tensor, Tensor | None, Tensor]:
    """Return ``S^-T`` times the products of the probes, the gradient, and what ones have in common with the columns.

    The last only where a bias is missed: nobody asks for it elsewhere.
    """
    if root is None or not root.shape[0]:
        return products, None, gradient[:, :0]
    parts = [products, gradient] + ([_common(problem)] if _misses_bias(problem) else [])
    of_probes, of_gradient, of_ones = torch.tensor_split(
        root.adjoint_solve(torch.cat(parts, 1)), (products.shape[1], products.shape[1] + problem.n_targets), 1
    )
    return of_probes, of_gradient, of_ones


def _compare(problem: Problem, root: Root | None, probes: Tensor, image: Tensor) -> tuple[float, float]:
    """Return how far ``M = S^-T (A'A + P'P) S^-1`` is from the identity on the probes, and a bound on it from below.

    Where the probes are far from their images, a few steps of the block Lanczos process from them look for the smallest
    eigenvalue of M (Golub and Underwood 1977).
    """
    if root is None or not probes.shape[1]:
        return math.nan, 0.0
    start = root.product(probes)
    factor_error = float((lengths(image - start) / lengths(start)).max())
    if not factor_error >= _SUSPECT or not math.isfinite(peak(image)):
        return factor_error, 0.0

    basis, R = torch.linalg.qr(start)
    images = torch.linalg.solve_triangular(R, image, upper=True, left=False)
    for _ in range(_ROUNDS):
        new = images[:, -_PROBES:]
        # Twice is enough.
        for _ in range(2):
            new = new - basis @ (basis.T @ new)
        new = torch.linalg.qr(new).Q
        image = root.adjoint_solve(problem.normal_product(root.solve(new)))
        basis, images = torch.cat([basis, new], 1), torch.cat([images, image], 1)
    projected = basis.T @ images
    eigenvalues = torch.linalg.eigvalsh((projected + projected.T) / 2)
    smallest = float(eigenvalues[0])
    return factor_error, _UNSEEN * smallest if smallest > 0 else 0.0


def _choice_error(problem: Problem, Z: Tensor, seen: WideEvidence, size: Vector, error: float) -> Vector:
    """Return how far the weights of least norm may be off where the row space is known to rounding, ``(targets,)``.

    The row space V of the scaled columns is; the norm is that of ``w = D z``. With ``M = D^-1 V`` and ``M'w = V'z``, a
    change E of V moves w by ``M'^+ E'z`` (to first order): where units are far apart, by much more than it is long.
    """
    moved = max(error, _EPS) * seen.scaled.largest * size
    lasting = seen.raw.smallest * lengths(problem.columns.column * Z)
    return np.where(lasting > 0, moved / np.where(lasting > 0, lasting, 1.0), np.inf)


def _undetermined(problem: Problem, claims: Claims) -> tuple[int, ...]:
    involved = () if claims.involved is None else columns_involved(claims.involved)[:_NAMED]
    return tuple(column - int(problem.bias) for column in involved)


def _evidence(
    problem: Problem,
    claims: Claims,
    Z: Tensor,
    gradients: tuple[Tensor, Tensor | None],
    compared: tuple[float, float, float],
) -> Evidence:
    (gradient, image), root = gradients, claims.root
    return Evidence(
        Z=Z,
        gradient=gradient,
        matrix_norm=problem.frobenius_norm,
        target_norms=problem.target_sizes,
        root=root,
        spectrum=None if root is None else lambda: spectrum_of(root),
        factor_error=compared[0],
        least=compared[1],
        parts=_dual_parts(problem, gradient, claims),
        good_enough=compared[2],
        image=image,
    )


def _seen(
    problem: Problem,
    claims: Claims,
    Z: Tensor,
    nearest: Tensor | None,
    multipliers: Tensor | None,
    factor_error: float,
) -> WideEvidence:
    """Return the condition numbers, and what else there is to see of a wide system."""
    if claims.rows is None:
        return WideEvidence(*condition_numbers(problem, claims, factor_error))
    return wide_evidence(problem, claims, Z, nearest, multipliers)


def _after_step(evidence: Evidence, squares: Vector) -> tuple[Evidence, Vector]:
    """Return what there is to see after a step: what it leaves of gradients and of squares of residuals, and rounding.

    Rounding has any sign, and changes a coordinate by at most a part u.
    """
    root, Z, image = evidence.root, evidence.Z, evidence.image
    if root is None or image is None:
        return evidence, squares
    generator = torch.Generator().manual_seed(_SEED)
    signs = torch.randint(0, 2, Z.shape, device="cpu", generator=generator).to(Z.device)
    left = evidence.factor_error * image + root.product(Z * (signs - 0.5) * _EPS)
    after = replace(evidence, image=left, gradient=root.adjoint_product(left))
    return after, np.maximum(squares - lengths(image) ** 2, 0.0)


def _joint(evidence: Evidence, problem: Problem, grams: tuple[Tensor, ...]) -> float:
    """Return the joint backward error of the worst group, by the products of its residuals where these are there."""
    groups = _groups(problem)
    if not groups:
        return math.nan
    penalised, worst = problem.penalty.unsqueeze(1) * evidence.Z, 0.0
    with one_thread(problem.n_columns, problem.rows.device):
        for number, targets in enumerate(groups):
            part = slice(targets.start, targets.stop)
            group = replace(
                evidence,
                Z=evidence.Z[:, part],
                gradient=evidence.gradient[:, part],
                target_norms=evidence.target_norms[part],
                image=None if evidence.image is None else evidence.image[:, part],
                parts=None if evidence.parts is None else (evidence.parts[0][:, part], evidence.parts[1][:, part]),
            )
            gram = grams[number] + penalised[:, part].T @ penalised[:, part] if grams else None
            worst = max(worst, joint_backward_error(group, gram))
    return worst


def _dual_parts(problem: Problem, gradient: Tensor, claims: Claims) -> tuple[Tensor, Tensor] | None:
    """Write the gradient as ``A't + P't2 + q`` and return ``[t; t2]`` and q; any such t bounds the error from above."""
    if claims.root is not None or claims.dual_solve is None:
        return None
    rows, first = problem.gathered, int(problem.bias)
    X = rows.X.to(torch.float64)
    root = None if rows.weight is None else rows.weight.sqrt().unsqueeze(1)
    raw = gradient / problem.scale.unsqueeze(1)
    image = X @ raw[first:]
    t = claims.dual_solve(image if root is None else image * root)
    part = t if root is None else t * root
    back = torch.cat([part.sum(0, keepdim=True), X.T @ part]) if problem.bias else X.T @ part
    rest = raw - back
    left = torch.zeros_like(gradient)
    if problem.bias:
        left[0] = rest[0] * problem.scale[0]
    return torch.cat([t, rest[first:] / math.sqrt(problem.l2)]), left


def _forward_error(
    problem: Problem, claims: Claims, Z: Tensor, residual: Vector, seen: WideEvidence, error: float
) -> float:
    """First-order bound from the backward error: Wedin (1973); Higham (2002), theorem 20.1; as measured where wide."""
    smallest = seen.scaled.smallest
    if claims.rank.ambiguous or claims.rank.rank == 0:
        return math.inf
    if claims.rows is not None:
        return max(error, _EPS) * seen.effect

    size = lengths(Z)
    determined = size > 0
    if not determined.any():
        return 0.0
    if not smallest > 0:
        return math.inf
    change = max(error, _EPS) * problem.frobenius_norm
    of_targets = change / smallest * (1 + problem.target_sizes / (problem.frobenius_norm * size))
    per_target = of_targets + change * residual / (smallest**2 * size)
    if not claims.rank.full:
        per_target = np.maximum(per_target, _choice_error(problem, Z, seen, size, error))
    if problem.bias:
        # A small error beside a large offset may be a large one of the weights; those of a constant target are zeros.
        features = lengths(Z[1:])
        per_target = per_target * np.where(features > _EPS * size, size / features, 1.0)
    return float(per_target[determined].max())
