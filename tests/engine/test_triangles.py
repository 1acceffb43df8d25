"""Cholesky factors, solutions and products with whole matrices, against exact and extended arithmetic and LAPACK."""

from __future__ import annotations

from collections.abc import Iterator

import mpmath
import numpy as np
import pytest
import torch
from torch import Tensor

from closedform.engine import compiled, triangles
from closedform.engine.triangles import COMPILED, append_rows, cholesky_of, is_symmetric, shortened
from closedform.numerics.chain import NormalProduct, NormalSolve, Scaling, Step
from covering import parametrize_covering
from data import F64, gaussian

REGISTERS = {"registers of 64 bytes": 64, "registers of 32 bytes": 32, "registers of 16 bytes": 16}
WAYS = [*(REGISTERS if compiled.available() else ()), "LAPACK"]


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(triangles, "_SMALL", 0)
    library = compiled.library
    if request.param == "LAPACK" or library is None:
        monkeypatch.setattr(compiled, "library", None)
        yield "LAPACK"
        return
    bytes_ = REGISTERS[request.param]
    try:
        if library.use_vectors(bytes_) < bytes_ < 64:
            pytest.skip(f"this processor has no registers of {bytes_} bytes")
        yield str(request.param)
    finally:
        library.use_vectors(library.WIDEST)


@pytest.fixture(params=[1, 3])
def threads(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    monkeypatch.setattr(triangles, "CHOLESKY_BY_ONE", 0)
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def wide(values: Tensor) -> np.ndarray:
    return values.numpy().astype(np.longdouble)


def definite(n: int, condition: float, dtype: torch.dtype) -> Tensor:
    """A symmetric matrix with eigenvalues from 1 to 1 / condition, up to rounding."""
    Q = torch.linalg.qr(gaussian(n, n, seed=n)).Q
    G = (Q * torch.logspace(0, -np.log10(condition), n, dtype=F64)) @ Q.T
    return ((G + G.T) / 2).to(dtype)


@parametrize_covering(
    2,
    indirect=("way", "threads"),
    way=WAYS,
    threads=(1, 3),
    dtype=(torch.float32, torch.float64),
    n=(1, 2, 15, 16, 17, 33, 96, 97, 130, 203, 300),
    condition=(1.0, 1e3, 1e5),
)
def test_a_factor_is_backward_stable(way: str, threads: int, dtype: torch.dtype, n: int, condition: float) -> None:
    G = definite(n, condition, dtype)
    given = G.triu() + torch.full_like(G, torch.nan).tril(-1)
    R, place = cholesky_of(given)
    assert place == 0
    assert R.dtype == dtype
    assert bool((R.tril(-1) == 0).all())
    # Higham (2002), theorem 10.3, entry by entry.
    left = np.abs(wide(R).T @ wide(R) - wide(G))
    assert (left <= (n + 1) * torch.finfo(dtype).eps * (np.abs(wide(R)).T @ np.abs(wide(R)))).all()


@pytest.mark.usefixtures("way")
def test_a_factor_is_as_near_to_the_exact_one_as_that_of_lapack() -> None:
    G = definite(40, 1e9, F64)
    with mpmath.workdps(50):
        exact = np.array(mpmath.cholesky(mpmath.matrix(G.tolist())).T.tolist(), dtype=object)
        errors = [
            float(mpmath.sqrt(mpmath.fsum((mpmath.mpf(a) - b) ** 2 for a, b in zip(R, exact.flatten(), strict=True))))
            for R in (cholesky_of(G)[0].flatten().tolist(), torch.linalg.cholesky(G, upper=True).flatten().tolist())
        ]
    assert errors[0] <= 4 * errors[1]
    assert errors[0] <= 1e-15 * 1e9**0.5 * 40


@pytest.mark.usefixtures("threads")
@parametrize_covering(
    2, indirect=("way",), way=WAYS, pivot=(0.0, -1.0, float("nan")), place=(1, 7, 16, 17, 96, 97, 130), n=(130, 131)
)
def test_the_first_pivot_that_is_not_positive_is_named(way: str, pivot: float, place: int, n: int) -> None:
    # Small integers: no operation rounds, so the pivots are these to the last bit.
    R = torch.randint(-2, 3, (n, n), generator=torch.Generator().manual_seed(n)).to(F64).triu(1)
    pivots = torch.full((n,), 4.0, dtype=F64)
    pivots[place - 1] = 0.0 if np.isnan(pivot) else pivot
    unit = R.clamp(-1, 1) * (torch.rand(n, n, generator=torch.Generator().manual_seed(1)) < 0.1) + torch.eye(n)
    G = unit.T * pivots @ unit
    if np.isnan(pivot):
        G[place - 1, place - 1] = torch.nan
    found, where = cholesky_of(G)
    assert where == place
    assert way == "LAPACK" or bool(found.isnan().all())


@pytest.mark.skipif(not compiled.available(), reason="no C compiler built the loops here")
def test_threads_change_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triangles, "CHOLESKY_BY_ONE", 0)
    G = definite(300, 1e5, F64)
    before, factors = torch.get_num_threads(), []
    for count in (1, 3):
        torch.set_num_threads(count)
        factors.append(cholesky_of(G)[0])
    torch.set_num_threads(before)
    assert torch.equal(*factors)


