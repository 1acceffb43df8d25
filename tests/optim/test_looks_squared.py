"""Losses that look like squared errors: every one is either fitted exactly, or refused.

The check is direct: the gradient of the loss is taken at other outputs. If it is ``c (o - y)`` everywhere, the loss is
a squared error with these weights and targets; a loss that the optimizer took must be one, with the layer at its
minimiser.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from test_optim import make_layer, slices
from torch import Tensor
from torch.nn import functional as F

import closedform as cf
from closedform.optim import RecursiveLeastSquares
from closedform.words.errors import InputError
from data import gaussian

X, Y, W = gaussian(50, 3), gaussian(50, 2, seed=1), gaussian(50, 1, seed=2).square() + 0.1
Loss = Callable[[Tensor, Tensor, Tensor], Tensor]

#: What looks like a squared error at the outputs that it sees, and is none.
PRETENDERS: dict[str, Loss] = {
    "variance and squared mean, unbiased": lambda o, y, w: (o - y).var() + (o - y).mean() ** 2,
    "its own size as weight": lambda o, y, w: ((o - y).detach().abs() * (o - y) ** 2).mean(),
    "weights from a comparison": lambda o, y, w: (((o - y) > -9).double() * (o - y) ** 2).mean(),
    "weights without gradients": lambda o, y, w: (_without_gradients(o, y) * (o - y) ** 2).mean(),
    "where": lambda o, y, w: torch.where((o - y).abs() < 100, (o - y) ** 2, (o - y).abs()).mean(),
    "mask of outliers": lambda o, y, w: (o - y)[(o - y).abs() < 100].square().mean(),
    "scaled by its deviation": lambda o, y, w: (((o - y) / (o - y).detach().std()) ** 2).mean(),
    "clamped": lambda o, y, w: (o - y).clamp(-100, 100).square().mean(),
    "clamped in place": lambda o, y, w: (o - y).clamp_(-100, 100).square().mean(),
    "relu in place": lambda o, y, w: ((o + 100).relu_() - y - 100).square().mean(),
    "Huber by hand": lambda o, y, w: torch.minimum((o - y).square(), torch.tensor(1e4, dtype=o.dtype)).mean(),
    "pseudo-Huber in its middle": lambda o, y, w: (1 + ((o - y) / 1e7) ** 2).sqrt().mean(),
    "GELU far from zero": lambda o, y, w: F.mse_loss(F.gelu(o + 100), y + 100),
    "softplus far from zero": lambda o, y, w: F.mse_loss(F.softplus(o + 100), y + 100),
    "cosine in its middle": lambda o, y, w: (1 - ((o - y) * 1e-7).cos()).sum(),
    "remainder": lambda o, y, w: F.mse_loss(torch.remainder(o, 1000.0), y),
    "trimmed": lambda o, y, w: (o - y).square().flatten().topk(o.numel()).values.mean(),
    "sorted": lambda o, y, w: (o - y).square().flatten().sort().values.sum(),
    "largest norm": lambda o, y, w: torch.linalg.vector_norm(o - y, ord=float("inf"), dim=1).square().mean(),
    "signed square": lambda o, y, w: ((o - y + 100) * (o - y + 100).abs()).mean(),
    "rows weighted by their norm": lambda o, y, w: ((o - y).norm(dim=1) * (o - y).norm(dim=1).detach()).mean(),
    "straight through": lambda o, y, w: F.mse_loss(o + (o.round() - o).detach(), y),
    "target of itself": lambda o, y, w: F.mse_loss(o, 0.5 * y + 0.5 * o.detach()),
    "penalty of the fourth power": lambda o, y, w: ((o - y) ** 2).mean() + 1e-25 * ((o - y) ** 4).mean(),
    "weights that no sum ends": lambda o, y, w: (w * (o - y) ** 2).flatten().cumsum(0)[-1],
}  # fmt: skip
#: Squared errors in unusual words.
HONEST: dict[str, Loss] = {
    "variance and squared mean": lambda o, y, w: (o - y).var(unbiased=False) + (o - y).mean() ** 2,
    "mean over rows, then sum": lambda o, y, w: (o - y).square().mean(0).sum(),
    "sum over targets, then mean": lambda o, y, w: (o - y).square().sum(1).mean(),
    "norm of rows": lambda o, y, w: (o - y).norm(dim=1).square().mean(),
    "divided by its own value": lambda o, y, w: F.mse_loss(o, y) / F.mse_loss(o, y).detach(),
    "row by row": lambda o, y, w: sum((F.mse_loss(a, b) for a, b in zip(o, y, strict=True)), torch.zeros(())) / len(o),
    "in place": lambda o, y, w: (o - y).square_().mean().mul_(3.0),
    "root by hand": lambda o, y, w: (o - y).square().sum().sqrt() ** 2,
    "moving mean of errors": lambda o, y, w: (o - y).square().flatten().cumsum(0)[-1],
    "likes of the output": lambda o, y, w: (torch.ones_like(o) * (o - y.to(o)) ** 2).mean(),
    "broadcast together": lambda o, y, w: (torch.broadcast_tensors(o, y)[0] - y).square().mean(),
    "average pooling": lambda o, y, w: F.adaptive_avg_pool1d((o - y).square().T, 1).sum(),
    "plus a constant": lambda o, y, w: ((o - y) ** 2).sum().div(len(o)).add(1.0),
    "written over": lambda o, y, w: _written(o, y),
}  # fmt: skip


def _without_gradients(o: Tensor, y: Tensor) -> Tensor:
    with torch.no_grad():
        return 1 / (1 + (o - y) ** 2)


def _written(o: Tensor, y: Tensor) -> Tensor:
    error = (o - y).square()
    error[:0] = 0.0
    return error.mean()


def fit(loss: Loss, size: int, count: int = len(X)) -> torch.nn.Linear:
    layer = make_layer(3, 2)
    opt = RecursiveLeastSquares(layer)
    for rows in slices(count, size):
        opt.zero_grad()
        loss(layer(X[rows]), Y[rows], W[rows]).backward()
        opt.step()
    return layer


@pytest.mark.parametrize("name", PRETENDERS)
def test_what_only_looks_like_a_squared_error_is_refused(name: str) -> None:
    with pytest.raises(InputError):
        fit(PRETENDERS[name], 7)


@pytest.mark.parametrize("size", [1, 7, 24])
@pytest.mark.parametrize("name", HONEST)
def test_squared_errors_in_unusual_words_weigh_rows_alike(name: str, size: int) -> None:
    assert cf.gap(fit(HONEST[name], size, 24), X[:24], Y[:24]).weight_distance < 1e-11


#: Steps of which losses are put together; each is named, so that a failing one can be told.
ERRORS: dict[str, Loss] = {
    "o-y": lambda o, y, w: o - y,
    "y-o": lambda o, y, w: y - o,
    "2o-2y": lambda o, y, w: 2.0 * o - 2.0 * y,
    "tanh": lambda o, y, w: (o - y).tanh(),
    "flat": lambda o, y, w: (o - y).reshape(-1),
    "relu": lambda o, y, w: F.relu(o - y + 50),
    "o*y": lambda o, y, w: o * (1 + y.abs()) - y,
}
SHAPES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "square": lambda r, w: r.square(),
    "r*r": lambda r, w: r * r,
    "abs**2": lambda r, w: r.abs() ** 2,
    "r*|r|": lambda r, w: r * r.abs(),
    "huber": lambda r, w: F.huber_loss(r, torch.zeros_like(r), reduction="none", delta=1e3),
    "r^4": lambda r, w: r**4,
    "detached": lambda r, w: r.detach().square() * r.square(),
    "smooth": lambda r, w: (1 + r.square()).sqrt(),
    "weighted": lambda r, w: r.square() * 3.0,
}
ENDS: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": lambda e: e.mean(),
    "sum": lambda e: e.sum(),
    "sum/len": lambda e: e.sum() / len(e),
    "mean of means": lambda e: e.reshape(len(e), -1).mean(1).mean(),
    "mean, sum": lambda e: e.mean(0).sum(),
    "root": lambda e: e.sum().sqrt(),
    "mean squared": lambda e: e.mean() ** 2,
    "max": lambda e: e.max(),
    "cumsum": lambda e: e.reshape(-1).cumsum(0)[-1],
    "nanmean": lambda e: e.nanmean(),
}
#: Every two with a plain third, which hides neither.
COMBINED = [
    (error, shape, end)
    for error, shape, end in itertools.product(ERRORS, SHAPES, ENDS)
    if error == "o-y" or shape == "square" or end == "mean"
]


def quadratic_at(loss: Loss, rows: slice) -> tuple[Tensor, Tensor] | None:
    """Weights and targets if the gradient of the loss is that of a squared error at every output tried, else None."""
    generator = torch.Generator().manual_seed(3)
    points = [4 * torch.randn(Y[rows].shape, dtype=torch.float64, generator=generator) for _ in range(4)]
    if len({float(loss(o, Y[rows], W[rows])) for o in points}) == 1:
        return None

    def gradient(o: Tensor) -> Tensor:
        o = o.requires_grad_()
        value = loss(o, Y[rows], W[rows])
        return torch.autograd.grad(value, o)[0]

    first, second, *others = points
    g = [gradient(o) for o in points]
    c = (g[1] - g[0]) / (second - first)
    y = first - g[0] / c
    fits = all(torch.allclose(gi, c * (o - y), rtol=1e-9, atol=1e-9) for gi, o in zip(g[2:], others, strict=True))
    return (c.detach(), y.detach()) if fits and bool((c > 0).all()) else None


@pytest.mark.parametrize("part", range(3))
def test_losses_put_together_are_exact_or_refused(part: int) -> None:
    taken = 0
    for error, shape, end in COMBINED[part::3]:

        def loss(o: Tensor, y: Tensor, w: Tensor, names: tuple[str, str, str] = (error, shape, end)) -> Tensor:
            return ENDS[names[2]](SHAPES[names[1]](ERRORS[names[0]](o, y, w), w))

        try:
            layer = fit(loss, 20)  # 20, 20 and 10 rows: a scale that goes with the size of the batch would show
        except InputError:
            continue
        taken += 1
        found = [quadratic_at(loss, rows) for rows in slices(50, 20)]
        assert all(part is not None for part in found), f"{error}, {shape}, {end} is no squared error, and was taken"
        # A factor common to a batch means nothing: brought to the same sum of weights a row.
        weights = [c / (c[:, :1].mean() if error != "o*y" else c.new_tensor(_scale(end, len(c)))) for c, _ in found]  # type: ignore[misc]
        c, y = torch.cat(weights), torch.cat([part[1] for part in found])  # type: ignore[index]
        for target in range(2):
            root = c[:, target : target + 1].sqrt()
            A = torch.cat([torch.ones(50, 1, dtype=torch.float64), X], 1)
            best = torch.linalg.lstsq(root * A, root * y[:, target : target + 1]).solution[:, 0]
            ours = torch.cat([layer.bias.detach()[target : target + 1], layer.weight.detach()[target]])
            torch.testing.assert_close(ours, best, rtol=1e-8, atol=1e-8, msg=f"{error}, {shape}, {end}")
    assert taken > 0


def _scale(end: str, rows: int) -> float:
    """What an end gives to each element of the errors it is given, up to a constant."""
    return 1.0 if end == "sum" else 1.0 / rows
