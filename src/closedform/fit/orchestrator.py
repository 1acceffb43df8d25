"""The only orchestrator: rows -> factor -> refine -> certify -> climb."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from closedform.engine import compiled
from closedform.engine.rates import known_rates, measured_rates
from closedform.engine.threads import one_thread
from closedform.engine.tracing import untraced
from closedform.fit.certificate import certify
from closedform.fit.digits import extend_best, with_digits
from closedform.fit.factors import Facts, Method
from closedform.fit.groups import join, select_targets
from closedform.fit.layers import check_range, round_to
from closedform.fit.plan import Plan, make_plan
from closedform.fit.refinement import refine
from closedform.fit.request import check_digits, check_near, check_rcond, check_ridge
from closedform.fit.solution import Attempt, Fitted, Solution, outcome_of
from closedform.fit.statistics import StandardErrors
from closedform.numerics.rank import default_rcond
from closedform.rows import Design, Rows, as_rows, scan
from closedform.words.errors import FactorBreakdown, InputError
from closedform.words.progress import Progress

__all__ = ["solve"]

#: From this predicted time on, the choice of a method is worth measuring the machine, which takes less than one.
_WORTH_MEASURING = 1.0


@untraced
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
            object, pandas or Polars frame, or a source opened by ``closedform.files.open_source``.
        Y: Targets, ``(rows,)`` or ``(rows, targets)``.
        bias: Whether the layer has a bias.
        l2: Ridge strength as in scikit-learn (sum of squared errors plus ``l2 * |W|^2``, the bias not penalised); a
            number, or one for each target. ``weight_decay=wd`` of a torch optimizer with ``nn.MSELoss()`` is
            ``l2 = rows * targets * wd / 2``.
        sample_weight: One weight for each row, not negative, ``(rows,)``.
        nearest_to: A layer; where the minimiser is not unique the one nearest to its weights and bias is returned,
            which is where gradient descent from there would end.
        digits: Ask for this many correct decimal digits in every weight, 1 to 15: the weights are refined in extended
            precision until a proven bound on their error says so (``weight_bound``, ``certificate.forward_bound``), or
            the outcome says that the data do not determine them. A weight below eps times the largest of its
            target, in scaled columns, is held to that absolute size.
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
        dtype=rows.dtype,
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
    dtype: torch.dtype,
    started: float,
) -> Solution:
    """Solve for rows that passed the door and round the weights to ``dtype``; arguments as :func:`solve`."""
    strengths = check_ridge(l2, rows.n_targets)
    near = check_near(nearest_to, rows, bias)
    check_digits(digits, nearest_to)
    check_rcond(rcond)
    with Progress(progress) as report:
        scanned = scan(rows)
        groups: list[tuple[Tensor, Solution]] = []
        for strength in sorted(set(strengths)):
            chosen = torch.tensor([i for i, value in enumerate(strengths) if value == strength], device=rows.device)
            part_rows, part_scan = select_targets(rows, scanned, chosen)
            design = Design(part_rows, part_scan, bias=bias, l2=strength, tick=report)
            part_near = None if near is None else (near[0][chosen], None if near[1] is None else near[1][chosen])
            groups.append((chosen, _climb(design, method, rcond, part_near, digits, dtype, started)))
    solution = groups[0][1] if len(groups) == 1 else join(groups)
    return replace(solution, seconds=time.perf_counter() - started)


def _climb(
    design: Design,
    method: str,
    rcond: float | None,
    near: tuple[Tensor, Tensor | None] | None,
    digits: int | None,
    dtype: torch.dtype,
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
        in_memory=rows.in_memory,
        bfloat16=rows.in_memory and compiled.multiplies_bfloat16() and compiled.serves(rows.x.read(0, 1)),
        row_bytes=float(rows.n_features * rows.x.dtype.itemsize + rows.n_targets * rows.y.dtype.itemsize),
        rates=known_rates(rows.device),
    )
    plan = make_plan(facts, method)
    if plan.seconds > _WORTH_MEASURING:
        facts = replace(facts, rates=measured_rates(rows.device))
        plan = make_plan(facts, method)
    nearest = None if near is None else design.from_weights(*near)
    attempts: list[Attempt] = []
    best: Fitted | None = None
    for rung in plan.ladder:
        if facts.condition > rung.condition_limit:
            least, most = facts.condition, rung.condition_limit
            reason = f"skipped: the condition number is at least {least:.1e}, it serves up to {most:.0e}"
            attempts.append(Attempt(rung.name, 0.0, 0, reason, None))
            continue
        fitted, attempt, learnt = _attempt(design, facts, rung, nearest)
        facts = replace(facts, condition=max(facts.condition, learnt))
        attempts.append(attempt)
        if fitted is not None:
            certificate = fitted.certificate
            if best is None or certificate.backward_error <= best.certificate.backward_error or certificate.accepted:
                best = fitted
            if certificate.accepted:
                break
    if best is None:
        reasons = "; ".join(f"{attempt.method}: {attempt.reason}" for attempt in attempts)
        raise InputError(f"no method could factor this problem ({reasons}).")
    if digits is None:
        return _solution(design, plan, best, tuple(attempts), dtype, started)
    extension, attempt = extend_best(design, facts, best, digits)
    if attempt.certificate is None:
        best = replace(best, certificate=replace(best.certificate, forward_bound=float("inf")))
    else:
        best = Fitted(*design.to_weights(extension.high), attempt.certificate, None)
    solution = _solution(design, plan, best, (*attempts, attempt), dtype, started)
    return with_digits(solution, design, extension, digits)


def _attempt(
    design: Design, facts: Facts, method: Method, nearest: Tensor | None
) -> tuple[Fitted | None, Attempt, float]:
    begun = time.perf_counter()
    try:
        factor = method.factor(design, facts, nearest)
    except FactorBreakdown as breakdown:
        failed = Attempt(method.name, time.perf_counter() - begun, 0, str(breakdown), None)
        return None, failed, breakdown.condition
    with one_thread(design.n_columns, design.rows.device, targets=design.n_targets):
        Z, passes = refine(design, factor)
        weight, bias = design.to_weights(Z)
        check_range(Z, weight, bias)
        certificate = certify(
            design,
            weight,
            bias,
            rank=factor.rank,
            root=factor.root,
            least=factor.least,
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
    return Fitted(weight, bias, certificate, factor.root), attempt, certificate.scaled_condition


def _solution(
    design: Design,
    plan: Plan,
    best: Fitted,
    attempts: tuple[Attempt, ...],
    dtype: torch.dtype,
    started: float,
) -> Solution:
    certificate, rows = best.certificate, design.rows
    notes = list(rows.notes)
    if certificate.rank < certificate.columns:
        notes.append(
            f"{certificate.columns - certificate.rank} of {certificate.columns} directions are not determined by the "
            f"rows (cut at {certificate.rank_cut:.1e} of the largest singular value, gap {certificate.rank_gap:.1e})"
        )
    rounded = round_to(best.weight, dtype)
    if dtype != torch.float64:
        notes.append(f"the weights were computed in float64 and rounded to {str(dtype).removeprefix('torch.')}")
    return Solution(
        weight=rounded,
        bias=None if best.bias is None else best.bias.to(dtype),
        certificate=certificate,
        outcome=outcome_of(certificate),
        plan=plan,
        attempts=attempts,
        notes=tuple(notes),
        seconds=time.perf_counter() - started,
        single_target=rows.single_target,
        _standard_errors=StandardErrors(design, certificate),
    )
