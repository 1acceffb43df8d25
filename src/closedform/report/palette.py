"""The one set of inks: colours that colour-blind readers tell apart, and dashes and symbols that paper does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

__all__ = ["INKS", "Ink", "ink_name", "ink_of", "stylesheet", "symbol_path"]


@final
@dataclass(frozen=True)
class Ink:
    """How one series is drawn.

    Attributes:
        light: Colour on a light page.
        dark: Colour on a dark one.
        dashes: Lengths of strokes and gaps of a line, in user units; empty for an unbroken one.
        symbol: What stands on the line here and there, so that two lines are told apart without their colours.
    """

    light: str
    dark: str
    dashes: tuple[int, ...]
    symbol: str


#: Okabe and Ito's colours (2008), shifted in lightness where they had too little contrast with the page.
INKS = {
    "c0": Ink("#0072b2", "#56a9e0", (), "circle"),
    "c1": Ink("#d08700", "#f0b03f", (9, 4), "square"),
    "c2": Ink("#00875f", "#2fbf90", (3, 3), "triangle"),
    "c3": Ink("#b5559a", "#dd8fc0", (10, 3, 2, 3), "diamond"),
    "c4": Ink("#7a5c2e", "#c9a66b", (14, 5), "down"),
    "c5": Ink("#4a4f9e", "#9aa0f0", (6, 3, 2, 3, 2, 3), "plus"),
    "c6": Ink("#555b63", "#b4bac4", (2, 5), "cross"),
    "rest": Ink("#555b63", "#b4bac4", (), ""),
    "ink": Ink("#1d1f23", "#e6e6e1", (), "star"),
}

#: How many series have a colour of their own; the next one starts again.
_LINES = 7

#: Corners of each symbol, for a radius of 1 and with y downwards; those of two strokes are open.
_CORNERS: dict[str, tuple[tuple[float, float], ...]] = {
    "square": ((-0.85, -0.85), (0.85, -0.85), (0.85, 0.85), (-0.85, 0.85)),
    "triangle": ((0, -1.1), (1, 0.8), (-1, 0.8)),
    "down": ((0, 1.1), (-1, -0.8), (1, -0.8)),
    "diamond": ((0, -1.2), (1.2, 0), (0, 1.2), (-1.2, 0)),
    "star": (
        (0, -2), (0.47, -0.65), (1.9, -0.62), (0.76, 0.25), (1.18, 1.62),
        (0, 0.8), (-1.18, 1.62), (-0.76, 0.25), (-1.9, -0.62), (-0.47, -0.65),
    ),
}  # fmt: skip
_STROKES: dict[str, tuple[tuple[float, float, float, float], ...]] = {
    "plus": ((-1.2, 0, 1.2, 0), (0, -1.2, 0, 1.2)),
    "cross": ((-0.9, -0.9, 0.9, 0.9), (-0.9, 0.9, 0.9, -0.9)),
}


def ink_name(index: int) -> str:
    """Return the name of the ink of the series with this number.

    Example:
        >>> ink_name(0), ink_name(8)
        ('c0', 'c1')
    """
    return f"c{index % _LINES}"


def ink_of(name: str) -> Ink:
    """Return an ink by the name that a series has it under."""
    return INKS[name]


def symbol_path(symbol: str, x: float, y: float, radius: float) -> str:
    """Return the ``d`` of an SVG path that draws a symbol around a point.

    Example:
        >>> symbol_path("plus", 10.0, 20.0, 5.0)
        'M4 20L16 20M10 14L10 26'
    """
    if symbol == "circle":
        half = f"a{radius:g} {radius:g} 0 1 0"
        return f"M{x - radius:g} {y:g}{half} {2 * radius:g} 0{half} {-2 * radius:g} 0Z"
    if symbol in _STROKES:
        return "".join(
            f"M{x + a * radius:g} {y + b * radius:g}L{x + c * radius:g} {y + d * radius:g}"
            for a, b, c, d in _STROKES[symbol]
        )
    corners = "L".join(f"{round(x + a * radius, 2):g} {round(y + b * radius, 2):g}" for a, b in _CORNERS[symbol])
    return f"M{corners}Z"


def stylesheet() -> str:
    """Return the inks as CSS: a colour for each class in ``--tint``, and the dashes of its lines."""
    rules = [f".{name} {{ --tint: light-dark({ink.light}, {ink.dark}); }}" for name, ink in INKS.items()]
    rules += [
        f".line.{name} {{ stroke-dasharray: {' '.join(map(str, ink.dashes))}; }}"
        for name, ink in INKS.items()
        if ink.dashes
    ]
    return "\n".join(rules)
