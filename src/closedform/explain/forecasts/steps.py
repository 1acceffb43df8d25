"""What a first-order optimizer will do, from the spectrum alone."""

from __future__ import annotations

import math

import torch

from closedform.explain.spectra import Spectrum

__all__ = ["gradient_descent_steps"]


def gradient_descent_steps(spectrum: Spectrum, lr: float, excess: float) -> float:
    """Return how many steps of gradient descent from zero weights bring the excess loss down to a share of its start.

    Along each singular direction the error shrinks by ``|1 - lr * eigenvalue|`` a step (Polyak 1987), so the relative
    excess loss after t steps is ``sum c_i^2 (1 - lr h_i)^(2t) / sum c_i^2`` with c the components of the target.

    Args:
        spectrum: The spectrum of the fit.
        lr: Step on ``MSELoss()`` (mean).
        excess: Share of the initial excess loss, more than 0.

    Returns:
        The number of steps (0 where none is needed), or inf where gradient descent never gets there.

    Example:
        >>> import torch
        >>> from closedform.explain.spectra import spectrum
        >>> s = spectrum(torch.diag(torch.tensor([3.0, 1.0])), torch.tensor([3.0, 1.0]))
        >>> gradient_descent_steps(s, lr=0.2, excess=1e-6)
        31.0
    """
    shares = spectrum.target_components[: spectrum.rank].square().sum(1)
    if float(shares.sum()) == 0.0:
        return 0.0
    shares = shares / shares.sum()
    progress = lr * spectrum.eigenvalues[: spectrum.rank]
    # log|1 - x| keeps the smallest x, which 1 - x would lose; those directions are what takes long.
    rates = torch.where(progress < 1, torch.log1p(-progress.clamp(max=1.0)), torch.log((progress - 1).abs()))

    def reached(steps: float) -> bool:
        return float((shares * torch.exp(2 * steps * rates)).sum()) <= excess

    high = 1.0
    while not reached(high):
        high *= 2
        if high > 1e300:
            return math.inf
    low = high / 2 if high > 1 else 0.0
    while high - low > max(0.5, 1e-12 * high):
        middle = (low + high) / 2
        low, high = (low, middle) if reached(middle) else (middle, high)
    if high > 1e15:
        return high
    whole = float(math.ceil(high))
    return whole - 1 if whole >= 1 and reached(whole - 1) else whole
