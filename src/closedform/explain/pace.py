"""How far optimizers can go whose steps have a length of about lr, and how far they have to."""

from __future__ import annotations

import math

from torch import Tensor

from closedform.explain.case import Case
from closedform.explain.readers.schedules import FOLLOWED

__all__ = ["LENGTH_OF_LR", "box_of", "farthest", "reach"]

#: Optimizers that move a weight by about lr a step, however large its gradient (Kingma and Ba 2015, section 2.1).
_LR_A_STEP = ("Adam", "AdamW", "NAdam", "Adamax", "RMSprop")
#: Optimizers whose steps keep about one length, which lr sets, while the gradient shrinks.
LENGTH_OF_LR = (*_LR_A_STEP, "Muon", "RAdam")


def farthest(case: Case) -> tuple[float, float]:
    """Return how far the weight with the longest way has to go, and the size of the largest weight at the end of it."""
    spectrum, start = case.landscape.spectrum, case.setting.start_matrix
    rank = spectrum.rank
    fixed = spectrum.directions[:rank]
    # The minimiser nearest to the start, where there are many.
    wanted: Tensor = spectrum.minimiser + start - fixed.T @ (fixed @ start)
    return float((wanted - start).abs().max()), float(wanted.abs().max())


def reach(case: Case) -> float:
    """Return how far a weight can go in the steps of the run; inf where the optimizer sets no such bound."""
    setting, optimizer = case.setting, case.setting.optimizer
    if optimizer is None:
        return math.inf
    steps = setting.patience
    if setting.schedule is not None:
        rates = [float(groups[0].get("lr", optimizer.lr)) for groups in setting.schedule.follow(min(steps, FOLLOWED))]
        total = math.fsum(rates) + (steps - len(rates)) * rates[-1]
        squares = math.fsum(rate * rate for rate in rates) + (steps - len(rates)) * rates[-1] ** 2
    else:
        total, squares = optimizer.lr * steps, optimizer.lr**2 * steps
    if optimizer.name in _LR_A_STEP:
        momentum = float(optimizer.settings.get("momentum", 0.0)) if optimizer.name == "RMSprop" else 0.0
        return total / max(1e-12, 1 - momentum)
    if optimizer.name == "Adagrad":
        # Constant gradients: the t-th step is lr / sqrt(t) (Duchi, Hazan and Singer 2011).
        return 2 * math.sqrt(squares)
    return math.inf


def box_of(case: Case) -> float:
    """Return the size that weights cannot exceed under decoupled decay: 1 / weight_decay for steps of length lr."""
    optimizer = case.setting.optimizer
    if optimizer is None or not optimizer.decoupled or not optimizer.weight_decay or optimizer.name not in _LR_A_STEP:
        return math.inf
    return 1 / optimizer.weight_decay
