"""The fast training run of the tests is the one of torch."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from data import F64, descend, gaussian, train


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"momentum": 0.9},
        {"momentum": 0.9, "nesterov": True},
        {"momentum": 0.5, "dampening": 0.3},
        {"weight_decay": 0.1},
        {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
    ],
    ids=str,
)
@pytest.mark.parametrize("bias", [False, True], ids=["no bias", "bias"])
@pytest.mark.parametrize("targets", [1, 3])
@pytest.mark.parametrize("dtype", [F64, torch.float32], ids=["float64", "float32"])
def test_a_descent_is_that_of_torch(settings: dict[str, Any], bias: bool, targets: int, dtype: torch.dtype) -> None:
    X, Y = gaussian(40, 6).to(dtype), gaussian(40, targets, seed=1).to(dtype)
    torch.manual_seed(0)
    layer, other = (torch.nn.Linear(6, targets, bias=bias, dtype=dtype) for _ in range(2))
    other.load_state_dict(layer.state_dict())
    expected = train(X, Y, layer, torch.optim.SGD(layer.parameters(), lr=0.02, **settings), 100)
    found = descend(X, Y, other, lr=0.02, steps=100, **settings)
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(found, expected, rtol=50 * eps, atol=0.0)
    for name, value in other.state_dict().items():
        assert torch.equal(value, layer.state_dict()[name]), name
