"""From the data of a diagnosis to the sections of its page, still without any format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

from closedform.report.charts import Chart
from closedform.report.diagnosis_charts import (
    MeasuredCurve,
    direction_chart,
    forecast_chart,
    share_chart,
    singular_value_chart,
)
from closedform.report.sections import Column, count, number

__all__ = ["DiagnosisPage", "FindingSection", "Grid", "Preset", "diagnosis_page"]


@final
@dataclass(frozen=True)
class FindingSection:
    """A finding in words: its severity, what was measured, what follows, what to do."""

    name: str
    severity: str
    title: str
    evidence: tuple[tuple[str, str], ...]
    consequence: str
    remedy: str


@final
@dataclass(frozen=True)
class Preset:
    """Settings that a reader can put into the forecast, on ``MSELoss()``."""

    lr: float
    momentum: float
    nesterov: bool
    weight_decay: float
    dampening: float


@final
@dataclass(frozen=True)
class Grid:
    """A table of words. ``presets`` has one entry per row, or is empty; ``kinds`` likewise, the kind of each row."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    presets: tuple[Preset | None, ...] = ()
    kinds: tuple[str, ...] = ()


@final
@dataclass(frozen=True)
class DiagnosisPage:
    """Everything that the page of a diagnosis shows, in its order."""

    name: str
    severity: str
    title: str
    sentence: str
    problem: str
    facts: tuple[tuple[str, str], ...]
    findings: tuple[FindingSection, ...]
    spectrum: tuple[Chart, ...]
    conditions: Grid
    forecast: tuple[Chart, ...]
    simulation: Mapping[str, Any] | None
    forecasts: Grid
    limits: Grid
    folklore: Grid
    step_limits: Grid
    notes: tuple[str, ...]
    environment: tuple[tuple[str, str], ...]
    code: str


def diagnosis_page(d: Mapping[str, Any], measured: Sequence[MeasuredCurve] = (), *, live: bool = True) -> DiagnosisPage:
    """Lay out a diagnosis.

    Args:
        d: What ``Diagnosis.to_dict()`` returns.
        measured: Curves of real runs, drawn on top of the forecast.
        live: Whether a script will let the reader move the forecast.
    """
    verdict, simulation = d["verdict"], d["simulation"]
    can_move = live and bool(simulation["eigenvalues"]) and simulation["lr"] is not None
    return DiagnosisPage(
        name=verdict["name"],
        severity=verdict["severity"],
        title=verdict["title"],
        sentence=verdict["sentence"],
        problem=d["problem"]["text"],
        facts=_facts(d),
        findings=tuple(_finding(finding) for finding in d["findings"]),
        spectrum=(singular_value_chart(d["spectrum"]), share_chart(d["spectrum"])),
        conditions=Grid(
            "Condition number",
            (Column("of the features", numeric=False), Column("condition")),
            tuple((row["name"], number(row["value"])) for row in d["conditions"]),
        ),
        forecast=(forecast_chart(d, measured, live=can_move), *((direction_chart(simulation),) if can_move else ())),
        simulation=simulation if can_move else None,
        forecasts=_forecasts(d["forecasts"], can_move),
        limits=_limits(d["limits"], can_move),
        folklore=_folklore(d["folklore"]),
        step_limits=_step_limits(d["step_limits"]),
        notes=tuple(d["notes"]),
        environment=tuple((name, str(value)) for name, value in d["environment"].items() if value is not None),
        code=d["code"],
    )


