"""Exceptions. Each message says what was wrong, what was seen, and what to do."""

from __future__ import annotations

from closedform.words.text import printable

__all__ = [
    "ClosedformError",
    "DataTypeError",
    "FactorBreakdown",
    "GroupError",
    "InputError",
    "MethodRefusedError",
    "MissingExtraError",
    "NonFiniteError",
    "OutOfRangeError",
    "SourceError",
]


class ClosedformError(Exception):
    """Base of all exceptions raised on purpose by closedform.

    Its text may quote names from a file, so nothing in it acts on the terminal that shows it.
    """

    def __str__(self) -> str:
        return "\n".join(map(printable, super().__str__().split("\n")))


class InputError(ClosedformError, ValueError):
    """A value or a shape that cannot be used: mismatched rows, an empty table, a negative weight."""


class NonFiniteError(InputError):
    """The data hold NaN or an infinity; the message names the column and the first row."""


class DataTypeError(ClosedformError, TypeError):
    """A kind of data that cannot be used: complex, object, string, sparse, or without storage (meta)."""


class SourceError(InputError):
    """A file that cannot be read or understood: missing, truncated, not what its name says, key not found."""


class GroupError(ClosedformError, RuntimeError):
    """Several processes work on one fit, and one of them failed, died, or did not answer in time."""


class OutOfRangeError(InputError):
    """The weights are beyond the range of the dtype they are to be stored in."""


class MethodRefusedError(InputError):
    """The method asked for cannot take this problem; the message lists the reasons."""


class MissingExtraError(ClosedformError, ImportError):
    """An optional dependency is not installed; the message holds the pip line that installs it."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the package '{package}', which is not installed. "
            f"Install it with:  pip install 'closedform[{extra}]'"
        )
        self.package = package
        self.extra = extra


class FactorBreakdown(ClosedformError):
    """A factor could not be computed for this matrix (say, a Cholesky pivot that is not positive).

    Raised by factors and caught by the ladder, which records the reason and climbs to the next factor.

    Args:
        reason: What happened.
        condition: A lower bound on the condition number that was learnt from it, so that methods which cannot
            serve beyond it are not tried.
        dependent: Whether it looks as if columns plainly depend, so that methods which tell the rank are tried first.
    """

    def __init__(self, reason: str, condition: float = 1.0, *, dependent: bool = False) -> None:
        super().__init__(reason)
        self.condition = condition
        self.dependent = dependent
