"""Problems from public threads, each somebody's lost afternoon: the answers that were missing there."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch import Tensor

import closedform as cf
from cases import gaussian_kernel, hilbert
from oracle import minimise

EPS = {torch.float64: 2.0**-52, torch.float32: 2.0**-23}
BOTH = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])


def tensor(values: object, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.as_tensor(np.asarray(values, dtype=np.float64)).to(dtype)


def assert_certified(sol: cf.Solution) -> None:
    assert sol.outcome.certified
    assert sol.certificate.accepted
    assert sol.certificate.backward_error <= 1e-14


def test_case_1_kernel_without_regularisation() -> None:
    """discuss.pytorch.org/t/31251: the loss is determined to rounding, the 600 coefficients are not."""
    rng = np.random.default_rng(0)
    points = rng.uniform(-1, 1, (1200, 5))
    values = np.sin(2 * points[:, 0]) + points[:, 1] * points[:, 2] + 0.5 * np.cos(points.sum(axis=1))
    kernel = gaussian_kernel(points, 3.0)
    X, Y = kernel[:600, :600], values[:600]

    sol = cf.solve(X, Y)

    assert_certified(sol)
    test_error = np.abs(sol.predict(kernel[600:, :600]).numpy().reshape(-1) - values[600:]).mean()
    # numpy .00177, torch lstsq .00187, scikit-learn's default .0449, LBFGS .06 to .15
    assert test_error < 0.0022
    # The certificate must say that the coefficients mean nothing: no digit of them is determined.
    assert sol.outcome is cf.Outcome.AMBIGUOUS_RANK
    assert sol.certificate.forward_error > 1e-2
    assert sol.certificate.condition > 1e12  # of what is kept at the cut


@BOTH
def test_case_2_two_variables_condition_1803(dtype: torch.dtype) -> None:
    """discuss.pytorch.org/t/208572: a million steps did not get there."""
    X = tensor([[-249.69, -4.1511], [-4.1511, -0.20755]], dtype)
    sol = cf.solve(X, tensor([0.0, 10.0], dtype))
    assert_certified(sol)
    # The answer is that of the numbers as given; in float32 they differ from the thread's by up to 3e-8.
    rtol = 1e-6 if dtype is torch.float64 else 2e-3
    assert_allclose(sol.weight.numpy(), [[1.200034, -72.182414]], rtol=rtol)
    assert_allclose(sol.weight.numpy(), minimise(X, [0.0, 10.0]).weight, rtol=EPS[dtype] + 1e-11)
    assert_allclose(sol.certificate.condition, 1803.3, rtol=0.05)


@BOTH
@pytest.mark.parametrize("as_bias", [False, True], ids=["column of ones", "bias"])
def test_case_3_offset_and_slope(dtype: torch.dtype, as_bias: bool) -> None:
    """jax#13105: float32 solvers return anything from .3 to 3664 for an intercept of 2020."""
    x = torch.arange(10_000, dtype=dtype)
    Y = 2020 + 2020 * x
    if as_bias:
        sol = cf.solve(x[:, None], Y, bias=True)
        assert sol.bias is not None
        found = torch.cat([sol.bias, sol.weight[0]])
    else:
        sol = cf.solve(torch.stack([torch.ones_like(x), x], dim=1), Y)
        found = sol.weight[0]
    assert_certified(sol)
    assert found.dtype is dtype
    assert_allclose(found.numpy(), [2020.0, 2020.0], rtol=EPS[dtype] + 1e-11)


@BOTH
def test_case_4_rank_two_matrix_against_itself(dtype: torch.dtype) -> None:
    """pytorch#180157: the least-norm answer, not whichever a driver happens to reach."""
    A = tensor([[1, 2, 3], [4, 5, 6], [7, 8, 9]], dtype)
    sol = cf.solve(A, A)
    assert_certified(sol)
    assert sol.outcome is cf.Outcome.CERTIFIED_NOT_UNIQUE
    assert sol.certificate.rank == 2
    truth = np.array([[5, 2, -1], [2, 2, 2], [-1, 2, 5]]) / 6
    assert_allclose(sol.weight.numpy().T, truth, atol=2 * EPS[dtype] + 1e-14)


