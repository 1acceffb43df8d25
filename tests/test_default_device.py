"""``torch.set_default_device``: where the user's new tensors go by default is nothing to the tables that are there."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch

import closedform as cf

X = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
Y = X @ torch.tensor([1.0, 2.0, 3.0]) + 0.1 * torch.randn(40, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def elsewhere() -> Iterator[None]:
    """A default device that holds no numbers: whatever is made there is useless, and reading it raises."""
    torch.set_default_device("meta")
    try:
        yield
    finally:
        # None, and not the device of before: that would leave a mode behind which sees each call.
        torch.set_default_device(None)


def layer() -> torch.nn.Linear:
    return torch.nn.Linear(3, 1, device="cpu")


CALLS: dict[str, Callable[[], object]] = {
    "solve": lambda: cf.solve(X, Y, bias=True, digits=8),
    "solve wide": lambda: cf.solve(X.T, X.T[:, 0], l2=1.0),
    "summary": lambda: cf.solve(X, Y).summary(X),
    "fit_": lambda: cf.fit_(layer(), X, Y),
    "gap": lambda: cf.gap(layer(), X, Y),
    "diagnose": lambda: cf.diagnose(
        X, Y, model=(m := layer()), optimizer=torch.optim.SGD(m.parameters(), 0.1), steps=9
    ),
    "forecast": lambda: cf.diagnose(X, Y).forecast("sgd", lr=0.1, steps=10).loss,
    "compare": lambda: cf.compare(X, Y, budget=0.2, optimizers=["sgd"]),
    "batched": lambda: cf.solve_batched(X.reshape(2, 20, 3), Y.reshape(2, 20)),
    "ridge path": lambda: cf.ridge_path(X, Y),
    "probe": lambda: cf.probe(X, (Y > 0).long()),
}


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize("call", CALLS)
def test_no_door_makes_anything_there(call: str) -> None:
    assert "meta" not in str(CALLS[call]())
