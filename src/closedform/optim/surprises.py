"""Say once what surprises: a rate other than 1, and a ridge over several epochs."""

from __future__ import annotations

import sys
import warnings
from typing import final

from torch import Tensor

from closedform.numerics.row_hash import hash_rows

__all__ = ["Surprises"]

#: Packages whose lines are not the user's.
_NOT_THE_USER = ("torch", "closedform", "contextlib")


@final
class Surprises:
    """What was said already, and the row by which another epoch is known."""

    def __init__(self) -> None:
        self._rate_said = False
        self._ridge_said = False
        self._first_row: int | None = None

    def tell(self, rate: float, l2: float, forgetting: float, A: Tensor, B: Tensor) -> None:
        """Warn, once each, where a step did not do what most would expect of its settings.

        Args:
            rate: The ``lr`` of the step.
            l2: Ridge strength.
            forgetting: What earlier rows were multiplied by.
            A: The rows of the step, ``(rows, columns)``.
            B: Their targets, ``(rows, targets)``.
        """
        if rate != 1 and not self._rate_said:
            self._rate_said = True
            _warn(
                f"lr={rate:g}: a step goes {rate:g} of the way to the least-squares solution and no further. This lr "
                "is not that of SGD or Adam: leave it at 1, without a scheduler, for the solution after every step."
            )
        if l2 > 0 and forgetting == 1 and A.shape[0] and not self._ridge_said:
            self._look_for_another_epoch(l2, A, B)

    def _look_for_another_epoch(self, l2: float, A: Tensor, B: Tensor) -> None:
        if self._first_row is None:
            self._first_row = int(hash_rows(A[:1], B[:1])[0])
            return
        if bool((hash_rows(A, B) == self._first_row).any()):
            self._ridge_said = True
            _warn(
                f"l2={l2:g} stands against the sum over all rows seen, and a row came again that was seen before: if "
                f"this is another epoch, E epochs end at the ridge of l2/E. Stop after one epoch, which is enough, "
                "or pass l2 times the number of epochs."
            )


def _warn(message: str) -> None:
    """Warn at the line of the user's that called ``step()``."""
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_globals.get("__name__", "").split(".")[0] in _NOT_THE_USER:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, UserWarning, stacklevel=level)
