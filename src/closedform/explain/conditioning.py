"""Condition numbers before and after centring and scaling, and the fit with its features standardised."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from closedform.explain.spectra import Spectrum, spectrum_of
from closedform.numerics.triangle import Triangle

__all__ = ["condition_numbers", "standardised"]


def standardised(triangle: Triangle) -> Spectrum:
    """The spectrum after dividing the columns by their size; with a bias, after subtracting their means first."""
    R = triangle.R.clone()
    if triangle.has_ones:
        R[0, 1:] = 0.0
    sizes = torch.linalg.vector_norm(R, dim=0) / math.sqrt(triangle.weight_sum)
    return spectrum_of(replace(triangle, R=R / torch.where(sizes > 0, sizes, 1.0)))


def condition_numbers(
    triangle: Triangle, centred_features: Tensor, spectrum: Spectrum, normal: Spectrum
) -> dict[str, float]:
    """Condition numbers of the matrix as it is, centred, with its columns scaled, and both.

    Args:
        triangle: The rows.
        centred_features: Triangle of the features less their means, ``(rows, features)``.
        spectrum: Their spectrum.
        normal: What :func:`standardised` returns.
    """
    rank = spectrum.rank
    centred = torch.linalg.svdvals(centred_features)
    # Columns of length 1; those of the standardised fit are longer by this.
    unit = normal.singular_values / math.sqrt(triangle.weight_sum)
    if triangle.has_ones:
        # The ones stand apart from centred features, as a singular value of their own.
        centred = torch.cat([centred[: rank - 1], centred.new_tensor([math.sqrt(triangle.weight_sum)])])
        scaled, both = _unit_values(triangle.R)[:rank], unit[:rank]
    else:
        # Centring takes one direction away; that it may be the smallest is no merit of centring.
        centred = torch.cat([centred[: rank - 1], spectrum.singular_values[rank - 1 : rank]])
        scaled, both = unit[:rank], torch.cat([_unit_values(centred_features)[: rank - 1], unit[rank - 1 : rank]])
    return {
        "as it is": spectrum.condition,
        "centred": _ratio(centred),
        "columns scaled": _ratio(scaled),
        "centred and scaled": _ratio(both),
    }


def _unit_values(R: Tensor) -> Tensor:
    norms = torch.linalg.vector_norm(R, dim=0)
    return torch.linalg.svdvals(R / torch.where(norms > 0, norms, 1.0))


def _ratio(values: Tensor) -> float:
    positive = values[values > 0]
    return float(positive.max() / positive.min()) if positive.numel() else 1.0
