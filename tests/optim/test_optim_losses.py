"""Which losses are squared errors: the right weights are read off them, the others are refused and change nothing."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from test_optim import gaussian, make_layer, slices, train
from torch import Tensor, nn
from torch.nn import functional as F

import closedform as cf
from closedform.optim import RecursiveLeastSquares
from closedform.words.errors import InputError, NonFiniteError

#: Not a multiple of the batches below.
ROWS = 31
X, Y, W = gaussian(ROWS, 6), gaussian(ROWS, 2, seed=1), gaussian(ROWS, 1, seed=2).square()
Loss = Callable[[Tensor, Tensor, Tensor], Tensor]

PLAIN: dict[str, Loss] = {
    "mean": lambda o, y, w: F.mse_loss(o, y),
    "module, sum": lambda o, y, w: nn.MSELoss(reduction="sum")(o, y),
    "by hand": lambda o, y, w: ((o - y) ** 2).mean(),
    "other way round": lambda o, y, w: (y - o).square().sum() / len(o),
    "half, product": lambda o, y, w: 0.5 * torch.sum((o - y) * (o - y)),
    "any scale": lambda o, y, w: 1e-6 * F.mse_loss(o, y),
    "no reduction, then mean": lambda o, y, w: F.mse_loss(o, y, reduction="none").mean(),
    "mean of row means": lambda o, y, w: (o - y).pow(2).mean(1).mean(),
    "squared norm": lambda o, y, w: torch.linalg.vector_norm(o - y) ** 2,
    "absolute value squared": lambda o, y, w: ((o - y).abs() ** 2).mean(),
    "gaussian likelihood": lambda o, y, w: F.gaussian_nll_loss(o, y, torch.full_like(y, 0.3)),
    "a distribution of torch": lambda o, y, w: -torch.distributions.Normal(o, 0.5).log_prob(y).mean(),
    "expanded": lambda o, y, w: ((o * o).sum() - 2 * (o * y).sum() + (y * y).sum()) / len(o),
    "without NaN": lambda o, y, w: (o - y).square().nanmean(),
    "inner product": lambda o, y, w: torch.tensordot(o - y, o - y, dims=2) / len(o),
    "matrix product": lambda o, y, w: (o - y).flatten() @ (o - y).flatten() / len(o),
    "distance squared over rows": lambda o, y, w: torch.dist(o, y).square() / len(o),
    "norm squared over rows": lambda o, y, w: (o - y).norm() ** 2 / len(o),
    "matrix norm squared over rows": lambda o, y, w: torch.linalg.matrix_norm(o - y).pow(2) / len(o),
    "targets by column": lambda o, y, w: F.mse_loss(o[:, 0], y[:, 0]) + F.mse_loss(o[:, 1], y[:, 1]),
    "plus a constant": lambda o, y, w: F.mse_loss(o, y) + 3.0,
    "in place": lambda o, y, w: F.mse_loss(o.sub_(1.0), y - 1.0),
    "rescaled": lambda o, y, w: F.mse_loss(3.0 * o + 1.0, 3.0 * y + 1.0),
}
WEIGHTED: dict[str, Loss] = {
    "mean": lambda o, y, w: (w * (o - y) ** 2).mean(),
    "sum, scaled": lambda o, y, w: 3.3 * (w * (y - o).square()).sum(),
    "normalised": lambda o, y, w: (w * (o - y) ** 2).sum() / w.sum(),
    "no reduction": lambda o, y, w: (w * F.mse_loss(o, y, reduction="none")).mean(),
    "root inside": lambda o, y, w: F.mse_loss(w.sqrt() * o, w.sqrt() * y),
    "root inside a norm": lambda o, y, w: torch.linalg.norm(w.sqrt() * (o - y)) ** 2 / len(o),
    "likelihood": lambda o, y, w: -torch.distributions.Normal(o, w.rsqrt()).log_prob(y).sum(),
}
REFUSED: dict[str, tuple[Loss, str]] = {
    "L1": (lambda o, y, w: F.l1_loss(o, y), "curvature is zero"),
    "Huber": (lambda o, y, w: F.huber_loss(o, y, delta=100.0), "HuberLoss has a kink"),
    "smooth L1": (lambda o, y, w: F.smooth_l1_loss(o, y, beta=100.0), "SmoothL1Loss has a kink"),
    "norm, not squared": (lambda o, y, w: torch.norm(o - y), "couples"),
    "root mean square": (lambda o, y, w: F.mse_loss(o, y).sqrt(), "couples"),
    "squared twice": (lambda o, y, w: F.mse_loss(o, y) ** 2, "couples"),
    "fourth power": (lambda o, y, w: ((o - y) ** 4).mean(), "changes with the output"),
    "log cosh": (lambda o, y, w: (o - y).cosh().log().mean(), "changes with the output"),
    "cross entropy": (lambda o, y, w: F.cross_entropy(o, y.argmax(1)), "couples"),
    "logistic": (lambda o, y, w: F.binary_cross_entropy_with_logits(o, (y > 0).double()), "changes with the output"),
    "sigmoid after the layer": (lambda o, y, w: F.mse_loss(o.sigmoid(), y), "changes with the output"),
    "relu after the layer": (lambda o, y, w: F.mse_loss(o.relu(), y), "Relu has a kink"),
    "error of the mean": (lambda o, y, w: (o - y).mean() ** 2, "couples"),
    "maximised": (lambda o, y, w: -F.mse_loss(o, y), "negative"),
    "absolute penalty": (lambda o, y, w: F.mse_loss(o, y) + o.abs().mean(), "absolute value"),
    "broadcast": (lambda o, y, w: ((o[:, :1] - y[:, 0]) ** 2).mean(), "every output against every target"),
    "mask over targets": (lambda o, y, w: (((y > 0) * (o - y)) ** 2).mean(), "differently from row to row"),
}


@pytest.mark.parametrize("size", [1, 7, ROWS])
@pytest.mark.parametrize("name", PLAIN)
def test_every_row_counts_alike(name: str, size: int) -> None:
    layer = make_layer(6, 2)
    opt = RecursiveLeastSquares(layer)
    for rows in slices(ROWS, size):
        opt.zero_grad()
        PLAIN[name](layer(X[rows]), Y[rows], W[rows]).backward()
        opt.step()
    assert cf.gap(layer, X, Y).weight_distance < 1e-12
    expected = "from gradients" if name in ("rescaled", "in place") else "exact"
    assert opt.state[layer.weight]["targets"] == expected or name == "targets by column"


@pytest.mark.parametrize("size", [1, 7, ROWS])
@pytest.mark.parametrize("name", WEIGHTED)
def test_weights_of_rows_are_kept_across_batches(name: str, size: int) -> None:
    layer = make_layer(6, 2)
    opt = RecursiveLeastSquares(layer)
    for rows in slices(ROWS, size):
        opt.zero_grad()
        WEIGHTED[name](layer(X[rows]), Y[rows], W[rows]).backward()
        opt.step()
    assert cf.gap(layer, X, Y, sample_weight=W[:, 0]).weight_distance < 1e-12


def test_weight_zero_leaves_a_row_out() -> None:
    layer = make_layer(6, 2)
    opt = RecursiveLeastSquares(layer)
    kept = (torch.arange(ROWS) % 2 == 0).double()
    (kept[:, None] * (layer(X) - Y) ** 2).sum().backward()
    opt.step()
    assert cf.gap(layer, X[::2], Y[::2]).weight_distance < 1e-12
    assert opt.state[layer.weight]["rows"] == 16


def same(now: dict[str, Any], before: dict[str, Any]) -> bool:
    pairs = [(now[name], before[name]) for name in before]
    return len(now) == len(before) and all(torch.equal(a, b) if isinstance(a, Tensor) else a == b for a, b in pairs)


def refused(act: Callable[[nn.Linear, Any], Any], match: str, error: type[Exception] = InputError) -> None:
    """After some honest steps ``act`` is refused by step(); layer and state stay, and training goes on."""
    layer = make_layer(6, 2)
    opt = RecursiveLeastSquares(layer)
    train(layer, opt, X[:20], Y[:20], 5)
    before = copy.deepcopy((layer.state_dict(), opt.state_dict()["state"]))
    opt.zero_grad()
    act(layer, opt)
    with pytest.raises(error, match=match):
        opt.step()
    assert same(layer.state_dict(), before[0])
    assert same(opt.state_dict()["state"][0], before[1][0])
    layer.requires_grad_(True)
    train(layer, opt, X[20:], Y[20:], 5)
    assert cf.gap(layer, X, Y).weight_distance < 1e-12


@pytest.mark.parametrize("name", REFUSED)
def test_other_losses_are_refused_with_the_reason(name: str) -> None:
    loss, match = REFUSED[name]
    refused(lambda layer, opt: loss(layer(X), Y, W).backward(), match)


class _Identity(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        return tensor.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0]


def _backward_twice(layer: nn.Linear, opt: Any) -> None:
    loss = F.mse_loss(layer(X), Y)
    loss.backward(retain_graph=True)
    loss.backward()


BAD: dict[str, tuple[Callable[[nn.Linear, Any], Any], str, type[Exception]]] = {
    "NaN in the input": (lambda f, o: F.mse_loss(f(X * float("nan")), Y).backward(), "input holds nan", NonFiniteError),
    "NaN in a target": (lambda f, o: F.mse_loss(f(X), Y * float("nan")).backward(), "target holds nan", NonFiniteError),
    "infinite target": (lambda f, o: F.mse_loss(f(X), Y / 0).backward(), "target holds", NonFiniteError),
    "no rows": (lambda f, o: F.mse_loss(f(X[:0]), Y[:0], reduction="sum").backward(), "no rows", InputError),
    "never called": (lambda f, o: None, "not called", InputError),
    "frozen meanwhile": (lambda f, o: f.requires_grad_(False), "frozen", InputError),
    "penalty in the loss": (
        lambda f, o: (F.mse_loss(f(X), Y) + f.weight.square().sum()).backward(), "l2=", InputError),
    "two calls coupled": (lambda f, o: F.mse_loss(f(X[:9]) - f(X[9:18]), Y[:9]).backward(), "couples", InputError),
    "own function": (lambda f, o: F.mse_loss(_Identity.apply(f(X)), Y).backward(), "not be followed", InputError),
    "no scalar": (lambda f, o: ((f(X) - Y) ** 2).backward(torch.ones_like(Y)), "not be followed", InputError),
    "backward twice": (_backward_twice, "may run once", InputError),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_steps_are_refused_and_change_nothing(name: str) -> None:
    refused(*BAD[name])


def test_two_calls_in_one_loss_are_two_batches() -> None:
    layer = make_layer(6, 2)
    opt = RecursiveLeastSquares(layer)
    both = F.mse_loss(layer(X[:20]), Y[:20], reduction="sum") + F.mse_loss(layer(X[20:]), Y[20:], reduction="sum")
    both.backward()
    opt.step()
    assert cf.gap(layer, X, Y).weight_distance < 1e-12


def test_a_weight_shared_with_the_body_is_refused() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = make_layer(6, 6, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(F.linear(x, self.head.weight).tanh())

    net = Tied()
    opt = RecursiveLeastSquares(net.head)
    F.mse_loss(net(X), X).backward()
    with pytest.raises(InputError, match="in another way too"):
        opt.step()


def test_random_numbers_of_the_user_are_left_alone() -> None:
    layer = make_layer(6, 2)
    opt = RecursiveLeastSquares(layer)
    torch.manual_seed(11)
    train(layer, opt, X, Y, 10)
    drawn = torch.rand(3)
    torch.manual_seed(11)
    assert torch.equal(drawn, torch.rand(3))
