"""From rows and a criterion to certified weights: read, scan, descend, centre, prove, and else look for a direction."""

from __future__ import annotations

import math
import time
from contextlib import nullcontext
from dataclasses import replace
from typing import Self, final

import torch
from torch import Tensor
from typing_extensions import override

from closedform.engine.threads import one_thread
from closedform.fit.convex.certificate import GAP_TOLERANCE, GapCertificate, Proof, prove
from closedform.fit.convex.kinks import solve_kinked
from closedform.fit.convex.newton import Descent, descend
from closedform.fit.convex.orthogonal import Basis, fits, sharpened
from closedform.fit.convex.passes import TargetCounts
from closedform.fit.convex.plan import ConvexPlan, Stage, rounding_to
from closedform.fit.convex.problem import ConvexProblem
from closedform.fit.convex.request import ConvexRequest
from closedform.fit.convex.rounded import rounded_minimum
from closedform.fit.convex.shortfalls import face_proof
from closedform.fit.convex.solution import ConvexSolution, face_note, own_notes, unseen_note
from closedform.fit.convex.stored import stored_of
from closedform.fit.convex.wide import met, narrowed
from closedform.fit.layers import check_range, round_to
from closedform.fit.request import check_ridge
from closedform.fit.weights import Weights
from closedform.losses import Criterion, Kinked, Targets, contradicts, read_criterion
from closedform.numerics.least_norm import least_norm_lstsq
from closedform.numerics.rank import decide_rank, default_rcond
from closedform.numerics.symmetric import mirror
from closedform.rows import Block, Design, Fold, Rows, TensorSource, scan
from closedform.rows.folds import NormalEquations
from closedform.rows.walkers import InOrder
from closedform.rows.walkers.process_group import ProcessGroup
from closedform.words.errors import InputError
from closedform.words.numbers import plural
from closedform.words.outcome import Outcome
from closedform.words.progress import Progress

__all__ = ["solve_criterion", "targets_of"]

#: Squared ratio of the diagonal of a Cholesky factor from which on the rank is looked at by a QR factorization.
_DOUBTFUL = 1e-8
#: Reads of the rows from which on a whole Hessian, where it is small, costs less than more conjugate gradients.
_PATIENCE = 150
#: Newton steps for a loss of residuals in memory: where more are needed a path of widths is shorter.
_SHORT = 40
#: Newton steps for any other; a convergent descent takes five to thirty.
_MOST_STEPS = 200
#: What is done, beside Newton's method.
_WIDTHS = Stage("path of widths", "the quadratic made narrow by and by, and a point of the dual in twice the precision")
_FACE = Stage("face", "a point of the dual on the margins that are too narrow, moved until it is feasible")
_MET = Stage("least squares", "weights that meet every row, with residuals in twice the precision")
_PROGRAM = Stage("linear program", "for a direction along which the loss falls for ever, checked in exact arithmetic")
#: Classes from which on labels are no numbers of classes where rows are fewer.
_MANY_CLASSES = 2**16
#: Bases that are tried one after the other: with a ridge they depend on how much the rows bend the loss.
_BASES = 3


def targets_of(rows: Rows) -> Targets:
    """Return what decides how a criterion reads the targets of a table."""
    return Targets(rows.n_targets, rows.single_target, not rows.y.stored_dtype.is_floating_point)


def _targets_of_all(rows: Rows) -> Targets:
    """Return the same where processes share the rows: those without any have no say.

    Raises:
        InputError: the targets of some are integers, those of others are not.
    """
    if not isinstance(rows.walker, ProcessGroup):
        return targets_of(rows)
    every = [targets for held, targets in rows.walker.each((rows.x.shape[0], targets_of(rows))) if held]
    if len({targets.integers for targets in every}) > 1:
        raise InputError("Y holds integers on some ranks and floating numbers on others; pass the same dtype on all.")
    return every[0]


