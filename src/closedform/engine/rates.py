"""How fast this machine is: what the plan predicts costs by. Measured once, kept in the user's cache, overridable."""

from __future__ import annotations

import contextlib
import functools
import json
import math
import os
import platform
import stat
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, final

import torch

from closedform.engine import compiled
from closedform.engine.choice import engine_for
from closedform.engine.threads import team
from closedform.numerics.lu import LU
from closedform.words.errors import InputError

__all__ = ["DEFAULT", "Rates", "cache_file", "known_rates", "measure", "measured_rates"]

#: Names a file with rates to use instead of measured ones.
VARIABLE = "CLOSEDFORM_RATES"
#: The rates that are kept are the best of so many measurements, each in a process of its own.
_MEASUREMENTS = 3
#: Bytes of the largest file that is read as rates: ten times what one takes.
_LARGEST = 2**14
#: What this process has contributed to a file; no process measures twice.
_measured_here: dict[Path, Rates] = {}


@final
@dataclass(frozen=True)
class Rates:
    """Speeds by which costs are predicted.

    Attributes:
        gram16: Operations a second of a Gram matrix ``A'A`` in bfloat16, counted as rows * columns^2.
        gram32: The same in float32.
        gram64: The same in float64.
        lu64: Operations a second of LU factorization in float64.
        qr64: Operations a second of Householder QR in float64.
        svd64: Operations a second of a singular value decomposition, counted as 4 * columns^3 for a square matrix.
        memory: Bytes a second at which a pass reads rows in memory.
        source: Where the numbers are from.
    """

    gram16: float
    gram32: float
    gram64: float
    lu64: float
    qr64: float
    svd64: float
    memory: float
    source: str


#: Two cores of a present-day server; used until this machine was measured.
DEFAULT = Rates(7.0e11, 3.5e11, 1.6e11, 1.6e11, 6.0e10, 2.5e10, 4.0e10, "usual speeds of two cores, not measured here")