def _facts(d: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    loss, rank = d["loss"], d["rank"]
    facts = [
        ("condition", number(d["condition"])),
        ("largest stable lr", number(d["learning_rate_limit"])),
        ("rank", f"{count(rank['rank'])} of {count(rank['columns'])}" + (" (ambiguous)" if rank["ambiguous"] else "")),
        ("optimal loss", number(loss["optimal"])),
        ("loss at the start", number(loss["at_start"])),
    ]
    return tuple(facts)


def _finding(finding: Mapping[str, Any]) -> FindingSection:
    return FindingSection(
        name=finding["name"],
        severity=finding["severity"],
        title=finding["title"],
        evidence=tuple((name.replace("_", " "), words(value)) for name, value in finding["evidence"].items()),
        consequence=finding["consequence"],
        remedy=finding["remedy"].rstrip(),
    )


def _forecasts(forecasts: Sequence[Mapping[str, Any]], can_move: bool) -> Grid:
    return Grid(
        "Forecasts",
        (Column("run", numeric=False), Column("lr"), Column("momentum"), Column("steps to the goal"), _REMARK),
        tuple(
            (
                row["name"],
                number(row["lr"]),
                momentum(row["momentum"]),
                steps(row["steps_to_goal"]),
                # The text stands alone elsewhere and opens with the name, which is in the first cell here.
                row["text"].removeprefix(f"{row['name']}: "),
            )
            for row in forecasts
        ),
        tuple(_preset(row, bool(row["nesterov"])) if can_move else None for row in forecasts),
        tuple("emphasised" if row["emphasised"] else "" for row in forecasts),
    )


def _limits(limits: Sequence[Mapping[str, Any]], can_move: bool) -> Grid:
    return Grid(
        "The best that tuning can buy",
        (Column("method", numeric=False), Column("lr"), Column("momentum"), Column("steps to the goal"), _REMARK),
        tuple(
            (
                row["name"],
                number(row["lr"]),
                momentum(row["momentum"]),
                steps(row["steps"]),
                row["text"] if row["bound"] else "",
            )
            for row in limits
        ),
        tuple(_preset(row, row["name"] == "nesterov") if can_move else None for row in limits),
    )


def _folklore(folklore: Sequence[Mapping[str, Any]]) -> Grid:
    return Grid(
        "Common advice, on these data",
        (Column("advice", numeric=False), Column("effect", numeric=False), Column("steps"), Column("after"), _REMARK),
        tuple(
            (row["advice"], row["effect"], steps(row["steps_before"]), _after(row), row["sentence"]) for row in folklore
        ),
        kinds=tuple(row["effect"].replace(" ", "-") for row in folklore),
    )


def _after(row: Mapping[str, Any]) -> str:
    """Steps after the advice; where another minimiser is sought, or they are not known, there is nothing to compare."""
    return steps(row["steps_after"]) if row["comparable"] and row["effect"] != "other minimiser" else "-"


def _step_limits(limits: Sequence[Mapping[str, Any]]) -> Grid:
    return Grid(
        "Largest stable learning rate",
        (Column("method", numeric=False), Column("momentum"), Column("on MSELoss()"), Column("on its sum")),
        tuple((row["method"], momentum(row["momentum"]), number(row["mean"]), number(row["sum"])) for row in limits),
    )


def _preset(row: Mapping[str, Any], nesterov: bool) -> Preset | None:
    if row["lr"] is None or row["momentum"] is None:
        return None
    return Preset(row["lr"], row["momentum"], nesterov, row.get("weight_decay", 0.0), row.get("dampening", 0.0))


def momentum(value: float | None) -> str:
    """Set a momentum so that one next to 1 can be told from 1.

    Example:
        >>> momentum(0.9), momentum(0.99997), momentum(None)
        ('0.9', '1 - 3.0e-5', '-')
    """
    if value is None or value <= 0.99:
        return "-" if value is None else f"{value:.3g}"
    return f"1 - {number(1 - value)}"


def steps(value: float | None) -> str:
    """Set a number of steps, None where it never gets there.

    Example:
        >>> steps(20312.0), steps(3.2e17), steps(None)
        ('20,312', '3.2e17', 'never')
    """
    return "never" if value is None else words(value)


def words(value: Any) -> str:
    """Set any value of a dict in few characters.

    Example:
        >>> words(20312), words(6.7e8), words(None), words([1, "a"]), words(True), words(80.0)
        ('20,312', '6.7e8', '-', '1, a', 'yes', '80')
    """
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer() and abs(value) < 1e15):
        return count(int(value))
    if isinstance(value, list | tuple):
        return ", ".join(words(item) for item in value)
    return number(value)


_REMARK = Column("", numeric=False)
