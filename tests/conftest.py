"""One thread for each worker: with more, two workers on two cores spend their time waiting for each other.

And the usual rates, so that plans do not depend on the machine that runs the tests, nor leave a trace in its cache.
"""

from __future__ import annotations

import atexit
import json
import os
import tempfile
from dataclasses import asdict
from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ:
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = "1"
    import torch

    torch.set_num_threads(1)

from closedform.engine.rates import DEFAULT, VARIABLE

_folder = tempfile.TemporaryDirectory()
atexit.register(_folder.cleanup)
_rates = Path(_folder.name) / "rates.json"
_rates.write_text(json.dumps(asdict(DEFAULT)))
os.environ[VARIABLE] = str(_rates)