def cache_file(device: torch.device) -> str:
    """Return where the rates of this machine, this many threads, this device and these compiled loops are kept.

    Args:
        device: Where the work will be done.
    """
    kind = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{team()} threads"
    loops = f"loops {compiled.sources()}" if compiled.available() else "no loops"
    return _cache_file(os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA"), device.type, kind, loops)


@functools.cache
def _cache_file(base: str | None, device: str, kind: str, loops: str) -> str:
    name = "-".join(["rates", platform.node() or "machine", device, kind, loops, f"torch {torch.__version__}"])
    name = "".join(c if c.isalnum() or c in "-._" else "_" for c in name) + ".json"
    return os.path.join(base or os.path.join(os.path.expanduser("~"), ".cache"), "closedform", name)


def _changed(path: str) -> int:
    """When the file was last written, or 0 where there is none."""
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return 0


def known_rates(device: torch.device) -> Rates:
    """Return the rates that the user gave, else those measured before on this machine, else the usual ones.

    It is an error where the file named by ``CLOSEDFORM_RATES`` does not hold rates; one in the cache is then none.

    Args:
        device: Where the work will be done.

    Example:
        >>> import torch
        >>> known_rates(torch.device("cpu")).gram64 > 0
        True
    """
    if given := os.environ.get(VARIABLE):
        return _read(given, _changed(given))[0]
    return _kept(cache_file(device))[0]


def _kept(path: str) -> tuple[Rates, int]:
    """Return the rates in the cache and of how many measurements they are the best; the usual ones, and 0, without."""
    changed = _changed(path)
    if not changed:
        return DEFAULT, 0
    try:
        return _read(path, changed)
    except InputError:
        # A damaged cache is no more than a cache that is not there; the next measurement writes it anew.
        return DEFAULT, 0


def measured_rates(device: torch.device) -> Rates:
    """Return the rates that the user gave, else those of this machine, measured (in less than a second) and kept.

    Other work slows a measurement down and nothing speeds it up, so the first few processes that ask each measure once,
    and the best of every rate is kept. It is an error where the file named by ``CLOSEDFORM_RATES`` does not hold rates.

    Args:
        device: Where the work will be done.
    """
    if os.environ.get(VARIABLE):
        return known_rates(device)
    path = Path(cache_file(device))
    rates, count = _kept(str(path))
    if count >= _MEASUREMENTS:
        return rates
    if path in _measured_here:
        return rates if count else _measured_here[path]

    found = measure(device)
    if count:
        speeds = [field.name for field in fields(Rates) if field.name != "source"]
        found = replace(found, **{name: max(getattr(found, name), getattr(rates, name)) for name in speeds})
    _measured_here[path] = found
    _keep(path, {**asdict(found), "measurements": count + 1})
    return found


def _keep(path: Path, record: dict[str, object]) -> None:
    """Write a file that is whole at any time; where nothing can be kept, the next process measures again."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, suffix=".part")
        try:
            with open(handle, "w") as file:
                json.dump(record, file, indent=1)
            os.replace(name, path)
        except BaseException:
            os.unlink(name)
            raise


@functools.lru_cache(maxsize=8)
def _read(path: str, changed: int) -> tuple[Rates, int]:
    """Read the rates in a file, and of how many measurements; ``changed`` tells one content of it from another.

    Raises:
        InputError: the file cannot be read, or holds something else.
    """
    try:
        return _checked(json.loads(_content(path)))
    # A file can hold anything: numbers beyond all types, nesting beyond the stack.
    except (OSError, ValueError, KeyError, TypeError, ArithmeticError, RecursionError, MemoryError) as error:
        names = ", ".join(field.name for field in fields(Rates))
        raise InputError(f"{path} does not hold the rates {names} as JSON: {error!r}.") from error


def _content(path: str) -> bytes:
    """Read a small file, and nothing that only looks like one: a pipe would be waited on.

    Raises:
        ValueError: it is no regular file, or a large one.
    """
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise ValueError("it is not a regular file")
        content = os.read(handle, _LARGEST + 1)
    finally:
        os.close(handle)
    if len(content) > _LARGEST:
        raise ValueError(f"it has more than {_LARGEST} bytes")
    return content


def _checked(record: object) -> tuple[Rates, int]:
    if not isinstance(record, dict):
        raise TypeError(f"{type(record).__name__} where an object should be")
    values = {field.name: record[field.name] for field in fields(Rates)}
    source, count = values.pop("source"), record.get("measurements", 1)
    if not isinstance(source, str) or not source.isprintable():
        raise ValueError("source must be a line of text")
    if type(count) is not int or count < 1:
        raise ValueError("measurements must be counted")

    speeds = {name: _speed(value) for name, value in values.items()}
    return Rates(**speeds, source=source), count


def _speed(value: Any) -> float:
    if type(value) not in (int, float) or not 0 < float(value) < math.inf:
        raise ValueError("speeds must be positive numbers")
    return float(value)


def measure(device: torch.device) -> Rates:
    """Time each kind of work, the best of three runs each, on tables of up to 128 MB.

    Example:
        >>> import torch
        >>> measure(torch.device("cpu")).memory > 0
        True
    """
    generator = torch.Generator().manual_seed(0)

    def gaussian(*shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
        return torch.randn(*shape, dtype=dtype, device="cpu", generator=generator).to(device)

    n = 512
    tall, square = gaussian(4096, n), gaussian(n, n)
    long = tall.flatten().repeat(8).view(-1, 256)
    # Large enough for the speed that a large table gets.
    table, unit = long.view(-1)[: 8192 * 1024].view(8192, 1024), torch.ones(1, dtype=torch.float64, device=device)
    squares = torch.zeros(long.shape[1], dtype=torch.float64, device=device)
    engine = engine_for(table)

    def gram(dtype: torch.dtype, bfloat16: bool = False) -> None:
        sums, cross = (torch.zeros(table.shape[1], k, dtype=dtype, device=device) for k in (table.shape[1], 1))
        engine.normal_equations_(sums, cross, table, table[:, :1], unit, bfloat16=bfloat16)

    def best(work: Callable[[], object]) -> float:
        times = []
        for _ in range(3):
            _finish(device)
            begun = time.perf_counter()
            work()
            _finish(device)
            times.append(time.perf_counter() - begun)
        return max(min(times), 1e-9)

    flops = table.numel() * table.shape[1]
    gram32 = flops / best(lambda: gram(torch.float32))
    return Rates(
        gram16=flops / best(lambda: gram(torch.float32, bfloat16=True)) if engine.multiplies_bfloat16 else gram32,
        gram32=gram32,
        gram64=flops / best(lambda: gram(torch.float64)),
        lu64=2 / 3 * n**3 / best(lambda: LU(square)),
        qr64=2 * (tall.shape[0] - n / 3) * n**2 / best(lambda: torch.geqrf(tall)),
        svd64=4 * n**3 / best(lambda: torch.linalg.svd(square)),
        memory=long.numel() * 8 / best(lambda: engine.column_squares_(squares, long)),
        source=f"measured on {time.strftime('%Y-%m-%d')}",
    )


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
