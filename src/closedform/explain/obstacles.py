"""What keeps every optimizer from running at all: numbers beyond the range of the dtype that is trained in."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from closedform.explain.spectra import Spectrum

__all__ = ["obstacle"]


def obstacle(spectrum: Spectrum, start: Tensor, dtype: torch.dtype) -> str | None:
    """Return why no step can be taken on this problem, and the remedy; None where one can.

    Args:
        spectrum: The spectrum of the rows.
        start: The starting weights, ``(columns, targets)``.
        dtype: What is trained in.

    Example:
        >>> from closedform.explain.spectra import spectrum
        >>> s = spectrum(torch.tensor([[1e-30]], dtype=torch.float64), torch.tensor([1.0]))
        >>> obstacle(s, torch.zeros(1, 1, dtype=torch.float64), torch.float32)
        'the largest stable learning rate, about 1e60, is beyond float32; multiply X by about 1e30'
        >>> obstacle(s, torch.zeros(1, 1, dtype=torch.float64), torch.float64) is None
        True
    """
    name, held = str(dtype).removeprefix("torch."), torch.finfo(dtype)
    # Half precision keeps its learning rates and its sums in float32.
    wide = torch.finfo(dtype if dtype == torch.float64 else torch.float32)
    count = spectrum.n_rows * spectrum.n_targets
    size = _size_of_targets(spectrum)
    if not size <= held.max:
        return (
            f"Y holds numbers as large as {size:.1e}, beyond the {held.max:.1e} of {name}; scale Y, or pass X in a "
            "wider dtype"
        )

    if spectrum.rank and not wide.tiny < spectrum.learning_rate_limit < wide.max / 2:
        largest = math.log10(float(spectrum.singular_values[0]))
        places = math.log10(count)
        return (
            f"the largest stable learning rate, about 1e{round(places - 2 * largest)}, is beyond {name}; "
            f"multiply X by about 1e{round(places / 2 - largest)}"
        )

    loss = float(spectrum.gaps(start).sum()) + spectrum.optimal_loss
    if not (loss <= held.max and loss * count <= wide.max):
        return f"MSELoss() of the starting weights is inf in {name}; scale X and Y, or use a wider dtype"

    gradient = _gradient(spectrum, start)
    for parameter, part in (("bias", gradient[: int(spectrum.bias)]), ("weight", gradient[int(spectrum.bias) :])):
        if part.numel() and not float(part.abs().max()) <= held.max:
            return f"the gradient of the {parameter} overflows in {name}; scale X and Y, or use a wider dtype"

    # Beyond float64 the numbers above are those of scaled data.
    return spectrum.range_text or None


def _size_of_targets(spectrum: Spectrum) -> float:
    """A number that the targets hold at the least: larger than their squares' range would show it."""
    along = float(spectrum.target_components.abs().max()) if spectrum.target_components.numel() else 0.0
    beyond = math.sqrt(float(spectrum.residual_squares.max()))
    # Where squares have overflowed, the coordinates have not.
    return max(along, beyond if math.isfinite(beyond) else 0.0) / math.sqrt(spectrum.n_rows)


def _gradient(spectrum: Spectrum, weights: Tensor) -> Tensor:
    """The gradient of ``MSELoss()``, the bias first, ``(columns, targets)``."""
    rank = spectrum.rank
    pull = spectrum.singular_values[:rank].unsqueeze(1) * spectrum.residuals(weights)
    return 2 / (spectrum.n_rows * spectrum.n_targets) * (spectrum.directions[:rank].T @ pull)