def solve_criterion(rows: Rows, request: ConvexRequest) -> ConvexSolution:
    """Minimise ``sum_i w_i loss_i + l2 / 2 * |weight|^2`` and prove how far it can still fall.

    Args:
        rows: Rows that passed the door; their targets as the criterion takes them.
        request: What is asked.

    Raises:
        InputError: targets that the criterion is not defined for, or options that cannot be used.
        DataTypeError: the criterion is no module.
        NonFiniteError: NaN or infinities in the data.
    """
    started = time.perf_counter()
    criterion = read_criterion(request.criterion, _targets_of_all(rows))
    _check_function(rows, request, criterion)
    with Progress(request.progress) as report:
        watched = _without_ignored(rows, criterion).watched(report.watcher)
        design = Design(watched, scan(watched), bias=request.bias)
        if isinstance(criterion, Kinked):
            solution = solve_kinked(design, criterion, request)
        else:
            found = _solved_in_row_space(watched, criterion, request)
            solution = _solve(design, criterion, request) if found is None else found
        stored = stored_of(watched, criterion, request, solution)
    return replace(solution, stored=stored, seconds=time.perf_counter() - started)


def _check_function(rows: Rows, request: ConvexRequest, criterion: Criterion | Kinked) -> None:
    """Refuse a function that was taken for a module, but returns another number for the targets of these rows.

    Raises:
        InputError: it does.
    """
    if request.function is None or not rows.in_memory or not isinstance(rows.walker, InOrder):
        return
    Y = rows.block(0, rows.n_rows, as_stored=True).Y
    labels = criterion.coupled and targets_of(rows).integers
    T = Y.to(torch.int64 if labels else torch.float64)
    T = T[:, 0] if rows.single_target or labels else T
    counted = Y.to(torch.float64)
    outputs = request.outputs or criterion.n_outputs(counted)
    if contradicts(request.function, request.criterion, T, outputs):
        name = type(request.criterion).__name__
        raise InputError(
            f"criterion is {getattr(request.function, '__name__', type(request.function).__name__)}, which returns the "
            f"numbers of {name}() for some targets, but not for these, so it has other options; pass the module of "
            "torch.nn that it stands for, with its options."
        )


def _without_ignored(rows: Rows, criterion: Criterion | Kinked) -> Rows:
    """Return rows in which those that the criterion ignores have weight zero: what they alone tell apart is level."""
    if isinstance(criterion, Kinked) or not rows.in_memory or not isinstance(rows.walker, InOrder):
        return rows
    block = rows.block(0, rows.n_rows, as_stored=True)
    ignored = criterion.ignored(block.Y)
    if ignored is None or bool(ignored.all()):
        return rows
    weight = (~ignored).to(torch.float64) if block.weight is None else block.weight.masked_fill(ignored, 0)
    return replace(rows, weight=TensorSource(weight, "sample_weight"))


def _solved_in_row_space(rows: Rows, criterion: Criterion, request: ConvexRequest) -> ConvexSolution | None:
    """Return the solution of a wide table by a square one, with a ridge or where its classes are divided; else None."""
    narrow = narrowed(rows)
    if narrow is None:
        return None
    inner = replace(request, dtype=torch.float64, start=narrow.lowered(request.start))
    found = _solve(Design(narrow.rows, scan(narrow.rows), bias=request.bias), criterion, inner)
    weights = narrow.raised(Weights(found.weight, found.bias))
    direction = None if found.direction is None else narrow.raised(found.direction)
    certificate = found.certificate
    if direction is not None and not narrow.separates(direction, criterion):
        return None

    if direction is None:
        least = min(check_ridge(request.l2, weights.weight.shape[0]))
        if not least or not found.outcome.certified:
            return None
        gap = narrow.gap(found, criterion, least)
        shared = gap / certificate.gap if certificate.gap else 1.0
        relative = certificate.relative_gap * shared
        certificate = replace(
            certificate,
            accepted=relative <= GAP_TOLERANCE,
            gap=gap,
            relative_gap=relative,
            excess_loss=certificate.excess_loss * shared,
            reason=f"{certificate.reason}, in the space of the rows",
        )
        if not certificate.accepted:
            return None
    dtype = rows.dtype if request.dtype is None else request.dtype
    notes = found.notes
    if dtype != torch.float64:
        notes = (*notes, f"the weights were computed in float64 and rounded to {str(dtype).removeprefix('torch.')}")
    done = Stage("row space", "features in an orthonormal basis of the rows, by QR in float64: a square table")
    return replace(
        found,
        plan=ConvexPlan.of([done, *found.plan.stages, *rounding_to(dtype)]),
        weight=round_to(weights.weight, dtype),
        bias=None if weights.bias is None else weights.bias.to(dtype),
        direction=direction,
        certificate=certificate,
        notes=notes,
    )


