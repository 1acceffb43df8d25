"""A child process that holds the data, runs one method when it is told to, and reports time and memory.

Each method lives in a process of its own, because the thread pools of the libraries (libgomp under torch, OpenBLAS
under NumPy and again under SciPy, XLA) spin for a while after a call and would take the cores from the next one; and
because only so its peak memory is its own. The data are one file, mapped by all: copies would not fit.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from machine import MEASURES
from numpy.typing import NDArray
from peers import MODULES, PEERS, explain
from problems import Data
from torch import Tensor

__all__ = ["EXPLAIN", "Failure", "Run", "Table", "Worker", "data_folder"]

#: The method that returns closedform's account of a solve.
EXPLAIN = "closedform explained"
_POOLS, _CPU = "thread pools", "cpu seconds"
#: A run that is shorter is repeated until it is not, and divided, as ``timeit`` does it with the same seconds: a
#: processor that has rested takes milliseconds to come to speed, which a run of twenty would count and one of two not.
_LEAST_SECONDS = 0.2
_MOST_LOOPS = 1000


def data_folder() -> str | None:
    """Return where to put the data: memory if the system has a file system for it, else the usual place."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


@final
@dataclass(frozen=True)
class Table:
    """X and Y in a file, to be mapped by many processes."""

    path: str
    rows: int
    columns: int
    targets: int
    dtype: torch.dtype

    @classmethod
    def write(cls, data: Data, folder: str) -> Table:
        """Write X and Y into a new file in ``folder``."""
        with tempfile.NamedTemporaryFile(dir=folder, suffix=".bin", delete=False) as file:
            data.X.numpy().tofile(file)
            data.Y.numpy().tofile(file)
        return cls(file.name, *data.X.shape, data.Y.shape[1], data.X.dtype)

    def open(self) -> tuple[Tensor, Tensor]:
        """Map X and Y; what a method writes into them is its own copy, so nobody else sees it."""
        numbers = np.memmap(self.path, dtype=str(self.dtype).removeprefix("torch."), mode="c")
        split = self.rows * self.columns
        X, Y = torch.from_numpy(numbers[:split]), torch.from_numpy(numbers[split:])
        return X.reshape(self.rows, self.columns), Y.reshape(self.rows, self.targets)

    def remove(self) -> None:
        """Delete the file; whoever has it mapped keeps it."""
        Path(self.path).unlink(missing_ok=True)


@final
@dataclass(frozen=True)
class Run:
    """One timed run: seconds, peak memory in bytes above what stood before (None where it is not known), the answer."""

    seconds: float
    memory: int | None
    answer: NDArray[Any]


@final
@dataclass(frozen=True)
class Failure:
    """Why there is no run."""

    reason: str


@final
class Worker:
    """A child process.

    Args:
        tables: The data by name; each run names one.
        threads: Threads of every library.
    """

    def __init__(self, tables: dict[str, Table], threads: int) -> None:
        context = multiprocessing.get_context("forkserver")
        # The fork server imports the libraries once; none has started a thread of work when the child splits off.
        context.set_forkserver_preload(list(MODULES))
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, tables, threads), daemon=True)
        self._process.start()
        theirs.close()

    def run(self, method: str, table: str, patience: float) -> Run | Failure:
        """Run one method on one table; stop it after ``patience`` seconds, which ends the process."""
        try:
            self._connection.send((method, table))
            if self._connection.poll(patience):
                return self._connection.recv()
        except (EOFError, OSError):  # OSError: closed, by the other side or after a run that was stopped
            self._process.join(5)
            code = self._process.exitcode
            return Failure(f"the process ended ({signal.Signals(-code).name if code and code < 0 else code})")
        self.close()
        return Failure(f"stopped after {patience:.0f} s")

    def pools(self) -> list[dict[str, Any]]:
        """Return the thread pools that the libraries of the child have, as threadpoolctl finds them."""
        if self._connection.closed:
            return []
        self._connection.send(_POOLS)
        return self._connection.recv()

    def cpu_seconds(self) -> float:
        """Return the processor time that all threads of the child have taken so far."""
        self._connection.send(_CPU)
        return self._connection.recv()

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.join()
        self._connection.close()


def _serve(connection: Connection, tables: dict[str, Table], threads: int) -> None:
    from threadpoolctl import threadpool_info, threadpool_limits

    warnings.simplefilter("ignore")  # what a peer warns of is seen in its errors
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - until the process ends
    torch.set_num_threads(threads)
    bound: dict[tuple[str, str], Callable[[], Any]] = {}
    binds = {peer.name: peer.bind for peer in PEERS} | MEASURES | {EXPLAIN: explain}
    while True:
        try:
            request = connection.recv()
        except EOFError:
            return
        if request in (_POOLS, _CPU):
            # Where libraries lie on this machine belongs in no record.
            pools = [pool | {"filepath": os.path.basename(pool["filepath"])} for pool in threadpool_info()]
            connection.send(pools if request == _POOLS else time.process_time())
            continue
        method, table = request
        try:
            if request not in bound:
                bound[request] = binds[method](*tables[table].open())
                threadpool_limits(threads)  # now, since the library may just have been loaded
            result: Run | Failure = _run(bound[request])
        except Exception as error:  # a peer that fails is a result
            result = Failure(f"{type(error).__name__}: {error}".strip().splitlines()[0][:160])
        connection.send(result)


def _run(fit: Callable[[], Any]) -> Run:
    before = _reset_peak()
    begun = time.perf_counter()
    answer = fit()
    seconds = time.perf_counter() - begun
    memory = None if before is None else max(0, _status("VmHWM") - before)
    if seconds < _LEAST_SECONDS:
        loops = min(_MOST_LOOPS, int(_LEAST_SECONDS / seconds) + 1)
        begun = time.perf_counter()
        for _ in range(loops):
            fit()
        seconds = (time.perf_counter() - begun) / loops
    return Run(seconds, memory, np.array(answer))


def _reset_peak() -> int | None:
    """Give free memory back, set the peak to what stands now and return that in bytes; None where Linux is not."""
    if not sys.platform.startswith("linux"):
        return None
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return _status("VmHWM")


def _status(key: str) -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    raise LookupError(f"/proc/self/status has no {key}.")
