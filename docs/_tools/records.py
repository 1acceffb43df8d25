"""Tables for the pages from the records that benchmarks write with ``--json``: no measured number is typed.

A record is a file ``docs/_data/NAME.json``; each function here prints one of them, with the command that made it, or
says how to make it where this copy of the documentation holds none.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

__all__ = [
    "criteria",
    "digits",
    "fairness",
    "forecasts",
    "optimizers",
    "path",
    "scale",
    "seconds",
    "show",
    "table",
    "truth",
]

#: Records of runs on a quiet machine.
DATA = Path(__file__).parents[1] / "_data"


def table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    lines = [titles, ["---"] * len(titles), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def seconds(value: float | None) -> str:
    """Return a time to two digits; a dash where there is none."""
    if value is None:
        return "-"
    size, unit = (value, "s") if value >= 1 else (value * 1e3, "ms")
    return f"{float(f'{size:.2g}'):g} {unit}"


def show(name: str, command: str, body: Callable[[Any], str], data: Path = DATA) -> str:
    """Return what the record of that name holds, after where and how it was measured.

    Args:
        name: The file's name without ``.json``.
        command: What makes it, for whoever has none.
        body: Lays out its rows.
        data: The folder with the records.
    """
    file = data / f"{name}.json"
    if not file.exists():
        made = f"`{command} --json docs/_data/{name}.json` makes one"
        return f"This copy of the documentation holds no record of it; {made}.\n"
    record = json.loads(file.read_text(encoding="utf-8"))
    where = f"{record['processor']}, {record['cores']} cores, {record['threads']} threads"
    return f"Measured on {record['date'][:10]}, {where}, by `{record['command']}`:\n\n{body(record['rows'])}\n"


def optimizers(data: Path = DATA) -> str:
    """Seconds to a small excess loss, optimizer by condition number, for all rows at once and for batches."""

    def body(rows: list[dict[str, Any]]) -> str:
        conditions = sorted({row["condition"] for row in rows})
        parts = []
        for batch in sorted({row["batch"] for row in rows}, reverse=True):
            found = {(row["optimizer"], row["condition"]): row["seconds"] for row in rows if row["batch"] == batch}
            names = dict.fromkeys(row["optimizer"] for row in rows if row["batch"] == batch)
            heads = ["optimizer", *(f"condition {condition:.0e}" for condition in conditions)]
            lines = [[name, *(seconds(found.get((name, each))) for each in conditions)] for name in names]
            parts.append(f"Batches of {batch} rows:\n\n{table(heads, lines)}")
        return "\n\n".join(parts)

    return show("optimizers", "python benchmarks/optimizers.py", body, data)


def digits(data: Path = DATA) -> str:
    """What a proof of the digits costs beside crlin and beside a plain solve."""

    def body(rows: dict[str, list[dict[str, Any]]]) -> str:
        peers = [
            [
                f"{row['rows']} x {row['columns']}",
                seconds(row["closedform_seconds"]),
                seconds(row["crlin_seconds"]),
                f"{row['closedform_width']:.0e}",
                f"{row['crlin_width']:.0e}",
            ]
            for row in rows["crlin"]
        ]
        plain = [
            [
                f"{row['rows']} x {row['columns']}",
                f"{row['condition']:.0e}",
                seconds(row["plain_seconds"]),
                seconds(row["digits_seconds"]),
                f"{row['ratio']:.1f}",
            ]
            for row in rows["plain"]
        ]
        return (
            f"{table(('rows x columns', 'closedform', 'crlin', 'width of the enclosure', 'of crlin'), peers)}\n\n"
            f"{table(('rows x columns', 'condition', 'plain', 'digits=14', 'ratio'), plain)}"
        )

    return show("digits", "python benchmarks/digits.py", body, data)


def forecasts(data: Path = DATA) -> str:
    """Forecasts of SGD beside real runs of torch: how far the loss is off where it stands above rounding."""

    def body(rows: list[dict[str, Any]]) -> str:
        lines = [
            [
                row["method"],
                str(row["runs"]),
                f"{row['lowest_condition']:.2g} to {row['highest_condition']:.2g}",
                f"{row['median']:.0e}",
                f"{row['worst']:.0e}",
            ]
            for row in rows
        ]
        return table(("method", "runs", "condition", "median", "worst"), lines)

    return show("forecasts", "python benchmarks/forecasts.py", body, data)


def truth(data: Path = DATA) -> str:
    """Claims of ``diagnose``, held against real training."""

    def body(rows: list[dict[str, Any]]) -> str:
        words = ("true", "false", "silent")
        lines = [[row["claim"], *(str(row.get(word, 0)) for word in words)] for row in rows]
        sums = [str(sum(row.get(word, 0) for row in rows)) for word in words]
        return table(("claim", *words), [*lines, ["all", *sums]])

    return show("truth", "python benchmarks/truth.py --setups 2000 --healthy 200", body, data)


def scale(data: Path = DATA) -> str:
    """Batches, processes and Dask beside one process."""

    def body(rows: list[dict[str, Any]]) -> str:
        lines = [
            [
                row["what"],
                seconds(row["seconds"]),
                f"{row['ratio']:.2f} of {row['beside']}" if "ratio" in row else "",
                f"{row['error']:.0e}" if "error" in row else "",
                row.get("note", ""),
            ]
            for row in rows
        ]
        return table(("what", "time", "beside", "weights apart", "remark"), lines)

    return show("scale", "python benchmarks/scale.py --full", body, data)


def fairness(data: Path = DATA) -> str:
    """Processor time that a method's threads take after a call."""

    def body(rows: list[dict[str, Any]]) -> str:
        heads = ["method", *(f"in {each['within'] * 1e3:.0f} ms" for each in rows[0]["spent"])]
        return table(heads, [[row["method"], *(seconds(each["seconds"]) for each in row["spent"])] for row in rows])

    return show("fairness", "python benchmarks/fairness.py", body, data)


def path(data: Path = DATA) -> str:
    """Sweeps of ridge strengths beside their peers."""

    def body(rows: list[dict[str, Any]]) -> str:
        lines = [
            [
                row["name"],
                seconds(row["seconds"]),
                seconds(row["peer"]),
                f"{row['ratio']:.1f}",
                f"{row['bar']:.0f}",
                f"{row['memory']:.1f}",
            ]
            for row in rows
            if "peer" in row
        ]
        grown = [
            [row["name"], f"{row['sizes'][-2]} to {row['sizes'][-1]}", f"{row['exponents'][-1]:.2f}"]
            for row in rows
            if "exponents" in row
        ]
        sweeps = table(("sweep", "closedform", "peer", "ratio", "bar", "memory added, of the data"), lines)
        if not grown:
            return sweeps
        return sweeps + "\n\n" + table(("time grows with", "measured from", "exponent"), grown)

    return show("path", "python benchmarks/path.py", body, data)


def criteria(data: Path = DATA) -> str:
    """Convex criteria beside their peers: time, and how far above the minimum the peer ends."""

    def body(rows: list[dict[str, Any]]) -> str:
        lines = []
        for row in rows:
            lines.append(
                [row["problem"], "closedform", seconds(row["seconds"]), "", f"proven {row['relative_gap']:.0e}"]
            )
            for peer in row["peers"]:
                above = f"{peer['above']:.0e}"
                lines.append(["", peer["name"], seconds(peer["seconds"]), f"{peer['ratio']:.1f}", above])
        return table(("problem", "method", "time", "ratio", "above the minimum, relative"), lines)

    return show("criteria", "python benchmarks/criteria.py", body, data)
