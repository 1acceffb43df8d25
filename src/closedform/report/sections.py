"""From data to sections: what stands on a page and in which order, still without any format."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

from closedform.report.comparison import Comparison, MethodResult

__all__ = ["Column", "Page", "Table", "comparison_page", "number", "plural"]


@final
@dataclass(frozen=True)
class Column:
    """A column of a table; numbers are right-aligned."""

    title: str
    numeric: bool = True


@final
@dataclass(frozen=True)
class Table:
    """Cells as strings, one remark per row (which a narrow renderer sets below the table), one row to stand out."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    remark_title: str
    remarks: tuple[str, ...]
    emphasised_row: int


@final
@dataclass(frozen=True)
class Page:
    """A sentence to read first, a table, and footnotes."""

    headline: str
    caption: str
    table: Table
    footnotes: tuple[str, ...]


def number(value: float | None) -> str:
    """Format a measured number in at most seven characters; ``-`` where there is none.

    Example:
        >>> number(0.0001234), number(12345.0), number(1.5), number(float("inf")), number(None)
        ('1.2e-4', '1.2e4', '1.50', 'inf', '-')
    """
    if value is None:
        return "-"
    if value == 0:
        return "0"
    if not math.isfinite(value):
        return str(value)
    if 1e-3 <= abs(value) < 999.5:
        return f"{value:#.3g}".rstrip(".")
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def plural(value: int, word: str) -> str:
    """Return a number and a word, in the plural but for one.

    Example:
        >>> plural(1, "feature"), plural(0, "row")
        ('1 feature', '0 rows')
    """
    return f"{value} {word}" if value == 1 else f"{value} {word}s"


def count(value: int) -> str:
    """Format a number of steps in at most six characters.

    Example:
        >>> count(64), count(20312), count(1234567)
        ('64', '20,312', '1.2e6')
    """
    return f"{value:,}" if value < 100_000 else number(float(value))


def comparison_page(comparison: Comparison) -> Page:
    """Lay out a comparison: the cause, the table, and how to read it."""
    tested = any(method.test_mae is not None for method in comparison.methods)
    columns = ["method", "seconds", "steps", "MSE", "excess", "weights"] + ["test MAE"] * tested
    matrix = f"{plural(comparison.n_rows, 'row')}, {plural(comparison.n_features, 'feature')}"
    targets = plural(comparison.n_targets, "target")
    caption = (
        f"{matrix}, {targets}, {'with' if comparison.bias else 'without'} a bias; rank {comparison.rank}; "
        f"optimal MSE {number(comparison.optimal_loss)}; budget {number(comparison.budget)} s"
        + (" (interrupted)" if comparison.interrupted else "")
    )
    unique = comparison.rank == comparison.n_features + comparison.bias
    footnotes = (
        "steps: evaluations of loss and gradient; weights: relative distance to the minimiser.",
        f"excess: training MSE above the optimal one; below {number(comparison.rounding_floor)} it is rounding of "
        f"{comparison.dtype}.",
        *(() if unique else ("the minimiser is not unique: the distance is to the one of least norm.",)),
        f"closed form: {comparison.outcome}.",
        *(f"note: {note}." for note in comparison.notes),
    )
    return Page(
        headline=comparison.sentence,
        caption=caption,
        table=Table(
            columns=tuple(Column(title, numeric=title != "method") for title in columns),
            rows=tuple(_cells(method, tested) for method in comparison.methods),
            remark_title="why it stopped",
            remarks=tuple(_remark(method) for method in comparison.methods),
            emphasised_row=0,
        ),
        footnotes=footnotes,
    )


def _cells(method: MethodResult, tested: bool) -> tuple[str, ...]:
    cells = (
        method.name,
        number(method.seconds),
        "-" if method.steps is None else count(method.steps),
        number(method.train_mse),
        number(method.excess_loss),
        number(method.weight_distance),
    )
    return (*cells, number(method.test_mae)) if tested else cells


def _remark(method: MethodResult) -> str:
    return f"{method.stopped_because}; {method.settings}" if method.settings else method.stopped_because
