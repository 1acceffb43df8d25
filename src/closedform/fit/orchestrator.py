"""The only orchestrator: rows -> factor -> refine -> certify -> climb."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import torch
from torch import Tensor, nn

from closedform.engine.threads import one_thread
from closedform.engine.tracing import untraced
from closedform.fit.certification import Certificate, certify
from closedform.fit.certification.by_probes import measure_by_probes
from closedform.fit.certification.one_pass import certify_and_step
from closedform.fit.conclusion import conclude
from closedform.fit.factors import Factor, Facts, Gram32, Gram64, Method
from closedform.fit.groups import groups_of, join
from closedform.fit.kernels import as_kernel_solution, check_kernel, kernel_system
from closedform.fit.layers import check_range
from closedform.fit.planning import plan_ahead, plan_of
from closedform.fit.problem import Problem
from closedform.fit.refinement import ByGradient, Refined
from closedform.fit.request import MethodName, Request, Watcher
from closedform.fit.sharing import agreed, agreed_request, open_rows, traffic_of
from closedform.fit.solution import Attempt, Fitted, Solution
from closedform.fit.weights import Weights
from closedform.numerics.rank import RESOLVED
from closedform.numerics.symmetric import mirror
from closedform.rows import Design, Rows, Scan, sample_gram, scan, scan_and_sum
from closedform.words.errors import FactorBreakdown, InputError
from closedform.words.progress import Progress

if TYPE_CHECKING:
    from closedform.fit.convex import ConvexSolution

__all__ = ["solve", "solve_rows"]

#: How far a factor may be from the matrix for one step, of the pass that certifies its start, to leave rounding alone.
_ONE_STEP = 1e-10
#: Backward error that a start is expected to have at most for the pass that certifies it to be worth trying.
_NEAR_START = 1e-7
#: Numbers of a table, times its targets, from which a pass over it is worth saving.
_WORTH_ONE_PASS = 2**20
#: How far sums of the rows may be from the matrix, as a preconditioned one sees it, to tell of many targets what each
#: would: as much of the weights may be lost.
_EXACT_SUMS = 1e-12
#: Features, and targets, up to which a Gram matrix in double precision, from the read that scans the rows, costs less
#: than one in single precision and two more reads; measured.
_FEW_COLUMNS = 128
#: The same for rows that are not in memory: another read of a file, or of what workers make anew, costs more than that.
_FEW_COLUMNS_ELSEWHERE = 1024
#: Entries of the largest table whose rank is proven where it is in doubt; that takes some tens of seconds there.
_PROVABLE = 2**26
#: Columns of the widest table: products in extended precision take so many times longer than a fit.
_PROVABLE_COLUMNS = 500


@overload
def solve(
    X: Any,
    Y: Any = ...,
    *,
    bias: bool = ...,
    l2: Any = ...,
    sample_weight: Any = ...,
    nearest_to: nn.Linear | None = ...,
    digits: int | None = ...,
    criterion: None = ...,
    kernel: bool = ...,
    fields: Mapping[str, Any] | None = ...,
    group: Any = ...,
    method: MethodName = ...,
    rcond: float | None = ...,
    progress: Watcher = ...,
) -> Solution: ...


@overload
def solve(
    X: Any,
    Y: Any = ...,
    *,
    bias: bool = ...,
    l2: Any = ...,
    sample_weight: Any = ...,
    nearest_to: nn.Linear | None = ...,
    digits: int | None = ...,
    criterion: nn.Module | str,
    kernel: bool = ...,
    fields: Mapping[str, Any] | None = ...,
    group: Any = ...,
    method: MethodName = ...,
    rcond: float | None = ...,
    progress: Watcher = ...,
) -> Solution | ConvexSolution: ...


@untraced
def solve(
    X: Any,
    Y: Any = None,
    *,
    bias: bool = False,
    l2: Any = 0.0,
    sample_weight: Any = None,
    nearest_to: nn.Linear | None = None,
    digits: int | None = None,
    criterion: nn.Module | str | None = None,
    kernel: bool = False,
    fields: Mapping[str, Any] | None = None,
    group: Any = None,
    method: MethodName = "auto",
    rcond: float | None = None,
    progress: Watcher = None,
) -> Solution | ConvexSolution:
    r"""Return the weights that minimise :math:`\sum_i w_i \|y_i - W x_i - b\|^2 + \lambda \|W\|^2`, with a certificate.

    Where many weights do, these are the ones of least norm (the bias outside the norm), or the ones nearest to
    ``nearest_to``. All work is in float64, whatever the dtype of the data.

    Args:
        X: Features, ``(rows, features)`` or ``(..., features)``: torch tensor, NumPy array or memory map, DLPack
            object, pandas or Polars frame, a path (``"data.h5::X"``, ``"emb_*.npy"``, a folder of Parquet files, a list
            of paths), or a source opened by ``closedform.files.open_source``.
            Also Dask arrays, frames and lists of delayed tables, whose rows stay on the workers; and, without Y, what
            yields batches ``(X, Y)``: a ``DataLoader``, a dataset, a function that returns an iterator. It is read
            again for each pass; a generator is read once.
        Y: Targets, ``(rows,)`` or ``(rows, targets)``; beside a path or a frame for X also a key or a column of it.
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
        criterion: A convex loss of ``torch.nn`` or :mod:`closedform.losses`, as a module with its options (or a name of
            :data:`closedform.losses.CRITERIA`). Then the *sum* of the row losses plus ``l2 / 2 * |W|^2`` is minimised
            (scikit-learn's ``C = 1 / l2``), whatever the reduction, and the certificate bounds how far it can still
            fall. None and ``MSELoss()``: squared error.
        kernel: Whether X is a symmetric kernel matrix K between the rows, ``(rows, rows)``. The coefficients a of
            ``f = K a`` are then penalised by ``l2 * a'Ka``, so that ``(K + l2 I) a = y``, as scikit-learn's
            ``KernelRidge(kernel="precomputed")``; there is no bias, and ``predict`` takes ``K(new rows, rows)``.
        fields: Where X yields batches, which part of a batch is what: ``{"X": "embedding", "Y": "score"}``, with keys
            of a dictionary or positions in a tuple; ``"sample_weight"`` may be one of them.
        group: A group of ``torch.distributed`` (``torch.distributed.group.WORLD``) whose processes all call this, each
            with its own rows, any number of them, also none (``X`` of shape ``(0, features)``). All return the same.
        method: ``"auto"``, or the name of a method to use it alone.
        rcond: Singular values of the column-scaled matrix at or below ``rcond`` times the largest are cut. Default:
            a few times what the factor rounds, which grows with the root of the columns and the logarithm of the rows;
            nothing is cut that the residual can see, and where the factor cannot tell the rank, a proof decides.
        progress: ``None`` shows progress on interactive terminals after two seconds; ``False`` never; a function is
            called with a label and the part done, from 0 to 1.

    Returns:
        The weights, with ``certificate``, ``outcome``, ``plan`` and ``attempts``; a :class:`closedform.ConvexSolution`
        for another criterion than squared error.

    Raises:
        InputError: shapes that do not belong together, empty tables, negative weights or l2, unknown method.
        NonFiniteError: NaN or infinities in the data.
        DataTypeError: complex, object, string, sparse or meta data.
        MethodRefusedError: the method asked for cannot take this problem.
        GroupError: another process of the group failed, died or did not answer in time.

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
    rows = open_rows(X, Y, sample_weight, fields=fields, group=group)

    if criterion is not None:
        from closedform.fit.convex import ConvexRequest, solve_criterion  # loaded only when asked for

        convex = agreed(
            rows,
            lambda: ConvexRequest.checked(
                criterion,
                bias=bias,
                l2=l2,
                progress=progress,
                nearest_to=nearest_to,
                digits=digits,
                kernel=kernel,
                method=method,
                rcond=rcond,
            ),
            ConvexRequest.asked,
        )
        if convex is not None:
            found, seconds = solve_criterion(rows, convex), time.perf_counter() - started
            return replace(found, seconds=seconds, feature_names=rows.feature_names)

    request = agreed_request(
        rows,
        lambda: Request.checked(
            rows,
            bias=bias,
            l2=l2,
            nearest_to=nearest_to,
            digits=digits,
            kernel=kernel,
            method=method,
            rcond=rcond,
            progress=progress,
        ),
    )

    return solve_rows(rows, request, started=started)


def solve_rows(
    rows: Rows,
    request: Request,
    scanned: Scan | None = None,
    *,
    design: Design | None = None,
    started: float | None = None,
) -> Solution:
    """Solve for rows that passed the door.

    Args:
        rows: The rows.
        request: What is asked, checked.
        scanned: What a scan of these rows has told, where there was one; they are not scanned again then.
        design: Their design matrix, where there was one; what passes over the rows have found is not found again then.
        started: When the fit began, by ``time.perf_counter``; now, where it is None.

    Raises:
        InputError: as :func:`closedform.solve`.
        NonFiniteError: likewise.
    """
    started = time.perf_counter() if started is None else started
    if request.kernel:
        return replace(_solve_kernel(rows, request), seconds=time.perf_counter() - started)

    with Progress(request.progress) as report:
        watched = rows.watched(report.watcher)
        if design is None:
            # Matrices of sums are far smaller than the rows: torch's threads, once awake for them, would stand in the
            # way of those of a pass.
            with one_thread(rows.n_features, rows.device, targets=rows.n_targets):
                design = _design_of(watched, request, scanned)
        groups = groups_of(request.strengths)
        if len(groups) == 1:
            solution = _climb(Problem(design, request.strengths[0]), request)
        else:
            # Strengths share what passes over the rows have found.
            parts = [(torch.tensor(targets, device=rows.device), strength) for strength, targets in groups]
            solution = join([(targets, _solve_part(design, targets, strength, request)) for targets, strength in parts])

    traffic = traffic_of(rows)
    return replace(
        solution,
        # All have computed this from the same sums, but their processors may round in other ways.
        weight=rows.walker.each(solution.weight)[0],
        bias=rows.walker.each(solution.bias)[0],
        plan=solution.plan if traffic is None else replace(solution.plan, traffic=traffic),
        notes=solution.notes if traffic is None else (*solution.notes, str(traffic)),
        seconds=time.perf_counter() - started,
        feature_names=rows.feature_names,
        target_names=rows.target_names,
    )


def _design_of(rows: Rows, request: Request, scanned: Scan | None) -> Design:
    """Return the design matrix of rows, which are scanned where they have not been."""
    if scanned is not None:
        return Design(rows, scanned, bias=request.bias)
    dtype = _sums_first(rows, request)
    if dtype is None:
        return Design(rows, scan(rows), bias=request.bias)
    scanned, first = scan_and_sum(rows, dtype)
    return Design(rows, scanned, bias=request.bias, first=first)


def _sums_first(rows: Rows, request: Request) -> torch.dtype | None:
    """Return the precision in which a Gram matrix is worth making as the rows are scanned, by one read; or None.

    In double precision where rows are many and short: where their condition number turns out too large for a Gram
    matrix, that was in vain; another read costs as much. In single precision where that is planned and a sample of the
    rows does not speak against it.
    """
    if rows.triangle_of or request.rcond is not None or rows.n_rows * rows.n_features < _WORTH_ONE_PASS:
        return None
    few = max(rows.n_features, rows.n_targets) <= (_FEW_COLUMNS if rows.in_memory else _FEW_COLUMNS_ELSEWHERE)
    if few and request.method in ("auto", Gram64.name):
        return torch.float64

    free = rows.in_memory and rows.engine.sums_while_multiplying and request.method in ("auto", Gram32.name)
    ahead = plan_ahead(rows, request) if free else None
    if ahead is None:
        return None
    facts, plan = ahead
    method = plan.ladder[0]
    if not isinstance(method, Gram32) or not method.samples(facts):
        return None
    return method.dtype if method.serves_sample(sample_gram(rows, method.dtype, bias=request.bias)) else None


def _solve_kernel(rows: Rows, request: Request) -> Solution:
    """Solve ``(K + l2 I) a = y``, one square system for each strength."""
    whole = check_kernel(rows, bias=request.bias)
    parts = []
    for strength, chosen in groups_of(request.strengths):
        targets = torch.tensor(chosen, device=rows.device)
        system = kernel_system(rows, whole, strength, targets)
        plain = replace(request, kernel=False, strengths=(0.0,) * len(chosen), dtype=torch.float64)
        solved = solve_rows(system, plain)
        parts.append((targets, as_kernel_solution(solved, rows, whole, strength, targets, request.dtype)))
    return parts[0][1] if len(parts) == 1 else join(parts)


def _solve_part(design: Design, targets: Tensor, strength: float, request: Request) -> Solution:
    near = None if request.nearest_to is None else request.nearest_to.select(targets)
    return _climb(Problem(design.select(targets), strength), replace(request, nearest_to=near))


def _climb(problem: Problem, request: Request) -> Solution:
    """Try the ladder from the cheapest method up, until a certificate is accepted.

    Raises:
        InputError: no method could factor the problem.
    """
    facts, plan = plan_of(problem, request)
    nearest = None if request.nearest_to is None else problem.from_weights(request.nearest_to)
    attempts: list[Attempt] = []
    best: Fitted | None = None
    ladder = list(plan.ladder)
    while ladder:
        rung = ladder.pop(0)
        if facts.condition > rung.condition_limit:
            least, most = facts.condition, rung.condition_limit
            reason = f"skipped: the condition number is at least {least:.1e}, it serves up to {most:.0e}"
            attempts.append(Attempt(rung.name, 0.0, 0, reason, None))
            continue
        fitted, attempt, learnt, dependent = _attempt(problem, facts, rung, nearest)
        attempts.append(attempt)
        if fitted is not None:
            certificate = fitted.certificate
            if best is None or certificate.backward_error <= best.certificate.backward_error or certificate.accepted:
                best = fitted
            if certificate.accepted:
                break
        facts = replace(facts, condition=max(facts.condition, learnt), dependent=facts.dependent or dependent)
        ladder.sort(key=lambda method: method.cost(facts).seconds)
    if best is None:
        reasons = "; ".join(f"{attempt.method}: {attempt.reason}" for attempt in attempts)
        raise InputError(f"no method could factor this problem ({reasons}).")

    if request.digits is None:
        if _doubtful(problem, facts, best, asked=request.method != "auto"):
            best, attempt = _settled(problem, facts, best)
            attempts.append(attempt)
        return conclude(problem, plan, best, tuple(attempts), request.dtype)
    from closedform.fit.digits import extend_best, with_digits  # loaded only when asked for

    extension, attempt = extend_best(problem, facts, best, request.digits)
    if attempt.certificate is None:
        best = replace(best, certificate=replace(best.certificate, forward_bound=float("inf")))
    else:
        best = replace(best, weights=problem.to_weights(extension.high), certificate=attempt.certificate)
    solution = conclude(problem, plan, best, (*attempts, attempt), request.dtype)
    return with_digits(solution, problem, extension, request.digits)


def _doubtful(problem: Problem, facts: Facts, best: Fitted, *, asked: bool) -> bool:
    """Whether the factor cannot tell the rank, and a proof can, at a cost of some passes over the rows."""
    if asked or facts.rcond_given or facts.nearest or facts.ridge:
        return False
    provable = problem.n_columns <= _PROVABLE_COLUMNS and problem.rows.n_rows * problem.n_columns <= _PROVABLE
    return provable and best.factor.claims.rank.in_doubt


def _settled(problem: Problem, facts: Facts, best: Fitted) -> tuple[Fitted, Attempt]:
    """Prove that the rank is full, which makes the weights those of the proof; else leave what was found."""
    from closedform.fit.digits import extend_best  # loaded only where there is doubt

    extension, attempt = extend_best(problem, facts, best, None)
    found = attempt.certificate
    if found is None or not found.accepted:
        return best, attempt
    if found.scaled_condition > 1 / RESOLVED:
        return best, replace(attempt, reason=f"condition {found.scaled_condition:.1e}: rounding of the data decides")
    return replace(best, weights=problem.to_weights(extension.high), certificate=found), attempt


def _attempt(
    problem: Problem, facts: Facts, method: Method, nearest: Tensor | None
) -> tuple[Fitted | None, Attempt, float, bool]:
    """Factor, refine and certify; return what was found, the record of it, and what was learnt of the condition.

    The last says whether columns seem to depend.
    """
    begun = time.perf_counter()
    try:
        factor, right = method.factor(problem, facts)
        start = factor.start(right, nearest)
    except FactorBreakdown as breakdown:
        failed = Attempt(method.name, time.perf_counter() - begun, 0, str(breakdown), None)
        return None, failed, breakdown.condition, breakdown.dependent
    with one_thread(problem.n_columns, problem.rows.device, targets=problem.n_targets), np.errstate(all="ignore"):
        refined, weights, certificate = _refined(problem, facts, factor, start, nearest)
    attempt = Attempt(method.name, time.perf_counter() - begun, refined.passes, certificate.verdict, certificate)
    # A factor of the rows is chosen by their condition when they are on a par, which is what it has measured.
    claims = factor.claims
    measured = (
        certificate.scaled_condition if claims.rows is None or claims.extremes is None else claims.extremes.condition
    )
    return Fitted(weights, certificate, factor), attempt, measured, False


def _refined(
    problem: Problem, facts: Facts, factor: Factor, start: Tensor, nearest: Tensor | None
) -> tuple[Refined, Weights, Certificate]:
    """Refine a start and certify what comes out; the pass that certifies gives the last step where that is all."""
    found = _by_sums(problem, factor, start) if _sums_suffice(problem, facts, factor) else None
    if found is not None:
        return found

    Z, passes = start, 0
    if _settles(problem, factor):
        root, claims = factor.claims.root, factor.claims
        assert root is not None
        if not _near(factor):
            Z, passes = start + root.normal_solve(problem.gradient(start)[0]), 1
        stepped = certify_and_step(problem, Z, claims)
        if stepped.certificate is not None:
            return Refined(stepped.Z, passes), problem.to_weights(stepped.Z), stepped.certificate
        Z, passes = stepped.Z, passes + 1
    if passes == 0 or not (stepped.settled or factor.accuracy <= _ONE_STEP):
        refined = factor.refinement.refine(problem, Z, nearest)
        refined = replace(refined, passes=refined.passes + passes)
    else:
        refined = Refined(Z, passes)

    weights = problem.to_weights(refined.Z)
    check_range(refined.Z, weights.weight, weights.bias)
    return refined, weights, certify(problem, weights, factor.claims, nearest, refined.multipliers)


def _by_sums(problem: Problem, factor: Factor, start: Tensor) -> tuple[Refined, Weights, Certificate] | None:
    """Refine a start by the sums of the rows and certify it by probes; None where that does not suffice."""
    root = factor.claims.root
    assert root is not None
    sums, cross = problem.design.normal_equations(torch.float64)
    scale = (problem.scale / sums.applied).unsqueeze(1)
    gram, cross = mirror(sums.gram) * scale * scale.T, cross * scale
    Z = start + root.normal_solve(cross - gram @ start - problem.penalty.square().unsqueeze(1) * start)

    weights = problem.to_weights(Z)
    check_range(Z, weights.weight, weights.bias)
    measured = measure_by_probes(problem, Z, gram, cross, root)
    certificate = None if measured is None else certify(problem, weights, factor.claims, sums=measured)
    return None if certificate is None or not certificate.accepted else (Refined(Z, 0), weights, certificate)


def _sums_suffice(problem: Problem, facts: Facts, factor: Factor) -> bool:
    """Whether targets are many, and the sums of the rows are at hand and lose next to nothing by their squares."""
    claims, p = factor.claims, problem.n_columns
    known = problem.design.has_sums(torch.float64) and problem.rows.triangle_of is None
    if not (facts.many_targets and known and claims.root is not None and claims.extremes is not None):
        return False
    lost = claims.extremes.condition**2 * torch.finfo(torch.float64).eps * p**0.5
    return claims.rank.full and not claims.restricted and lost <= _EXACT_SUMS


def _settles(problem: Problem, factor: Factor) -> bool:
    """Whether steps by a factor soon leave nothing but rounding, in a fit of some size.

    With a ridge, weights can be short beside the targets: what is good enough for the rows need not be for them.
    """
    work = problem.rows.n_rows * problem.n_columns * problem.n_targets
    claims = factor.claims
    whole = claims.root is not None and claims.rank.full and not claims.restricted
    by_steps = isinstance(factor.refinement, ByGradient) and factor.refinement.steps_settle
    soon = factor.accuracy <= _ONE_STEP or by_steps
    return whole and soon and problem.l2 == 0 and work >= _WORTH_ONE_PASS


def _near(factor: Factor) -> bool:
    """Whether a factor is so near to the matrix that its start may lack no more than one step.

    The backward error of a start is the forward one by the condition number.
    """
    extremes = factor.claims.extremes
    condition = 1.0 if extremes is None else extremes.condition
    return factor.accuracy <= max(_ONE_STEP, _NEAR_START * condition)
