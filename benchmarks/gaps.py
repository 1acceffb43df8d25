"""Random convex fits beside independent oracles: is a proven gap ever below the true excess, a separation ever wrong?

Every problem is decided by other means: linear programs of HiGHS, made rational, for losses with kinks; Newton steps on
gradients in extended precision for smooth ones; rational arithmetic for classes that are nearly divided (a direction
dividing rows of three numbers is, if there is one, the cross product of two of them). All of it takes some minutes.
"""

from __future__ import annotations

import argparse
import random
from collections import Counter
from fractions import Fraction
from itertools import combinations

import numpy as np
import torch
from scipy.optimize import linprog
from torch import Tensor, nn

import closedform as cf
from closedform.losses import HingeLoss, PinballLoss

KINKED = ("absolute", "quantile", "hinge")
SMOOTH = ("binary", "classes", "poisson", "huber")


def drawn_table(dice: random.Random, g: torch.Generator) -> Tensor:
    """Rows of features: well or badly conditioned, integers, or some of them twice."""
    rows, features = dice.randint(8, 60), dice.randint(1, 6)
    X = torch.randn(rows, features, dtype=torch.float64, generator=g)
    kind = dice.choice(["plain", "units", "integers", "twice", "close"])
    if kind == "units":
        X = X * torch.logspace(-4, 4, features, dtype=torch.float64)
    elif kind == "integers":
        X = (2 * X).round()
    elif kind == "twice":
        X = torch.cat([X, X[: rows // 2]])
    elif kind == "close" and features > 1:
        X[:, 1] = X[:, 0] + 1e-5 * X[:, 1]
    return X


def exact_objective(A: list[list[Fraction]], pieces: list[tuple[Fraction, ...]], v: list[Fraction]) -> Fraction:
    """Return the sum of losses with a kink in each row, in rational arithmetic."""
    total = Fraction(0)
    for row, (t, above, below) in zip(A, pieces, strict=True):
        r = t - sum((a * x for a, x in zip(row, v, strict=True)), Fraction(0))
        total += above * r if r > 0 else -below * r
    return total


def solved_exactly(A: list[list[Fraction]], t: list[Fraction]) -> list[Fraction] | None:
    """Return the solution of a square system in rational arithmetic; None where it is singular."""
    system = [[*row, value] for row, value in zip(A, t, strict=True)]
    for place in range(len(system)):
        pivot = next((row for row in range(place, len(system)) if system[row][place]), None)
        if pivot is None:
            return None
        system[place], system[pivot] = system[pivot], system[place]
        for row in range(len(system)):
            if row != place and system[row][place]:
                factor = system[row][place] / system[place][place]
                system[row] = [a - factor * b for a, b in zip(system[row], system[place], strict=True)]
    return [row[-1] / row[place] for place, row in enumerate(system)]


def by_program(X: Tensor, t: Tensor, above: Tensor, below: Tensor) -> list[list[Fraction]]:
    """Return coefficients, the bias first, where HiGHS finds the least sum of losses: its own, and the vertex."""
    A = np.column_stack([np.ones(len(X)), X.numpy()])
    # Units change no minimum, and help a solver with absolute tolerances.
    units = np.abs(A).max(0).clip(1e-300)
    rows, columns = A.shape
    solved = linprog(
        np.concatenate([np.zeros(columns), above.numpy(), below.numpy()]),
        A_eq=np.hstack([A / units, np.eye(rows), -np.eye(rows)]),
        b_eq=t.numpy(),
        bounds=[(None, None)] * columns + [(0, None)] * (2 * rows),
        method="highs",
        options={"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10},
    )
    if solved.status != 0:
        return []
    v = solved.x[:columns] / units
    nearest = np.argsort(np.abs(t.numpy() - A @ v))[:columns]
    vertex = solved_exactly(
        [[Fraction(value) for value in A[row].tolist()] for row in nearest],
        [Fraction(float(t[row])) for row in nearest],
    )
    return [[Fraction(value) for value in v.tolist()], *([] if vertex is None else [vertex])]


def check_kinked(kind: str, dice: random.Random, g: torch.Generator) -> str:
    """Return what came out of a problem with kinks: ``below`` is a gap below the excess."""
    X = drawn_table(dice, g)
    y = torch.randn(len(X), dtype=torch.float64, generator=g) ** dice.choice([1, 3])
    above = below = torch.ones_like(y)
    criterion: nn.Module = nn.L1Loss(reduction="sum")
    if kind == "quantile":
        quantile = dice.choice([0.1, 0.5, 0.9])
        criterion = PinballLoss(quantile, reduction="sum")
        above, below = quantile * above, (1 - quantile) * below
    elif kind == "hinge":
        y, criterion = torch.where(y > 0, 1.0, -1.0).to(y), HingeLoss(reduction="sum")
        above, below = (y > 0).to(y), (y < 0).to(y)
    sol = cf.solve(X, y, bias=True, criterion=criterion)
    found = by_program(X, y, above, below)
    if not found:
        return "no oracle"

    # No oracle is below the minimum, so that an excess over it is one, whatever its own tolerances are.
    A = [[Fraction(1), *map(Fraction, row)] for row in X.tolist()]
    pieces = [tuple(map(Fraction, each)) for each in zip(y.tolist(), above.tolist(), below.tolist(), strict=True)]
    present = exact_objective(A, pieces, [Fraction(float(v)) for v in (sol.bias, *sol.weight[0])])
    excess = present - min(exact_objective(A, pieces, v) for v in found)
    if excess > Fraction(sol.certificate.gap if sol.certificate.gap < np.inf else 1e300):
        return "below"
    return "certified" if sol.outcome.certified else "not certified"


def smooth_losses(kind: str, Z: np.ndarray, y: np.ndarray) -> tuple[np.longdouble, np.ndarray, np.ndarray]:
    """Return the sum of the losses, their slopes and curvatures by the outputs, in extended precision."""
    if kind == "binary":
        p = 1 / (1 + np.exp(-Z))
        return (np.logaddexp(0, Z) - y * Z).sum(), p - y, p * (1 - p)
    if kind == "poisson":
        return (np.exp(Z) - y * Z).sum(), np.exp(Z) - y, np.exp(Z)
    r = Z - y
    inner = np.clip(np.abs(r), 0, 1)
    return (inner * (np.abs(r) - inner / 2)).sum(), np.clip(r, -1, 1), (np.abs(r) < 1).astype(np.longdouble)


def check_smooth(kind: str, dice: random.Random, g: torch.Generator) -> str:
    """Return what came out of a smooth problem with a ridge."""
    X = drawn_table(dice, g)
    X = X / X.abs().max()
    l2, noise = 10.0 ** dice.randint(-3, 1), torch.randn(len(X), dtype=torch.float64, generator=g)
    if kind == "classes":
        return check_classes(X, l2, g)
    y = {"binary": (noise > 0).double(), "poisson": (2 * noise.abs()).floor(), "huber": 3 * noise}[kind]
    criterion = {
        "binary": nn.BCEWithLogitsLoss(),
        "poisson": nn.PoissonNLLLoss(),
        "huber": nn.HuberLoss(),
    }[kind]
    sol = cf.solve(X, y, l2=l2, criterion=criterion)
    A, targets = X.numpy().astype(np.longdouble), y.numpy().astype(np.longdouble)

    def objective(w: np.ndarray) -> np.longdouble:
        return smooth_losses(kind, A @ w, targets)[0] + np.longdouble(l2) / 2 * (w @ w)

    # From the weights that are judged: what the oracle finds is below them if anything is.
    w = sol.weight[0].numpy().astype(np.longdouble)
    present = objective(w)
    for _ in range(4):
        _, slopes, bends = smooth_losses(kind, A @ w, targets)
        H = (A.T @ (bends[:, None] * A) + l2 * np.eye(A.shape[1])).astype(float)
        gradient = A.T @ slopes + l2 * w
        then = w - np.linalg.solve(H, gradient.astype(float))
        w = then if objective(then) <= objective(w) else w
    excess = float(present - objective(w))
    if excess > sol.certificate.gap * (1 + 1e-6) + 1e-17 * float(abs(present)):
        return "below"
    return "certified" if sol.outcome.certified else "not certified"


def check_classes(X: Tensor, l2: float, g: torch.Generator) -> str:
    """Return what came out of a cross-entropy, beside steps of gradient descent in extended precision."""
    labels = torch.randint(3, (len(X),), generator=g)
    sol = cf.solve(X, labels, l2=l2, criterion=nn.CrossEntropyLoss())
    # Of few rows some may have no label of the last class.
    A, own = X.numpy().astype(np.longdouble), np.eye(sol.weight.shape[0])[labels.numpy()]

    def losses(W: np.ndarray) -> tuple[np.longdouble, np.ndarray]:
        Z = A @ W.T
        top = Z.max(1, keepdims=True)
        powers = np.exp(Z - top)
        sums = powers.sum(1, keepdims=True)
        value = (np.log(sums) + top - (own * Z).sum(1, keepdims=True)).sum() + np.longdouble(l2) / 2 * (W * W).sum()
        return value, (powers / sums - own).T @ A + l2 * W

    W = sol.weight.numpy().astype(np.longdouble)
    present, gradient = losses(W)
    step = 1 / (np.linalg.norm(X.numpy(), 2) ** 2 / 2 + l2)
    for _ in range(200):
        W = W - step * gradient
        value, gradient = losses(W)
    # A ridge bounds what is left to gain from there.
    excess = float(present - value)
    if excess > sol.certificate.gap * (1 + 1e-6) + 1e-17 * float(abs(present)):
        return "below"
    return "certified" if sol.outcome.certified else "not certified"


def divided(rows: list[list[Fraction]]) -> bool:
    """Say whether there is a direction with no row's product negative and some positive, for rows that span space."""
    for first, second in combinations(rows, 2):
        (a, b, c), (d, e, f) = first, second
        ray = (b * f - c * e, c * d - a * f, a * e - b * d)
        products = [sum(x * r for x, r in zip(row, ray, strict=True)) for row in rows]
        if any(products) and (min(products) >= 0 or max(products) <= 0):
            return True
    return False


def check_near(dice: random.Random, g: torch.Generator) -> str:
    """Return what came out of two classes that a plane divides, or just does not, by a margin of 1e-1 to 1e-12."""
    rows, margin = dice.randint(8, 14), dice.choice([-1.0, 1.0]) * 10.0 ** -dice.randint(1, 12)
    y = torch.arange(rows) % 2
    signs = 2.0 * y.double() - 1
    along = torch.rand(rows, dtype=torch.float64, generator=g) + 1e-3
    along[:2] = margin / 2
    across = torch.randn(rows, dtype=torch.float64, generator=g)
    X = torch.stack([signs * along + across, across], 1)
    exact = [
        [Fraction(sign), *(Fraction(sign) * Fraction(x) for x in row)]
        for sign, row in zip(signs.tolist(), X.tolist(), strict=True)
    ]
    truth = divided(exact)
    sol = cf.solve(X, y.double(), bias=True, criterion=nn.BCEWithLogitsLoss())
    if (sol.direction is not None and not truth) or (sol.outcome.certified and truth):
        return "wrong"
    return "told" if sol.direction is not None or sol.outcome.certified else "not told"


def check(kind: str, seed: int) -> str:
    """Return what came out of one problem of a kind; ``below`` and ``wrong`` are what must never come."""
    dice, g = random.Random(seed), torch.Generator().manual_seed(seed)
    if kind == "near":
        return check_near(dice, g)
    return check_kinked(kind, dice, g) if kind in KINKED else check_smooth(kind, dice, g)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--problems", type=int, default=2000)
    parser.add_argument("--near", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    kinds = [*KINKED, *SMOOTH]
    jobs = [(kinds[n % len(kinds)], options.seed + n) for n in range(options.problems)]
    jobs += [("near", options.seed + n) for n in range(options.near)]
    counts: Counter[tuple[str, str]] = Counter()
    for kind, seed in jobs:
        found = check(kind, seed)
        counts[kind, found] += 1
        if found in ("below", "wrong", "not told", "not certified"):
            print(f"{kind}, seed {seed}: {found}")
    for (kind, found), count in sorted(counts.items()):
        print(f"{kind:10} {found:14} {count}")


if __name__ == "__main__":
    main()
