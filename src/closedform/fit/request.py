"""What is asked of a fit: all arguments that are not tables, checked once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral
from typing import Any, Literal, cast, final, get_args

import torch
from torch import nn

from closedform.fit.layers import check_finite, check_linear
from closedform.fit.weights import Weights
from closedform.rows import Rows
from closedform.words.arguments import is_boolean, plain_number, truth_value
from closedform.words.errors import InputError
from closedform.words.numbers import plural

__all__ = ["MethodName", "Request", "Watcher", "check_bias", "check_device", "check_ridge"]

#: What ``method=`` takes: ``"auto"``, or the name of one in :data:`closedform.fit.factors.METHODS`.
MethodName = Literal[
    "auto",
    "square",
    "square32",
    "diagonal",
    "gram16",
    "gram32",
    "gram64",
    "dual gram32",
    "dual gram64",
    "dual",
    "projected gram64",
    "sketched",
    "householder",
    "svd",
    "svd at precision",
]
#: What ``progress=`` takes.
Watcher = Callable[[str, float], None] | bool | None
#: Digits that float64 holds in every number.
_MOST_DIGITS = 15


@final
@dataclass(frozen=True, eq=False)
class Request:
    """What is asked of a fit. :meth:`checked` makes one from what a user gave.

    Attributes:
        bias: Whether the layer has a bias.
        strengths: Ridge strength of each target, as in scikit-learn.
        nearest_to: Weights to be near to where the minimiser is not unique, or None for least norm.
        digits: Correct digits asked for in every weight, or None.
        method: ``"auto"``, or the name of the one method to use.
        rcond: Relative cut on singular values, or None for the default.
        dtype: The dtype the weights are rounded to.
        progress: Who is told how far the fit has come.
        kernel: Whether the features are a kernel matrix between the rows.
    """

    bias: bool
    strengths: tuple[float, ...]
    nearest_to: Weights | None
    digits: int | None
    method: MethodName
    rcond: float | None
    dtype: torch.dtype
    progress: Watcher
    kernel: bool = False

    @staticmethod
    def checked(
        rows: Rows,
        *,
        bias: Any = False,
        l2: Any = 0.0,
        nearest_to: nn.Linear | Weights | None = None,
        digits: Any = None,
        method: MethodName = "auto",
        rcond: Any = None,
        dtype: torch.dtype | None = None,
        progress: Watcher = None,
        kernel: Any = False,
    ) -> Request:
        """Check the arguments of a fit of these rows.

        Args:
            rows: The rows that they are for.
            bias: A boolean.
            l2: One number, or one for each target.
            nearest_to: A layer, or weights that were checked.
            digits: From 1 to 15, or None.
            method: A name.
            rcond: From 0 to 1, or None.
            dtype: That of the weights; that of the rows where it is None.
            progress: None, a boolean, or a function of a label and the part done.
            kernel: A boolean; with a kernel there is neither a bias nor anything to be near to, and no digits.

        Raises:
            InputError: a value that cannot be used.
            DataTypeError: ``nearest_to`` is no layer with weights.
        """
        has_bias = check_bias(bias)
        if isinstance(nearest_to, Weights):
            near: Weights | None = nearest_to
        else:
            near = _check_near(nearest_to, rows, has_bias)
        return Request(
            bias=has_bias,
            strengths=tuple(check_ridge(l2, rows.n_targets)),
            nearest_to=near,
            digits=_check_digits(digits, near),
            method=_check_method(method),
            rcond=_check_rcond(rcond),
            dtype=rows.dtype if dtype is None else dtype,
            progress=progress,
            kernel=_check_kernel(kernel, nearest_to=nearest_to, digits=digits),
        )


def _check_method(method: Any) -> MethodName:
    if not isinstance(method, str):
        raise InputError(f"method={method!r} is not known; use 'auto' or one of {', '.join(get_args(MethodName)[1:])}.")
    return cast(MethodName, method)  # whether there is one of that name is the plan's to say


def check_bias(bias: Any) -> bool:
    """Return a boolean, Python's or NumPy's.

    Raises:
        InputError: another value.
    """
    plain = bias.item() if hasattr(bias, "item") and getattr(bias, "size", 0) == 1 else bias
    if isinstance(plain, bool):
        return plain
    what = f"a tensor of shape {tuple(bias.shape)}" if isinstance(bias, torch.Tensor) else repr(bias)
    raise InputError(f"bias={what} must be True or False: whether the layer has a bias, which is then fitted.")


def check_device(device: Any) -> torch.device:
    """Return a device of this machine.

    Raises:
        InputError: it is none, or none that is here.

    Example:
        >>> check_device("cpu")
        device(type='cpu')
    """
    try:
        found = torch.empty(0, device=device).device
    except (TypeError, ValueError, RuntimeError, AssertionError) as error:
        raise InputError(f"device={device!r} is no device of this machine; pass one as 'cpu' or 'cuda:0'.") from error
    if device is None or found.type == "meta":
        raise InputError(f"device={device!r} holds no numbers; pass one as 'cpu' or 'cuda:0'.")
    return found


def check_ridge(l2: Any, n_targets: int) -> list[float]:
    """Return one ridge strength for each target.

    Raises:
        InputError: not numbers, negative or infinite ones, or another number of them.
    """
    if type(l2) is not float and is_boolean(l2):
        raise InputError(f"l2={l2!r} is a truth value; give a number, how strong the ridge is.")
    try:
        # torch would look for places of a Series among its labels.
        numbers = l2.to_numpy().tolist() if hasattr(l2, "to_numpy") else l2
        values = (
            [l2]
            if type(l2) is float
            else torch.as_tensor(numbers, dtype=torch.float64, device="cpu").reshape(-1).tolist()
        )
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise InputError(f"l2={l2!r} is not a number; give one number, or one per target.") from error

    if len(values) == 1:
        values = values * n_targets
    if len(values) != n_targets:
        raise InputError(
            f"l2 has {plural(len(values), 'value')} for {plural(n_targets, 'target')}; give one number, "
            "or one per target."
        )
    for value in values:
        if not (value >= 0 and value < float("inf")):
            raise InputError(f"l2={value} must be finite and not negative.")
    return values


def _check_near(layer: nn.Linear | None, rows: Rows, bias: bool) -> Weights | None:
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
    return Weights.of_layer(layer, rows.device)


def _check_kernel(kernel: Any, **others: Any) -> bool:
    wanted = truth_value(kernel)
    if wanted is None:
        raise InputError(f"kernel={kernel!r} must be True or False: whether X is a kernel matrix between the rows.")
    for name, value in others.items():
        if wanted and value is not None:
            raise InputError(f"{name} with kernel=True is not available: leave one of them out.")
    return wanted


def _check_rcond(rcond: Any) -> float | None:
    if rcond is None:
        return None
    value = plain_number(rcond)
    if value is None or not 0 <= value < 1:
        raise InputError(f"rcond={rcond!r} must be a number of at least 0 and less than 1.")
    return value


def _check_digits(digits: Any, nearest_to: Weights | None) -> int | None:
    if digits is None:
        return None
    if isinstance(digits, bool) or not isinstance(digits, Integral) or not 1 <= int(digits) <= _MOST_DIGITS:
        raise InputError(
            f"digits={digits!r}: a whole number from 1 to {_MOST_DIGITS} is needed; float64 does not hold more in "
            "every number."
        )
    if nearest_to is not None:
        raise InputError("digits with nearest_to is not available: leave one of them out.")
    return int(digits)
