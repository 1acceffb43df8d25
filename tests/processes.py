"""Scripts that run in several processes at once, as torchrun starts them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

__all__ = ["in_processes"]

#: How each script ends: the threads of gloo may abort a process that leaves through its exits.
_END = "\nimport os, sys\nsys.stdout.flush()\nos._exit(0)\n"
#: Seconds after which processes that wait for each other are given up.
_PATIENCE = 300


def in_processes(script: str, size: int, folder: Path) -> list[list[Any]]:
    """Return the lines of JSON that each rank prints.

    Args:
        script: Python; its arguments are the rank, a file for the store of the group, and the folder of the tests.
        size: How many ranks.
        folder: Where the store is made.
    """
    command = [sys.executable, "-W", "ignore", "-c", script + _END]
    store, tests = str(folder / f"store{size}"), str(Path(__file__).parent)
    ranks = [
        subprocess.Popen([*command, str(rank), store, tests], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for rank in range(size)
    ]
    told = []
    for rank in ranks:
        out, err = rank.communicate(timeout=_PATIENCE)
        assert rank.returncode == 0, err
        told.append([json.loads(line) for line in out.splitlines()])
    return told
