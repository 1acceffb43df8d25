"""A short gallery of hard least-squares problems, each from its definition."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

__all__ = ["HardProblem", "hard_problems"]


@final
@dataclass(frozen=True, eq=False)
class HardProblem:
    """A design ``(rows, columns)`` and targets ``(rows,)``, float64, with what makes them hard in a few words."""

    name: str
    X: Tensor
    y: Tensor


def hard_problems() -> tuple[HardProblem, ...]:
    """Return the gallery; the same numbers every time.

    Example:
        >>> [p.name for p in hard_problems()][:2]
        ['Hilbert 8', 'Hilbert 10']
    """
    generator = torch.Generator().manual_seed(6)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator, device="cpu")

    def geometric(condition: float) -> Tensor:
        values = torch.logspace(0, -condition, 8, dtype=torch.float64, device="cpu")
        return (torch.linalg.qr(normal(20, 8))[0] * values) @ torch.linalg.qr(normal(8, 8))[0]

    i = torch.arange(12, dtype=torch.float64, device="cpu")
    hilbert = 1 / (i.unsqueeze(1) + i + 1)
    powers = torch.linspace(0, 1, 24, dtype=torch.float64, device="cpu").unsqueeze(1) ** i
    laeuchli = torch.cat(
        [torch.ones(1, 6, dtype=torch.float64, device="cpu"), 1e-9 * torch.eye(6, dtype=torch.float64, device="cpu")]
    )
    medium, steep = geometric(6), geometric(12)
    units = torch.logspace(-10, 10, 8, dtype=torch.float64, device="cpu")
    rows = torch.logspace(-6, 6, 20, dtype=torch.float64, device="cpu").unsqueeze(1)
    designs = {
        "Hilbert 8": hilbert[:8, :8],
        "Hilbert 10": hilbert[:10, :10],
        "Vandermonde 12": powers,
        "Laeuchli 1e-9": laeuchli,
        "condition 1e12": steep,
        "columns over 1e20": medium * units,
        "rows over 1e12": medium * rows,
    }
    # Half of each target lies outside the range of the design, so the residual is as large as the fit.
    problems = []
    for name, X in designs.items():
        fit = X @ (normal(X.shape[1]) / torch.linalg.vector_norm(X, dim=0))
        noise = normal(X.shape[0])
        problems.append(HardProblem(name, X, fit + noise * (fit.norm() / noise.norm())))
    return tuple(problems)
