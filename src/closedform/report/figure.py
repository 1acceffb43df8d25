"""The figure of a comparison, by matplotlib."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING

from closedform.report.comparison import Comparison
from closedform.report.sections import plural
from closedform.words.errors import MissingExtraError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_comparison", "plot_comparison"]

# Okabe and Ito's colours, told apart by colour-blind readers; line styles tell them apart in print as well.
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7", "#000000")
_STYLES = ("-", "--", "-.", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)), (0, (6, 2, 1, 2)))


def plot_comparison(comparison: Comparison, ax: Axes | None = None) -> Axes:
    """Draw excess loss against seconds on log-log axes: a line per optimizer, a star for the closed form.

    Args:
        comparison: What to draw.
        ax: Axes to draw on; by default a new figure, made by pyplot as matplotlib's users expect.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    if ax is None:
        try:
            import matplotlib.pyplot as plt
        except ImportError as error:
            raise MissingExtraError("matplotlib", "report", "A plot") from error
        ax = plt.subplots(figsize=(8, 5), layout="constrained")[1]
    _draw(comparison, ax)
    return ax


def draw_comparison(comparison: Comparison, image_format: str) -> bytes:
    """Return the figure as an image, without pyplot and without a display.

    Args:
        comparison: What to draw.
        image_format: ``png``, ``svg`` or ``pdf``.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("matplotlib", "report", "A plot") from error
    figure = Figure(figsize=(8, 5), layout="constrained")
    _draw(comparison, figure.add_subplot())
    image = BytesIO()
    figure.savefig(image, format=image_format, dpi=150)
    return image.getvalue()


def _draw(comparison: Comparison, ax: Axes) -> None:
    # Excess losses at the floor are rounding; a floor of zero (all targets zero) has no place on a log axis.
    floor = max(comparison.excess_floor, 1e-300)
    trained = [method for method in comparison.methods if method.curve]
    direct = [method for method in comparison.methods if not method.curve]
    for index, method in enumerate(trained):
        points = [point for point in method.curve if point.steps > 0 and point.excess_loss < float("inf")]
        ax.plot(
            [point.seconds for point in points],
            [max(point.excess_loss, floor) for point in points],
            color=_COLOURS[index % len(_COLOURS)],
            linestyle=_STYLES[index % len(_STYLES)],
            linewidth=1.8,
            marker="o" if len(points) == 1 else None,  # done in one step: no line to see
            label=method.name,
        )
    for index, method in enumerate(direct):
        ax.plot(
            [method.seconds],
            [max(method.excess_loss, floor)],
            linestyle="none",
            marker="*" if index == 0 else "D",
            markersize=18 if index == 0 else 7,
            markerfacecolor="#F0E442" if index == 0 else "white",
            markeredgecolor="black",
            clip_on=False,
            zorder=5,
            label=method.name,
        )
    ax.axhline(floor, color="black", linewidth=1, linestyle=":", label="the optimum, to rounding")
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlabel("seconds")
    ax.set_ylabel("excess loss: training MSE above the optimum")
    table = f"{plural(comparison.n_rows, 'row')}, {plural(comparison.n_features, 'feature')}"
    ax.set_title(f"{table}, condition {comparison.condition:.1e}", fontsize="medium")
    ax.grid(visible=True, which="major", alpha=0.25)
    ax.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
