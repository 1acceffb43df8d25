"""A plain training loop, twice: only the line that makes the optimizer differs.

Run it with ``python examples/plain_loop.py``. The features have condition number 1e6, which no amount of tuning of a
learning rate forgives.
"""

from __future__ import annotations

import torch
from torch import nn

import closedform as cf
from closedform.optim import RecursiveLeastSquares


def main() -> dict[str, float]:
    """Train a layer with Adam and with recursive least squares; return the excess loss of each."""
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(500, 20, dtype=torch.float64, generator=generator) * torch.logspace(0, -6, 20, dtype=torch.float64)
    Y = X @ torch.randn(20, 1, dtype=torch.float64, generator=generator) * 10
    Y += 0.1 * torch.randn(500, 1, dtype=torch.float64, generator=generator)
    criterion = nn.MSELoss()
    excess = {}
    for name in ("adam", "rls"):
        model = nn.Linear(20, 1, dtype=torch.float64)
        opt = torch.optim.Adam(model.parameters(), lr=1e-2) if name == "adam" else RecursiveLeastSquares(model)
        for _ in range(20 if name == "adam" else 1):
            for start in range(0, 500, 32):
                opt.zero_grad()
                loss = criterion(model(X[start : start + 32]), Y[start : start + 32])
                loss.backward()
                opt.step()
        gap = cf.gap(model, X, Y)
        print(f"{name}: {gap}")
        excess[name] = gap.excess_loss / gap.optimal_loss
    return excess


if __name__ == "__main__":
    main()
