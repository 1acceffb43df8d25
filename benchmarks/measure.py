"""One problem, all methods in turn: warm up, predict, run alternately, judge."""

from __future__ import annotations

import json
import math
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from typing import Any, final

from bars import exponent
from judge import Judge
from machine import MEASURES, Speed, floor
from peers import PEERS, Peer, absent
from problems import Data, Problem, Sweep
from show import plural
from worker import EXPLAIN, Failure, Run, Table, Worker, data_folder

__all__ = ["Field", "Settings", "measure", "measure_sweep", "missing", "open_field"]

#: Problems with fewer flops are not worth a prediction.
_PREDICT_FROM = 2e9
#: A run that took this long is not repeated, and one that took this long needs no warming up.
_ONCE = 20.0
_LONG = 5.0
#: Shown in the plots, which hold no more lines.
_SWEPT = (
    "closedform",
    "numpy lstsq",
    "torch gels",
    "torch gelsy",
    "sklearn LinearRegression",
    "sklearn Ridge cholesky",
)
_BAR_PEERS = ("closedform", "torch gels", "torch gelsy", "torch gelsd", "sklearn LinearRegression")


@final
@dataclass(frozen=True)
class Settings:
    """How to measure.

    Attributes:
        threads: Threads of every library.
        repeats: Counted runs of each method.
        pause: Seconds of rest before each run, in which the threads of the run before fall asleep.
        one_process: Whether all methods share one process; to see what that does.
        only: The peers to measure; empty for all.
        patience: Peers that are predicted to take longer are not run (those that the bars name get five times as
            much), and none is waited for much longer.
        budget: Seconds after which a problem gets no more repetitions.
    """

    threads: int
    repeats: int
    pause: float
    one_process: bool = False
    only: tuple[str, ...] = ()
    patience: float = 60.0
    budget: float = math.inf

    @property
    def peers(self) -> list[Peer]:
        """The peers to measure that are installed."""
        return [peer for peer in PEERS if peer.installed and (not self.only or peer.name in self.only)]


@final
class Field:
    """The workers of one problem. Each method has its own, unless they are to share one."""

    def __init__(self, tables: dict[str, Table], settings: Settings, stack: ExitStack) -> None:
        self._tables, self._settings, self._stack = tables, settings, stack
        self._workers: dict[str, Worker] = {}

    def worker(self, method: str) -> Worker:
        """Return the process in which a method lives."""
        key = "all" if self._settings.one_process else method
        if key not in self._workers:
            self._workers[key] = Worker(self._tables, self._settings.threads)
            self._stack.callback(self._workers[key].close)
        return self._workers[key]

    def run(self, method: str, table: str, patience: float, pause: float | None = None) -> Run | Failure:
        """Rest, then run a method on one of the tables."""
        worker = self.worker(method)
        time.sleep(self._settings.pause if pause is None else pause)
        return worker.run(method, table, patience)

    def done(self, method: str) -> None:
        """Give the memory of a method back that will not run again."""
        if not self._settings.one_process:
            self.worker(method).close()


@contextmanager
def open_field(problems: dict[str, Problem], settings: Settings) -> Iterator[tuple[Field, Data]]:
    """Make the data, hand them to workers, and clear both away. Yields the data of the problem named ``all``."""
    with ExitStack() as stack:
        tables = {}
        kept: Data | None = None
        for name, problem in problems.items():
            data = problem.make()
            tables[name] = Table.write(data, data_folder())
            stack.callback(tables[name].remove)
            if name == "all":
                # From the file, as the workers have it, so that X stands in memory once.
                kept = Data(*tables[name].open(), data.truth)
        assert kept is not None
        yield Field(tables, settings, stack), kept


def _run_in_turn(
    methods: Sequence[str], field: Field, settings: Settings, patience: dict[str, float]
) -> dict[str, list[Run] | Failure]:
    """Run the methods in turn, so that what else the machine does hits all alike, and return their counted runs."""
    found: dict[str, list[Run] | Failure] = {method: [] for method in methods}
    begun = time.perf_counter()
    for turn in range(settings.repeats + 1):
        if turn > 1 and time.perf_counter() - begun > settings.budget:
            break
        for method, runs in found.items():
            once = _ONCE if method in (*_BAR_PEERS, *MEASURES) else _LONG
            if isinstance(runs, Failure) or any(run.seconds > once for run in runs):
                continue
            # Runs that warm up need no rest.
            pause = settings.pause if turn else 0.0
            result = field.run(method, "all", patience.get(method, 10 * settings.patience), pause)
            if isinstance(result, Failure):
                found[method] = result
                field.done(method)
            elif turn or result.seconds > _LONG:
                runs.append(result)
                if result.seconds > once:
                    field.done(method)
    return found