def _solve(design: Design, criterion: Criterion, request: ConvexRequest) -> ConvexSolution:
    rows = design.rows
    n_outputs = _outputs(rows, criterion, request)
    strengths = tuple(check_ridge(request.l2, n_outputs))
    if criterion.coupled and len(set(strengths)) > 1:
        raise InputError(f"{criterion.name} couples the classes, so that l2 must be one number.")

    counts = rows.walk(TargetCounts(criterion, n_outputs, rows.device))
    if not float(counts.totals):
        raise InputError("no row counts: every label is ignored, or its class has weight 0.")

    problem = ConvexProblem(rows, criterion, design.columns, n_outputs, strengths, counts.idle)
    outline = _Outline(problem, design, request, counts)
    residuals = _of_residuals(problem)
    exact = outline.met() if residuals and rows.n_rows <= problem.n_columns else None
    if exact is not None:
        return exact
    far = outline.falling_bias()
    null = _null_directions(design, strengths)
    start = None if request.start is None else request.start.stacked() / design.columns.scale.unsqueeze(1)
    with one_thread(problem.n_columns, rows.device) if problem.compiled else nullcontext():
        # Between passes of compiled loops torch works on small matrices, and its threads would spin into these.
        descent, proof = _descended(design, problem, null, start, shortly=far is not None)
    if far is None and not proof.accepted and fits(problem):
        exact = outline.met() if residuals else None
        if exact is not None:
            return exact
        descent, proof = _sharpened(design, problem, null, descent, proof)
    theta, norms = descent.theta, torch.ldexp(design.norms, -design.exponents)
    accepted = far is None and proof.accepted

    direction, undecided = far, ""
    if not accepted and direction is None and min(strengths) == 0:
        # SciPy's linear programs take longer to import than most fits take.
        from closedform.fit.convex.separation import find_separation

        descent = replace(descent, stages=(*descent.stages, _PROGRAM))
        try:
            found = find_separation(problem)
        except InputError as error:
            # Rows that cannot be had all at once: what was reached is told all the same.
            found, undecided = None, f"whether there is a minimiser was not decided: {error}"
        direction = None if found is None else Weights.from_stacked(found, bias=request.bias)
    gradient = proof.gradient / design.columns.scale.unsqueeze(1)
    flat = null.shape[1] if min(strengths) == 0 else 0
    flat += outline.idle_directions + proof.level
    certificate = GapCertificate(
        accepted=accepted and direction is None,
        gap=proof.gap if direction is None else math.inf,
        relative_gap=proof.relative_gap if direction is None else math.inf,
        tolerance=GAP_TOLERANCE,
        excess_loss=proof.gap / outline.divisor if direction is None else math.inf,
        loss=proof.loss / outline.divisor,
        objective=proof.objective,
        gradient_norm=float(gradient.norm()),
        condition=proof.condition,
        flat_directions=flat,
        unique=accepted and proof.definite and not flat,
        reason=proof.reason if direction is None else "the loss falls for ever along .direction",
    )
    solution = outline.solution(theta, certificate, direction, descent, norms, proof.level)
    if proof.level:
        solution = replace(solution, on_face=True, notes=(*solution.notes, face_note(proof.level)))
    return replace(solution, notes=(*solution.notes, undecided)) if undecided else solution


