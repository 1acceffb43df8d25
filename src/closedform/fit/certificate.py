"""The certificate: a check of given weights on a fresh pass over the rows, that shares nothing with the solvers."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from closedform.engine.passes import pass_sums, residual_pass, spread_squares
from closedform.engine.threads import all_threads, dense_of, spectrum_of
from closedform.numerics.extremes import SMALL, Extremes, extreme_singular_values
from closedform.numerics.karlson_walden import Evidence, backward_error, joint_backward_error
from closedform.numerics.rank import Rank, columns_involved
from closedform.numerics.root import Root, TriangularRoot
from closedform.rows import Design

__all__ = ["TOLERANCE", "Certificate", "certify"]

_EPS = sys.float_info.epsilon
#: The largest backward error at which weights are accepted: a small multiple of eps, 7.1e-15.
TOLERANCE = 32 * _EPS
_PROBES = 2
#: Rows from which the mean of the targets is guessed.
_GUESS_ROWS = 4096
#: A factor further from the matrix than this, as probed, only tells where its extreme singular values are found.
_CLOSE = 0.02


@dataclass(frozen=True)
class Certificate:
    """What a fresh pass over the rows says about a set of weights.

    All relative measures are taken on the design matrix with its columns scaled to comparable norms by powers of
    two, so they hold for every column whatever its unit.

    Attributes:
        accepted: Whether the backward error is at most ``tolerance``.
        backward_error: Estimate, within a factor of about sqrt(2) or from above, of the smallest relative change of
            the data (Frobenius norm, X and the target weighted alike) for which the weights of a target are its exact
            minimiser; the worst target counts (Karlson and Walden 1997).
        joint_backward_error: The same for one change of X that serves all targets at once (Hallman 2020), over groups
            of about ``max(features, 32)`` targets. Not held against the tolerance: every solver that treats targets one
            by one, LAPACK's included, exceeds rounding level where their weights are nearly dependent.
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
        forward_bound: The largest proven relative error of any weight, where ``digits`` was asked for; inf where
            nothing could be proven, None where it was not asked.
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
    forward_bound: float | None = None

    @property
    def digits(self) -> int:
        """Decimal digits of the weights that are determined: proven where a bound was asked for, else estimated."""
        error = self.forward_error if self.forward_bound is None else self.forward_bound
        return 0 if not error < 1 else min(15, int(-math.log10(max(error, 1e-16))))

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain numbers, lists and strings for JSON; what is not finite becomes None."""
        return {field.name: _plain(getattr(self, field.name)) for field in fields(self)} | {"digits": self.digits}

    def __str__(self) -> str:
        rank = f"rank {self.rank} of {self.columns}" + (" (ambiguous)" if self.ambiguous_rank else "")
        digits = "no digit of the weights is"
        if self.digits:
            digits = f"about {self.digits} digit{'s' if self.digits > 1 else ''} of the weights are"
        verdict = "accepted" if self.accepted else "refused"
        error = f"estimated error {self.forward_error:.1e}"
        if self.forward_bound is not None:
            error = f"proven error at most {self.forward_bound:.1e}"
        return (
            f"{verdict}: backward error {self.backward_error:.1e} (tolerance {self.tolerance:.1e}), {rank}\n"
            f"condition {self.condition:.2g}, {self.scaled_condition:.2g} with columns scaled; {digits} "
            f"determined ({error})\n"
            f"loss {self.loss:.6g}, gradient norm {self.gradient_norm:.1e}"
        )


def certify(
    design: Design,
    weight: Tensor,
    bias: Tensor | None,
    *,
    rank: Rank,
    root: Root | None = None,
    least: float = 0.0,
    dual_solve: Callable[[Tensor], Tensor] | None = None,
    extremes: Extremes | None = None,
    undetermined: Tensor | None = None,
    kept: Tensor | None = None,
) -> Certificate:
    """Check weights against the rows.

    Args:
        design: The problem; only its rows, norms and scales are used.
        weight: ``(targets, features)``, float64.
        bias: ``(targets,)`` or None.
        rank: The rank claimed.
        root: Root of the normal matrix, checked here against the rows.
        least: What ``A'A`` is at least in terms of that root, ``least * S'S``, where theory tells; else 0.
        dual_solve: Solver with ``X X' + l2 I``, for wide problems with a ridge.
        extremes: Largest and smallest singular value of the scaled matrix where the factor measured them.
        undetermined: Undetermined directions as rows ``(directions, columns)``, or the lengths of columns in them.
        kept: Row space to which an explicit rcond restricts the problem; the gradient is measured inside it.
    """
    Z = design.from_weights(weight, bias)
    probes = _probe_vectors(root) if root is not None and root.shape[0] else None
    sums = _measure(design, weight, bias, probes)
    gradient = sums.gradient - design.penalty.square().unsqueeze(1) * Z
    penalised = design.penalty.unsqueeze(1) * Z
    if kept is not None:
        gradient = kept.T @ (kept @ gradient)
    factor_error = math.nan
    if root is not None and probes is not None:
        image = sums.probe_product + design.penalty.square().unsqueeze(1) * probes
        start = root.product(probes)
        image = root.adjoint_solve(image)
        factor_error = float(
            (torch.linalg.vector_norm(image - start, dim=0) / torch.linalg.vector_norm(start, dim=0)).max()
        )
    parts = None
    if root is None and dual_solve is not None:
        parts = _dual_parts(design, gradient, dual_solve)
    evidence = Evidence(
        Z=Z,
        gradient=gradient,
        matrix_norm=design.frobenius_norm,
        target_norms=design.target_norms,
        root=root,
        spectrum=None if root is None else lambda: spectrum_of(root),
        factor_error=factor_error,
        least=least,
        parts=parts,
        good_enough=TOLERANCE / 4,
    )
    error = backward_error(evidence, sums.squares + penalised.square().sum(0))
    joint = error if design.n_targets == 1 else _joint(evidence, sums.grams, penalised)
    scaled, raw = _conditions(design, root, extremes, rank)
    if factor_error > _CLOSE:
        scaled, raw = _measured(design, scaled, raw)
    residual = (sums.squares + penalised.square().sum(0)).sqrt()
    forward = _forward_error(design, Z, residual, scaled.smallest, error)
    if rank.ambiguous or rank.rank == 0:
        forward = math.inf
    unscaled = sums.squares.sqrt() / design.target_scale
    total = float(unscaled.square().sum())
    count = design.scanned.weight_sum
    true_gradient = gradient / design.scale.unsqueeze(1) / design.target_scale
    freedom = design.scanned.positive_rows - rank.rank
    return Certificate(
        accepted=error <= TOLERANCE,
        backward_error=error,
        joint_backward_error=joint,
        tolerance=TOLERANCE,
        forward_error=forward,
        condition=raw.condition,
        scaled_condition=scaled.condition,
        rank=rank.rank,
        columns=rank.columns,
        rank_cut=rank.cut,
        rank_gap=rank.gap,
        ambiguous_rank=rank.ambiguous,
        truncated=kept is not None,
        undetermined_columns=tuple(
            i - int(design.bias) for i in (columns_involved(undetermined) if undetermined is not None else ())[:32]
        ),
        loss=total / (count * design.n_targets),
        gradient_norm=2.0 * _length(true_gradient) / (count * design.n_targets),
        residual_norm=math.sqrt(total),
        factor_error=factor_error,
        r_squared=tuple(_r_squared(design, sums)),
        residual_std=tuple((unscaled / math.sqrt(freedom)).tolist() if freedom > 0 else [math.nan] * design.n_targets),
    )


@dataclass
class _Sums:
    """Sums over the rows, in scaled coordinates: gradient ``A'r``, residual Gram matrices and what statistics need."""

    gradient: Tensor
    grams: tuple[Tensor, ...]
    squares: Tensor
    probe_product: Tensor
    centred_squares: Tensor


