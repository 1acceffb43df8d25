"""What stands in everyone's training loop beside the optimizer works as without it, or is refused in words."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from test_optim import gaussian, make_layer, train
from torch import Tensor, nn
from torch.nn import functional as F

import closedform as cf
from closedform.optim import RecursiveLeastSquares
from closedform.words.errors import InputError

X, Y = gaussian(120, 8), gaussian(120, 2, seed=1)


@pytest.mark.parametrize(
    "show",
    [
        lambda loss: f"{loss:.4f}",
        lambda loss: f"{loss:>12.3e}",
        lambda loss: "{:g}".format(loss),  # noqa: UP032
        lambda loss: str(loss.detach()),
        lambda loss: repr(loss).split(", grad_fn")[0],
        lambda loss: round(loss.item(), 4),
        lambda loss: float(loss.detach()),
        lambda loss: loss.tolist(),
        lambda loss: loss.detach().numpy().item(),
    ],
)
def test_losses_are_printed_as_ever(show: Callable[[Tensor], Any]) -> None:
    layer = make_layer(8, 2)
    plain = show(F.mse_loss(layer(X), Y))
    opt = RecursiveLeastSquares(layer)
    assert show(F.mse_loss(layer(X), Y)) == plain
    assert opt.layer is layer


@pytest.mark.parametrize("keep", [lambda value: value, lambda value: value.detach(), lambda value: {"logged": [value]}])
def test_outputs_can_be_saved(keep: Callable[[Tensor], Any]) -> None:
    layer = make_layer(8, 2)
    opt = RecursiveLeastSquares(layer)
    file = io.BytesIO()
    torch.save(keep(layer(X)), file)
    file.seek(0)
    found = torch.load(file, weights_only=True)
    found = found["logged"][0] if isinstance(found, dict) else found
    assert type(found) is Tensor
    assert torch.equal(found, F.linear(X, opt.layer.weight, opt.layer.bias))


def test_the_input_by_its_name() -> None:
    layer = make_layer(8, 2)
    opt = RecursiveLeastSquares(layer)
    F.mse_loss(layer(input=X), Y).backward()
    opt.step()
    assert cf.gap(layer, X, Y).weight_distance < 1e-12


def test_a_layer_on_its_own_output_is_refused() -> None:
    layer = make_layer(8, 8)
    opt = RecursiveLeastSquares(layer)
    before = copy.deepcopy(layer.state_dict())
    F.mse_loss(layer(layer(X).tanh()), X).backward()
    with pytest.raises(InputError, match="goes into a layer"):
        opt.step()
    assert all(torch.equal(before[name], value) for name, value in layer.state_dict().items())


def test_of_two_layers_in_a_row_only_the_last_is_served() -> None:
    first, last = make_layer(8, 8), make_layer(8, 2)
    opt, other = RecursiveLeastSquares(first), RecursiveLeastSquares(last)
    hidden = first(X).tanh()
    F.mse_loss(last(hidden), Y).backward()
    other.step()
    assert cf.gap(last, hidden.detach(), Y).weight_distance < 1e-10
    with pytest.raises(InputError, match="goes into a layer"):
        opt.step()


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.SGD])
def test_the_state_of_another_optimizer_is_refused(kind: type[torch.optim.Optimizer]) -> None:
    layer = make_layer(8, 2)
    other = kind(layer.parameters(), lr=1e-3)  # type: ignore[call-arg]
    train(layer, other, X, Y, 40)
    opt = RecursiveLeastSquares(layer)
    with pytest.raises(InputError, match="not one of RecursiveLeastSquares; its settings are lr, "):
        opt.load_state_dict(other.state_dict())
    train(layer, opt, X, Y, 40)
    assert cf.gap(layer, X, Y).weight_distance < 1e-12


def test_a_state_without_rows_is_loaded() -> None:
    layer = make_layer(8, 2)
    opt = RecursiveLeastSquares(layer)
    (0 * (layer(X) - Y) ** 2).sum().backward()
    opt.step()  # every row has weight zero
    again = RecursiveLeastSquares(layer)
    again.load_state_dict(opt.state_dict())
    train(layer, again, X, Y, 40)
    assert cf.gap(layer, X, Y).weight_distance < 1e-12


def test_two_heads_on_one_body() -> None:
    body, one, two = make_layer(8, 5), make_layer(5, 1), make_layer(5, 1)
    first, second = RecursiveLeastSquares(one), RecursiveLeastSquares(two)
    hidden = body(X)
    (F.mse_loss(one(hidden), Y[:, :1]) + 0.5 * F.mse_loss(two(hidden), Y[:, 1:])).backward()
    first.step()
    second.step()
    assert cf.gap(one, hidden.detach(), Y[:, 0]).weight_distance < 1e-12
    assert cf.gap(two, hidden.detach(), Y[:, 1]).weight_distance < 1e-12


def test_averaged_weights_and_checkpointed_activations() -> None:
    layer = make_layer(8, 2)
    opt = RecursiveLeastSquares(layer)
    average = torch.optim.swa_utils.AveragedModel(layer)
    for rows in (slice(0, 60), slice(60, 120)):
        opt.zero_grad()
        output = torch.utils.checkpoint.checkpoint(layer, X[rows], use_reentrant=False)
        F.mse_loss(output, Y[rows]).backward()
        opt.step()
    average.update_parameters(layer)
    assert torch.equal(average.module.weight, layer.weight)
    assert cf.gap(layer, X, Y).weight_distance < 1e-12


def test_a_step_that_is_compiled() -> None:
    layer = make_layer(8, 2)
    opt = RecursiveLeastSquares(layer)
    step = torch.compile(opt.step, backend="eager")
    F.mse_loss(layer(X), Y).backward()
    step()
    assert cf.gap(layer, X, Y).weight_distance < 1e-12


def test_the_way_of_devices_without_lapack(monkeypatch: pytest.MonkeyPatch) -> None:
    from closedform.numerics import triangle

    def elsewhere(*args: Any) -> Any:
        raise AssertionError("NumPy was asked for, which sees the memory of a CPU only")

    monkeypatch.setattr(triangle, "_updated", triangle._refactored)
    monkeypatch.setattr(Tensor, "numpy", elsewhere)
    monkeypatch.setattr(Tensor, "__array__", elsewhere)
    for size, options in ((1, {}), (7, {"l2": 0.5}), (120, {}), (7, {"forgetting": 0.99})):
        layer = make_layer(8, 2)
        opt = RecursiveLeastSquares(layer, **options)
        train(layer, opt, X, Y, size)
        age = 119 // size - torch.arange(120) // size
        weight = opt.param_groups[0]["forgetting"] ** age.double()
        assert _distance(layer, weight, opt.l2) < 1e-12


def _per_row(layer: nn.Linear) -> None:
    def loss(parameters: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return F.mse_loss(torch.func.functional_call(layer, parameters, (x,)), y)

    gradients = torch.func.vmap(torch.func.grad(loss), (None, 0, 0))(dict(layer.named_parameters()), X, Y)
    assert gradients["weight"].shape == (120, 2, 8)


def _export(layer: nn.Linear) -> None:
    assert torch.equal(torch.export.export(layer, (X,)).module()(X), F.linear(X, layer.weight, layer.bias))


EXPORT = pytest.param(
    _export,
    marks=pytest.mark.skipif(
        not hasattr(torch._dynamo.config, "nontraceable_tensor_subclasses"),
        reason="torch before 2.7 exports by compiling, and compiles no hooks",
    ),
)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("use", [_per_row, EXPORT, lambda layer: torch.jit.trace(layer, X[:2])])
def test_the_layer_can_be_transformed_and_traced(use: Callable[[nn.Linear], Any]) -> None:
    layer = make_layer(8, 2)
    opt = RecursiveLeastSquares(layer)
    train(layer, opt, X[:60], Y[:60], 20)
    use(layer)
    train(layer, opt, X[60:], Y[60:], 20)
    assert cf.gap(layer, X, Y).weight_distance < 1e-12


@pytest.mark.parametrize("options", [{}, {"forgetting": 0.99}, {"l2": 0.5}])
def test_the_default_device_decides_nothing(options: dict[str, float]) -> None:
    plain, other = make_layer(8, 2), make_layer(8, 2)
    train(plain, RecursiveLeastSquares(plain, **options), X, Y, 7)
    with torch.device("meta"):  # whatever is made there has no storage, so that using it fails
        opt = RecursiveLeastSquares(other, **options)
        train(other, opt, X, Y, 7)
        RecursiveLeastSquares(other).load_state_dict(opt.state_dict())
    assert torch.equal(plain.weight, other.weight)


def _distance(layer: nn.Linear, weight: Tensor, l2: float) -> float:
    A = torch.cat([torch.ones(120, 1, dtype=torch.float64), X], 1) * weight.sqrt()[:, None]
    ridge = torch.diag(torch.tensor([0.0] + [l2] * 8, dtype=torch.float64))
    best = torch.linalg.solve(A.T @ A + ridge, A.T @ (weight.sqrt()[:, None] * Y))
    found = torch.cat([layer.bias.detach()[None], layer.weight.detach().T])
    return float(torch.linalg.vector_norm(found - best) / torch.linalg.vector_norm(best))
