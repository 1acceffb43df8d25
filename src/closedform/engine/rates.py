"""How fast this machine is: what the plan predicts costs by. Measured once, kept in the user's cache, overridable."""

from __future__ import annotations

import contextlib
import functools
import json
import math
import os
import platform
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import torch

from closedform.engine import compiled
from closedform.engine.gram import normal_equations_update
from closedform.engine.passes import column_squares
from closedform.numerics.lu import LU
from closedform.words.errors import InputError

__all__ = ["DEFAULT", "Rates", "cache_file", "known_rates", "measure", "measured_rates"]

#: Names a file with rates to use instead of measured ones.
VARIABLE = "CLOSEDFORM_RATES"
#: The rates that are kept are the best of so many measurements, each in a process of its own.
_MEASUREMENTS = 3
#: Speeds that were measured with other compiled loops do not hold: to be counted up when those change.
_LOOPS = 3
#: What this process has contributed to a file; no process measures twice.
_measured_here: dict[Path, Rates] = {}


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
    """Return where the rates of this machine, this many threads and this device are kept."""
    kind = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} threads"
    loops = f"loops {_LOOPS}" if compiled.available() else "no loops"
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

    Raises:
        InputError: the file named by ``CLOSEDFORM_RATES`` does not hold rates.
    """
    if given := os.environ.get(VARIABLE):
        return _read(given, _changed(given))
    path = cache_file(device)
    changed = _changed(path)
    if not changed:
        return DEFAULT
    try:
        return _read(path, changed)
    except InputError:
        # A damaged cache is no more than a cache that is not there; the next measurement writes it anew.
        return DEFAULT


def measured_rates(device: torch.device) -> Rates:
    """Return the rates that the user gave, else those of this machine, measured (in less than a second) and kept.

    Other work slows a measurement down and nothing speeds it up, so the first few processes that ask each measure once,
    and the best of every rate is kept.
    """
    rates = known_rates(device)
    path = Path(cache_file(device))
    count = _measurements(path)
    if os.environ.get(VARIABLE) or count >= _MEASUREMENTS:
        return rates
    if path in _measured_here:
        return rates if count else _measured_here[path]
    found = measure(device)
    if count:
        speeds = [field.name for field in fields(Rates) if field.name != "source"]
        found = replace(found, **{name: max(getattr(found, name), getattr(rates, name)) for name in speeds})
    _measured_here[path] = found
    # Where nothing can be kept, the next process measures again.
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False, suffix=".part") as file:
            json.dump({**asdict(found), "measurements": count + 1}, file, indent=1)
        os.replace(file.name, path)
    return found


def _measurements(path: Path) -> int:
    """How many measurements the kept rates are the best of; 0 where there are none that can be read."""
    try:
        _read(str(path), _changed(str(path)))
        return int(json.loads(path.read_text()).get("measurements", 1))
    except (OSError, ValueError, InputError):
        return 0


@functools.lru_cache(maxsize=8)
def _read(path: str, changed: int) -> Rates:
    """Read the rates in a file; ``changed`` tells one content of it from another."""
    try:
        record = json.loads(Path(path).read_text())
        values = {field.name: record[field.name] for field in fields(Rates)}
        speeds = [value for name, value in values.items() if name != "source"]
        if not all(isinstance(speed, (int, float)) and 0 < speed < math.inf for speed in speeds):
            raise ValueError("speeds must be positive numbers")
        return Rates(**values)
    except (OSError, ValueError, KeyError, TypeError) as error:
        names = ", ".join(field.name for field in fields(Rates))
        raise InputError(f"{path} does not hold the rates {names} as JSON: {error!r}.") from error


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

    def gram(dtype: torch.dtype, bfloat16: bool = False) -> None:
        sums, cross = (torch.zeros(table.shape[1], k, dtype=dtype, device=device) for k in (table.shape[1], 1))
        normal_equations_update(sums, cross, table, table[:, :1], unit, bfloat16=bfloat16)

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
    takes_bfloat16 = compiled.multiplies_bfloat16() and compiled.serves(table)
    return Rates(
        gram16=flops / best(lambda: gram(torch.float32, bfloat16=True)) if takes_bfloat16 else gram32,
        gram32=gram32,
        gram64=flops / best(lambda: gram(torch.float64)),
        lu64=2 / 3 * n**3 / best(lambda: LU(square)),
        qr64=2 * (tall.shape[0] - n / 3) * n**2 / best(lambda: torch.geqrf(tall)),
        svd64=4 * n**3 / best(lambda: torch.linalg.svd(square)),
        memory=long.numel() * 8 / best(lambda: column_squares(squares, long)),
        source=f"measured on {time.strftime('%Y-%m-%d')}",
    )


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
