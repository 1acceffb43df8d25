"""``closedform show-versions``: what an answer, and the time that it takes, may depend on."""

from __future__ import annotations

import os
import platform
import re
from dataclasses import asdict
from typing import Any

from closedform.cli.options import JsonFile

__all__ = ["show_versions_command"]

#: What closedform needs, with what its command line stands on, and what it uses where it is installed: readers of
#: files, pages, other people's rows and loops, and what stands beside it in comparisons.
_PACKAGES = (
    *("closedform", "torch", "numpy", "scipy", "typing-extensions", "typer", "click", "rich"),
    *("h5py", "safetensors", "pyarrow", "zarr", "pandas", "polars", "matplotlib", "jinja2"),
    *("scikit-learn", "statsmodels", "lightning", "dask", "distributed"),
)


def show_versions_command(json: JsonFile = None) -> None:
    """Print versions, whether the loops are compiled, threads, BLAS and the machine's rates: for reports of faults."""
    from closedform.cli.output import Screen, json_bytes, json_output
    from closedform.cli.record import installed_versions

    data = json_output(json)
    screen = Screen.of(False, data)
    found: dict[str, Any] = {
        "versions": installed_versions(_PACKAGES),
        "machine": _machine(),
    }
    for section in found.values():
        for name, value in section.items():
            screen.line(f"{name:<19}{_words(value)}")
    if data is not None:
        screen.write(data, json_bytes({"schema_version": 1, "command": "show-versions", **found}))


def _machine() -> dict[str, Any]:
    import torch

    from closedform.engine import compiled
    from closedform.engine.capacity import available_memory
    from closedform.engine.processors import processor_name
    from closedform.engine.rates import cache_file, known_rates

    cpu = torch.device("cpu")
    rates = asdict(known_rates(cpu))
    return {
        "system": platform.platform(),
        "processor": f"{processor_name()}, {torch.backends.cpu.get_cpu_capability()}",
        "compiled": f"yes, loops {compiled.sources()}" if compiled.available() else "no: slower passes over the rows",
        "threads": torch.get_num_threads(),
        "torch BLAS": _blas(torch.__config__.show()),
        "numpy BLAS": _numpy_blas(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "memory": f"{available_memory() / 1e9:.2f} GB available",
        "rates from": rates.pop("source"),
        "rates file": _for_others(cache_file(cpu)),
        **{f"rate {name}": value for name, value in rates.items()},
    }


def _for_others(path: str) -> str:
    """Return the path of the rates without whose home it is in and what the machine is called: reports are public."""
    home = os.path.expanduser("~") + os.sep
    path = f"~{os.sep}{path.removeprefix(home)}" if path.startswith(home) else path
    return path.replace(f"rates-{platform.node()}-", "rates-*-")


def _blas(text: str) -> str:
    """Return the names of the linear algebra libraries in torch's description of its build."""
    named = re.search(r"BLAS_INFO=(\w+)", text)
    libraries = re.findall(r"- (Intel\(R\)[^\n]*Math Kernel[^\n]*?Version [\d.]+|OpenBLAS[^\n]*)", text)
    return ", ".join(([named[1]] if named else []) + libraries) or "unknown"


def _numpy_blas() -> str:
    import numpy as np

    config: Any = np.show_config(mode="dicts")
    blas = config.get("Build Dependencies", {}).get("blas", {})
    return f"{blas.get('name', 'unknown')} {blas.get('version', '')}".strip()


def _words(value: Any) -> str:
    if value is None:
        return "not installed"
    return f"{value:.3g} a second" if isinstance(value, float) else str(value)
