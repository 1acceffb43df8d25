"""Tables of the benchmark for its page, from the record that ``make bench`` writes: no number is typed."""

from __future__ import annotations

import io
import json
import runpy
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from records import DATA, seconds, table

__all__ = ["RECORD", "example", "tables"]

#: A copy of ``out/bench.json`` of a run on a quiet machine.
RECORD = DATA / "bench.json"
_MISSING = (
    "This copy of the documentation holds no record; `make bench` makes one, `cp out/bench.json docs/_data/` keeps it."
)


def example(problem: str, file: Path = RECORD) -> str:
    """Return what the benchmark printed of one problem of the record, as a block of Markdown."""
    if not file.exists():
        return _MISSING
    results = json.loads(file.read_text(encoding="utf-8"))["results"]
    result = next(each for each in results if each["problem"] == problem)
    printed = io.StringIO()
    with redirect_stdout(printed):
        runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "show.py"))["show"](result)
    return f"```text\n{printed.getvalue().strip()}\n```\n"


def tables(file: Path = RECORD) -> str:
    """Return what the record says, as Markdown; one sentence where there is no record."""
    if not file.exists():
        return _MISSING
    record = json.loads(file.read_text(encoding="utf-8"))
    met = sum(bar["met"] is True for bar in record["bars"])
    parts = [
        f"Measured on {record['date'][:10]}, {record['processor']}, {record['threads']} threads: {met} of "
        f"{len(record['bars'])} bars are met.",
        table(
            ("rows x columns, targets", "closedform", "floors", "fastest peer that is right", "its time", "ratio"),
            [_row(result) for result in record["results"]],
        ),
        table(
            ("bar", "problem", "needed", "measured", "met"),
            [(b["bar"], b["problem"], b["needed"], b["measured"], _YES[b["met"]]) for b in record["bars"]],
        ),
    ]
    if record["sweeps"]:
        names = list(dict.fromkeys(name for sweep in record["sweeps"] for name in sweep["exponents"]))
        heads = [f"exponent in {sweep['along']}" for sweep in record["sweeps"]]
        found = [[sweep["exponents"].get(name) for sweep in record["sweeps"]] for name in names]
        rows = [
            (name, *("-" if value is None else f"{value:.2f}" for value in values))
            for name, values in zip(names, found, strict=True)
        ]
        parts.append(table(("method", *heads), rows))
    return "\n\n".join(parts) + "\n"


_YES = {True: "yes", False: "no", None: "not measured"}


def _row(result: dict[str, Any]) -> tuple[str, ...]:
    """One problem: the time, and the fastest of the peers whose answer is right."""
    ours = next((each for each in result["results"] if each["peer"] == "closedform" and "seconds" in each), None)
    right = [
        each
        for each in result["results"]
        if each["peer"] != "closedform" and "seconds" in each and each["verdict"] == "ok"
    ]
    # The names of problems in float32 say so.
    name, dtype = result["problem"], result["dtype"]
    name = name if name.endswith(dtype) else f"{name}, {dtype}"
    if ours is None:
        return (name, *["-"] * 5)
    floors = f"{ours['seconds'] / result['floor']['seconds']:.2g}"
    if not right:
        return (name, seconds(ours["seconds"]), floors, "none", "-", "-")
    peer = min(right, key=lambda each: each["seconds"])
    ratio = f"{peer['seconds'] / ours['seconds']:.2g}"
    return (name, seconds(ours["seconds"]), floors, peer["peer"], seconds(peer["seconds"]), ratio)
