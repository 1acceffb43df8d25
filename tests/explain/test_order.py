"""The first finding is the one whose repair brings the run nearest to the goal: each is repaired, and trained."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from closedform.explain.entry import diagnose
from data import F64, gaussian, train


def left_by(X: Tensor, Y: Tensor, model: nn.Linear, optimizer: torch.optim.Optimizer, steps: int, size: int) -> float:
    """Loss of a real run of mini-batches whose rows are drawn anew for each."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        rows = torch.randperm(len(X), generator=generator)[:size]
        train(X[rows], Y[rows], model, optimizer, 0)
    return float(nn.functional.mse_loss(model(X), Y).detach())


def test_of_noise_and_too_few_steps_the_worse_comes_first() -> None:
    """Noise far above a short way first; a long way far above the noise first."""
    X = gaussian(200, 2)
    for noise, steps, lr, first in ((3.0, 200, 0.02, "mini_batch_noise"), (0.3, 30, 0.02, "more_steps_needed")):
        Y = X @ torch.tensor([[1.0], [2.0]], dtype=F64) * 10 + noise * gaussian(200, 1, seed=3)
        model = nn.Linear(2, 1, bias=False, dtype=F64)
        with torch.no_grad():
            model.weight.zero_()
        optimizer = torch.optim.SGD(model.parameters(), lr=lr)
        d = diagnose(X, Y, model=model, optimizer=optimizer, criterion=nn.MSELoss(), steps=steps, batch_size=4)
        names = [finding.name for finding in d.findings]
        assert names[0] == first, names

        best = d.case.spectrum.optimal_loss
        longer, quieter = copy.deepcopy(model), copy.deepcopy(model)
        enough = left_by(X, Y, longer, torch.optim.SGD(longer.parameters(), lr=lr), 5 * steps, 4) - best
        quiet = float(train(X, Y, quieter, torch.optim.SGD(quieter.parameters(), lr=lr), steps)[-1]) - best
        assert (quiet < enough) is (first == "mini_batch_noise")


def test_of_weight_decay_and_too_few_steps_the_worse_comes_first() -> None:
    X = gaussian(200, 2) * torch.tensor([1.0, 0.2], dtype=F64)
    Y = X @ torch.tensor([[1.0], [2.0]], dtype=F64) + 0.01 * gaussian(200, 1, seed=3)
    for decay, steps in ((0.3, 400), (1e-3, 10)):
        model = nn.Linear(2, 1, bias=False, dtype=F64)
        with torch.no_grad():
            model.weight.zero_()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.3, weight_decay=decay)
        d = diagnose(X, Y, model=model, optimizer=optimizer, criterion=nn.MSELoss(), steps=steps)
        mended = {finding.name: finding.excess_once_mended for finding in d.findings}

        best = d.case.spectrum.optimal_loss
        longer, free = copy.deepcopy(model), copy.deepcopy(model)
        made = torch.optim.SGD(longer.parameters(), lr=0.3, weight_decay=decay)
        enough = float(train(X, Y, longer, made, 1500)[-1]) - best
        left = float(train(X, Y, free, torch.optim.SGD(free.parameters(), lr=0.3), steps)[-1]) - best
        assert abs(mended["weight_decay_is_ridge"] - left) <= 1e-9 + 1e-6 * left
        if "more_steps_needed" in mended:
            assert abs(mended["more_steps_needed"] - enough) <= 1e-9 + 1e-6 * enough
            assert (d.findings[0].name == "more_steps_needed") is (enough < left)
        assert ("more_steps_needed" in mended) is (steps == 10)
