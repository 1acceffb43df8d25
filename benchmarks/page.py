"""The page of a benchmark: one HTML file that needs nothing else, in the look of closedform's reports."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from show import memory, quantity

from closedform.report.charts import LEFT, RIGHT, WIDTH, Chart, Scale, Series, decades
from closedform.report.document import Column, Table
from closedform.report.page import page_style
from closedform.report.palette import ink_name

__all__ = ["write_page"]

_TOP, _BOTTOM, _HEIGHT = 14.0, 330.0, 370.0


def write_page(path: Path, record: dict[str, Any]) -> None:
    """Write the record of a benchmark, whole or as far as it has come, as a page.

    Raises:
        ImportError: jinja2 is not installed.
    """
    from jinja2 import ChoiceLoader, Environment, FileSystemLoader, PackageLoader, StrictUndefined
    from markupsafe import Markup

    loaders = [FileSystemLoader(Path(__file__).parent), PackageLoader("closedform.report")]
    environment = Environment(
        loader=ChoiceLoader(loaders), autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined
    )
    environment.globals.update(width=WIDTH)
    page = environment.get_template("page.html").render(
        style=Markup(page_style()),
        record=record,
        headline=_headline(record["bars"]),
        bars=_bars(record["bars"]),
        charts=[_chart(sweep) for sweep in record["sweeps"]],
        exponents=_exponents(record["sweeps"]),
        problems=[_problem(result) for result in record["results"]],
        data=Markup(json.dumps(record).replace("<", "\\u003c")),
    )
    path.write_text(page, encoding="utf-8")


def _headline(bars: list[dict[str, Any]]) -> str:
    met = sum(bar["met"] is True for bar in bars)
    unknown = sum(bar["met"] is None for bar in bars)
    text = f"{met} of {len(bars)} bars are met"
    return f"{text}, {unknown} could not be measured" if unknown else text


def _bars(bars: list[dict[str, Any]]) -> Table:
    words = {True: ("met", "helps"), False: ("not met", "hurts"), None: ("unknown", "")}
    return Table(
        columns=(Column("problem", False), Column("", False), Column("bar", False), Column("needed", False),
                 Column("measured", False)),
        rows=tuple((b["problem"], words[b["met"]][0], b["bar"], b["needed"], b["measured"]) for b in bars),
        kinds=tuple(words[b["met"]][1] for b in bars),
    )  # fmt: skip


def _chart(sweep: dict[str, Any]) -> Chart:
    along, sizes = sweep["along"], [float(size) for size in sweep["sizes"]]
    times = [s for seconds in [*sweep["seconds"].values(), sweep["floor"]] for s in seconds if s is not None]
    named = [*sweep["seconds"].items(), ("machine's floor", sweep["floor"])]
    series = []
    for number, (name, seconds) in enumerate(named):
        found = sweep["exponents"].get(name)
        label = name if found is None else f"{name}, {along}^{found:.2f}"
        ink = "rest" if name == "machine's floor" else ink_name(number)
        series.append(Series(label, ink, sizes, seconds))
    return Chart(
        key=f"against-{along}",
        title=f"Time against {along}",
        x_title=f"{along} ({sweep['title']}); exponents are fitted to the larger half",
        y_title="median seconds",
        x=Scale(*decades(sizes), LEFT, RIGHT),
        y=Scale(*decades(times), _BOTTOM, _TOP),
        height=_HEIGHT,
        series=tuple(series),
    )


def _exponents(sweeps: list[dict[str, Any]]) -> Table:
    names = list(dict.fromkeys(name for sweep in sweeps for name in sweep["exponents"]))
    rows = [
        (name, *(f"{s['exponents'][name]:.2f}" if name in s["exponents"] else "-" for s in sweeps)) for name in names
    ]
    columns = (Column("", False), *(Column(f"in {sweep['along']}") for sweep in sweeps))
    return Table(columns, tuple(rows), kinds=("emphasised", *[""] * (len(rows) - 1)) if rows else ())


def _problem(result: dict[str, Any]) -> dict[str, Any]:
    """One problem: a sentence about closedform, one about the floor, and the table of the peers."""
    floor = result["floor"]
    times = {record["peer"]: record["seconds"] for record in result["results"] if "seconds" in record}
    rows, kinds = [], []
    for record in sorted(result["results"], key=lambda record: times.get(record["peer"], float("inf"))):
        if "seconds" not in record:
            rows.append((record["peer"], *["-"] * 6, record.get("failed") or record.get("not_run") or ""))
            kinds.append("")
            continue
        rows.append((
            record["peer"],
            quantity(record["seconds"]),
            f"{record['ratio']:.3g}" if "ratio" in record else "-",
            f"{record['seconds'] / floor['seconds']:.3g}",
            memory(record["memory_bytes"]),
            f"{record['backward_error']:.0e}",
            f"{record['weight_error']:.0e}",
            "" if record["verdict"] == "ok" else record["verdict"],
        ))  # fmt: skip
        kinds.append("emphasised" if record["peer"] == "closedform" else "hurts" if record["verdict"] != "ok" else "")
    titles = ("", "median", "ratio", "floors", "memory", "backward error", "weight error")
    columns = (*(Column(title, bool(title)) for title in titles), Column("remark", False))
    account = result["closedform"]
    tried = ""
    if account is not None:
        attempts = ", ".join(f"{a['method']} {quantity(a['seconds'])}" for a in account["attempts"])
        tried = f"closedform: {account['sentence']}; {attempts}."
    machine = result["machine"]
    limits = (
        f"Floor {quantity(floor['seconds'])}: {floor['factor']} takes {quantity(floor['flop_seconds'])}, one read of X "
        f"{quantity(floor['read_seconds'])}; DGEMM {machine['dgemm'] / 1e9:.0f} GF/s, "
        f"SGEMM {machine['sgemm'] / 1e9:.0f} GF/s."
    )
    grid = Table(columns, tuple(rows), kinds=tuple(kinds))
    return {"name": result["problem"], "account": tried, "limits": limits, "grid": grid}