@parametrize_covering(
    2, indirect=("way",), way=WAYS, n=(1, 3, 8, 17, 96, 131), k=(1, 2, 3, 5, 20), layout=("rows", "columns", "negative")
)
def test_solutions_and_products(way: str, n: int, k: int, layout: str) -> None:
    R = cholesky_of(definite(n, 1e3, F64))[0]
    V = gaussian(k, n, seed=1).T if layout == "columns" else gaussian(n, k, seed=1)
    if layout == "negative":
        V = torch.fft.ihfft(gaussian(2 * n, k, seed=1), dim=0).imag[:n]
    kept, M = V.clone(), gaussian(n + 3, n, seed=2)
    upper, vectors, matrix, eps = wide(R), wide(V.resolve_neg()), wide(M), np.finfo(float).eps

    def close(found: Tensor, exact: np.ndarray, scale: np.ndarray) -> None:
        assert (np.abs(wide(found.resolve_neg()) - exact) <= 2 * (n + 2) * eps * scale).all()

    # Substitution is backward stable row by row: Higham (2002), theorem 8.5.
    for adjoint, whole in ((False, upper), (True, upper.T)):
        found = COMPILED.solve(R, V, adjoint=adjoint)
        close(
            torch.from_numpy(np.asarray(whole @ wide(found), dtype=float)), vectors, np.abs(whole) @ np.abs(wide(found))
        )
    both = COMPILED.solve(R, COMPILED.solve(R, V, adjoint=True))
    torch.testing.assert_close(COMPILED.normal_solve(R, V), both, rtol=1e-12, atol=1e-12 * float(both.abs().max()))

    close(COMPILED.product(M, V), matrix @ vectors, np.abs(matrix) @ np.abs(vectors))
    back = gaussian(n + 3, k, seed=3)
    close(COMPILED.product(M, back, adjoint=True), matrix.T @ wide(back), np.abs(matrix).T @ np.abs(wide(back)))
    for whole, upper_only, tensor in ((matrix, False, M), (upper, True, R)):
        size = np.abs(whole).T @ (np.abs(whole) @ np.abs(vectors))
        close(COMPILED.normal_product(tensor, V, upper=upper_only), whole.T @ (whole @ vectors), 2 * size)
    assert torch.equal(V, kept)


