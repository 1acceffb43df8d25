"""Preconditioned refinement by the gradient of the true rows.

An inexact factor S with ``S'S ~ A'A`` preconditions conjugate gradients on the normal equations; each round starts
from the gradient of the true rows, computed anew, so that errors of the factor and of the recurrences do not stay
in the result. Sources: Bjoerck (1996, 7.4) for CGLS with a preconditioner; Epperly, Meier and Nakatsukasa (2024) for
why restarting from the true residual makes it stable.
"""

from __future__ import annotations

import math
from typing import final

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from closedform.fit.problem import Problem
from closedform.fit.refinement.refinement import GOAL, MOST_ROUNDS, Refined, Refinement, magnitude
from closedform.numerics.host import Vector, as_vector, columns_where, lengths
from closedform.numerics.root import Root

__all__ = ["ByGradient"]

#: Steps of conjugate gradients in a round; with a preconditioner worth its name fewer do.
_MOST_STEPS = 30
#: Below this contraction plain steps with the factor do; above, conjugate gradients pay.
_PLAIN = 1e-2
#: How much worse than expected a last step may be that is not looked at again before the certificate.
_MARGIN = 30.0
#: A round hands over to the next, with a fresh gradient, once it has gained this much.
_ROUND_GAIN = 1e-9
#: The last round goes this far below the goal, and no round gains less.
_LAST_GAIN = 0.1
#: Steps between two looks at how far they have come, where a look waits for the device.
_STEPS_A_LOOK = 8


@final
class ByGradient(Refinement):
    """Steps ``z + S^-1 S^-T g`` with the gradient g of the true rows, or conjugate gradients made of them.

    Args:
        root: S, of full rank or with the row space that the steps stay in.
        contraction: By what factor one plain step is expected to shrink the error.
    """

    def __init__(self, root: Root, contraction: float) -> None:
        self.root = root
        self.contraction = contraction

    @property
    def steps_settle(self) -> bool:
        """Whether plain steps do, each of which shrinks the error so much that two or three are enough."""
        return self.contraction < _PLAIN

    @override
    def refine(self, problem: Problem, start: Tensor, nearest: Tensor | None) -> Refined:
        root, contraction, Z = self.root, self.contraction, start
        G, squares = problem.gradient(Z)
        S = root.adjoint_solve(G)
        sizes, passes, gained = _left(S, squares), 1, math.inf
        left = sizes / magnitude(problem, Z)

        for turn in range(MOST_ROUNDS):
            worst, plain = float(left.max()), contraction < _PLAIN
            # Where targets are long and weights short (a strong ridge), a start that is good enough for the rows may
            # not be for the weights: the first step, which costs no pass, is always taken.
            if worst <= GOAL and not (plain and turn == 0):
                break
            if plain:
                step, steps, arrived = root.solve(S), 0, True
            else:
                gain = np.clip(_LAST_GAIN * GOAL / left, _ROUND_GAIN, _LAST_GAIN)
                step, steps, arrived = _conjugate_gradients(problem, root, G, S, torch.from_numpy(gain).to(G.device))
            candidate = Z + step
            # The round before has shown how far steps can be trusted: what they miss of this one is less than that.
            if arrived and worst * (contraction if plain else gained) * _MARGIN <= GOAL:
                # What this step leaves is far below rounding; the certificate looks at it anyway.
                return Refined(candidate, passes + steps)

            new_G, new_squares = problem.gradient(candidate)
            new_S = root.adjoint_solve(new_G)
            passes += steps + 1
            new_sizes = _left(new_S, new_squares)
            new_left = new_sizes / magnitude(problem, candidate)
            better, halved = new_left < left, new_left < 0.5 * left
            if plain:
                contraction = float((new_left / np.maximum(left, GOAL)).max())
            gained = float(np.divide(new_sizes, sizes, out=np.zeros_like(sizes), where=left > GOAL).max())
            Z, G, S = (columns_where(better, new, old) for new, old in ((candidate, Z), (new_G, G), (new_S, S)))
            left, sizes = np.where(better, new_left, left), np.where(better, new_sizes, sizes)
            if not halved.any():
                break
        return Refined(Z, passes)


def _conjugate_gradients(problem: Problem, root: Root, G: Tensor, S: Tensor, gain: Tensor) -> tuple[Tensor, int, bool]:
    """Solve ``(A'A + P'P) step = G`` for all targets at once, each with its own step lengths, up to ``gain``.

    Returns the step, how many products with the rows it took, and whether the recurrences say that all have arrived.

    Args:
        problem: The problem.
        root: The factor.
        G: ``(columns, targets)``.
        S: ``root.adjoint_solve(G)``.
        gain: ``(targets,)``.
    """
    step = torch.zeros_like(G)
    direction = root.solve(S)
    squares = S.square().sum(0)
    enough = gain.square() * squares

    # Elsewhere than on a CPU a look at a number waits for the device; targets that are done take steps of length zero.
    look = 1 if G.device.type == "cpu" else _STEPS_A_LOOK
    for steps in range(1, _MOST_STEPS + 1):
        product = problem.normal_product(direction)
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
    return step, steps, bool((squares <= enough).all())


def _left(S: Tensor, squares: Tensor) -> Vector:
    """How far the residual is from orthogonal to the columns: the length of its projection, ``|S^-T A'r|``."""
    return np.minimum(lengths(S), np.sqrt(as_vector(squares)))
