"""Where and how a benchmark was measured, written with what it found; pages of the documentation read it back."""

from __future__ import annotations

import json
import os
import platform
import shlex
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from closedform.engine.processors import processor_name

__all__ = ["circumstances", "read", "write"]


def circumstances(threads: int) -> dict[str, Any]:
    """Return when, where and with how many threads is measured, and the command that does it."""
    script = Path(sys.argv[0]).name
    words = [word for word in sys.argv[1:] if not word.endswith(".json") and word not in ("--json", "--resume")]
    return {
        "command": shlex.join(["python", f"benchmarks/{script}", *words]),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "processor": processor_name(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "threads": threads,
    }


def read(file: str | Path) -> list[Any]:
    """Return the rows that :func:`write` wrote; none where it wrote no such file."""
    return list(json.loads(Path(file).read_text(encoding="utf-8"))["rows"]) if Path(file).exists() else []


def write(file: str | Path, rows: Any, threads: int, *, resumed: bool = False) -> None:
    """Write what was found, whole, with the circumstances.

    The command stays that of a record that was gone on with; where that was elsewhere, both processors are named.
    """
    target, told = Path(file), circumstances(threads)
    if resumed and target.exists():
        before = json.loads(target.read_text(encoding="utf-8"))
        told["command"] = before["command"]
        if told["processor"] not in before["processor"]:
            told["processor"] = f"{before['processor']}, some rows {told['processor']}"
        else:
            told["processor"] = before["processor"]
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.{os.getpid()}")
    part.write_text(json.dumps({**told, "rows": rows}, indent=1) + "\n", encoding="utf-8")
    part.replace(target)
