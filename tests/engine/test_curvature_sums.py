"""Products with a Hessian of shares, few of which count: against whole ones in float64, in registers of every width."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from closedform.engine import compiled
from closedform.engine import threads as threads_table
from closedform.engine.compiled import Compiled
from closedform.engine.products import Blas
from closedform.engine.sums import FewCurvatures
from covering import parametrize_covering

pytestmark = pytest.mark.skipif(not compiled.available(), reason="no C compiler built the passes here")


def gaussian(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def shares(rows: int, outputs: int, part: float) -> Tensor:
    """Return shares of sums of all sizes; some rows have one alone, or none."""
    C = gaussian(rows, outputs, seed=3).exp() * (gaussian(rows, outputs, seed=4).sigmoid() < part)
    return C * gaussian(rows, 1, seed=5).exp()


def sums_of(X: Tensor, C: Tensor, V: Tensor, offset: Tensor | None) -> Tensor:
    few = FewCurvatures.of(C)
    assert few is not None
    sums = torch.zeros(V.shape[0] * (X.shape[1] + 1), dtype=torch.float64)
    half = len(X) // 2
    Compiled().curvature_sums_(sums, X[:half], few.rows(0, half), V, offset)
    Compiled().curvature_sums_(sums, X[half:], few.rows(half, len(X) - half), V, offset)
    return sums


@parametrize_covering(
    2,
    indirect=("width",),
    width=(16, 32, 64),
    shift=(False, True),
    shape=((1, 1, 40), (7, 3, 40), (300, 16, 60), (5000, 37, 30), (20000, 2, 50)),
    part=(0.05, 0.2),
)
def test_sums_are_those_of_all_outputs(width: int, shift: bool, shape: tuple[int, int, int], part: float) -> None:
    rows, features, outputs = shape
    # Rows of a wider table, as a block of some of its columns has them.
    X, C = gaussian(rows, features + 3, seed=1)[:, :features], shares(rows, outputs, part)
    V, offset = gaussian(outputs, features, seed=2), gaussian(outputs, seed=6) if shift else None
    found = sums_of(X, C, V, offset)

    c, Z = C.double(), X.double() @ V.double().T
    Z = Z if offset is None else Z + offset.double()
    mean = (c * Z).sum(1, keepdim=True) / c.sum(1, keepdim=True).clamp_min(1e-300)
    S = c * (Z - mean)
    wanted = torch.cat([(S.T @ X.double()).reshape(-1), S.sum(0)])
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6 * float(wanted.abs().max()))
    assert width


def test_what_a_nearly_certain_class_leaves_is_not_cancelled() -> None:
    X, V = gaussian(50, 8, seed=1), gaussian(40, 8, seed=2)
    C = torch.zeros(50, 40)
    C[:, 3], C[:, 5], C[:, 7] = 1.0, 1e-9, 2e-9
    c, Z = C.double(), X.double() @ V.double().T
    others = c[:, [5, 7]] * (Z[:, [5, 7]] - Z[:, [3]])
    found = sums_of(X, C, V, None)[: 40 * 8].view(40, 8)
    torch.testing.assert_close(found[3], -others.sum(1) @ X.double(), rtol=1e-5, atol=1e-14)


def test_any_number_of_threads_gives_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    X, C, V = gaussian(9000, 5, seed=1), shares(9000, 40, 0.1), gaussian(40, 5, seed=2)
    one = sums_of(X, C, V, None)
    monkeypatch.setattr(threads_table, "NUMBERS_FOR_ONE", 100)
    monkeypatch.setattr(compiled, "team", lambda: 3)
    assert torch.equal(sums_of(X, C, V, None), one)


def test_only_few_curvatures_are_laid_out_and_only_these_loops_take_them() -> None:
    C = shares(60, 40, 0.9)
    assert FewCurvatures.of(C) is None
    few = FewCurvatures.of(shares(60, 40, 0.1))
    assert few is not None
    X, V, sums = gaussian(60, 5), gaussian(40, 5), torch.zeros(240, dtype=torch.float64)
    with pytest.raises(ValueError, match="single precision"):
        Compiled().curvature_sums_(sums, X.double(), few, V)
    assert not Blas().sums_curvatures
    with pytest.raises(NotImplementedError, match="Blas has no sums of curvatures"):
        Blas().curvature_sums_(sums, X, few, V)
