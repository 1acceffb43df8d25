"""``closedform accuracy``: how many digits of known answers this and other solvers find, on this machine."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Annotated, final

import typer

from closedform.cli.options import JsonFile, Quiet

if TYPE_CHECKING:
    from torch import Tensor

    from closedform.cli.output import Screen
    from closedform.cli.peer_packages import Peer
    from closedform.rows.source import Source

__all__ = ["accuracy_command"]

#: What double precision holds; correct digits are not counted beyond it.
_CEILING = 16.0
#: Characters of a number and the blank before it.
_CELL = 5
_SHORT = {
    "norris": "Nor", "pontius": "Pon", "filip": "Fil", "longley": "Lon",
    **{f"wampler{i}": f"W{i}" for i in range(1, 6)}, "noint1": "NI1", "noint2": "NI2",
}  # fmt: skip


@final
@dataclass(frozen=True, eq=False)
class _Test:
    """A problem as a solver gets it, and the exact answer it is held to."""

    name: str
    title: str
    X: Tensor
    y: Tensor
    exact: list[Fraction]


def accuracy_command(
    context: typer.Context,
    data: Annotated[
        str | None,
        typer.Option("--data", metavar="DIR", help="Read NIST's sets from DIR/filip.csv ... instead of the packaged."),
    ] = None,
    json: JsonFile = None,
    quiet: Quiet = False,
) -> None:
    """Print the correct digits of every solver installed, on NIST's regression sets and a gallery of hard problems."""
    from closedform.cli.output import Screen, json_output
    from closedform.cli.peer_packages import peers
    from closedform.cli.record import json_record
    from closedform.files.hard import hard_problems
    from closedform.files.nist import nist_sets, read_nist_sets

    out = json_output(json)
    screen = Screen.of(quiet, out)
    sets = nist_sets() if data is None else read_nist_sets(data)
    rounded, decimal = [], []
    for item in sets:
        X, y = item.binary64()
        rounded.append(_test(item.name, _SHORT[item.name], X, y))
        decimal.append(_Test(item.name, _SHORT[item.name], X, y, _exact(*item.decimal())))
    gallery = [_test(p.name, chr(ord("a") + i), p.X, p.y) for i, p in enumerate(hard_problems())]
    solvers = peers()
    results = {
        "nist_binary64": _run(solvers, rounded),
        "nist_decimal": _run(solvers, decimal),
        "gallery": _run(solvers, gallery),
    }
    caption = "Nor Norris, Pon Pontius, Fil Filip, Lon Longley, W Wampler, NI NoInt"
    _print(
        screen, "NIST, against the exact answer to the design in float64", rounded, results["nist_binary64"], caption
    )
    _print(screen, "NIST, against the exact answer to the decimal numbers", decimal, results["nist_decimal"], caption)
    caption = ", ".join(f"{t.title} {t.name}" for t in gallery)
    _print(screen, "Gallery, against the exact answer", gallery, results["gallery"], caption)
    screen.say(
        "Correct digits of the worst weight: -log10 of its relative error, 0 to 16; - where the solver gave no answer. "
        "The decimal numbers are rounded when the design is formed: what the exact answer to the design (digits=15) "
        "loses there is lost to every solver, and more than it is luck."
    )
    if out is not None:
        screen.write(out, json_record(context, results, data=_tables([*rounded, *gallery])))


def _tables(tests: Sequence[_Test]) -> list[Source]:
    from closedform.rows.tensors import TensorSource

    return [TensorSource(table, test.name) for test in tests for table in (test.X, test.y)]


def _test(name: str, title: str, X: Tensor, y: Tensor) -> _Test:
    rows = [[Fraction(value) for value in row] for row in X.tolist()]
    return _Test(name, title, X, y, _exact(rows, [Fraction(value) for value in y.tolist()]))


def _exact(X: list[list[Fraction]], y: list[Fraction]) -> list[Fraction]:
    from closedform.numerics.rational import exact_least_squares

    return exact_least_squares(X, y)


def _run(solvers: dict[str, Peer], tests: Sequence[_Test]) -> dict[str, dict[str, float | None]]:
    """Return correct digits by solver and problem; None where the solver refused."""
    return {name: {test.name: _digits(solver, test) for test in tests} for name, solver in solvers.items()}


def _digits(solver: Peer, test: _Test) -> float | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what a solver says of singular matrices is what the table shows
            weights = solver(test.X.numpy().copy(), test.y.numpy().copy())
    except (ArithmeticError, ValueError, RuntimeError):
        # Singular matrices and refusals: numpy and torch raise subclasses of these, crlin a RuntimeError.
        return None
    worst = 0.0
    if not all(math.isfinite(weight) for weight in weights):
        return None
    for weight, exact in zip(weights, test.exact, strict=True):
        worst = max(worst, float(min(abs(Fraction(weight) - exact) / abs(exact), Fraction(1))))
    return max(0.0, min(_CEILING, -math.log10(worst))) if worst else _CEILING


def _print(
    screen: Screen, title: str, tests: Sequence[_Test], results: dict[str, dict[str, float | None]], caption: str
) -> None:
    """Print a table; on a narrow screen in parts, one below the other, with no name or number cut."""
    from rich.console import Console

    names = max(map(len, results))
    room = max(1, (Console().width - names) // _CELL)
    screen.say(title)
    for start in range(0, len(tests), room):
        part = tests[start : start + room]
        screen.line(" " * names + "".join(f"{test.title:>{_CELL}}" for test in part))
        for name, row in results.items():
            cells = ("-" if (value := row[test.name]) is None else f"{value:.1f}" for test in part)
            screen.line(f"{name:<{names}}" + "".join(f"{cell:>{_CELL}}" for cell in cells))
    screen.say(caption)
    screen.line()
