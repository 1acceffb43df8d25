"""A kernel between the rows is recognised by its numbers, as they come out of the usual ways to compute one."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import closedform as cf

POINTS = torch.rand(40, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
LINE = torch.linspace(0, 1, 40, dtype=torch.float64)[:, None]
Y = torch.sin(3 * POINTS[:, 0])
#: By products, distances are not symmetric to the last digit, nor a Gram matrix of few columns positive.
KERNELS: dict[str, Callable[[], Tensor]] = {
    "distances by products": lambda: torch.exp(-torch.cdist(LINE, LINE).square() / 0.05),
    "float32": lambda: torch.exp(-torch.cdist(POINTS.float(), POINTS.float()).square()),
    "Gram matrix of low rank": lambda: POINTS @ POINTS.T,
    "symmetric to the bit": lambda: torch.exp(-(LINE - LINE.T).abs()),
}
OTHERS: dict[str, Callable[[], Tensor]] = {
    "indefinite": lambda: torch.exp(-torch.cdist(LINE, LINE).square() / 0.05) - 0.5,
    "negative": lambda: -POINTS @ POINTS.T,
    "asymmetric": lambda: POINTS @ POINTS.T + 1e-6 * torch.eye(40, dtype=torch.float64).roll(1, 0),
    "diagonal": lambda: 2 * torch.eye(40, dtype=torch.float64),
}


def says_kernel(sol: cf.Solution) -> bool:
    return any("kernel=True" in note for note in sol.notes)


@pytest.mark.parametrize("name", KERNELS)
def test_kernels_as_they_are_computed(name: str) -> None:
    K = KERNELS[name]()
    assert says_kernel(cf.solve(K, Y.to(K.dtype), l2=0.1))
    assert says_kernel(cf.solve(K.numpy(), Y.numpy(), l2=0.1))
    assert not says_kernel(cf.solve(K, Y, l2=0.1, bias=True))


@pytest.mark.parametrize("name", OTHERS)
def test_other_square_tables(name: str) -> None:
    assert not says_kernel(cf.solve(OTHERS[name](), Y, l2=0.1))