def measure(problem: Problem, settings: Settings) -> dict[str, Any]:
    """Return the record of one problem: every peer with its time, memory and errors, or the reason for none."""
    predicts = problem.flops > _PREDICT_FROM
    with open_field({"all": problem} | ({"part": problem.smaller()} if predicts else {}), settings) as (field, data):
        records: dict[str, dict[str, Any]] = {}
        patience: dict[str, float] = {}
        for peer in settings.peers:
            records[peer.name] = {"peer": peer.name, "version": peer.version}
            reason = _reason_not_to_run(peer, problem)
            if reason is None and predicts:
                predicted = _predict(peer, problem, field, settings.patience)
                limit = settings.patience * (5 if problem.bars[0] and peer.name in _BAR_PEERS else 1)
                if isinstance(predicted, Failure):
                    records[peer.name]["failed"] = predicted.reason
                    continue
                if predicted > limit:
                    reason = f"predicted to take {predicted:.0f} s"
                records[peer.name]["predicted_seconds"] = predicted
                patience[peer.name] = limit + 2 * predicted
            if reason is not None:
                records[peer.name]["not_run"] = reason
        methods = [name for name, record in records.items() if not {"not_run", "failed"} & record.keys()]
        found = _run_in_turn([*methods, *MEASURES], field, settings, patience)
        account = field.run(EXPLAIN, "all", 10 * settings.patience) if "closedform" in records else None
        pools = field.worker("closedform").pools() if isinstance(found.get("closedform"), list) else []
    judge = Judge(problem, data)
    for name in methods:
        records[name] |= _record(found[name], judge)
    _set_ratios(records)
    speed = Speed.of({name: _median(found[name]) for name in MEASURES})
    return {
        "problem": problem.name,
        "rows": problem.rows,
        "columns": problem.columns,
        "targets": problem.targets,
        "condition": problem.condition,
        "kind": problem.kind,
        "dtype": str(problem.dtype).removeprefix("torch."),
        "bars": problem.bars,
        "machine": asdict(speed),
        "floor": asdict(floor(problem, speed)),
        "closedform": json.loads(str(account.answer)) if isinstance(account, Run) else None,
        "thread_pools": pools,
        "results": list(records.values()),
    }


def _reason_not_to_run(peer: Peer, problem: Problem) -> str | None:
    if peer.full_rank and problem.rank < problem.columns:
        return "assumes independent columns"
    if peer.package == "dask" and problem.rows <= problem.columns:
        return "its QR takes tall matrices in blocks of rows"
    return None


def _predict(peer: Peer, problem: Problem, field: Field, patience: float) -> float | Failure:
    """Predict seconds from the faster of two runs on a quarter of the rows and columns; the first warms up."""
    part = problem.smaller()
    seconds = math.inf
    for _ in range(2):
        result = field.run(peer.name, "part", patience)
        if isinstance(result, Failure):
            return result
        seconds = min(seconds, result.seconds)
    return seconds * (problem.nbytes / part.nbytes if peer.iterative else problem.flops / part.flops)


def _record(runs: list[Run] | Failure, judge: Judge) -> dict[str, Any]:
    if isinstance(runs, Failure):
        return {"failed": runs.reason}
    verdict = judge(runs[-1].answer)
    known = [run.memory for run in runs if run.memory is not None]
    return {
        "seconds": _median(runs),
        "runs": [run.seconds for run in runs],
        "memory_bytes": max(known) if known else None,
        "backward_error": verdict.backward_error,
        "weight_error": verdict.weight_error,
        "verdict": verdict.word,
    }


def _set_ratios(records: dict[str, dict[str, Any]]) -> None:
    """Set each peer's time over closedform's."""
    ours = records.get("closedform", {}).get("seconds")
    for record in records.values():
        if ours and "seconds" in record:
            record["ratio"] = record["seconds"] / ours


def _median(runs: list[Run] | Failure) -> float:
    if isinstance(runs, Failure):
        raise RuntimeError(f"the machine could not be measured: {runs.reason}")
    return statistics.median(run.seconds for run in runs)


def measure_sweep(sweep: Sweep, settings: Settings) -> dict[str, Any]:
    """Return seconds and exponents of the usual peers along one dimension, with the machine's floor; unjudged."""
    shown = [peer.name for peer in settings.peers if peer.name in _SWEPT]
    seconds: dict[str, list[float | None]] = {name: [] for name in shown}
    floors: list[float] = []
    for problem in sweep.problems:
        # A peer that was far too slow for one size is not tried on a larger one.
        slow = {name for name, times in seconds.items() if times and not (times[-1] or math.inf) < _ONCE}
        with open_field({"all": problem}, settings) as (field, _):
            found = _run_in_turn([*(name for name in shown if name not in slow), *MEASURES], field, settings, {})
        for name in shown:
            runs = found.get(name, Failure("too slow"))
            seconds[name].append(None if isinstance(runs, Failure) else _median(runs))
        floors.append(floor(problem, Speed.of({name: _median(found[name]) for name in MEASURES})).seconds)
    first = sweep.problems[0]
    shape = {"rows": first.rows, "columns": first.columns, "targets": first.targets}
    fixed = [plural(size, name.removesuffix("s")) for name, size in shape.items() if name != sweep.along]
    known = {name: times for name, times in seconds.items() if None not in times} | {"machine's floor": floors}
    return {
        "along": sweep.along,
        "title": ", ".join(fixed),
        "sizes": sweep.sizes,
        "seconds": seconds,
        "floor": floors,
        "exponents": {name: exponent(sweep.sizes, times) for name, times in known.items()},
    }


def missing() -> list[dict[str, str]]:
    """Return the peers that are not installed, and how to install them."""
    return [{"peer": peer.name, "install": f"pip install '{peer.install}'"} for peer in absent()]
