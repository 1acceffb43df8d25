"""The leading part of a spectrum that is too large to compute whole."""

from __future__ import annotations

import torch
from torch import Tensor

from closedform.explain.spectra import Spectrum
from closedform.fit.problem import Problem
from closedform.numerics.rank import Rank
from closedform.rows import Design, Rows, scan

__all__ = ["partial_spectrum"]

#: Leading directions that are computed: what a first-order optimizer moves along in its first thousands of steps.
_DIRECTIONS = 64
#: Further directions that are iterated with them, so that the last ones wanted converge as well.
_SPARE = 16
#: Passes over the rows; each gains the ratio of neighbouring singular values to the fourth.
_PASSES = 6


def partial_spectrum(rows: Rows, *, bias: bool, l2: float, directions: int = _DIRECTIONS, seed: int = 0) -> Spectrum:
    """Return the leading singular values and directions of a wide table, by randomised subspace iteration.

    Singular values come out from below, the leading ones to several digits (Halko, Martinsson and Tropp 2011,
    algorithm 4.4). What lies along the other directions counts as unexplained, and nothing is known of the rank.

    Args:
        rows: The table; it is read once per pass, a few blocks at a time.
        bias: Whether the layer has a bias.
        l2: Ridge strength.
        directions: How many are computed.
        seed: Seed of the starting vectors; the global generator is not touched.
    """
    scanned = scan(rows)
    problem = Problem(Design(rows, scanned, bias=bias), l2)
    p = problem.n_columns
    directions = min(directions, p)
    generator = torch.Generator().manual_seed(seed)
    start = torch.randn(p, min(p, directions + _SPARE), dtype=torch.float64, device="cpu", generator=generator).to(
        rows.device
    )
    scale = problem.scale.unsqueeze(1)

    def squared(V: Tensor) -> Tensor:
        return problem.normal_product(V / scale) / scale

    V = torch.linalg.qr(start).Q
    for _ in range(_PASSES):
        V = torch.linalg.qr(squared(V)).Q
    eigenvalues, rotation = torch.linalg.eigh(V.T @ squared(V))
    leading = torch.argsort(eigenvalues, descending=True)[:directions]
    values = eigenvalues[leading].clamp(min=0.0).sqrt()
    vectors = (V @ rotation[:, leading]).T
    adjoint, squares = problem.gradient(torch.zeros(p, problem.n_targets, dtype=torch.float64, device=rows.device))
    projected = vectors @ (adjoint / scale / problem.target_scale)
    rank = int((values > 1e-12 * values[0]).sum())
    components = torch.where(values.unsqueeze(1) > 0, projected / values.unsqueeze(1).clamp(min=1e-300), 0.0)
    components[rank:] = 0.0
    left = (squares / problem.target_scale.square() - components.square().sum(0)).clamp(min=0.0)
    return Spectrum(
        singular_values=values,
        directions=vectors,
        target_components=components,
        residual_squares=left,
        n_rows=scanned.weight_sum,
        n_targets=problem.n_targets,
        bias=bias,
        rank=rank,
        decision=Rank(rank, p, 1e-12, float("nan"), ambiguous=True),
        complete=False,
    )