@BOTH
def test_case_5_a_line_of_optima(dtype: torch.dtype) -> None:
    """Stack Overflow 78386250: Adam at (1.15, .85) was not wrong; the data hold a line of answers."""
    X = tensor([[1, 2], [2, 3], [3, 4], [4, 5], [5, 6]], dtype)
    Y = tensor([3, 5, 7, 9, 11], dtype)
    sol = cf.solve(X, Y, bias=True)
    assert_certified(sol)
    assert sol.outcome is cf.Outcome.CERTIFIED_NOT_UNIQUE
    assert sol.certificate.rank == 2
    assert_allclose(sol.weight.numpy(), [[1.0, 1.0]], atol=2 * EPS[dtype] + 1e-13)
    assert sol.bias is not None
    assert_allclose(sol.bias.numpy(), [0.0], atol=2 * EPS[dtype] + 1e-13)


@BOTH
def test_case_6_which_least_norm(dtype: torch.dtype) -> None:
    """discuss.pytorch.org/t/75920: two least norms, one prediction."""
    X = tensor([[1, 2], [2, 3], [3, 4]], dtype)
    Y = tensor([-76.5, -67, -56.5], dtype)
    rtol = 4 * EPS[dtype] + 1e-13

    sol = cf.solve(X, Y, bias=True)
    assert_certified(sol)
    assert_allclose(sol.weight.numpy(), [[5.0, 5.0]], rtol=rtol)
    assert sol.bias is not None
    assert_allclose(sol.bias.numpy(), [-275 / 3], rtol=rtol)

    layer = torch.nn.Linear(2, 1, dtype=dtype)
    torch.nn.init.zeros_(layer.weight)
    torch.nn.init.zeros_(layer.bias)
    near = cf.solve(X, Y, bias=True, nearest_to=layer)
    assert_certified(near)
    assert_allclose(near.weight.numpy(), [[320 / 9, -230 / 9]], rtol=rtol)
    assert near.bias is not None
    assert_allclose(near.bias.numpy(), [-550 / 9], rtol=rtol)

    for solution in (sol, near):
        assert_allclose(solution.certificate.loss, 0.5 / 9, rtol=1e-10)  # a sum of squares of 1/6 over 3 rows
        predicted = solution.predict(tensor([[4, 5]], dtype))
        assert_allclose(predicted.numpy().reshape(-1), [-140 / 3], rtol=20 * EPS[dtype])


def test_case_7_the_target_without_a_column_is_not_broadcast() -> None:
    """discuss.pytorch.org/t/148155: a (4,) target against a (4, 1) output was regression on mean(y)."""
    X = tensor([[1, 2], [1, 3], [1, 7], [1, 9]])
    Y = tensor([2, 3, 7, 9])
    for target in (Y, Y[:, None]):
        sol = cf.solve(X, target, bias=True)
        assert_certified(sol)
        assert sol.certificate.loss < 1e-28  # broadcast, the floor was var(y) = 8.1875
        assert_allclose(sol.weight.numpy(), [[0.0, 1.0]], atol=1e-14)


@BOTH
def test_case_8_the_same_weights_each_time(dtype: torch.dtype) -> None:
    """discuss.pytorch.org/t/55899: Adam stalled at errors of 2.6e-5 in the weights, 3e-4 in the bias."""
    truth = tensor([[-1, 0, 2, 0], [0, -1, 0, 2]], dtype)
    X = torch.randn(512, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)
    Y = X @ truth.T
    layers = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        layer = torch.nn.Linear(4, 2, dtype=dtype)
        assert_certified(cf.fit_(layer, X, Y))
        layers.append(layer)
    assert torch.equal(layers[0].weight, layers[1].weight)
    assert torch.equal(layers[0].bias, layers[1].bias)
    assert_allclose(layers[0].weight.detach().numpy(), truth.numpy(), atol=2 * EPS[dtype])
    assert_allclose(layers[0].bias.detach().numpy(), [0.0, 0.0], atol=2 * EPS[dtype])