def _outputs(rows: Rows, criterion: Criterion, request: ConvexRequest) -> int:
    """Return how many outputs a row has.

    Raises:
        InputError: another number than the layer has, or labels that number no classes: weights for all numbers up to
            them would fill the memory, and neither probabilities nor weights of classes say that there are so many.
    """
    seen = rows.walk(_MostOutputs(criterion)).outputs
    if request.outputs is not None:
        if seen != request.outputs and not criterion.coupled:
            raise InputError(f"the layer has {plural(request.outputs, 'output')}, but Y has {plural(seen, 'column')}.")
        return request.outputs
    labels = criterion.coupled and targets_of(rows).integers
    if labels and seen > max(_MANY_CLASSES, rows.n_rows, criterion.n_outputs(torch.zeros(1, 1, device="cpu"))):
        raise InputError(
            f"Y holds label {seen - 1}, which makes {seen} classes of {plural(rows.n_rows, 'row')}; "
            "torch.unique(Y, return_inverse=True)[1] numbers the classes that there are from 0."
        )
    return seen


def _descended(
    design: Design, problem: ConvexProblem, null: Tensor, start: Tensor | None, *, shortly: bool
) -> tuple[Descent, Proof]:
    """Go down by Newton's method and prove what was reached; with ``shortly`` there is nothing to converge to."""
    most_steps = _SHORT if _of_residuals(problem) else _MOST_STEPS
    descent = descend(
        problem,
        null,
        start,
        # Where the bias alone lets the loss fall for ever, a few steps show the way.
        most_steps=3 if shortly else most_steps,
        most_passes=_PATIENCE if fits(problem) and not problem.direct else math.inf,
    )
    norms = torch.ldexp(design.norms, -design.exponents)
    descent = replace(descent, theta=_centred(problem, descent.theta, null))
    proof = prove(problem, descent.theta, null, norms, gram=descent.gram)
    if not shortly and descent.stopped == "foreseen" and not proof.accepted:
        before = descent.stages
        descent = descend(problem, null, descent.theta, foresee=False)
        descent = replace(descent, theta=_centred(problem, descent.theta, null), stages=(*before, *descent.stages))
        proof = prove(problem, descent.theta, null, norms)
    return descent, proof


def _of_residuals(problem: ConvexProblem) -> bool:
    """Say whether the loss is one of residuals whose rows are at hand."""
    return problem.criterion.of_residuals and _at_hand(problem)


def _at_hand(problem: ConvexProblem) -> bool:
    """Say whether all rows are in memory, in one place."""
    return problem.rows.in_memory and isinstance(problem.rows.walker, InOrder)


def _sharpened(
    design: Design, problem: ConvexProblem, null: Tensor, descent: Descent, proof: Proof
) -> tuple[Descent, Proof]:
    """Go on in an orthonormal basis of the columns with the whole Hessian, where that proves more."""
    floor = 0.0
    if _of_residuals(problem):
        # What Newton's method misses where hardly a row bends the loss.
        theta, gap, moved = rounded_minimum(design, problem)
        descent = replace(descent, theta=theta, stages=(*descent.stages, _WIDTHS))
        proof = prove(problem, theta, null, torch.ldexp(design.norms, -design.exponents))
        if gap < proof.gap:
            proof = replace(proof, gap=gap, reason="the duality gap")
        # Where all residuals are zero nothing else is left for a gap to be relative to.
        floor = moved / GAP_TOLERANCE
        proof = replace(proof, size=max(proof.size, floor))
        if proof.accepted:
            return descent, proof

    best = descent, proof
    for _ in range(_BASES if min(problem.strengths) > 0 else 1):
        basis = Basis.of(design, problem, descent.theta)
        if basis is None:
            break
        theta, proof, steps = sharpened(problem, basis, descent.theta)
        proof = replace(proof, size=max(proof.size, floor))
        done = Stage("orthonormal basis", f"the whole Hessian, {basis.arithmetic(problem)}", steps)
        descent = replace(descent, theta=theta, steps=descent.steps + steps, stages=(*descent.stages, done))
        if (proof.gap, proof.objective) < (best[1].gap, best[1].objective):
            best = descent, proof
        if proof.accepted or not steps:
            break
    if problem.criterion.of_shortfalls and not best[1].accepted:
        theta, proof = face_proof(problem, best[0].theta, null, best[1])
        stages = (*best[0].stages, _FACE) if proof is not best[1] else best[0].stages
        best = replace(best[0], theta=theta, stages=stages), proof
    return best


