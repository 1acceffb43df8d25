"""The checks that torch's own suite makes of every optimizer, as far as they speak of one that fits rows.

Where it differs: ``step()`` without gradients is no silent no-op here, since no rows arrived; parameters come with
their layer, so that lists, groups and names of parameters are refused.
"""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from closedform.optim import RecursiveLeastSquares
from closedform.words.errors import ClosedformError, InputError

Closure = Callable[[], Tensor]


def trained(steps: int = 1, *, dtype: torch.dtype = torch.float64, **options: Any) -> tuple[Any, nn.Linear, Closure]:
    """An optimizer after some steps on random batches, its layer, and a closure of another batch."""
    generator = torch.Generator().manual_seed(3)
    layer = nn.Linear(5, 2, dtype=dtype)
    optimizer = RecursiveLeastSquares(layer, **options)
    X = torch.randn(steps + 1, 4, 5, dtype=dtype, generator=generator)
    Y = torch.randn(steps + 1, 4, 2, dtype=dtype, generator=generator)

    def closure(i: int = steps) -> Tensor:
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(layer(X[i]), Y[i])
        loss.backward()
        return loss

    for i in range(steps):
        closure(i)
        optimizer.step()
    return optimizer, layer, closure


PARAMETERS = [nn.Parameter(torch.ones(1, 1)), nn.Parameter(torch.ones(1, 1))]
#: What torch's suite gives to every optimizer and wants refused: parameters and settings.
WRONG: dict[str, tuple[Any, dict[str, Any]]] = {
    "a tensor": (PARAMETERS[0], {}),
    "no parameters": ([], {}),
    "a parameter twice": ([PARAMETERS[0], PARAMETERS[0]], {}),
    "a parameter in two groups": ([{"params": PARAMETERS[0]}, {"params": PARAMETERS[0]}], {}),
    "names for some": ([("weight", PARAMETERS[0]), PARAMETERS[1]], {}),
    "groups with names for some": ([{"params": [PARAMETERS[0]]}, {"params": [("weight", PARAMETERS[1])]}], {}),
    "an lr of two numbers": (nn.Linear(1, 1), {"lr": torch.tensor([0.001, 0.001])}),
    "a negative lr": (nn.Linear(1, 1), {"lr": -0.5}),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_arguments_of_torch_are_refused(name: str) -> None:
    module, options = WRONG[name]
    with pytest.raises(ClosedformError):
        RecursiveLeastSquares(module, **options)


def test_it_can_be_printed() -> None:
    optimizer, _, _ = trained()
    assert "RecursiveLeastSquares" in repr(optimizer)
    assert "lr: 1" in repr(optimizer)


@pytest.mark.filterwarnings("ignore:l2=0.1 stands against", "ignore:lr=0.5")
@pytest.mark.parametrize("options", [{}, {"l2": 0.1}, {"lr": torch.tensor(0.5)}, {"dtype": torch.float32}])
def test_it_goes_downhill(options: dict[str, Any]) -> None:
    optimizer, _, closure = trained(0, **options)
    first = closure().item()
    for _ in range(20):
        loss = optimizer.step(closure)
    assert isinstance(loss, Tensor)
    assert closure().item() < 0.5 * first


def test_a_step_with_zero_gradients_moves_nothing() -> None:
    layer = nn.Linear(3, 2, dtype=torch.float64)
    optimizer = RecursiveLeastSquares(layer)
    before = copy.deepcopy(layer.state_dict())
    X = torch.randn(7, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    nn.functional.mse_loss(layer(X), layer(X).detach()).backward()
    optimizer.step()
    for name, value in layer.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=1e-13, atol=1e-14)


def test_a_step_without_gradients_is_refused() -> None:
    optimizer, layer, _ = trained()
    before = copy.deepcopy(layer.state_dict())
    optimizer.zero_grad()
    with pytest.raises(InputError, match="no rows"):
        optimizer.step()
    assert all(torch.equal(value, before[name]) for name, value in layer.state_dict().items())


def test_gradients_are_never_written_to() -> None:
    optimizer, layer, closure = trained()
    closure()
    gradients = [p.grad for p in layer.parameters()]
    before = [(gradient.clone(), gradient._version) for gradient in gradients if gradient is not None]
    assert len(before) == 2
    optimizer.step()
    for parameter, held, (values, version) in zip(layer.parameters(), gradients, before, strict=True):
        assert parameter.grad is held
        assert held is not None
        assert torch.equal(held, values)
        assert held._version == version


def test_every_parameter_has_a_state() -> None:
    optimizer, layer, _ = trained(3)
    for parameter in layer.parameters():
        assert optimizer.state[parameter]["step"] == 3
    saved = optimizer.state_dict()
    assert list(saved["state"]) == [0, 1]


def test_a_copy_has_all_that_is_public() -> None:
    optimizer, _, _ = trained(2)
    named = {name for name in vars(optimizer) if not name.startswith("_")}
    assert named == {name for name in vars(copy.deepcopy(optimizer)) if not name.startswith("_")}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_state_saved_and_loaded_with_weights_only_is_equal(dtype: torch.dtype) -> None:
    optimizer, layer, _ = trained(3, dtype=dtype)
    stream = io.BytesIO()
    torch.save(optimizer.state_dict(), stream)
    stream.seek(0)
    loaded = torch.load(stream, weights_only=True)
    other, twin, _ = trained(1, dtype=dtype)
    twin.load_state_dict(layer.state_dict())
    other.load_state_dict(loaded)
    one, two = (flattened(each.state_dict()) for each in (optimizer, other))
    assert one.keys() == two.keys()
    for name, value in one.items():
        assert torch.equal(value, two[name]) if isinstance(value, Tensor) else value == two[name]

    generator = torch.Generator().manual_seed(5)
    X, Y = (torch.randn(4, n, dtype=dtype, generator=generator) for n in (5, 2))
    for each, held in ((optimizer, layer), (other, twin)):
        each.zero_grad()
        nn.functional.mse_loss(held(X), Y).backward()
        each.step()
    assert all(torch.equal(a, b) for a, b in zip(layer.parameters(), twin.parameters(), strict=True))


def flattened(state: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(state, dict | list):
        pairs = state.items() if isinstance(state, dict) else enumerate(state)
        return {name: value for key, part in pairs for name, value in flattened(part, f"{prefix}/{key}").items()}
    return {prefix: state}


def test_hooks_run_in_the_order_of_torch() -> None:
    optimizer, _, closure = trained()
    order: list[str] = []
    handles = [
        register_optimizer_step_pre_hook(lambda *_: order.append("global pre")),
        optimizer.register_step_pre_hook(lambda *_: order.append("pre")),
        optimizer.register_step_post_hook(lambda *_: order.append("post")),
        register_optimizer_step_post_hook(lambda *_: order.append("global post")),
    ]
    try:
        closure()
        optimizer.step()
    finally:
        for handle in handles:
            handle.remove()
    assert order == ["global pre", "pre", "post", "global post"]
