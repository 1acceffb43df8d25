"""What a diagnosis recommends where X is a kernel between the rows."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import closedform as cf
from closedform.explain.entry import diagnose_for
from closedform.explain.setting import Command

generator = torch.Generator().manual_seed(0)
POINTS = torch.rand(48, 2, dtype=torch.float64, generator=generator)
K = torch.exp(-torch.cdist(POINTS, POINTS).square() / 0.02)
K = (K + K.T) / 2
Y = torch.sin(3 * POINTS[:, 0]) + 0.1 * torch.randn(48, dtype=torch.float64, generator=generator)


def remedy_of(diagnosis: cf.Diagnosis, name: str) -> str:
    return next(finding.remedy for finding in diagnosis.findings if finding.name == name)


@pytest.mark.parametrize(("l2", "name"), [(0.0, "interpolation"), (0.1, "ridge_on_kernel")])
def test_kernel_ridge_is_recommended_and_runs(l2: float, name: str) -> None:
    remedy = remedy_of(cf.diagnose(K, Y, l2=l2), name)
    assert "kernel=True" in remedy
    names: dict[str, Any] = {"X": K, "Y": Y}
    exec(remedy, names)
    path = names["path"]
    assert path.solution.certificate.accepted
    weight = torch.linalg.solve(K + path.l2 * torch.eye(48, dtype=torch.float64), Y)
    torch.testing.assert_close(path.solution.weight[0], weight, rtol=1e-8, atol=0)


def test_on_a_command_line_the_remedy_is_the_command_with_its_row() -> None:
    diagnosis = diagnose_for(Command("data.h5 --x K --y y"), K, Y, l2=0.1)
    solve, compare = remedy_of(diagnosis, "ridge_on_kernel").splitlines()
    assert solve == "closedform solve data.h5 --x K --y y --kernel --l2 0.1 --out layer.safetensors"
    assert compare.startswith("closedform compare data.h5 --x K --y y")


@pytest.mark.parametrize("change", ["features", "bias"])
def test_what_is_no_kernel_is_not_called_one(change: str) -> None:
    X = K.roll(1, 0) if change == "features" else K
    for l2 in (0.0, 0.1):
        diagnosis = cf.diagnose(X, Y, l2=l2, bias=change == "bias")
        assert not any("kernel" in finding.name + finding.remedy for finding in diagnosis.findings)
