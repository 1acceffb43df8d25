"""Functions are taken for the criterion they are, and for no other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import closedform as cf
from closedform.losses.recognition import recognised
from closedform.words.errors import DataTypeError, InputError

X = torch.randn(30, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(30) % 3

KNOWN: dict[str, tuple[Callable[..., Any], nn.Module]] = {
    "a function": (F.cross_entropy, nn.CrossEntropyLoss()),
    "by hand": (lambda z, t: -torch.log_softmax(z, 1)[range(len(t)), t].sum(), nn.CrossEntropyLoss(reduction="sum")),
    "squares": (lambda z, t: ((z - t) ** 2).mean(), nn.MSELoss()),
    "absolute": (lambda z, t: (z - t).abs().sum(), nn.L1Loss(reduction="sum")),
    "huber": (F.smooth_l1_loss, nn.HuberLoss()),
    "logits": (F.binary_cross_entropy_with_logits, nn.BCEWithLogitsLoss()),
    "counts": (F.poisson_nll_loss, nn.PoissonNLLLoss()),
    "margins": (lambda z, t: torch.relu(1 - z * t).mean(), cf.losses.HingeLoss()),
}
UNKNOWN: dict[str, Callable[..., Any]] = {
    "smoothing": lambda z, t: F.cross_entropy(z, t, label_smoothing=0.1),
    "another width": lambda z, t: F.huber_loss(z, t, delta=2.0),
    "weights": lambda z, t: F.cross_entropy(z, t, weight=torch.tensor([1.0, 1.0, 1.1]).double()),
    "no loss": lambda z, t: 0,
    "each row": lambda z, t: F.cross_entropy(z, t, reduction="none"),
    "a fourth power": lambda z, t: ((z - t) ** 4).mean(),
    "the wrong way round": lambda z, t: F.binary_cross_entropy_with_logits(t, z),
    "a penalty": lambda z, t: F.mse_loss(z, t) + 1e-6 * z.square().mean(),
    "one of many labels ignored": lambda z, t: F.cross_entropy(z, t, ignore_index=5),
    "other ignored labels": lambda z, t: F.cross_entropy(z, t, ignore_index=2),
}


@pytest.mark.parametrize("name", KNOWN)
def test_a_function_is_the_module_of_its_numbers(name: str) -> None:
    function, module = KNOWN[name]
    found = recognised(function)
    assert type(found) is type(module)
    assert found.reduction == module.reduction


@pytest.mark.parametrize("name", UNKNOWN)
def test_a_function_of_other_numbers_is_refused(name: str) -> None:
    assert recognised(UNKNOWN[name]) is UNKNOWN[name]
    with pytest.raises(DataTypeError, match="says nothing of its options; pass the module"):
        cf.solve(X, LABELS, criterion=UNKNOWN[name])  # type: ignore[arg-type]


def test_a_lambda_is_fitted_as_its_module() -> None:
    found = cf.solve(X, LABELS, bias=True, criterion=lambda z, t: F.cross_entropy(z, t))  # type: ignore[arg-type]
    module = cf.solve(X, LABELS, bias=True, criterion=nn.CrossEntropyLoss())
    assert isinstance(found, cf.ConvexSolution)
    assert found.outcome.certified
    assert torch.equal(found.weight, module.weight)


def test_a_compiled_module_is_that_module() -> None:
    module = nn.L1Loss()
    # What torch.compile returns; to make one loads the compiler.
    compiled = nn.Module()
    compiled._orig_mod = module
    assert recognised(compiled) is module


@pytest.mark.parametrize(
    ("function", "Y"),
    [
        (lambda z, t: F.cross_entropy(z, t, ignore_index=100), 4 * torch.arange(30)),
        (lambda z, t: F.binary_cross_entropy_with_logits(z, t.round()), torch.linspace(0, 1, 30, dtype=torch.float64)),
    ],
    ids=["a label ignored", "rounded targets"],
)
def test_a_function_is_tried_on_the_targets_themselves(function: Any, Y: Any) -> None:
    with pytest.raises(InputError, match="for some targets, but not for these, so it has other options"):
        cf.solve(X, Y, l2=1.0, criterion=function)


def test_nothing_of_the_callers_generator_is_drawn() -> None:
    state = torch.get_rng_state()
    recognised(F.l1_loss)
    assert torch.equal(state, torch.get_rng_state())