@parametrize_covering(
    2,
    indirect=("way",),
    way=WAYS,
    n=(1, 2, 3, 8, 17, 96, 131),
    kind=("product", "solution", "both"),
    scaled=(False, True),
)
def test_the_leading_eigenvalue_of_a_chain(way: str, n: int, kind: str, scaled: bool) -> None:
    G = definite(n, 1e2, F64)
    R = cholesky_of(G)[0]
    D = torch.linspace(1.0, 3.0, n, dtype=F64).unsqueeze(1)
    chain: dict[str, tuple[Step, ...]] = {
        "product": (NormalProduct(R, upper=True),),
        "solution": (NormalSolve(R),),
        "both": (NormalProduct(G),),
    }
    matrix = {"product": G, "solution": torch.inverse(G), "both": G @ G}[kind]
    steps = chain[kind]
    if scaled:
        steps, matrix = (Scaling(D), *steps, Scaling(D)), D * matrix * D.T
    value, vector, image = COMPILED.dominant_pair(steps, gaussian(n, 1, seed=1), 1e-8)
    largest = float(torch.linalg.eigvalsh((matrix + matrix.T) / 2)[-1])
    assert 0.97 * largest <= value <= largest * (1 + 1e-10)
    torch.testing.assert_close(image, matrix @ vector, rtol=1e-9, atol=1e-10 * largest)
    assert float(vector.T @ image) == pytest.approx(value, rel=1e-10)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("n", [1, 7, 8, 9, 40, 64, 65, 131])
def test_symmetry_is_seen_to_the_last_bit(n: int) -> None:
    G = definite(n, 1.0, F64)
    assert is_symmetric(G)
    for i, j in {(0, n - 1), (n - 2, n - 1), (n // 2, n - 1), (n // 2, 1), (n // 2, n // 2 + 1), (n - 3, 2), (6, 7)}:
        if i != j and min(i, j) >= 0 and max(i, j) < n:
            other = G.clone()
            other[i, j] = torch.nextafter(other[i, j], torch.tensor(9.0, dtype=F64))
            assert not is_symmetric(other)
    G[n - 1, n - 1] = torch.nan
    assert not is_symmetric(G)


@parametrize_covering(
    2,
    indirect=("way",),
    way=WAYS,
    n=(2, 3, 8, 9, 22, 64),
    rows=(256, 515, 1100),
    kind=("plain", "dependent", "far apart", "zeros", "tiny", "one entry"),
)
def test_shortened_rows_have_the_same_products(way: str, n: int, rows: int, kind: str) -> None:
    A = gaussian(rows, n, seed=n)
    if kind == "dependent":
        A[:, -1] = A[:, 0] - A[:, :2].sum(1)
    elif kind == "far apart":
        A *= 10.0 ** torch.linspace(-75, 75, n, dtype=F64)
    elif kind == "zeros":
        A[:, 0] = 0
        A[100:, -1] = 0
    elif kind == "tiny":  # in the first part alone, where its squares are none
        A[:256, 0] *= 1e-200
    elif kind == "one entry":
        A[:, -1] = 0
        A[200, -1] = 3
    few = shortened(A)
    if way != "LAPACK" and rows // max(256, 8 * n):
        assert few.shape[0] == rows - rows // max(256, 8 * n) * (max(256, 8 * n) - n)
    lengths = np.sqrt((wide(A) ** 2).sum(0))
    lengths[lengths == 0] = 1
    products, kept = (wide(part).T @ wide(part) / np.outer(lengths, lengths) for part in (A, few))
    # Backward stable column by column (Higham 2002, theorem 19.4); 2 n is far more than random signs leave of n^1.5.
    assert np.abs(products - kept).max() < 2 * n * 2**-53 * (1 + n**0.5)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int32])
def test_rows_are_appended_as_they_are(dtype: torch.dtype) -> None:
    X, Y = (10 * gaussian(5, 6, seed=1)).to(dtype)[:, ::2], gaussian(5, 2, seed=2)
    out = torch.full((9, 6), -7.0, dtype=F64)
    finite = append_rows(out, 3, X, Y)
    if finite is None:
        pytest.skip("nothing is compiled")
    assert finite
    assert torch.equal(out[3:8], torch.cat([torch.ones(5, 1), X.to(F64), Y], 1))
    assert bool((out[[0, 1, 2, 8]] == -7).all())
    for bad in (torch.nan, torch.inf, -torch.inf):
        assert append_rows(out, 0, X, Y.clone().index_fill_(0, torch.tensor(4), bad)) is False
    assert append_rows(out, 0, X, torch.full_like(Y, 1.7e308)) is True