def _probe_vectors(root: Root) -> Tensor:
    """Vectors v whose images S v are Gaussian, so that small singular directions are probed as well as large ones."""
    generator = torch.Generator().manual_seed(20)
    gaussian = torch.randn(root.shape[0], _PROBES, dtype=torch.float64, device="cpu", generator=generator)
    return root.solve(gaussian.to(root.device))


def _measure(design: Design, weight: Tensor, bias: Tensor | None, probes: Tensor | None) -> _Sums:
    p, k = design.n_columns, design.n_targets
    vectors = weight.T * design.target_scale
    offset = weight.new_zeros(k) if bias is None else bias * design.target_scale
    tests = weight.new_zeros(p, 0) if probes is None else -probes * design.scale.unsqueeze(1)
    tests_features, tests_offset = (tests[1:], tests[0]) if design.bias else (tests, tests.new_zeros(tests.shape[1]))
    V, shift = torch.cat([vectors, tests_features], 1), torch.cat([offset, tests_offset])
    # One Gram matrix per group of targets, so that their cost stays below that of the gradient.
    sums = pass_sums(vectors.shape[0], V.shape[1], weight.device, _groups(design) if k > 1 else ())
    spread, guess = weight.new_zeros(2, k), None
    for block in design.pass_blocks("certifying"):
        residual_pass(sums, block.X, block.Y, V, shift, block.weight, design.target_scale)
        if guess is None:
            guess = (block.Y[:_GUESS_ROWS].to(torch.float64) * design.target_scale).mean(0)
        # Squares about a value near the mean, so that nothing cancels (Chan, Golub and LeVeque 1983).
        spread_squares(spread, block.Y, design.target_scale, guess, block.weight)
    centred = (spread[0] - spread[1].square() / design.scanned.weight_sum).clamp(min=0.0)
    both = torch.cat([sums.ones.unsqueeze(0), sums.features]) if design.bias else sums.features
    both = both * design.scale.unsqueeze(1)
    return _Sums(both[:, :k], sums.grams, sums.squares[:k], both[:, k:], centred)


