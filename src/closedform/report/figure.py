"""Charts by matplotlib, in the inks of the page."""

from __future__ import annotations

import math
from io import BytesIO
from typing import TYPE_CHECKING, Any

from closedform.report.charts import Chart, Scale, Series
from closedform.report.palette import ink_of
from closedform.words.errors import MissingExtraError
from closedform.words.text import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw", "draw_image"]

#: Width and height of a figure, in inches.
_SIZE = (8.0, 5.0)
#: Dots of an inch of a figure that is made of dots.
_DOTS = 150
#: Width of a line, in points.
_LINE = 1.6
#: Width of the line that stands out, in points.
_STRONG_LINE = 2.6
#: Size of a symbol along a line, in points.
_SYMBOL = 5.0
#: Size of a symbol that stands alone, in points.
_ALONE = 8.0
#: The symbols of the palette in matplotlib's words.
_MARKERS = {
    "circle": "o", "square": "s", "triangle": "^", "down": "v",
    "diamond": "D", "plus": "P", "cross": "X", "star": "*",
}  # fmt: skip


def draw(chart: Chart, ax: Axes | None = None) -> Axes:
    """Draw a chart on axes, and return them.

    Args:
        chart: What to draw; what only the script of a page would fill in is left out.
        ax: Axes to draw on; by default a new figure, made by pyplot as matplotlib's users expect.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    if ax is None:
        try:
            import matplotlib.pyplot as plt
        except ImportError as error:
            raise MissingExtraError("matplotlib", "report", "A plot") from error
        ax = plt.subplots(figsize=_SIZE, layout="constrained")[1]

    for index, series in enumerate(chart.series):
        _series(series, ax, offset=index / (len(chart.series) + 1))
    for rule in chart.rules:
        ax.axhline(rule.value, color="black", linewidth=1, linestyle=":", label=rule.label)
    for mark in chart.marks:
        ax.axvline(mark.value, color="grey", linewidth=1, linestyle=":", label=mark.label)

    ax.set_xscale("log" if chart.x.logarithmic else "linear")
    ax.set_yscale("log" if chart.y.logarithmic else "linear")
    ax.set_xlim(*_ends(chart.x))
    ax.set_ylim(*_ends(chart.y))
    ax.set_xlabel(chart.x_title)
    ax.set_ylabel(chart.y_title)
    ax.set_title(printable(chart.title), fontsize="medium", wrap=True)
    ax.grid(visible=True, which="major", alpha=0.25)
    if chart.series:
        ax.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), frameon=False)
    return ax


def draw_image(chart: Chart, image_format: str) -> bytes:
    """Return a chart as an image, without pyplot and without a display.

    Args:
        chart: What to draw.
        image_format: ``png``, ``svg`` or ``pdf``.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("matplotlib", "report", "A plot") from error
    figure = Figure(figsize=(_SIZE[0] + 2.0, _SIZE[1]), layout="constrained")
    draw(chart, figure.add_subplot())
    image = BytesIO()
    figure.savefig(image, format=image_format, dpi=_DOTS)
    return image.getvalue()


def _series(series: Series, ax: Axes, offset: float) -> None:
    places = zip(series.x, series.y, strict=True)
    points = [(x, y) for x, y in places if x is not None and y is not None and 0 < y < math.inf]
    ink = ink_of(series.ink)
    style: dict[str, Any] = {"color": ink.light, "label": printable(series.name), "zorder": 3}
    if series.marks and series.drawn_symbol:
        style |= {"linestyle": "none", "marker": _MARKERS[series.drawn_symbol], "markersize": _ALONE * 1.4}
        style |= {"clip_on": False, "zorder": 5}
    elif series.marks:
        style |= {"linestyle": "none", "marker": ".", "alpha": 0.45 if series.shape == "halo" else 1.0}
    else:
        width = _STRONG_LINE if series.emphasised else _LINE
        dashes = (0, tuple(length / 2 for length in ink.dashes)) if ink.dashes else "-"
        style |= {"linewidth": width, "linestyle": dashes, "marker": _MARKERS.get(ink.symbol), "markersize": _SYMBOL}
        # Lines that lie upon each other have their symbols at different places.
        style |= {"markevery": (offset / 6, 1 / 6), "markerfacecolor": "white"} if len(points) > 1 else {}
    ax.plot([x for x, _ in points], [y for _, y in points], **style)


def _ends(scale: Scale) -> tuple[float, float]:
    if not scale.logarithmic:
        return scale.low, scale.high
    return 10.0 ** max(scale.low, -300.0), 10.0 ** min(scale.high, 300.0)