@final
class _Outline:
    """What a result says of the problem itself."""

    def __init__(self, problem: ConvexProblem, design: Design, request: ConvexRequest, counts: TargetCounts) -> None:
        self.problem, self.design, self.request, self.counts = problem, design, request, counts

    @property
    def divisor(self) -> float:
        """What the criterion's reduction divides the sum of row losses by."""
        return float(self.counts.totals) if self.problem.criterion.averages else 1.0

    def in_units(self, certificate: GapCertificate) -> GapCertificate:
        """Return a certificate of sums of losses in the units of the criterion."""
        return replace(
            certificate,
            excess_loss=certificate.excess_loss / self.divisor,
            loss=certificate.loss / self.divisor,
        )

    def met(self) -> ConvexSolution | None:
        """Return the solution where weights meet every target, or None."""
        if any(self.problem.strengths):
            return None
        exact = met(self.design, self.problem.criterion, self.problem.n_outputs)
        if exact is None or not exact[1].accepted:
            return None
        theta = exact[0].stacked() / self.design.columns.scale.unsqueeze(1)
        reached = Descent(theta, 0, 1, "converged", None, (_MET,))
        return self.solution(theta, self.in_units(exact[1]), None, reached, self.design.norms)

    def falling_bias(self) -> Weights | None:
        """Return a change of the bias along which the loss falls for ever, whatever the ridge, or None."""
        if not self.request.bias:
            return None
        down, up = self.counts.down == 0, self.counts.up == 0
        if self.problem.criterion.coupled:
            up = torch.zeros_like(up)
        # Where both sums are zero no loss depends on the output.
        if not bool((down ^ up).any()):
            return None
        bias = up.to(torch.float64) - down.to(torch.float64)
        return Weights(bias.new_zeros(self.problem.n_outputs, self.problem.rows.n_features), bias)

    def solution(
        self,
        theta: Tensor,
        certificate: GapCertificate,
        direction: Weights | None,
        descent: Descent,
        norms: Tensor,
        level: int = 0,
    ) -> ConvexSolution:
        """Return the result, with its outcome; of the flat directions ``level`` are those of a face of minimisers."""
        rows, weights = self.problem.rows, self.problem.weights(theta)
        if direction is None:
            check_range(theta, weights.weight, weights.bias)
        dtype = rows.dtype if self.request.dtype is None else self.request.dtype
        notes = own_notes(rows, self.problem.criterion)

        outcome = Outcome.CERTIFIED if certificate.accepted else Outcome.NOT_CERTIFIED
        if direction is not None:
            outcome = Outcome.NO_MINIMISER
        elif certificate.accepted and certificate.flat_directions:
            outcome = Outcome.CERTIFIED_NOT_UNIQUE
            notes += self._level(certificate.flat_directions, level)
        if self.problem.criterion.coupled and direction is None:
            notes.append("a shift of all classes changes no loss; the centred weights are returned")
        if dtype != torch.float64:
            notes.append(f"the weights were computed in float64 and rounded to {str(dtype).removeprefix('torch.')}")
            if certificate.accepted:
                notes += self._as_stored(weights.to(dtype), norms)

        return ConvexSolution(
            weight=round_to(weights.weight, dtype),
            bias=None if weights.bias is None else weights.bias.to(dtype),
            criterion=self.problem.criterion.name,
            certificate=certificate,
            outcome=outcome,
            direction=direction,
            steps=descent.steps,
            passes=descent.passes,
            notes=tuple(notes),
            seconds=0.0,
            single_target=rows.single_target and not self.problem.criterion.coupled,
            plan=ConvexPlan.of([*descent.stages, *rounding_to(dtype)]),
        )

    @property
    def idle_directions(self) -> int:
        """Directions that no loss depends on, as a whole output does: all of it without a ridge, else its bias."""
        problem = self.problem
        each = (int(self.request.bias) if problem.strengths[output] else problem.n_columns for output in problem.idle)
        return sum(each)

    def _level(self, flat: int, level: int) -> list[str]:
        """Return what is level where the minimiser is not unique."""
        notes, idle = [], self.problem.idle
        if idle:
            outputs = f"{'output' if len(idle) == 1 else 'outputs'} {', '.join(map(str, idle))}"
            notes.append(f"no row's loss depends on {outputs}: the weights are zero")
        if flat > self.idle_directions + level:
            notes.append(unseen_note(flat - self.idle_directions - level))
        return notes

    def _as_stored(self, weights: Weights, norms: Tensor) -> list[str]:
        """Return what can be proven of the weights after rounding, if that is anything."""
        theta = weights.to(torch.float64).stacked() / self.design.columns.scale.unsqueeze(1)
        null = theta.new_zeros(theta.shape[0], 0)
        excess = prove(self.problem, theta, null, norms).gap / self.divisor
        kind = str(weights.weight.dtype).removeprefix("torch.")
        return [f"as {kind} the loss is at most {excess:.1e} above the minimum"] if math.isfinite(excess) else []