@BOTH
def test_case_10_only_scaling(dtype: torch.dtype) -> None:
    """discuss.pytorch.org/t/104428: condition 5.7e8, and 8.2 once each column has its own unit."""
    x = torch.linspace(-1000, 1000, 2001, dtype=torch.float64)
    X = torch.stack([x, x**2, x**3, torch.ones_like(x)], dim=1)
    Y = 6 * x**2 + 2 * x - 4
    sol = cf.solve(X.to(dtype), Y.to(dtype))
    assert_certified(sol)
    found = sol.weight[0].double().numpy()
    # Targets of 6e6 are rounded in their last digit, which is seen in a constant of 4.
    assert_allclose(found[[0, 1, 3]], [2.0, 6.0, -4.0], rtol=EPS[dtype] + 1e-9)
    assert abs(found[2]) < 1e-17
    assert_allclose(sol.certificate.condition, 5.7e8, rtol=0.1)
    assert 4 < sol.certificate.scaled_condition < 20  # powers of two are not quite the columns' own norms


@BOTH
@pytest.mark.parametrize("constant", ["column", "bias"])
def test_case_11_collinear_by_construction(dtype: torch.dtype, constant: str) -> None:
    """statsmodels#6570: x2 = 2 x1 - 1, so a slope of each is not in the data: rank 2 of 3."""
    x1 = torch.arange(10_000, dtype=dtype)
    columns = [x1, 2 * x1 - 1] + ([torch.ones_like(x1)] if constant == "column" else [])
    X = torch.stack(columns, dim=1)
    Y = torch.sin(x1)
    sol = cf.solve(X, Y, bias=constant == "bias")
    assert_certified(sol)
    assert sol.certificate.rank == 2
    assert sol.outcome is cf.Outcome.CERTIFIED_NOT_UNIQUE
    truth = minimise(X, Y, bias=constant == "bias").weight
    assert_allclose(sol.weight.numpy(), truth, rtol=4 * EPS[dtype] + 1e-9)


@BOTH
def test_case_12_square_gaussian(dtype: torch.dtype) -> None:
    """discuss.pytorch.org/t/175030: the unsquared norm never came down to what lstsq leaves."""
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(128, 128, generator=generator, dtype=torch.float64).to(dtype)
    Y = torch.randn(128, 128, generator=generator, dtype=torch.float64).to(dtype)
    sol = cf.solve(X, Y)
    assert_certified(sol)
    reference = torch.linalg.lstsq(X.double(), Y.double()).solution
    left_over = torch.linalg.norm(X.double() @ reference - Y.double())
    assert sol.certificate.loss**0.5 * 128 <= 10 * left_over
    if dtype is torch.float64:
        assert torch.linalg.norm(X @ sol.weight.T - Y) <= 10 * left_over


def test_case_13_tiny_ridge_keeps_the_score() -> None:
    """scikit-learn#32459: alpha=1e-15 on data without noise must score 1.0."""
    datasets = pytest.importorskip("sklearn.datasets")
    X, y = datasets.make_regression(n_samples=1000, n_features=50, noise=0, random_state=42)
    train = np.random.default_rng(42).permutation(1000)[:100]
    sol = cf.solve(X[train], y[train], bias=True, l2=1e-15)
    assert_certified(sol)
    left_over = sol.predict(X).numpy().reshape(-1) - y
    assert 1 - (left_over**2).sum() / ((y - y.mean()) ** 2).sum() == pytest.approx(1.0, abs=1e-15)


@BOTH
def test_case_14_hilbert_7(dtype: torch.dtype) -> None:
    """Condition 4.8e8: numpy keeps 8 digits of the ones, scikit-learn's default 3."""
    H = tensor(hilbert(7), dtype)
    Y = (H.double() @ torch.ones(7, 1, dtype=torch.float64)).to(dtype)
    sol = cf.solve(H, Y)
    assert_certified(sol)
    exact = minimise(H, Y).weight
    # float32 data are exact numbers: their own minimiser is far from the ones, and is the one to return.
    assert_allclose(sol.weight.numpy(), exact, rtol=EPS[dtype] if dtype is torch.float32 else 0, atol=3e-7)
    if dtype is torch.float64:
        assert_allclose(sol.weight.numpy(), np.ones((1, 7)), atol=1e-7)
        assert_allclose(sol.certificate.condition, 4.75e8, rtol=0.1)
