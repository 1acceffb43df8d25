"""What comes into an estimator, checked as scikit-learn checks it, and what goes out in the library it came in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from sklearn.utils.validation import _check_sample_weight, validate_data
from torch import Tensor

from closedform.rows.labels import check_alignment
from closedform.rows.norms import check_weights
from closedform.rows.tensors import as_tensor
from closedform.words.errors import InputError, NonFiniteError

__all__ = ["Training", "floats", "given_back", "read_features", "read_training"]

#: What scikit-learn converts other numbers to, and leaves alone.
_FLOATS = (np.float64, np.float32)


@final
@dataclass(frozen=True, eq=False)
class Training:
    """The rows of a fit, as tensors.

    Attributes:
        X: ``(rows, features)``.
        y: ``(rows,)`` or ``(rows, targets)``; a NumPy array where they are labels.
        sample_weight: ``(rows,)`` or None.
        back: Turns a tensor into an array of the library that X came in.
    """

    X: Tensor
    y: Any
    sample_weight: Tensor | None
    back: Callable[[Tensor], Any]


def read_training(
    estimator: Any, X: Any, y: Any, sample_weight: Any, *, reset: bool = True, labels: bool = False
) -> Training:
    """Check the rows of a fit as scikit-learn's estimators do.

    Args:
        estimator: Whose number and names of features are set, or checked.
        X: Features, ``(rows, features)``.
        y: Targets, ``(rows,)`` or ``(rows, targets)``.
        sample_weight: One weight for each row, one for all, or None.
        reset: Whether the features are set; else they are those of earlier rows.
        labels: Whether the targets are labels, which stay as they are, in a NumPy array.

    Raises:
        InputError: frames whose indexes are in different orders, or negative weights; and what scikit-learn raises, a
            ValueError as well.
    """
    check_alignment(X=X, y=y, sample_weight=sample_weight)
    targets: Any
    if isinstance(X, Tensor) and not labels:
        features, targets = floats(X.detach()), _beside(y, X)
        _check_shapes(estimator, features, targets, reset=reset)
    elif isinstance(X, Tensor):
        features, stand_in = floats(X.detach()), np.broadcast_to(np.float64(0), tuple(X.shape))
        targets = validate_data(estimator, stand_in, _on_the_host(y), reset=reset, multi_output=True)[1]
    else:
        checked, targets = validate_data(
            estimator, X, _on_the_host(y), reset=reset, dtype=_FLOATS, y_numeric=not labels, multi_output=True
        )
        features, targets = floats(checked), targets if labels else floats(targets)

    weight = None
    if sample_weight is not None:
        plain = _on_the_host(sample_weight)
        shape = np.broadcast_to(np.float64(0), tuple(features.shape))
        weight = torch.from_numpy(_check_sample_weight(plain, shape, dtype=np.float64)).to(features.device)
        check_weights(weight, 0)
    return Training(features, targets, weight, given_back(X))


def read_features(estimator: Any, X: Any) -> Tensor:
    """Check the features of new rows, which are those of the fit.

    Args:
        estimator: It was fitted.
        X: Features, ``(rows, features)``.

    Raises:
        NonFiniteError: they hold NaN or an infinity; and what scikit-learn raises.
    """
    if not isinstance(X, Tensor):
        return floats(validate_data(estimator, X, reset=False, dtype=_FLOATS))
    _check_shapes(estimator, X, None, reset=False)
    if not bool(torch.isfinite(X).all()):
        raise NonFiniteError("X holds NaN or an infinity; predictions from it say nothing.")
    return X.detach()


def floats(array: Any) -> Tensor:
    """Return an array as a tensor of floating numbers, in place where that is possible."""
    if isinstance(array, np.ndarray) and not array.flags.writeable:
        # Nothing is written; torch warns all the same where it shares memory that is read-only.
        array = array.copy()
    tensor, _ = as_tensor(array, "X")
    return tensor if tensor.is_floating_point() else tensor.to(torch.float64)


def given_back(X: Any) -> Callable[[Tensor], Any]:
    """Return what turns a tensor into an array of the library and on the device that ``X`` is in: NumPy's, or torch's.

    Example:
        >>> import torch
        >>> given_back(torch.ones(1))(torch.ones(1))
        tensor([1.])
        >>> given_back([[1.0]])(torch.ones(1))
        array([1.], dtype=float32)
    """
    if isinstance(X, Tensor):
        device = X.device
        return lambda tensor: tensor.to(device)
    return _as_numpy


def _as_numpy(tensor: Tensor) -> Any:
    return tensor.cpu().numpy()


def _on_the_host(array: Any) -> Any:
    return array.detach().cpu().numpy() if isinstance(array, Tensor) else array


def _beside(y: Any, X: Tensor) -> Tensor:
    """Return targets as a tensor where the features are.

    Raises:
        InputError: there are none.
    """
    if y is None:
        raise InputError("y is None, but the fit requires y to be passed: (rows,) or (rows, targets).")
    return as_tensor(y, "y")[0].to(X.device)


def _check_shapes(estimator: Any, X: Tensor, y: Tensor | None, *, reset: bool) -> None:
    """Let scikit-learn check shapes by arrays that have them and hold one number: it knows no bfloat16 and no GPU."""
    stand_in = np.broadcast_to(np.float64(0), tuple(X.shape))
    if y is None:
        validate_data(estimator, stand_in, reset=reset, ensure_all_finite=False)
    else:
        targets = np.broadcast_to(np.float64(0), tuple(y.shape))
        validate_data(estimator, stand_in, targets, reset=reset, ensure_all_finite=False, multi_output=True)
