"""The page of a diagnosis: a function for each section, in the order of the page.

To add a section is one function and one line in ``SECTIONS``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import final

from closedform.explain.charts import (
    MARKS,
    MeasuredCurve,
    direction_chart,
    forecast_chart,
    share_chart,
    singular_value_chart,
)
from closedform.explain.finding import Finding
from closedform.explain.records import AdviceRecord, CurveRecord, DiagnosisRecord, LimitRecord
from closedform.report.document import (
    Block,
    Code,
    Column,
    Controls,
    Document,
    Download,
    Entry,
    Facts,
    Notes,
    Paragraph,
    Preset,
    Section,
    Table,
)
from closedform.words.numbers import below, count, momentum_text, number, value_text

__all__ = ["SECTIONS", "Shown", "diagnosis_page", "facts", "optimal_loss", "sections", "verdict"]

#: From this momentum on a cell shows its distance from 1.
_NEXT_TO_ONE = 0.99


@final
@dataclass(frozen=True)
class Shown:
    """What the sections are made of.

    Attributes:
        record: The diagnosis.
        measured: Curves of real runs, drawn on top of the forecast.
    """

    record: DiagnosisRecord
    measured: Sequence[MeasuredCurve] = ()

    @property
    def can_move(self) -> bool:
        """Whether there is a forecast that the reader can move."""
        simulation = self.record.simulation
        return bool(simulation.eigenvalues) and simulation.lr is not None


def diagnosis_page(record: DiagnosisRecord) -> Document:
    """Lay out a diagnosis as a page.

    Args:
        record: What was found.
    """
    return Document(
        title=f"{record.verdict.title} · closedform diagnose",
        about=record.problem.text,
        lead=(verdict(record), facts(record)),
        sections=sections(Shown(record)),
        data={"diagnosis": record.to_dict(), "marks": MARKS},
    )


def sections(shown: Shown) -> tuple[Section, ...]:
    """Return the sections that have something to say, in their order."""
    found = (make(shown) for make in SECTIONS)
    return tuple(section for section in found if section.blocks)


def verdict(record: DiagnosisRecord, key: str = "") -> Section:
    """Return the verdict, which is read first."""
    said = record.verdict
    return Section(said.title, (Paragraph(said.sentence),), key=key, tone=said.severity.value, name=said.name)


def facts(record: DiagnosisRecord) -> Section:
    """Return the five numbers under the verdict."""
    loss, rank = record.loss, record.rank
    ambiguous = " (ambiguous)" if rank.ambiguous else ""
    items = (
        ("condition", number(record.condition)),
        ("largest stable lr", number(record.learning_rate_limit)),
        ("rank", f"{count(rank.rank)} of {count(rank.columns)}{ambiguous}"),
        ("optimal loss", optimal_loss(record)),
        ("loss at the start", below(loss.at_start, loss.measured_floor)),
    )
    return Section("", (Facts(items),))


def optimal_loss(record: DiagnosisRecord) -> str:
    """Return the smallest loss in the same words wherever it stands."""
    return below(record.loss.optimal, record.loss.measured_floor)


def findings_section(shown: Shown) -> Section:
    """Return what was found; what the verdict says already is not said again."""
    record = shown.record
    return Section(
        "Findings",
        tuple(_entry(finding, repeats=finding.name == record.verdict.name) for finding in record.findings),
        key="findings",
    )


def _entry(finding: Finding, repeats: bool) -> Entry:
    return Entry(
        name=finding.name,
        tone=finding.severity.value,
        title="What the verdict rests on, and what to do" if repeats else finding.title,
        facts=tuple((name.replace("_", " "), value_text(value)) for name, value in finding.evidence.items()),
        text="" if repeats else finding.consequence,
        code=finding.remedy.rstrip(),
    )


def forecast_section(shown: Shown) -> Section:
    """Return the forecast, which the reader can move, and the tables of runs and limits."""
    record, simulation = shown.record, shown.record.simulation
    chart = forecast_chart(record, shown.measured, live=shown.can_move)
    blocks: list[Block] = [chart]
    if shown.can_move and simulation.lr is not None:
        settings = Preset(
            simulation.lr, simulation.momentum, simulation.nesterov, simulation.weight_decay, simulation.dampening
        )
        blocks += [Controls(settings, simulation.steps, chart.x.high), direction_chart(simulation)]
    if record.forecasts:
        blocks.append(_forecasts(record.forecasts, shown.can_move))
    if record.limits:
        blocks.append(_limits(record.limits, shown.can_move))
    return Section("Forecast", tuple(blocks), key="forecasts")


def _forecasts(forecasts: Sequence[CurveRecord], can_move: bool) -> Table:
    return Table(
        title="Forecasts",
        columns=(Column("run", numeric=False), Column("lr"), Column("momentum"), Column("steps to the goal")),
        rows=tuple(
            (curve.name, number(curve.lr), _momentum(curve.momentum), _steps(curve.steps_to_goal))
            for curve in forecasts
        ),
        # The text stands alone elsewhere and opens with the name, which is in the first cell here.
        remarks=tuple(curve.text.removeprefix(f"{curve.name}: ") for curve in forecasts),
        kinds=tuple("emphasised" if curve.emphasised else "" for curve in forecasts),
        presets=tuple(
            Preset(curve.lr, curve.momentum, curve.nesterov, curve.weight_decay, curve.dampening) if can_move else None
            for curve in forecasts
        ),
    )


def _limits(limits: Sequence[LimitRecord], can_move: bool) -> Table:
    return Table(
        title="The best that tuning can buy",
        columns=(Column("method", numeric=False), Column("lr"), Column("momentum"), Column("steps to the goal")),
        rows=tuple((limit.name, number(limit.lr), _momentum(limit.momentum), _steps(limit.steps)) for limit in limits),
        remarks=tuple(limit.text if limit.bound else "" for limit in limits),
        presets=tuple(
            Preset(limit.lr, limit.momentum, limit.nesterov, 0.0, 0.0)
            if can_move and limit.lr is not None and limit.momentum is not None
            else None
            for limit in limits
        ),
    )


def spectrum_section(shown: Shown) -> Section:
    """Return the singular values, and what lies along each direction."""
    spectrum = shown.record.spectrum
    return Section("Spectrum", (singular_value_chart(spectrum), share_chart(spectrum)), key="spectrum")


def advice_section(shown: Shown) -> Section:
    """Return what each piece of common advice would change."""
    advice = shown.record.folklore
    if not advice:
        return Section("Advice", ())
    table = Table(
        title="Common advice, on these data",
        columns=(Column("advice", numeric=False), Column("effect", numeric=False), Column("steps"), Column("after")),
        rows=tuple((piece.advice, piece.effect, _steps(piece.steps_before), _after(piece)) for piece in advice),
        remarks=tuple(piece.sentence for piece in advice),
        kinds=tuple(piece.effect.replace(" ", "-") for piece in advice),
    )
    return Section("Advice", (table,), key="advice")


def _after(piece: AdviceRecord) -> str:
    """Steps after the advice; where another minimiser is sought, or they are not known, there is nothing to compare."""
    if piece.steps_after is None or piece.effect == "other minimiser":
        return "-"
    return _steps(piece.steps_after)


def numbers_section(shown: Shown) -> Section:
    """Return the largest stable learning rates, the condition numbers, and what was done with the data."""
    record = shown.record
    limits = Table(
        title="Largest stable learning rate",
        columns=(Column("method", numeric=False), Column("momentum"), Column("on MSELoss()"), Column("on its sum")),
        rows=tuple(
            (limit.method, _momentum(limit.momentum), number(limit.mean), number(limit.sum))
            for limit in record.step_limits
        ),
    )
    conditions = Table(
        title="Condition number",
        columns=(Column("of the features", numeric=False), Column("condition")),
        rows=tuple((condition.name, number(condition.value)) for condition in record.conditions),
    )
    notes = (Notes(record.notes),) if record.notes else ()
    return Section("Numbers", (limits, conditions, *notes), key="numbers")


def reproduce_section(shown: Shown) -> Section:
    """Return the call, the versions, and a button that saves all numbers."""
    record = shown.record
    versions = " · ".join(f"{name} {value}" for name, value in asdict(record.environment).items() if value is not None)
    blocks = (
        Code(record.code, "code to reproduce"),
        Paragraph(versions, quiet=True),
        Download("save all numbers (JSON)"),
    )
    return Section("Reproduce", blocks, key="reproduce")


#: The sections of the page, in their order.
SECTIONS: tuple[Callable[[Shown], Section], ...] = (
    findings_section,
    forecast_section,
    spectrum_section,
    advice_section,
    numbers_section,
    reproduce_section,
)


def _momentum(value: float | None) -> str:
    """Set a momentum in a cell, so that one next to 1 can be told from 1.

    Example:
        >>> _momentum(0.9), _momentum(0.99997), _momentum(None)
        ('0.9', '1 - 3e-5', '-')
    """
    if value is None or value <= _NEXT_TO_ONE:
        return "-" if value is None else f"{value:.3g}"
    return momentum_text(value)


def _steps(value: float) -> str:
    """Set a number of steps in a cell.

    Example:
        >>> _steps(20312.0), _steps(3.2e17), _steps(math.inf)
        ('20,312', '3.2e17', 'never')
    """
    return count(value) if math.isfinite(value) else "never"
