"""Packaged example data: a kernel of real images, as in the forum thread that closedform answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from closedform.words.errors import MissingExtraError

__all__ = ["Example", "kernel_example"]

#: Images that are fitted: as many as in the report that this example stands for.
_N_TRAIN = 600
#: Images that are predicted.
_N_TEST = 200
#: Length scale of the kernel: several times the distance of two images whose pixels run from 0 to 1, which makes a
#: condition number near 3e8.
_LENGTH = 20.0


@final
@dataclass(frozen=True, eq=False)
class Example:
    """A regression problem: X (600, 600), Y (600,), X_test (200, 600), Y_test (200,), all float64."""

    X: Tensor
    Y: Tensor
    X_test: Tensor
    Y_test: Tensor
    sentence: str


def kernel_example() -> Example:
    """Return a kernel of 600 handwritten digits (8x8 pixels, Matern 5/2); the target is the digit as a number.

    The images come with scikit-learn; nothing is downloaded, and the same rows are returned every time.

    Raises:
        MissingExtraError: scikit-learn is not installed.

    Example:
        >>> example = kernel_example()
        >>> example.X.shape, example.Y_test.shape
        (torch.Size([600, 600]), torch.Size([200]))
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise MissingExtraError("scikit-learn", "sklearn", "The example data") from error

    digits, generator = load_digits(), torch.Generator().manual_seed(0)
    chosen = torch.randperm(len(digits.target), generator=generator, device="cpu")[: _N_TRAIN + _N_TEST]
    images = torch.as_tensor(digits.data, dtype=torch.float64, device="cpu")[chosen] / 16
    labels = torch.as_tensor(digits.target, dtype=torch.float64, device="cpu")[chosen]
    train, test = images[:_N_TRAIN], images[_N_TRAIN:]
    return Example(
        X=_matern_kernel(train, train),
        Y=labels[:_N_TRAIN],
        X_test=_matern_kernel(test, train),
        Y_test=labels[_N_TRAIN:],
        sentence=(
            f"Kernel (Matern 5/2, length {_LENGTH:g}) of {_N_TRAIN} handwritten digits from scikit-learn, 8x8 pixels; "
            f"no regularisation, no bias; the target is the digit; {_N_TEST} more digits to test on."
        ),
    )


def _matern_kernel(a: Tensor, b: Tensor) -> Tensor:
    # Smooth enough to be badly conditioned, rough enough that small singular directions carry signal.
    scaled = 5**0.5 * torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist") / _LENGTH
    return (1 + scaled + scaled.square() / 3) * torch.exp(-scaled)
