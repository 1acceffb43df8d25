"""How a comparison is laid out: its table, its notes, its chart."""

from __future__ import annotations

from collections.abc import Sequence

from closedform.comparison.methods import MethodResult
from closedform.report.charts import LEFT, RIGHT, Chart, Rule, Scale, Series, decades
from closedform.report.document import Column, Table
from closedform.report.palette import ink_name
from closedform.words.numbers import below, count, number

__all__ = ["methods_table", "race_chart"]

#: Bottom and top of the plot, in user units.
_PLOT = (330.0, 14.0)
#: Height of the drawing, its axis included.
_HEIGHT = 372.0
#: Symbols of the direct methods, which are points in the ink of the text: the closed form first.
_DIRECT = ("star", "cross", "plus")


def methods_table(
    methods: Sequence[MethodResult], floor: float, *, loss: str = "MSE", test_error: str = "test MAE"
) -> Table:
    """Return a row for each method, the closed form standing out.

    Args:
        methods: What each reached.
        floor: Losses below this are rounding of float64, in which they are measured.
        loss: What the loss is called.
        test_error: What is measured on test rows.
    """
    tested = any(method.test_mae is not None for method in methods)
    titles = ["method", "seconds", "steps", loss, "excess", "weights"] + [test_error] * tested
    return Table(
        columns=tuple(Column(title, numeric=title != "method") for title in titles),
        rows=tuple(_cells(method, floor, tested) for method in methods),
        remark_title="why it stopped",
        remarks=tuple(_remark(method) for method in methods),
        kinds=("emphasised", *[""] * (len(methods) - 1)),
    )


def _cells(method: MethodResult, floor: float, tested: bool) -> tuple[str, ...]:
    cells = (
        method.name,
        number(method.seconds),
        "-" if method.steps is None else count(method.steps),
        below(method.train_mse, floor),
        below(method.excess_loss, floor),
        number(method.weight_distance),
    )
    return (*cells, number(method.test_mae)) if tested else cells


def _remark(method: MethodResult) -> str:
    return f"{method.stopped_because}; {method.settings}" if method.settings else method.stopped_because


def race_chart(methods: Sequence[MethodResult], floor: float, *, loss: str = "training MSE") -> Chart:
    """Excess loss against seconds: a line per optimizer, a symbol per direct method, the optimum as the floor.

    Args:
        methods: What each reached, with its curve.
        floor: Excess losses below this are rounding.
        loss: What the loss is called.
    """
    # No time has passed at the start, which has no place on a logarithmic axis.
    trained = [
        (method.name, [point for point in method.curve if point.steps > 0]) for method in methods if method.curve
    ]
    direct = [method for method in methods if not method.curve]
    seconds = [point.seconds for _, curve in trained for point in curve] + [method.seconds for method in direct]
    losses = [point.excess_loss for _, curve in trained for point in curve]
    low, high = decades([*losses, *(max(method.excess_loss, floor) for method in direct), floor], least=3)

    return Chart(
        key="race",
        title="Excess loss, second by second",
        x_title="seconds",
        y_title=f"excess loss ({loss} above the optimal one)",
        x=Scale(*decades(seconds, least=2), LEFT, RIGHT),
        # A decade of room keeps the symbols of the direct methods off the axis.
        y=Scale(low - 1, high, *_PLOT),
        height=_HEIGHT,
        series=(
            *(
                Series(
                    name,
                    ink_name(index),
                    [point.seconds for point in curve],
                    [max(point.excess_loss, floor) for point in curve],
                )
                for index, (name, curve) in enumerate(trained)
            ),
            *(
                Series(
                    method.name,
                    "ink",
                    [method.seconds],
                    [max(method.excess_loss, floor)],
                    marks=True,
                    symbol=_DIRECT[min(index, len(_DIRECT) - 1)],
                )
                for index, method in enumerate(direct)
            ),
        ),
        rules=(Rule(floor, "the optimum, to rounding", "cut"),) if floor > 0 else (),
    )
