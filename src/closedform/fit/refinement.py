"""Preconditioned iterative refinement on the true rows: what makes any factor good enough.

An inexact factor S with ``S'S ~ A'A`` preconditions conjugate gradients on the normal equations; each round starts
from the gradient of the true rows, computed anew, so that errors of the factor and of the recurrences do not stay
in the result. Sources: Bjoerck (1996, 7.4) for CGLS with a preconditioner; Epperly, Meier and Nakatsukasa (2024) for
why restarting from the true residual makes it stable.
"""

from __future__ import annotations

import sys

import torch
from torch import Tensor

from closedform.engine.threads import all_threads
from closedform.fit.factors import Factor
from closedform.numerics.root import Root
from closedform.rows import Design

__all__ = ["refine"]

_EPS = sys.float_info.epsilon
#: Relative size of what is left at which refinement has nothing more to repair.
_GOAL = 2 * _EPS
_MAX_ROUNDS = 8
_MAX_STEPS = 30
#: Below this contraction plain steps with the factor do; above, conjugate gradients pay.
_PLAIN = 1e-2
#: How much worse than expected a last step may be that is not looked at again before the certificate.
_MARGIN = 30.0
#: Up to this many columns the weights of least norm are found by one thread before others are awake.
_FOR_ONE = 256
#: A round hands over to the next, with a fresh gradient, once it has gained this much; the last one goes this far below
#: the goal, and none gains less.
_ROUND_GAIN, _LAST_GAIN = 1e-9, 0.1


def refine(design: Design, factor: Factor) -> tuple[Tensor, int]:
    """Return the refined coordinates ``(columns, targets)`` and the number of passes over the rows.

    A step that does not help is undone, for each target by itself; so the result is never worse than the start.
    """
    if factor.correct is not None:
        return _by_residual(design, factor)
    if factor.root is not None and (factor.rank.full or factor.finish is not None):
        Z, passes = _by_gradient(design, factor.start, factor.root, factor.contraction)
        if factor.finish is not None:
            with all_threads(design.n_columns > _FOR_ONE):
                Z = factor.finish(Z)
        return Z, passes
    # Refining inside the kept row space would leave the least norm; the certificate decides on the start itself.
    return factor.start, 0


def _by_residual(design: Design, factor: Factor) -> tuple[Tensor, int]:
    assert factor.correct is not None
    Z, residual = factor.start, design.residual(factor.start)
    size, passes = torch.linalg.vector_norm(residual, dim=0), 1
    for _ in range(_MAX_ROUNDS):
        if bool((size <= _GOAL * _magnitude(design, Z)).all()):
            break
        candidate = Z + factor.correct(residual)
        new_residual = design.residual(candidate)
        new_size = torch.linalg.vector_norm(new_residual, dim=0)
        passes += 1
        better = new_size < size
        Z = torch.where(better, candidate, Z)
        residual = torch.where(better, new_residual, residual)
        halved = new_size < 0.5 * size
        size = torch.where(better, new_size, size)
        if not bool(halved.any()):
            break
    return Z, passes


def _by_gradient(design: Design, start: Tensor, root: Root, contraction: float) -> tuple[Tensor, int]:
    Z = start
    G, squares = design.gradient(Z)
    left, passes = _left(root, G, squares) / _magnitude(design, Z), 1
    for turn in range(_MAX_ROUNDS):
        worst, plain = float(left.max()), contraction < _PLAIN
        # Where targets are long and weights short (a strong ridge), a start that is good enough for the rows may
        # not be for the weights: the first step, which costs no pass, is always taken.
        if worst <= _GOAL and not (plain and turn == 0):
            break
        if plain:
            step, steps = root.solve(root.adjoint_solve(G)), 0
        else:
            gain = (_LAST_GAIN * _GOAL / left).clamp(min=_ROUND_GAIN, max=_LAST_GAIN)
            step, steps = _conjugate_gradients(design, root, G, gain)
        candidate = Z + step
        if plain and worst * contraction * _MARGIN <= _GOAL:
            # What this step leaves is far below rounding; the certificate looks at it anyway.
            return candidate, passes
        new_G, new_squares = design.gradient(candidate)
        passes += steps + 1
        new_left = _left(root, new_G, new_squares) / _magnitude(design, candidate)
        better = new_left < left
        Z, G = torch.where(better, candidate, Z), torch.where(better, new_G, G)
        halved = new_left < 0.5 * left
        contraction = float((new_left / left.clamp(min=_GOAL)).max()) if plain else contraction
        left = torch.where(better, new_left, left)
        if not bool(halved.any()):
            break
    return Z, passes


def _conjugate_gradients(design: Design, root: Root, G: Tensor, gain: Tensor) -> tuple[Tensor, int]:
    """Solve ``(A'A + P'P) step = G`` for all targets at once, each with its own step lengths, up to ``gain``."""
    step = torch.zeros_like(G)
    S = root.adjoint_solve(G)
    direction = root.solve(S)
    squares = S.square().sum(0)
    enough = gain.square() * squares
    # Elsewhere than on a CPU a look at a number waits for the device; targets that are done take steps of length zero.
    look = 1 if G.device.type == "cpu" else 8
    for steps in range(1, _MAX_STEPS + 1):
        product = design.normal_product(direction)
        curvature = (direction * product).sum(0)
        active = (curvature > 0) & (squares > enough)
        length = torch.where(active, squares / curvature, 0.0)
        step += length * direction
        G = G - length * product
        S = root.adjoint_solve(G)
        new_squares = S.square().sum(0)
        ratio = torch.where(active, new_squares / squares, 0.0)
        direction = root.solve(S) + ratio * direction
        squares = new_squares
        if steps % look == 0 and not bool(((squares > enough) & torch.isfinite(squares)).any()):
            break
    return step, steps


def _left(root: Root, G: Tensor, squares: Tensor) -> Tensor:
    """How far the residual is from orthogonal to the columns: the length of its projection, ``|S^-T A'r|``."""
    return torch.minimum(torch.linalg.vector_norm(root.adjoint_solve(G), dim=0), squares.sqrt())


def _magnitude(design: Design, Z: Tensor) -> Tensor:
    """``|A| |z| + |b|`` of each target, by which a residual is large or small."""
    size = design.frobenius_norm * torch.linalg.vector_norm(Z, dim=0) + design.target_norms
    return torch.where(size > 0, size, 1.0)
