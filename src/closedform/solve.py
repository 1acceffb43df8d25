"""The only orchestrator: rows -> factor -> refine -> certify -> climb."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from closedform.certify import Certificate, certify
from closedform.errors import FactorBreakdown, InputError
from closedform.factors import Facts, Method
from closedform.linear import check_finite, check_linear, round_to
from closedform.numerics.rank import default_rcond
from closedform.outcome import Outcome
from closedform.plan import Plan, make_plan
from closedform.progress import Progress
from closedform.refine import refine
from closedform.rows import Design, Rows, Scan, TensorSource, as_rows, scan
from closedform.solution import Attempt, Solution
from closedform.statistics import standard_errors

__all__ = ["solve"]


def solve(
    X: Any,
    Y: Any,
    *,
    bias: bool = False,
    l2: Any = 0.0,
    sample_weight: Any = None,
    nearest_to: nn.Linear | None = None,
    digits: int | None = None,
    method: str = "auto",
    rcond: float | None = None,
    progress: Callable[[str, float], None] | bool | None = None,
) -> Solution:
    r"""Return the weights that minimise :math:`\sum_i w_i \|y_i - W x_i - b\|^2 + \lambda \|W\|^2`, with a certificate.

    Where many weights do, these are the ones of least norm (the bias outside the norm), or the ones nearest to
    ``nearest_to``. All work is in float64, whatever the dtype of the data.

    Args:
        X: Features, ``(rows, features)`` or ``(..., features)``: torch tensor, NumPy array or memory map, DLPack
            object, pandas or Polars frame, or a source opened by ``closedform.rows.files.open_source``.
        Y: Targets, ``(rows,)`` or ``(rows, targets)``.
        bias: Whether the layer has a bias.
        l2: Ridge strength as in scikit-learn (sum of squared errors plus ``l2 * |W|^2``, the bias not penalised); a
            number, or one for each target. ``weight_decay=wd`` of a torch optimizer with ``nn.MSELoss()`` is
            ``l2 = rows * targets * wd / 2``.
        sample_weight: One weight for each row, not negative, ``(rows,)``.
        nearest_to: A layer; where the minimiser is not unique the one nearest to its weights and bias is returned,
            which is where gradient descent from there would end.
        digits: Not available in this version: raises InputError unless None.
        method: ``"auto"``, or the name of a method to use it alone.
        rcond: Singular values of the column-scaled matrix at or below ``rcond`` times the largest are cut. Default:
            eps of float64 times the larger dimension, and nothing is cut that the residual can see.
        progress: ``None`` shows progress on interactive terminals after two seconds; ``False`` never; a function is
            called with a label and the part done, from 0 to 1.

    Returns:
        The weights, with ``certificate``, ``outcome``, ``plan`` and ``attempts``.

    Raises:
        InputError: shapes that do not belong together, empty tables, negative weights or l2, unknown method.
        NonFiniteError: NaN or infinities in the data.
        DataTypeError: complex, object, string, sparse or meta data.
        MethodRefusedError: the method asked for cannot take this problem.

    Example:
        >>> import torch, closedform as cf
        >>> X = torch.tensor([[1.0, 0.0], [1.0, 1.0], [1.0, 2.0]], dtype=torch.float64)
        >>> sol = cf.solve(X, torch.tensor([1.0, 3.0, 5.0], dtype=torch.float64))
        >>> sol.weight.round(decimals=12)
        tensor([[1., 2.]], dtype=torch.float64)
        >>> sol.certificate.accepted
        True
    """
    started = time.perf_counter()
    rows = as_rows(X, Y, sample_weight)
    return solve_rows(
        rows,
        bias=bias,
        l2=l2,
        nearest_to=nearest_to,
        digits=digits,
        method=method,
        rcond=rcond,
        progress=progress,
        started=started,
    )


def solve_rows(
    rows: Rows,
    *,
    bias: bool,
    l2: Any,
    nearest_to: nn.Linear | None,
    digits: int | None,
    method: str,
    rcond: float | None,
    progress: Callable[[str, float], None] | bool | None,
    started: float,
) -> Solution:
    """Solve for rows that passed the door; arguments as :func:`solve`."""
    strengths = _check_ridge(l2, rows.n_targets)
    near = _check_layer(nearest_to, rows, bias)
    if digits is not None:
        raise InputError(
            "digits=... (refinement in extended precision) is not available in this version; leave it out."
        )
    if rcond is not None and not 0 <= rcond < 1:
        raise InputError(f"rcond={rcond} must be at least 0 and less than 1.")
    with Progress(progress) as report:
        scanned = scan(rows)
        groups: list[tuple[Tensor, Solution]] = []
        for strength in sorted(set(strengths)):
            chosen = torch.tensor([i for i, value in enumerate(strengths) if value == strength])
            part_rows, part_scan = _select_targets(rows, scanned, chosen)
            design = Design(part_rows, part_scan, bias=bias, l2=strength, tick=report)
            part_near = None if near is None else (near[0][chosen], None if near[1] is None else near[1][chosen])
            groups.append((chosen, _climb(design, method, rcond, part_near, started)))
    solution = groups[0][1] if len(groups) == 1 else _join(groups)
    return replace(solution, seconds=time.perf_counter() - started)


def _climb(
    design: Design,
    method: str,
    rcond: float | None,
    near: tuple[Tensor, Tensor | None] | None,
    started: float,
) -> Solution:
    """Try the ladder from the cheapest method up, until a certificate is accepted."""
    rows = design.rows
    facts = Facts(
        n_rows=design.scanned.positive_rows,
        n_columns=design.n_columns,
        n_targets=design.n_targets,
        bias=design.bias,
        ridge=design.l2 > 0,
        weighted=rows.weight is not None,
        rcond=default_rcond(rows.n_rows, design.n_columns) if rcond is None else rcond,
        rcond_given=rcond is not None,
        nearest=near is not None,
    )
    plan = make_plan(facts, method)
    nearest = None if near is None else design.from_weights(*near)
    attempts: list[Attempt] = []
    best: tuple[Tensor, Tensor | None, Certificate] | None = None
    condition = 1.0
    for rung in plan.ladder:
        if condition > rung.condition_limit:
            reason = (
                f"skipped: the condition number is at least {condition:.1e}, it serves up to {rung.condition_limit:.0e}"
            )
            attempts.append(Attempt(rung.name, 0.0, 0, reason, None))
            continue
        weight, offset, attempt, learnt = _attempt(design, facts, rung, nearest)
        condition = max(condition, learnt)
        attempts.append(attempt)
        if attempt.certificate is not None and weight is not None:
            if (
                best is None
                or attempt.certificate.backward_error <= best[2].backward_error
                or attempt.certificate.accepted
            ):
                best = weight, offset, attempt.certificate
            if attempt.certificate.accepted:
                break
    if best is None:
        reasons = "; ".join(f"{attempt.method}: {attempt.reason}" for attempt in attempts)
        raise InputError(f"no method could factor this problem ({reasons}).")
    return _solution(design, plan, best, tuple(attempts), started)


def _attempt(
    design: Design, facts: Facts, method: Method, nearest: Tensor | None
) -> tuple[Tensor | None, Tensor | None, Attempt, float]:
    begun = time.perf_counter()
    try:
        factor = method.factor(design, facts, nearest)
    except FactorBreakdown as breakdown:
        failed = Attempt(method.name, time.perf_counter() - begun, 0, str(breakdown), None)
        return None, None, failed, breakdown.condition
    Z, passes = refine(design, factor)
    weight, bias = design.to_weights(Z)
    certificate = certify(
        design,
        weight,
        bias,
        rank=factor.rank,
        rank_settled=True,
        root=factor.root,
        dual_solve=factor.dual_solve,
        extremes=factor.extremes,
        undetermined=factor.undetermined,
        kept=factor.kept,
    )
    if certificate.accepted:
        reason = f"accepted: backward error {certificate.backward_error:.1e}"
    else:
        reason = f"backward error {certificate.backward_error:.1e} is above {certificate.tolerance:.1e}"
    attempt = Attempt(method.name, time.perf_counter() - begun, passes, reason, certificate)
    return weight, bias, attempt, certificate.scaled_condition


def _solution(
    design: Design,
    plan: Plan,
    best: tuple[Tensor, Tensor | None, Certificate],
    attempts: tuple[Attempt, ...],
    started: float,
) -> Solution:
    weight, offset, certificate = best
    rows = design.rows
    notes = list(rows.notes)
    if certificate.rank < certificate.columns:
        notes.append(
            f"{certificate.columns - certificate.rank} of {certificate.columns} directions are not determined by the "
            f"rows (cut at {certificate.rank_cut:.1e} of the largest singular value, gap {certificate.rank_gap:.1e})"
        )
    rounded = round_to(weight, rows.dtype)
    if rows.dtype != torch.float64:
        notes.append(f"the weights were computed in float64 and rounded to {str(rows.dtype).removeprefix('torch.')}")
    return Solution(
        weight=rounded,
        bias=None if offset is None else round_to(offset, rows.dtype),
        certificate=certificate,
        outcome=_outcome(certificate),
        plan=plan,
        attempts=attempts,
        notes=tuple(notes),
        seconds=time.perf_counter() - started,
        single_target=rows.single_target,
        _standard_errors=lambda: standard_errors(design, certificate),
    )


def _outcome(certificate: Certificate) -> Outcome:
    if not certificate.accepted:
        return Outcome.NOT_CERTIFIED
    if certificate.ambiguous_rank:
        return Outcome.AMBIGUOUS_RANK
    if certificate.rank < certificate.columns:
        return Outcome.CERTIFIED_NOT_UNIQUE
    return Outcome.CERTIFIED


def _check_ridge(l2: Any, n_targets: int) -> list[float]:
    try:
        values = torch.as_tensor(l2, dtype=torch.float64).reshape(-1).tolist()
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"l2={l2!r} is not a number; give one number, or one per target.") from error
    if len(values) == 1:
        values = values * n_targets
    if len(values) != n_targets:
        raise InputError(f"l2 has {len(values)} values for {n_targets} targets; give one number, or one per target.")
    for value in values:
        if not (value >= 0 and value < float("inf")):
            raise InputError(f"l2={value} must be finite and not negative.")
    return values


def _check_layer(layer: nn.Linear | None, rows: Rows, bias: bool) -> tuple[Tensor, Tensor | None] | None:
    if layer is None:
        return None
    check_linear(layer, "nearest_to")
    if tuple(layer.weight.shape) != (rows.n_targets, rows.n_features):
        raise InputError(
            f"nearest_to has weights of shape {tuple(layer.weight.shape)}, but the data call for "
            f"{(rows.n_targets, rows.n_features)} (targets, features)."
        )
    if (layer.bias is not None) != bias:
        has = "a bias" if layer.bias is not None else "no bias"
        raise InputError(f"nearest_to has {has} but bias={bias} was asked for; make them agree.")
    check_finite(layer, "nearest_to")
    options: dict[str, Any] = {"dtype": torch.float64, "device": rows.device}
    return layer.weight.detach().to(**options), None if layer.bias is None else layer.bias.detach().to(**options)


def _select_targets(rows: Rows, scanned: Scan, chosen: Tensor) -> tuple[Rows, Scan]:
    if chosen.numel() == rows.n_targets:
        return rows, scanned
    index = chosen.to(rows.device)
    targets = rows.y.read(0, rows.n_rows)[:, index]
    return (
        replace(rows, y=TensorSource(targets, rows.y.name)),
        replace(scanned, target_norms=scanned.target_norms[index]),
    )


def _join(groups: list[tuple[Tensor, Solution]]) -> Solution:
    """Join the solutions of groups of targets with different ridge strengths; the worst certificate speaks."""
    worst = max(
        (solution for _, solution in groups),
        key=lambda s: (not s.certificate.accepted, s.certificate.backward_error),
    )
    order = torch.argsort(torch.cat([chosen for chosen, _ in groups]))
    weight = torch.cat([solution.weight for _, solution in groups])[order.to(worst.weight.device)]
    biases = [solution.bias for _, solution in groups if solution.bias is not None]
    bias = torch.cat(biases)[order.to(weight.device)] if biases else None
    share = [chosen.numel() / weight.shape[0] for chosen, _ in groups]
    certificates = [solution.certificate for _, solution in groups]

    def per_target(name: str) -> tuple[float, ...]:
        values = [value for certificate in certificates for value in getattr(certificate, name)]
        return tuple(values[int(i)] for i in order)

    certificate = replace(
        worst.certificate,
        forward_error=max(c.forward_error for c in certificates),
        loss=sum(c.loss * part for c, part in zip(certificates, share, strict=True)),
        gradient_norm=sum((c.gradient_norm * part) ** 2 for c, part in zip(certificates, share, strict=True)) ** 0.5,
        residual_norm=sum(c.residual_norm**2 for c in certificates) ** 0.5,
        r_squared=per_target("r_squared"),
        residual_std=per_target("residual_std"),
    )

    def errors() -> tuple[Tensor, Tensor | None]:
        parts = [solution.standard_errors() for _, solution in groups]
        offsets = [part[1] for part in parts if part[1] is not None]
        return torch.cat([part[0] for part in parts])[order], torch.cat(offsets)[order] if offsets else None

    return replace(
        worst,
        weight=weight,
        bias=bias,
        certificate=certificate,
        outcome=_outcome(certificate),
        attempts=tuple(attempt for _, solution in groups for attempt in solution.attempts),
        notes=tuple(dict.fromkeys(note for _, solution in groups for note in solution.notes)),
        _standard_errors=errors,
    )