def _null_directions(design: Design, strengths: tuple[float, ...]) -> Tensor:
    """Return orthonormal coefficients ``(columns, directions)`` for which no output changes and no ridge is paid."""
    count = design.n_columns
    none = design.norms.new_zeros(count, 0)
    # Rows of a sample that determine all coefficients do so among all rows.
    if min(strengths) > 0 or _regular(design.sampled_normal_equations(torch.float64), design):
        return none
    if _regular(design.normal_equations(torch.float64)[0], design):
        return none
    _, values, right = torch.linalg.svd(design.triangle.padded().R, full_matrices=True)
    rank = decide_rank(values, count, default_rcond(design.rows.n_rows, count))
    return right[rank.rank :].T.contiguous()


def _regular(sums: NormalEquations, design: Design) -> bool:
    """Say whether ``A'A`` of the scaled columns is far from singular."""
    left = design.columns.scale / sums.applied
    factor, broken = torch.linalg.cholesky_ex(mirror(sums.gram) * left.unsqueeze(1) * left)
    sizes = factor.diagonal().abs()
    return (
        not int(broken) and bool(torch.isfinite(sizes).all()) and float((sizes.amin() / sizes.amax()) ** 2) > _DOUBTFUL
    )


def _centred(problem: ConvexProblem, theta: Tensor, null: Tensor) -> Tensor:
    """Return the coefficients of least norm (the bias outside it) with these outputs, up to a shift of classes."""
    theta = problem.centred(theta)
    if not null.shape[1]:
        return theta
    free = null * problem.columns.scale.unsqueeze(1)
    weights = theta * problem.columns.scale.unsqueeze(1)
    first = int(problem.columns.bias)
    along = least_norm_lstsq(free[first:], -weights[first:])
    open_outputs = theta.new_tensor([float(strength == 0) for strength in problem.strengths])
    return theta + null @ (along * open_outputs)


@final
class _MostOutputs(Fold):
    """How many outputs the targets call for."""

    as_stored = False
    label = "reading"

    def __init__(self, criterion: Criterion) -> None:
        self._criterion = criterion
        self.outputs = 1

    @override
    def add(self, block: Block) -> None:
        Y = block.Y if block.weight is None else block.Y[block.weight > 0]
        if Y.shape[0]:
            self.outputs = max(self.outputs, self._criterion.n_outputs(Y))

    @override
    def merge(self, other: Self) -> None:
        self.outputs = max(self.outputs, other.outputs)

    @override
    def fresh(self) -> Self:
        return type(self)(self._criterion)

    @override
    def state(self) -> tuple[Tensor, ...]:
        return (torch.tensor(self.outputs, device="cpu"),)

    @override
    def load_state(self, state: tuple[Tensor, ...]) -> None:
        self.outputs = int(state[0])
