"""Interpreters that have imported torch and nothing else: one process does it once, and each run is a fork of it."""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

#: Reads requests and forks for each; the child is at the top level of its script, so that it ends as any script ends.
_SERVER = """
import json, os, sys, warnings
import torch
for line in sys.stdin:
    request = json.loads(line)
    child = os.fork()
    if child == 0:
        break
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
else:
    os._exit(0)
for descriptor, (path, flags) in enumerate(request["files"]):
    os.dup2(os.open(path, flags), descriptor)
sys.stdin = open(0, closefd=False)
sys.argv = ["-c", *request["arguments"]]
warnings.resetwarnings()
for action in request["warnings"]:
    warnings.simplefilter(action)
exec(request["code"], {"__name__": "__main__"})
"""


@dataclass(frozen=True)
class Run:
    """How a run ended and what it wrote."""

    returncode: int
    stdout: str
    stderr: str


@cache
def _server() -> subprocess.Popen[str]:
    # Unbuffered, nothing would be left to be written when a script ends.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    command = [sys.executable, "-c", _SERVER]
    started = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
    atexit.register(lambda: started.communicate())
    return started


def run(code: str, *arguments: object, stdout: str | None = None, warnings: tuple[str, ...] = ("default",)) -> Run:
    """Run code as ``python -c`` does, in a process where only torch is imported.

    Args:
        code: The script.
        arguments: Its arguments.
        stdout: A path to write the standard output to; else it is returned.
        warnings: What is done with warnings, as ``python -W`` takes it.
    """
    server = _server()
    assert server.stdin is not None
    assert server.stdout is not None
    with tempfile.TemporaryDirectory() as folder:
        out, err = stdout or str(Path(folder, "out")), str(Path(folder, "err"))
        write = os.O_WRONLY | os.O_CREAT
        files = [(os.devnull, os.O_RDONLY), (out, write), (err, write)]
        request = {"code": code, "arguments": list(map(str, arguments)), "files": files, "warnings": warnings}
        server.stdin.write(json.dumps(request) + "\n")
        server.stdin.flush()
        status = int(server.stdout.readline())
        return Run(
            status, "" if stdout else Path(out).read_text(encoding="utf-8"), Path(err).read_text(encoding="utf-8")
        )


#: Between the imports and the code of ranks: forks them, and each writes to a file of its own.
_FORKS = """
import os, sys
size, folder, ranks = int(sys.argv[1]), sys.argv[2], []
for rank in range(size):
    child = os.fork()
    if child == 0:
        os.dup2(os.open(f"{folder}/told{rank}", os.O_WRONLY | os.O_CREAT), 1)
        break
    ranks.append(child)
else:
    for child in ranks:
        os.waitpid(child, 0)
    os._exit(0)
"""


def run_ranks(imports: str, code: str, size: int, folder: Path) -> list[str]:
    """Run code in several processes at once, without warnings, and return what each wrote.

    Args:
        imports: Run once, before the processes are forked; ``tests`` is on its path.
        code: What each of them runs; it knows its ``rank``, the ``size`` and a ``folder`` of all.
        size: How many there are.
        folder: An empty folder.
    """
    path = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
    done = run(path + imports + _FORKS + code, size, folder, warnings=("ignore",))
    told = [(folder / f"told{rank}").read_text(encoding="utf-8") for rank in range(size)]
    assert all(told), done.stderr
    return told


#: What ranks import that solve together, and have errors and tables of the tests at hand.
GROUP_IMPORTS = """
import json
from datetime import timedelta
import torch, closedform as cf
from torch import distributed
from closedform.words.errors import ClosedformError
from data import gaussian
"""
#: How each of them joins the others; who waits for one that is gone waits twenty seconds.
JOIN = """
torch.set_num_threads(1)
distributed.init_process_group(
    "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=size, timeout=timedelta(seconds=20)
)
"""
