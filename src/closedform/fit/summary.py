"""A fit as a statistician reads it: every weight with its standard error, t, p, interval and correct digits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from closedform.report.document import Block, Column, Document, Facts, Notes, Paragraph, Section, Table
from closedform.report.fragment import render_fragment
from closedform.report.text import render_text
from closedform.words.arguments import share_of_one
from closedform.words.errors import InputError, MissingExtraError
from closedform.words.numbers import plural

__all__ = ["Coefficients", "Summary", "adjusted", "check_level"]

#: Rows of a page that are printed before the rest is only counted.
_ROWS = 40
#: Targets whose pages are printed before the rest is only counted.
_PAGES = 3
#: How a weight over its standard error is set.
_RATIO = "{:.2f}"
#: From here up it is set by its exponent.
_LARGEST_RATIO = 1e6
#: How a probability is set.
_PROBABILITY = "{:.4f}"
#: From here down it is set by its exponent.
_LEAST_PROBABILITY = 1e-4
#: What stands where there is no number.
_NONE = "-"


@final
@dataclass(frozen=True, eq=False)
class Coefficients:
    """Numbers of a summary, each ``(targets, coefficients)``, float64; the bias is the first coefficient, if any.

    Attributes:
        weight: Weights and biases as they are stored.
        standard_error: Their standard errors; nan where there are none.
        t: Weight over standard error.
        p: Probability of a t at least as far from 0, where the true weight is 0 (two-sided).
        low: Lower end of the confidence interval.
        high: Its upper end.
        digits: Correct decimal digits of the weight, int64.
    """

    weight: Tensor
    standard_error: Tensor
    t: Tensor
    p: Tensor
    low: Tensor
    high: Tensor
    digits: Tensor

    @staticmethod
    def of(weight: Tensor, standard_error: Tensor, error: Tensor, *, freedom: int, level: float) -> Coefficients:
        """Compute what follows from weights and their errors.

        Args:
            weight: ``(targets, coefficients)``.
            standard_error: The same shape; nan where there are none.
            error: What is known of the numerical error of each weight, absolute.
            freedom: Degrees of freedom of Student's distribution.
            level: Of the confidence interval, between 0 and 1.
        """
        # Slow to load, and needed by nothing else that a fit does.
        from scipy.special import stdtr, stdtrit

        t = weight / standard_error
        p = torch.full_like(t, math.nan)
        half = torch.full_like(t, math.nan)
        if freedom > 0:
            p = torch.from_numpy(2 * stdtr(freedom, -t.abs().numpy()))
            # Below 0: the upper tail is told from 1, and its quantile has five digits fewer.
            half = standard_error * -float(stdtrit(freedom, (1 - level) / 2))
        return Coefficients(weight, standard_error, t, p, weight - half, weight + half, _digits(weight, error))


def _digits(weight: Tensor, error: Tensor) -> Tensor:
    """Return how many decimal digits of a number with such an error are correct, 0 to 15."""
    relative = torch.where(error == 0, 0.0, error / weight.abs())
    relative = torch.where(torch.isfinite(relative), relative, 1.0)
    return (-torch.log10(relative.clamp(min=1e-16))).floor().clamp(0, 15).to(torch.int64)


def adjusted(r_squared: float, rows: int, rank: int, *, bias: bool) -> float:
    """Return R^2 with both variances over their degrees of freedom; nan where none are left.

    Example:
        >>> round(adjusted(0.9, 20, 3, bias=True), 6)
        0.888235
    """
    return 1 - (1 - r_squared) * (rows - int(bias)) / (rows - rank) if rows > rank else math.nan


def check_level(level: Any) -> float:
    """Return the level of a confidence interval.

    Raises:
        InputError: not a number between 0 and 1.
    """
    share = share_of_one(level)
    if share is None:
        raise InputError(f"level={level!r} must be a number between 0 and 1, such as 0.95.")
    return share


@final
@dataclass(frozen=True, repr=False, eq=False)
class Summary:
    """A fit as a statistician reads it; ``print`` shows it, and :meth:`to_frame` holds all of it.

    Attributes:
        headline: How the fit ended, and of which model it is.
        facts: What holds for the whole fit, as names and values.
        names: What the coefficients are called, the bias first.
        targets: What the targets are called.
        coefficients: The numbers.
        r_squared: Of each target: about its mean with a bias, about zero without one, as is usual.
        adjusted_r_squared: The same over degrees of freedom.
        residual_std: Residual standard deviation of each target.
        level: Of the confidence intervals.
        notes: What has to be known to read the table, such as why there are no standard errors.
    """

    headline: str
    facts: tuple[tuple[str, str], ...]
    names: tuple[str, ...]
    targets: tuple[str, ...]
    coefficients: Coefficients
    r_squared: tuple[float, ...]
    adjusted_r_squared: tuple[float, ...]
    residual_std: tuple[float, ...]
    level: float
    notes: tuple[str, ...]

    def page(self, target: int) -> str:
        """Return all of one target as text.

        Args:
            target: Its number, from 0.

        Raises:
            InputError: there is no such target.

        Example:
            >>> import closedform as cf
            >>> sol = cf.solve([[0.0], [1.0], [2.0], [3.0]], [[0.0], [1.0], [3.0], [3.0]], bias=True)
            >>> print(sol.summary().page(0))
            target 0:
            R^2 0.896296, adjusted 0.844444, residual standard deviation 0.591608
            name      weight  standard error     t       p   95 % from       to  digits
            --------  ------  --------------  ----  ------  ----------  -------  ------
            bias         0.1        0.494975  0.20  0.8586     -2.0297   2.2297      1...
            column 0     1.1        0.264575  4.16  0.0533  -0.0383749  2.23837      1...
        """
        if not 0 <= target < len(self.targets):
            raise InputError(f"target={target!r}: there are {len(self.targets)} targets, counted from 0.")
        return render_text(self._document([self._section(target, None)]), None)

    def to_frame(self) -> Any:
        """Return a pandas frame with one line for each coefficient of each target.

        Its columns are target, name, weight, standard_error, t, p, low, high (of the interval) and digits.

        Raises:
            MissingExtraError: pandas is not installed.

        Example:
            >>> import closedform as cf
            >>> frame = cf.solve([[0.0], [1.0], [2.0], [3.0]], [0.0, 1.0, 3.0, 3.0], bias=True).summary().to_frame()
            >>> frame[["name", "weight", "p"]].round(4).values.tolist()
            [['bias', 0.1, 0.8586], ['column 0', 1.1, 0.0533]]
        """
        try:
            import pandas
        except ImportError as error:
            raise MissingExtraError("pandas", "frames", "A summary as a frame") from error
        count = len(self.names)
        numbers = vars(self.coefficients)
        return pandas.DataFrame(
            {
                "target": [name for name in self.targets for _ in range(count)],
                "name": list(self.names) * len(self.targets),
                **{name: values.reshape(-1).numpy() for name, values in numbers.items()},
            }
        )

    def body(self, rows: int = _ROWS) -> Document:
        """Return the tables and the notes as a document, without the headline and what holds for the whole fit.

        Args:
            rows: Lines of a table that are shown at most.
        """
        return self._document(self._pages(rows))

    def __str__(self) -> str:
        return render_text(self._whole(), None)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return render_fragment(self._whole())

    def _whole(self) -> Document:
        headline = Section(self.headline, (Facts(self.facts),), tone="headline")
        return self._document([headline, *self._pages(_ROWS)])

    def _document(self, sections: Sequence[Section]) -> Document:
        return Document("Summary of a fit", self.headline, (), tuple(sections))

    def _pages(self, rows: int) -> list[Section]:
        shown = min(_PAGES, len(self.targets))
        pages = [self._section(target, rows) for target in range(shown)]
        notes = list(self.notes)
        if len(self.targets) > shown:
            more = plural(len(self.targets) - shown, "more target")
            notes.append(f"{more}: summary().page(i) is the page of target i, .to_frame() holds all")
        return [*pages, Section("notes", (Notes(tuple(notes)),))]

    def _section(self, target: int, most: int | None) -> Section:
        c, count = self.coefficients, len(self.names)
        shown = count if most is None else min(most, count)
        columns = [c.weight, c.standard_error, c.t, c.p, c.low, c.high]
        layouts = ("{:.6g}", "{:.6g}", _RATIO, _PROBABILITY, "{:.6g}", "{:.6g}")
        rows = []
        for position in range(shown):
            numbers = [
                _cell(float(values[target, position]), layout) for values, layout in zip(columns, layouts, strict=True)
            ]
            rows.append((self.names[position], *numbers, str(int(c.digits[target, position]))))

        titles = ("weight", "standard error", "t", "p", f"{100 * self.level:g} % from", "to", "digits")
        fit = (self.r_squared[target], self.adjusted_r_squared[target], self.residual_std[target])
        line = "R^2 {}, adjusted {}, residual standard deviation {}".format(*map(_cell, fit))
        blocks: list[Block] = [
            Paragraph(line),
            Table((Column("name", numeric=False), *map(Column, titles)), tuple(rows)),
        ]
        if shown < count:
            blocks.append(Paragraph(f"... and {count - shown:,} more: summary().page({target}), or .to_frame()"))
        return Section(self.targets[target], tuple(blocks))


def _cell(value: float, layout: str = "{:.6g}") -> str:
    if layout == _PROBABILITY and value < _LEAST_PROBABILITY:
        return f"{value:.0e}" if value else "0"
    if layout == _RATIO and _LARGEST_RATIO <= abs(value) < math.inf:
        return f"{value:.3g}"
    return layout.format(value) if math.isfinite(value) else _NONE if math.isnan(value) else str(value)