def _groups(design: Design) -> tuple[range, ...]:
    # Compiled passes take them in eights.
    size = -(-max(design.n_columns, 32) // 8) * 8
    return tuple(range(s, min(s + size, design.n_targets)) for s in range(0, design.n_targets, size))


def _joint(evidence: Evidence, grams: tuple[Tensor, ...], penalised: Tensor) -> float:
    worst, start = 0.0, 0
    for gram in grams:
        part = slice(start, start + gram.shape[0])
        start = part.stop
        group = replace(
            evidence,
            Z=evidence.Z[:, part],
            gradient=evidence.gradient[:, part],
            target_norms=evidence.target_norms[part],
            parts=None if evidence.parts is None else (evidence.parts[0][:, part], evidence.parts[1][:, part]),
        )
        worst = max(worst, joint_backward_error(group, gram + penalised[:, part].T @ penalised[:, part]))
    return worst


def _dual_parts(design: Design, gradient: Tensor, dual_solve: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """Write the gradient as ``A't + P't2 + q`` and return ``[t; t2]`` and q; any such t bounds the error from above."""
    raw = gradient / design.scale.unsqueeze(1)
    features = raw[1:] if design.bias else raw
    images = []
    for block in design.blocks(label="certifying"):
        image = block.X @ features
        images.append(image if block.weight is None else image * block.weight.sqrt().unsqueeze(1))
    t = dual_solve(torch.cat(images))
    back = torch.zeros_like(raw)
    for block in design.blocks(label="certifying"):
        part = t[block.start : block.start + block.X.shape[0]]
        if block.weight is not None:
            part = part * block.weight.sqrt().unsqueeze(1)
        back += torch.cat([part.sum(0, keepdim=True), block.X.T @ part]) if design.bias else block.X.T @ part
    rest = raw - back
    ridge = (rest[1:] if design.bias else rest) / math.sqrt(design.l2)
    left = torch.zeros_like(gradient)
    if design.bias:
        left[0] = rest[0] * design.scale[0]
    return torch.cat([t, ridge]), left


def _conditions(design: Design, root: Root | None, extremes: Extremes | None, rank: Rank) -> tuple[Extremes, Extremes]:
    """Extreme singular values of the matrix with columns scaled, and as it came."""
    if root is None:
        found = extremes or Extremes(0.0, 0.0)
        return found, found
    if root.shape[0] == 0:
        return Extremes(0.0, 0.0), Extremes(0.0, 0.0)
    if rank.full:
        found = extremes or extreme_singular_values(root)
    elif extremes is not None and extremes.dominant is not None:
        found = extremes
    else:
        found = _rows_extremes(dense_of(root))
    if bool((design.scale == design.scale[0]).all()):
        unit = float(design.scale[0])
        return found, replace(found, largest=found.largest / unit, smallest=found.smallest / unit)
    if rank.full:
        return found, extreme_singular_values(root, design.scale, start=found)
    raw, unscale = _rows_extremes(dense_of(root) / design.scale), 1 / design.scale.unsqueeze(1)
    assert raw.dominant is not None
    assert raw.recessive is not None
    return found, replace(raw, dominant=unscale * raw.dominant, recessive=unscale * raw.recessive)


def _rows_extremes(S: Tensor) -> Extremes:
    """Extreme singular values of independent rows, and the right singular vectors they belong to."""
    # In the middle of its range, so that squares stay in that of float64.
    unit = torch.ldexp(S.new_ones(()), torch.frexp(S.abs().max()).exponent.clamp(-1000, 1000))
    with all_threads(S.shape[1] > SMALL):
        Q, T = torch.linalg.qr((S / unit).T)
    # S = T'Q', so with T = W diag(s) U' the right singular vectors of S are Q W; and W = T U / s = T^-T U s.
    root = TriangularRoot(T.contiguous())
    found = extreme_singular_values(root)
    assert found.dominant is not None
    assert found.recessive is not None
    ends = Q @ torch.cat([root.product(found.dominant), root.adjoint_solve(found.recessive)], 1)
    ends = ends / torch.linalg.vector_norm(ends, dim=0)
    size = float(unit)
    return Extremes(found.largest * size, found.smallest * size, ends[:, :1], ends[:, 1:])


def _measured(design: Design, scaled: Extremes, raw: Extremes) -> tuple[Extremes, Extremes]:
    """Measure the extreme singular values on the rows themselves, in the directions where the factor found them."""
    found = [scaled.dominant, scaled.recessive, raw.dominant, raw.recessive]
    vectors = [v for v in found if v is not None]
    # Beyond that the image of a recessive direction is rounding, and larger than the singular value.
    if len(vectors) < len(found) or not max(scaled.condition, raw.condition) * _EPS < 1e-3:
        return scaled, raw
    directions = torch.cat(vectors, 1)
    lengths = torch.cat([directions[:, :2], directions[:, 2:] * design.scale.unsqueeze(1)], 1)
    sizes = design.image_norms(directions) / torch.linalg.vector_norm(lengths, dim=0)
    values = [float(size) for size in sizes]
    return (
        replace(scaled, largest=values[0], smallest=values[1]),
        replace(raw, largest=values[2], smallest=values[3]),
    )


def _forward_error(design: Design, Z: Tensor, residual: Tensor, smallest: float, error: float) -> float:
    """First-order bound from the backward error: Wedin (1973); Higham (2002), theorem 20.1."""
    size = torch.linalg.vector_norm(Z, dim=0)
    determined = size > 0
    if not bool(determined.any()):
        return 0.0
    if not smallest > 0:
        return math.inf
    change = max(error, _EPS) * design.frobenius_norm
    per_target = change / smallest * (1 + design.target_norms / (design.frobenius_norm * size)) + change * residual / (
        smallest**2 * size
    )
    return float(per_target[determined].max())


def _r_squared(design: Design, sums: _Sums) -> list[float]:
    # As scikit-learn's r2_score: a constant target counts as explained fully or not at all.
    total, left = sums.centred_squares, sums.squares
    floor = (_EPS * design.target_norms) ** 2 * design.scanned.positive_rows
    explained = 1 - left / torch.where(total > floor, total, 1.0)
    constant = torch.where(left <= floor, 1.0, 0.0)
    return [float(value) for value in torch.where(total > floor, explained, constant)]


def _length(values: Tensor) -> float:
    """Euclidean length, also where squares would overflow."""
    peak = float(values.abs().max())
    return peak * float(torch.linalg.vector_norm(values / peak)) if 0 < peak < math.inf else peak


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value
