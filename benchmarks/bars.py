"""The bars: what was to be reached, what was measured, and whether that is enough; and the fitted exponents."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

__all__ = ["bars", "exponent"]

_FLOOR_BAR = 1.5
_FLOOR_COLUMNS = 1000
_SMALL_SECONDS = 1e-3
#: What a fitted exponent may exceed its bar by; medians of noisy seconds fit no better.
_FIT = 0.1
_EXPONENTS = {"rows": 1.0, "columns": 2.0, "targets": 1.0}


def exponent(sizes: Sequence[float], seconds: Sequence[float]) -> float:
    """Return a where seconds grow as sizes to the a: a line through the larger half in logarithms, by least squares.

    At small sizes fixed costs hide the growth, so they are left out; at least three points are taken.

    Raises:
        ValueError: fewer than three points.
    """
    if len(sizes) < 3:
        raise ValueError(f"an exponent takes at least three sizes; got {len(sizes)}.")
    taken = max(3, (len(sizes) + 1) // 2)
    x = [math.log(value) for value in sizes[-taken:]]
    y = [math.log(value) for value in seconds[-taken:]]
    x_mean, y_mean = sum(x) / taken, sum(y) / taken
    covariance = sum((a - x_mean) * (b - y_mean) for a, b in zip(x, y, strict=True))
    return covariance / sum((a - x_mean) ** 2 for a in x)


def bars(results: Sequence[dict[str, Any]], sweeps: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return every bar that a benchmark is held to.

    Each is ``{"problem", "bar", "needed", "measured", "met"}``; ``met`` is None where it could not be measured.
    """
    found = [bar for result in results for bar in _problem_bars(result)]
    return [*([_right(results)] if results else []), *found, *_sweep_bars(sweeps)]


def _problem_bars(result: dict[str, Any]) -> list[dict[str, Any]]:
    peers = {record["peer"]: record for record in result["results"]}
    ours = peers.get("closedform", {})
    found = []
    if result["bars"][0]:
        found.append(_ratio(result, "scikit-learn LinearRegression", ["sklearn LinearRegression"], peers, 0))
        drivers = [name for name in peers if name.startswith("torch gels")]
        found.append(_ratio(result, "torch's best driver", drivers, peers, 1))
    if "seconds" not in ours:
        return found
    if result["kind"] == "tall" and result["rows"] * result["columns"] > 1e6:
        cholesky = peers.get("sklearn Ridge cholesky", {})
        measured = f"{cholesky['ratio']:.2f}x" if "ratio" in cholesky else _reason(cholesky)
        met = cholesky["ratio"] > 1 if "ratio" in cholesky else None
        found.append(_bar(result, "ahead of Ridge(cholesky)", "over 1x", measured, met))
        if result["columns"] <= _FLOOR_COLUMNS:
            times = ours["seconds"] / result["floor"]["seconds"]
            needed = f"at most {_FLOOR_BAR}x"
            found.append(_bar(result, "time over the machine's floor", needed, f"{times:.2f}x", times <= _FLOOR_BAR))
    if (result["rows"], result["columns"]) == (50, 5):
        seconds = ours["seconds"]
        met = seconds < _SMALL_SECONDS
        found.append(_bar(result, "fixed cost", "under 1 ms", f"{1e3 * seconds:.2f} ms", met))
    return found


def _sweep_bars(sweeps: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    found = []
    for sweep in sweeps:
        most = _EXPONENTS[sweep["along"]]
        power = sweep["exponents"].get("closedform")
        found.append({
            "problem": sweep["title"],
            "bar": f"exponent in {sweep['along']}",
            "needed": f"at most {most:g}",
            "measured": "not measured" if power is None else f"{power:.2f}",
            "met": None if power is None else power <= most + _FIT,
        })  # fmt: skip
    return found


def _bar(result: dict[str, Any], bar: str, needed: str, measured: str, met: bool | None) -> dict[str, Any]:
    return {"problem": result["problem"], "bar": bar, "needed": needed, "measured": measured, "met": met}


def _right(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The one bar that all problems share: the answer is certified, and it is the right one."""
    bad = []
    for result in results:
        ours = next((record for record in result["results"] if record["peer"] == "closedform"), {})
        accepted = bool(result["closedform"] and result["closedform"]["certificate"]["accepted"])
        if not accepted or ours.get("verdict") != "ok":
            word = ours.get("verdict") or _reason(ours)
            bad.append(f"{result['problem']}: {'certified' if accepted else 'not certified'}, {word}")
    return {
        "problem": "all",
        "bar": "certified, and right by the exact answer",
        "needed": f"all {len(results)}",
        "measured": "; ".join(bad) or f"all {len(results)}",
        "met": not bad,
    }


def _ratio(
    result: dict[str, Any], title: str, names: Sequence[str], peers: dict[str, dict[str, Any]], which: int
) -> dict[str, Any]:
    """The ratio to the fastest of some peers. Where one of them is right, only those that are right count."""
    needed = result["bars"][which]
    timed = [peers[name] for name in names if "ratio" in peers.get(name, {})]
    right = [record for record in timed if record["verdict"] == "ok"]
    if not timed:
        reasons = {_reason(peers.get(name, {})) for name in names} or {"not measured"}
        return _bar(result, title, f"{needed:.1f}x", "; ".join(sorted(reasons)), None)
    best = min(right or timed, key=lambda record: record["ratio"])
    # Behind a peer, one decimal would hide how far.
    measured = f"{best['ratio']:{'.1f' if best['ratio'] >= 1 else '.2g'}}x"
    if len(names) > 1:
        measured += f" ({best['peer']})"
    if not right:
        measured += f" ({best['verdict']})"
    return _bar(result, title, f"{needed:.1f}x", measured, best["ratio"] >= needed)


def _reason(record: dict[str, Any]) -> str:
    return str(record.get("failed") or record.get("not_run") or "not measured")
