"""HTML of a comparison: measured runs on top of their forecast, in the page that a diagnosis has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

from closedform.report.charts import LEFT, RIGHT, Chart, Rule, Scale, Series, decades
from closedform.report.comparison import Comparison
from closedform.report.diagnosis import Grid, diagnosis_page
from closedform.report.diagnosis_charts import COLOURS, MARKS, MeasuredCurve
from closedform.report.html import render
from closedform.report.sections import Column, comparison_page

__all__ = ["comparison_fragment", "comparison_html"]


@final
@dataclass(frozen=True)
class ComparisonSections:
    """What the page of a comparison shows before the diagnosis."""

    headline: str
    caption: str
    footnotes: tuple[str, ...]
    methods: Grid
    race: Chart


def comparison_html(comparison: Comparison, diagnosis: Mapping[str, Any]) -> str:
    """Return a whole page: what each method reached, and why, with the measured losses on top of the forecast.

    Args:
        comparison: What was measured.
        diagnosis: What ``Diagnosis.to_dict()`` returns for the same table; its ``forecasts`` are drawn in the colours
            of the methods of the same name.

    Raises:
        MissingExtraError: jinja2 is not installed.
    """
    measured = [
        MeasuredCurve(
            method.name, [point.steps for point in method.curve], [point.excess_loss for point in method.curve]
        )
        for method in comparison.methods
        if method.curve
    ]
    return render(
        "page.html",
        title=f"{comparison.sentence.split(':')[0]} · closedform compare",
        page=diagnosis_page(diagnosis, measured),
        comparison=_sections(comparison),
        data={"diagnosis": diagnosis, "marks": MARKS, "comparison": comparison.to_dict()},
    )


def comparison_fragment(comparison: Comparison) -> str:
    """Return the sentence, the table and the chart, without any script, for a notebook's cell.

    Raises:
        MissingExtraError: jinja2 is not installed.
    """
    return render("comparison_fragment.html", comparison=_sections(comparison))


def _sections(comparison: Comparison) -> ComparisonSections:
    page = comparison_page(comparison)
    rows = tuple((*row, remark) for row, remark in zip(page.table.rows, page.table.remarks, strict=True))
    methods = Grid(
        "",
        (*page.table.columns, Column(page.table.remark_title, numeric=False)),
        rows,
        kinds=tuple("emphasised" if i == page.table.emphasised_row else "" for i in range(len(rows))),
    )
    return ComparisonSections(page.headline, page.caption, page.footnotes, methods, _race(comparison))


def _race(comparison: Comparison) -> Chart:
    """Excess loss against seconds: a line per optimizer, a mark per direct method, the optimum as the floor."""
    floor = comparison.excess_floor
    # No time has passed at the start, which has no place on a logarithmic axis.
    trained = [
        (method.name, [point for point in method.curve if point.steps > 0])
        for method in comparison.methods
        if method.curve
    ]
    direct = [method for method in comparison.methods if not method.curve]
    seconds = [point.seconds for _, curve in trained for point in curve] + [method.seconds for method in direct]
    losses = [point.excess_loss for _, curve in trained for point in curve]
    low, high = decades([*losses, *(max(method.excess_loss, floor) for method in direct), floor], least=3)
    return Chart(
        key="race",
        title="Excess loss, second by second",
        x_title="seconds",
        y_title="excess loss (training MSE above the optimal one)",
        x=Scale(*decades(seconds, least=2), LEFT, RIGHT),
        # A decade of room keeps the marks of the direct methods off the axis.
        y=Scale(low - 1, high, 330.0, 14.0),
        height=372.0,
        series=(
            *(
                Series(
                    name,
                    f"c{index % COLOURS}" + " star" * (len(curve) == 1),
                    [point.seconds for point in curve],
                    [max(point.excess_loss, floor) for point in curve],
                    marks=len(curve) == 1,  # done in one step: no line to see
                )
                for index, (name, curve) in enumerate(trained)
            ),
            *(
                Series(
                    method.name,
                    "ink star" if index == 0 else "ink",
                    [method.seconds],
                    [max(method.excess_loss, floor)],
                    marks=True,
                )
                for index, method in enumerate(direct)
            ),
        ),
        rules=(Rule(floor, "the optimum, to rounding", "cut"),) if floor > 0 else (),
    )
