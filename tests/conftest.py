"""One thread for each worker: with more, two workers on two cores spend their time waiting for each other.

The usual rates, so that plans do not depend on the machine that runs the tests, nor leave a trace in its cache. And
``--device``, which runs the cases of the solver, the certificate, the optimizer and the digits on another device.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ:
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = "1"

import pytest
import torch

if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)

import closedform
import placement
from closedform.engine import compiled, threads
from closedform.engine.rates import DEFAULT, VARIABLE
from closedform.rows import Rows

PACKAGE = Path(closedform.__file__).parent
_folder = tempfile.TemporaryDirectory()
atexit.register(_folder.cleanup)
_rates = Path(_folder.name) / "rates.json"
_rates.write_text(json.dumps(asdict(DEFAULT)))
os.environ[VARIABLE] = str(_rates)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--device", default="cpu", help="run the tests marked 'device' there and no others, e.g. cuda")


def pytest_configure(config: pytest.Config) -> None:
    # Examples in the source are those of the package that is tested, where it is installed apart from this folder too.
    if config.args_source is pytest.Config.ArgsSource.TESTPATHS and not PACKAGE.is_relative_to(config.rootpath / "src"):
        config.args = [str(PACKAGE) if path == "src" else path for path in config.args]
    # What is collected stays: looking through it again and again takes a second of each worker.
    gc.disable()
    config.addinivalue_line("markers", "device: the case also runs on the device that --device names")
    config.addinivalue_line("markers", "slow: NumPy's own, on the module that its cases of lstsq are imported from")
    config.addinivalue_line("markers", "needs_cpu(reason): of a module marked 'device', what runs on the CPU only")
    for name in ("array_api_backends", "fail_slow", "parallel_threads", "skip_xp_backends", "thread_unsafe", "xslow"):
        config.addinivalue_line(
            "markers", f"{name}: SciPy's own, on the module that its cases of lstsq are imported from"
        )
    placement.name = config.getoption("--device")
    try:
        torch.empty(0, device=placement.name, dtype=torch.float64)
    except (RuntimeError, AssertionError, TypeError) as error:
        raise pytest.UsageError(f"--device {placement.name} cannot be used here: {error}") from error


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if placement.name == "cpu":
        return
    others = [item for item in items if not item.get_closest_marker("device")]
    items[:] = [item for item in items if item.get_closest_marker("device")]
    config.hook.pytest_deselected(items=others)
    for item in items:
        if marker := item.get_closest_marker("needs_cpu"):
            item.add_marker(pytest.mark.skip(reason=marker.args[0]))


def pytest_collection_finish() -> None:
    """Spare what stands now from the collector: it stays to the end, and looking through it takes half a second."""
    gc.collect()
    gc.freeze()
    gc.enable()


def pytest_sessionfinish() -> None:
    """What other plugins load at the end asks the collector: Hypothesis would warn, which is an error here."""
    gc.unfreeze()


@pytest.fixture(autouse=True)
def default_device() -> Iterator[None]:
    """What a test makes by itself is made on the device too."""
    with nullcontext() if placement.name == "cpu" else torch.device(placement.name):
        yield


@pytest.fixture
def brief_rehearsals(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rehearsals end after a tenth of the steps that a user's would make; what is said after the end is the same."""
    from closedform.explain import stage

    monkeypatch.setattr(stage, "_NUMPY_SECONDS", stage._NUMPY_SECONDS / 10)


@pytest.fixture
def width(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Hold compiled loops to registers of so many bytes, and give small tables threads."""
    monkeypatch.setattr(threads, "NUMBERS_FOR_ONE", 100)
    assert compiled.library is not None
    compiled.library.use_vectors(request.param)
    yield request.param
    compiled.library.use_vectors(compiled.library.WIDEST)


@pytest.fixture
def walks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the folds that rows are walked by, as they are walked."""
    seen: list[str] = []
    walk = Rows.walk
    monkeypatch.setattr(Rows, "walk", lambda rows, fold: seen.append(type(fold).__name__) or walk(rows, fold))
    return seen
