"""Figures of a diagnosis, by matplotlib: the spectrum and the forecast curves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from closedform.words.errors import MissingExtraError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_forecast", "plot_spectrum"]

# Okabe and Ito's colours; line styles tell them apart in print as well.
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7")
_STYLES = ("-", "--", "-.", ":", (0, (5, 1)))


def _axes(ax: Axes | None) -> Axes:
    if ax is not None:
        return ax
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise MissingExtraError("matplotlib", "report", "A plot") from error
    return plt.subplots(figsize=(8, 5), layout="constrained")[1]


def plot_spectrum(d: dict[str, Any], ax: Axes | None) -> Axes:
    """Draw singular values and, on the same logarithmic axis, the target's share along each direction."""
    ax = _axes(ax)
    spectrum = d["spectrum"]
    largest = next(iter(spectrum["singular_values"]), 1.0) or 1.0
    number = range(1, len(spectrum["singular_values"]) + 1)
    relative = [max(value / largest, 1e-300) for value in spectrum["singular_values"]]
    shares = [max(share, 1e-300) for share in spectrum["target_share"]]
    ax.semilogy(number, relative, color=_COLOURS[0], label="singular value, of the largest")
    ax.semilogy(number, shares, ".", color=_COLOURS[1], label="share of |Y|² along the direction")
    ax.axhline(max(spectrum["cut"], 1e-300), color="black", linestyle=":", linewidth=1, label="taken for zero below")
    ax.set_ylim(bottom=min(1e-17, 0.1 * spectrum["cut"]) if spectrum["cut"] else 1e-17, top=3)
    ax.set_xlabel("direction")
    ax.set_title(d["problem"]["text"], fontsize="medium")
    ax.grid(visible=True, which="major", alpha=0.25)
    ax.legend(frameon=False)
    return ax


def plot_forecast(d: dict[str, Any], ax: Axes | None) -> Axes:
    """Draw the forecast excess losses against steps, on logarithmic axes."""
    ax = _axes(ax)
    floor = max(d["loss"]["rounding_floor"] or 0.0, 1e-300)
    for index, curve in enumerate(d["forecasts"]):
        points = [(t, e) for t, e in zip(curve["steps"], curve["excess"], strict=True) if t > 0 and e is not None]
        ax.loglog(
            [t for t, _ in points],
            [max(e, floor) for _, e in points],
            color=_COLOURS[index % len(_COLOURS)],
            linestyle=_STYLES[index % len(_STYLES)],
            linewidth=2.4 if curve["emphasised"] else 1.4,
            label=curve["name"],
        )
    ax.set_xlabel("steps")
    ax.set_ylabel("excess loss: MSELoss() above the smallest one")
    ax.set_title(d["verdict"]["title"], fontsize="medium", wrap=True)
    ax.grid(visible=True, which="major", alpha=0.25)
    if d["forecasts"]:
        ax.legend(frameon=False)
    return ax
