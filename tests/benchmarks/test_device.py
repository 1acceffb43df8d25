"""The script that a machine with another device is asked to run: each row is certified, judged and timed."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import device  # noqa: E402


def run(monkeypatch: pytest.MonkeyPatch, *options: object) -> int:
    monkeypatch.setattr(sys, "argv", ["device.py", *map(str, options)])
    return device.main()


def test_every_row_is_certified_right_and_beside_lstsq(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(device, "STEP", (32, 6, 2))
    file = tmp_path / "device.json"
    assert run(monkeypatch, "--smaller", 50, "--repeats", 1, "--json", file) == 0
    record = json.loads(file.read_text(encoding="utf-8"))
    *solved, step = record["rows"]
    assert len(solved) == len(device.PROBLEMS)
    for row in solved:
        assert row["certified"]
        assert row["verdict"] == "ok"
        assert row["ratio"] == pytest.approx(row["lstsq"] / row["seconds"])
    assert step["certified"]
    assert step["sgd"] > 0
    printed = capsys.readouterr().out
    assert printed.count("certified") == len(record["rows"])
    assert "x lstsq" in printed


def test_a_wrong_answer_is_shown_and_is_the_status(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    row = {"problem": "a", "certified": True, "verdict": "wrong", "error": 1.0, "seconds": 1.0, "ratio": 2.0}
    monkeypatch.setattr(device, "solve_row", lambda *_: row)
    monkeypatch.setattr(device, "step_row", lambda *_: row)
    assert run(monkeypatch) == 1
    assert "certified, WRONG" in capsys.readouterr().out


def test_what_is_not_begun_in_time_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, "--budget", -1) == 0
    assert "not begun within -1 s: 100000x200, 1; " in capsys.readouterr().out
