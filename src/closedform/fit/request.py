"""Checks on the arguments of a fit that are not tables."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from closedform.fit.layers import check_finite, check_linear
from closedform.rows import Rows
from closedform.words.errors import InputError

__all__ = ["check_digits", "check_near", "check_rcond", "check_ridge"]


def check_ridge(l2: Any, n_targets: int) -> list[float]:
    try:
        values = torch.as_tensor(l2, dtype=torch.float64, device="cpu").reshape(-1).tolist()
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"l2={l2!r} is not a number; give one number, or one per target.") from error
    if len(values) == 1:
        values = values * n_targets
    if len(values) != n_targets:
        raise InputError(f"l2 has {len(values)} values for {n_targets} targets; give one number, or one per target.")
    for value in values:
        if not (value >= 0 and value < float("inf")):
            raise InputError(f"l2={value} must be finite and not negative.")
    return values


def check_near(layer: nn.Linear | None, rows: Rows, bias: bool) -> tuple[Tensor, Tensor | None] | None:
    if layer is None:
        return None
    check_linear(layer, "nearest_to")
    if tuple(layer.weight.shape) != (rows.n_targets, rows.n_features):
        raise InputError(
            f"nearest_to has weights of shape {tuple(layer.weight.shape)}, but the data call for "
            f"{(rows.n_targets, rows.n_features)} (targets, features)."
        )
    if (layer.bias is not None) != bias:
        has = "a bias" if layer.bias is not None else "no bias"
        raise InputError(f"nearest_to has {has} but bias={bias} was asked for; make them agree.")
    check_finite(layer, "nearest_to")
    options: dict[str, Any] = {"dtype": torch.float64, "device": rows.device}
    return layer.weight.detach().to(**options), None if layer.bias is None else layer.bias.detach().to(**options)


def check_rcond(rcond: float | None) -> None:
    """Refuse a cut that is not a number from 0 to 1.

    Raises:
        InputError: another value or type.
    """
    if rcond is None:
        return
    if isinstance(rcond, bool) or not isinstance(rcond, int | float) or not 0 <= rcond < 1:
        raise InputError(f"rcond={rcond!r} must be a number of at least 0 and less than 1.")


def check_digits(digits: int | None, nearest_to: nn.Linear | None) -> None:
    if digits is None:
        return
    if isinstance(digits, bool) or not isinstance(digits, int) or not 1 <= digits <= 15:
        raise InputError(
            f"digits={digits!r}: a whole number from 1 to 15 is needed; float64 does not hold more in every number."
        )
    if nearest_to is not None:
        raise InputError("digits with nearest_to is not available: leave one of them out.")
