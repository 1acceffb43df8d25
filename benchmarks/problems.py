"""The problems of the speed table, seeded, with a condition number that is known by construction."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["FULL", "QUICK", "Problem"]


@dataclass(frozen=True)
class Problem:
    """A regression problem.

    Attributes:
        name: Its name in the table.
        rows, columns, targets: Its shape.
        condition: Condition number: 1 means Gaussian columns, anything else a geometric spectrum.
        kind: ``tall``, ``square``, ``kernel``, ``wide`` or ``deficient``.
        bars: The ratios to reach against scikit-learn's LinearRegression and the best torch driver.
        dtype: Of the data.
    """

    name: str
    rows: int
    columns: int
    targets: int
    condition: float = 1.0
    kind: str = "tall"
    bars: tuple[float, float] = (0.0, 0.0)
    dtype: torch.dtype = torch.float64

    def make(self, seed: int = 0) -> tuple[Tensor, Tensor]:
        """Return X and Y."""
        generator = torch.Generator().manual_seed(seed)

        def gaussian(*shape: int) -> Tensor:
            return torch.randn(*shape, dtype=torch.float64, generator=generator)

        m, n, k = self.rows, self.columns, self.targets
        if self.kind == "kernel":
            points = torch.rand(m, 5, dtype=torch.float64, generator=generator)
            X = torch.exp(-torch.cdist(points, points).square() / 0.32) + 2e-7 * torch.eye(m, dtype=torch.float64)
            return X, torch.sin(5 * points.sum(1, keepdim=True))
        if self.kind == "deficient":
            X = gaussian(m, n // 2) @ gaussian(n // 2, n) / n**0.5
        else:
            X = gaussian(m, n)
            if self.condition > 1:
                # A Gaussian matrix is nearly orthogonal; a spectrum and a rotation give it its condition number.
                small = min(m, n)
                rotation = torch.linalg.qr(gaussian(small, small)).Q
                spectrum = torch.logspace(0, -torch.log10(torch.tensor(self.condition)).item(), small).double()
                X = (X * spectrum) @ rotation if m >= n else (rotation * spectrum) @ X
        Y = X @ gaussian(n, k) + (0.1 * gaussian(m, k) if self.kind in ("tall", "deficient") else 0.0)
        return X.to(self.dtype), Y.to(self.dtype)


FULL = (
    Problem("100000x200, 1", 100_000, 200, 1, bars=(8, 3.5)),
    Problem("100000x200, 1, condition 1e6", 100_000, 200, 1, 1e6, bars=(8 * 2 / 3, 3.5 * 2 / 3)),
    Problem("100000x200, 1, float32", 100_000, 200, 1, dtype=torch.float32),
    Problem("100000x1000, 1", 100_000, 1000, 1, bars=(9, 6)),
    Problem("100000x1000, 1, condition 1e6", 100_000, 1000, 1, 1e6, bars=(6, 4)),
    Problem("20000x2000, 1", 20_000, 2000, 1, bars=(7, 3.5)),
    Problem("4000x4000, 1", 4000, 4000, 1, kind="square", bars=(12, 1.5)),
    Problem("600x600 kernel, condition 1e9", 600, 600, 1, kind="kernel", bars=(10, 2.5)),
    Problem("50000x1000, 100", 50_000, 1000, 100, bars=(6, 3)),
    Problem("1000000x50, 10", 1_000_000, 50, 10, bars=(8, 4)),
    Problem("2000x20000, 1", 2000, 20_000, 1, kind="wide", bars=(5, 2)),
    Problem("20000x1000, rank 500", 20_000, 1000, 1, kind="deficient", bars=(4, 1.5)),
    Problem("100000x4000, 1", 100_000, 4000, 1, bars=(20, 8)),
    Problem("50x5, 1", 50, 5, 1),
)

QUICK = (
    Problem("20000x200, 1", 20_000, 200, 1),
    Problem("20000x200, 1, condition 1e6", 20_000, 200, 1, 1e6),
    Problem("20000x500, 1", 20_000, 500, 1),
    Problem("1000x1000, 1", 1000, 1000, 1, kind="square"),
    Problem("600x600 kernel, condition 1e9", 600, 600, 1, kind="kernel", bars=(10, 2.5)),
    Problem("10000x300, 100", 10_000, 300, 100),
    Problem("200000x50, 10", 200_000, 50, 10),
    Problem("500x4000, 1", 500, 4000, 1, kind="wide"),
    Problem("5000x400, rank 200", 5000, 400, 1, kind="deficient"),
    Problem("50x5, 1", 50, 5, 1),
)
