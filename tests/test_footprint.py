"""What a solve costs beside its answer: memory, and what importing the package loads."""

from __future__ import annotations

import json

import pytest

import fresh
from closedform.engine import compiled

MEASURE = """
import json, resource, sys
import torch
import closedform as cf
rows, columns, method = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
torch.set_num_threads(1)
warm = torch.randn(300, 10, dtype=torch.float64)
cf.solve(warm, warm[:, 0], method=method)
X = torch.randn(rows, columns, dtype=torch.float64)
y = X.sum(1)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
sol = cf.solve(X, y, method=method)
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({"extra": (after - before) * 1024, "data": X.nbytes, "accepted": sol.certificate.accepted}))
"""


@pytest.mark.parametrize(
    "method", [*(["gram16"] if compiled.multiplies_bfloat16() else []), "gram32", "gram64", "householder", "svd"]
)
def test_peak_memory_of_a_solve_in_memory(method: str) -> None:
    """At most 0.3 of the data, beside work of the size of a few n-by-n matrices."""
    # Blocks take up to 20 MB, whatever the rows.
    rows, columns = 150_000, 100
    done = fresh.run(MEASURE, rows, columns, method)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["accepted"]
    assert seen["extra"] <= 0.3 * seen["data"] + 10 * 8 * columns**2


def test_optim_is_there_and_loaded_only_when_asked_for() -> None:
    code = (
        "import sys, torch, closedform as cf\n"
        "assert 'closedform.optim' not in sys.modules\n"
        "layer = torch.nn.Linear(2, 1)\n"
        "assert isinstance(cf.optim.RecursiveLeastSquares(layer), torch.optim.Optimizer)\n"
        "assert all(hasattr(cf, name) for name in cf.__all__)\n"
    )
    done = fresh.run(code, warnings=("error",))
    assert done.returncode == 0, done.stderr


def test_a_solve_loads_nothing_that_it_does_not_use() -> None:
    # What SciPy's linear algebra loads is its own affair: before 1.12 its sparse matrices too.
    code = (
        "import sys, torch, scipy.linalg, closedform as cf\n"
        "before = set(sys.modules)\n"
        "cf.solve(torch.eye(3), torch.ones(3))\n"
        "slow = {'scipy.optimize', 'scipy.special', 'scipy.sparse', 'pandas', 'sklearn', 'h5py', 'rich', 'dask'}\n"
        "assert not slow & (set(sys.modules) - before), slow & set(sys.modules)\n"
    )
    done = fresh.run(code, warnings=("error",))
    assert done.returncode == 0, done.stderr
