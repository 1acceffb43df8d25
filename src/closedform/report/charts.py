"""Charts as geometry: scales, ticks and paths, which a template only has to set in SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, final

from closedform.report.palette import ink_of, symbol_path

__all__ = ["Chart", "Mark", "Rule", "Scale", "Series", "decades"]

#: User units of every drawing; the page scales it to its column.
WIDTH = 760.0
#: Left end of the plot, in user units: room for numbers and the name of the axis.
LEFT = 74.0
#: Right end of the plot, in user units: room for half of the last number.
RIGHT = 732.0
#: Share of the plot by which a clipped line may leave it.
_OUTSIDE = 0.05
#: Symbols along a line, and their radius in user units.
_SYMBOLS = 6
_RADIUS = 4.2
#: Radius of the one symbol of a series that is a single point, in user units.
_SINGLE_RADIUS = 5.5


@final
@dataclass(frozen=True)
class Scale:
    """Places numbers along an axis.

    Attributes:
        low, high: The numbers at the two ends; on a logarithmic scale their decimal logarithms.
        first, last: Where these stand, in user units.
        logarithmic: Whether the scale is logarithmic.

    Example:
        >>> scale = Scale(-2.0, 2.0, 0.0, 100.0)
        >>> scale.place(1.0), [label for _, label in scale.ticks()]
        (50.0, ['0.01', '0.1', '1', '10', '100'])
    """

    low: float
    high: float
    first: float
    last: float
    logarithmic: bool = True

    def place(self, value: float) -> float:
        """Return where ``value`` stands, held just outside the ends; what has no logarithm stands below the low end."""
        if self.logarithmic:
            value = math.log10(value) if value > 0 else -math.inf
        share = (value - self.low) / (self.high - self.low)
        share = min(max(share, -_OUTSIDE), 1 + _OUTSIDE)
        return round(self.first + share * (self.last - self.first), 2)

    def ticks(self, most: int = 7) -> list[tuple[float, str]]:
        """Return at most about ``most`` ticks: where each stands, and its label."""
        span = self.high - self.low
        if self.logarithmic:
            step = next(s for s in (1, 2, 3, 4, 5, 10, 20, 50, 100, 200) if span / s <= most - 1 or s == 200)
            exponents = [e for e in range(math.ceil(self.low), math.floor(self.high) + 1) if e % step == 0]
            return [(self.place(10.0**e), _power_of_ten(e)) for e in exponents if -308 < e < 309]
        rough = span / (most - 1)
        unit = 10.0 ** math.floor(math.log10(rough))
        step = max(1, round(unit * next(m for m in (1, 2, 5, 10) if m * unit >= rough)))
        start = math.ceil(self.low / step) * step
        return [(self.place(v), f"{v:,}") for v in range(start, math.floor(self.high) + 1, step)]


def decades(values: Sequence[float], *, least: int = 1) -> tuple[float, float]:
    """Return the whole decades that hold all positive finite ``values``, at least ``least`` of them.

    Example:
        >>> decades([0.002, 30.0, 0.0, float("inf")])
        (-3.0, 2.0)
    """
    logs = [math.log10(value) for value in values if 0 < value < math.inf]
    low, high = (math.floor(min(logs)), math.ceil(max(logs))) if logs else (0, 1)
    return float(low), float(max(high, low + least))


@final
@dataclass(frozen=True)
class Series:
    """Numbers drawn as one line or as dots.

    Attributes:
        name: What the legend calls it.
        ink: Name of an ink of the palette, which gives colour, dashes and symbol.
        x, y: The numbers; None where there is none.
        marks: Whether each number is a dot, without a line.
        shape: ``halo`` for dots that others are drawn upon.
        symbol: Drawn at a series of single points instead of a dot; that of the ink for a line.
        emphasised: Whether the line is drawn thicker.
    """

    name: str
    ink: str
    x: Sequence[float | None]
    y: Sequence[float | None]
    marks: bool = False
    shape: str = ""
    symbol: str = ""
    emphasised: bool = False

    @property
    def css(self) -> str:
        """The CSS classes of its path."""
        kind = "marks" if self.marks else "line"
        return " ".join(filter(None, (kind, self.ink, self.shape, "emphasised" * self.emphasised)))

    @property
    def drawn_symbol(self) -> str:
        """The symbol that tells it apart; empty where dots do."""
        return self.symbol or ("" if self.marks else ink_of(self.ink).symbol)

    def legend(self) -> tuple[str, str]:
        """Return the ``d`` of the two paths of its entry in a legend: line or dot, and symbol."""
        symbol = symbol_path(self.drawn_symbol, 13.0, 5.0, 3.4) if self.drawn_symbol else ""
        if self.marks:
            return "" if symbol else "M13 5h0", symbol
        return "M1 5H25", symbol


@final
@dataclass(frozen=True)
class Rule:
    """A horizontal line across the plot, with a label."""

    value: float
    label: str
    css: str = "rule"


@final
@dataclass(frozen=True)
class Mark:
    """A vertical line at a number of the horizontal axis, with a label."""

    value: float
    label: str


@final
@dataclass(frozen=True)
class Chart:
    """One plot; a block of a document.

    Attributes:
        key: Its id in the page.
        title: What it shows, also for readers who do not see it.
        x_title, y_title: What is measured along the axes, with units.
        x, y: The scales; their user units are those of the drawing.
        height: Height of the drawing in user units.
        series, rules, marks: What is drawn.
        live: Names and CSS classes of the series that the page fills in itself.
    """

    kind: ClassVar[str] = "chart"

    key: str
    title: str
    x_title: str
    y_title: str
    x: Scale
    y: Scale
    height: float
    series: tuple[Series, ...] = ()
    rules: tuple[Rule, ...] = ()
    marks: tuple[Mark, ...] = ()
    live: tuple[tuple[str, str], ...] = field(default=())

    @property
    def lines(self) -> tuple[Series, ...]:
        """The series that are drawn as lines."""
        return tuple(series for series in self.series if not series.marks)

    def path(self, series: Series) -> str:
        """Return the ``d`` of an SVG path: a line broken where a number is missing, or one dot per number.

        Example:
            >>> x, y = Scale(0.0, 1.0, 0.0, 10.0), Scale(0.0, 1.0, 10.0, 0.0)
            >>> chart = Chart("k", "t", "x", "y", x, y, 20.0)
            >>> chart.path(Series("a", "c0", [1.0, 10.0], [1.0, 10.0]))
            'M0 10L10 0'
        """
        if series.marks and series.drawn_symbol:
            return ""

        parts: list[str] = []
        pen = "M"
        for x, y in zip(series.x, series.y, strict=True):
            if x is None or y is None or (series.marks and not y > 0):
                pen = "M"
                continue
            parts.append(f"{pen}{self.x.place(x):g} {self.y.place(y):g}")
            if series.marks:
                parts.append("h0")
            else:
                pen = "L"
        return "".join(parts)

    def symbols(self, series: Series) -> str:
        """Return the ``d`` of the symbols of a series: on every point of single points, here and there on a line.

        Lines that lie upon each other have theirs at different places, so that both are seen.

        Example:
            >>> x, y = Scale(0.0, 1.0, 0.0, 10.0), Scale(0.0, 1.0, 10.0, 0.0)
            >>> chart = Chart("k", "t", "x", "y", x, y, 20.0)
            >>> chart.symbols(Series("a", "ink", [1.0], [10.0], marks=True, symbol="plus"))
            'M-6.6 0L6.6 0M0 -6.6L0 6.6'
        """
        places = [
            (self.x.place(x), self.y.place(y))
            for x, y in zip(series.x, series.y, strict=True)
            if x is not None and y is not None and (y > 0 or not series.marks)
        ]
        if not series.drawn_symbol or not places:
            return ""
        if series.marks:
            return "".join(symbol_path(series.drawn_symbol, x, y, _SINGLE_RADIUS) for x, y in places)
        if len(places) == 1:  # done in one step: no line to see
            return symbol_path(series.drawn_symbol, *places[0], _SINGLE_RADIUS)
        if len(self.lines) == 1:
            return ""

        spacing = (self.x.last - self.x.first) / _SYMBOLS
        offset = spacing * (self.lines.index(series) + 0.5) / len(self.lines)
        wanted = [self.x.first + offset + spacing * number for number in range(_SYMBOLS)]
        inside = [place for place in places if self._inside(*place)]
        nearest = {min(inside, key=lambda place: abs(place[0] - x)) for x in wanted if inside}
        return "".join(symbol_path(series.drawn_symbol, x, y, _RADIUS) for x, y in sorted(nearest))

    def _inside(self, x: float, y: float) -> bool:
        return self.x.first <= x <= self.x.last and self.y.last <= y <= self.y.first

    def heights(self) -> list[tuple[float, Rule]]:
        """Return the rules that fall inside the plot, and where each stands."""
        places = [(self.y.place(rule.value), rule) for rule in self.rules]
        top, bottom = min(self.y.first, self.y.last), max(self.y.first, self.y.last)
        return [(place, rule) for place, rule in places if top <= place <= bottom]


def _power_of_ten(exponent: int) -> str:
    return f"{10.0**exponent:g}" if abs(exponent) <= 3 else f"1e{exponent}"
