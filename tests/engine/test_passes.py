"""The passes over rows, compiled and not, against sums in extended precision."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from closedform.engine import compiled
from closedform.engine import threads as threads_table
from closedform.engine.choice import engine_for
from closedform.engine.products import gram_
from closedform.engine.sums import image_sums, pass_sums
from closedform.numerics.symmetric import cholesky
from covering import parametrize_covering

needs_kernels = pytest.mark.skipif(not compiled.available(), reason="no C compiler built the passes here")


COMPILED = {"compiled": 1024, "registers of 64 bytes": 64, "registers of 32 bytes": 32, "registers of 16 bytes": 16}
WAYS = [*(COMPILED if compiled.available() else ()), "matrix products", "torch alone"]


@pytest.fixture
def used_memory() -> None:
    """Leave numbers in the memory that is handed out next: loops that read what they have not written fail."""
    torch.full((2**20,), torch.nan, dtype=torch.float64)


@pytest.fixture(
    params=[*(pytest.param(name, marks=needs_kernels) for name in COMPILED), "matrix products", "torch alone"]
)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    if request.param == "matrix products":
        monkeypatch.setattr(compiled, "_MOST_SUMS", 0)
    elif request.param == "torch alone":
        monkeypatch.setattr(compiled, "library", None)
    library = compiled.library
    if library is None or request.param not in COMPILED:
        yield str(request.param)
        return
    monkeypatch.setattr(threads_table, "NUMBERS_FOR_ONE", 100)
    bytes_ = COMPILED[request.param]
    used = library.use_vectors(bytes_)
    try:
        if used < bytes_ < 64:
            pytest.skip(f"this processor has no registers of {bytes_} bytes")
        yield str(request.param)
    finally:
        library.use_vectors(library.WIDEST)


@pytest.fixture(params=[1, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def wide(values: torch.Tensor) -> np.ndarray:
    return values.numpy().astype(np.longdouble)


@parametrize_covering(
    3,
    indirect=("way", "threads"),
    way=WAYS,
    threads=(1, 3),
    dtype=(torch.float32, torch.float64),
    layout=("contiguous", "rows of a wider table", "transposed"),
    weighted=(False, True),
    sizes=(
        (1, 1, 1, 0),
        (1031, 7, 1, 2),
        (515, 33, 5, 0),
        (300, 4, 2, 3),
        (1037, 21, 12, 2),
        (700, 5, 11, 0),
        (1300, 37, 19, 2),
        (90, 8, 24, 0),
        (600, 0, 1, 0),
        (600, 0, 5, 0),
        (600, 0, 20, 0),
    ),
)
@pytest.mark.usefixtures("way", "threads", "used_memory")
def test_residual_pass(dtype: torch.dtype, layout: str, weighted: bool, sizes: tuple[int, int, int, int]) -> None:
    m, n, k, extra = sizes
    generator = torch.Generator().manual_seed(m + n)

    def gaussian(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    X = gaussian(m, n + 3).to(dtype)[:, :n]
    X = {"contiguous": X.contiguous(), "transposed": X.T.contiguous().T}.get(layout, X)
    Y, V, offset = gaussian(m, k), gaussian(n, k + extra), gaussian(k + extra)
    weight = gaussian(m).square() if weighted else None
    sums = pass_sums(n, k + extra, X.device, (range(k),))
    engine_for(X).residual_sums_(
        sums, X[: m // 2], Y[: m // 2], V, offset, None if weight is None else weight[: m // 2]
    )
    engine_for(X).residual_sums_(
        sums, X[m // 2 :], Y[m // 2 :], V, offset, None if weight is None else weight[m // 2 :]
    )
    T = -(wide(X) @ wide(V)) - wide(offset)
    T[:, :k] += wide(Y)
    W = T if weight is None else T * wide(weight)[:, None]
    size = 1e-14 * m
    np.testing.assert_allclose(sums.features.numpy(), (wide(X).T @ W).astype(float), rtol=1e-12, atol=size)
    np.testing.assert_allclose(sums.ones.numpy(), W.sum(0).astype(float), rtol=1e-12, atol=size)
    np.testing.assert_allclose(sums.squares.numpy(), (T * W).sum(0).astype(float), rtol=1e-12)
    np.testing.assert_allclose(sums.grams[0].numpy(), (T[:, :k].T @ W[:, :k]).astype(float), rtol=1e-12, atol=size)


@parametrize_covering(
    3,
    indirect=("way", "threads"),
    way=WAYS,
    threads=(1, 3),
    dtype=(torch.float32, torch.float64),
    layout=("contiguous", "rows of a wider table", "transposed"),
    weighted=(False, True),
    offset=(False, True),
    sizes=((1, 1, 1, 1), (1031, 7, 3, 2), (515, 33, 40, 16), (2300, 20, 9, 5), (90, 8, 1, 24), (600, 0, 2, 4)),
)
@pytest.mark.usefixtures("way", "threads")
def test_image_pass(
    dtype: torch.dtype, layout: str, weighted: bool, offset: bool, sizes: tuple[int, int, int, int]
) -> None:
    m, n, k, q = sizes
    generator = torch.Generator().manual_seed(m + n)

    def gaussian(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    X = gaussian(m, n + 3).to(dtype)[:, :n]
    X = {"contiguous": X.contiguous(), "transposed": X.T.contiguous().T}.get(layout, X)
    Y, V, y_scale = gaussian(m, k).to(dtype), gaussian(n, q), gaussian(k)
    shift, weight = gaussian(q) if offset else None, gaussian(m).square() if weighted else None
    sums = image_sums(n, k, q, X.device)
    for part in (slice(0, m // 2), slice(m // 2, m)):
        of_part = None if weight is None else weight[part]
        engine_for(X).image_sums_(sums, X[part], Y[part], V, shift, of_part, y_scale)
    T = wide(X) @ wide(V) if shift is None else wide(X) @ wide(V) + wide(shift)
    W = T if weight is None else T * wide(weight)[:, None]
    size = 1e-14 * m
    np.testing.assert_allclose(sums.features.numpy(), (wide(X).T @ W).astype(float), rtol=1e-12, atol=size)
    np.testing.assert_allclose(sums.ones.numpy(), W.sum(0).astype(float), rtol=1e-12, atol=size)
    np.testing.assert_allclose(sums.squares.numpy(), (T * W).sum(0).astype(float), rtol=1e-12)
    targets = (wide(Y) * wide(y_scale)).T @ W
    np.testing.assert_allclose(sums.targets.numpy(), targets.astype(float), rtol=1e-12, atol=size)


@pytest.mark.usefixtures("way", "threads")
@pytest.mark.parametrize("size", [32, 16, 13])
@pytest.mark.parametrize("weighted", [False, True], ids=["unweighted", "weighted"])
def test_products_of_several_groups_of_targets(size: int, weighted: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    X, Y = (torch.randn(700, n, dtype=torch.float64, generator=generator) for n in (3, 43))
    weight = torch.rand(700, dtype=torch.float64, generator=generator) if weighted else None
    groups = tuple(range(start, min(start + size, 43)) for start in range(0, 43, size))
    sums = pass_sums(3, 45, X.device, groups)
    engine_for(X).residual_sums_(sums, X, Y, torch.zeros(3, 45, dtype=torch.float64), weight=weight)
    for group, gram in zip(groups, sums.grams, strict=True):
        part = wide(Y[:, group.start : group.stop])
        other = part if weight is None else part * wide(weight)[:, None]
        np.testing.assert_allclose(gram.numpy(), (part.T @ other).astype(float), rtol=1e-12, atol=1e-11)


@pytest.mark.usefixtures("way", "threads")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("weighted", [False, True], ids=["unweighted", "weighted"])
def test_column_squares(dtype: torch.dtype, weighted: bool) -> None:
    generator = torch.Generator().manual_seed(1)
    X = torch.randn(1501, 5, generator=generator).to(dtype)
    weight = torch.rand(1501, dtype=torch.float64, generator=generator) if weighted else None
    squares = torch.zeros(5, dtype=torch.float64)
    engine_for(X).column_squares_(squares, X, weight)
    expected = wide(X) ** 2 if weight is None else wide(X) ** 2 * wide(weight)[:, None]
    np.testing.assert_allclose(squares.numpy(), expected.sum(0).astype(float), rtol=1e-13)


@pytest.mark.usefixtures("way", "threads")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("weighted", [False, True], ids=["unweighted", "weighted"])
def test_spread_squares(dtype: torch.dtype, weighted: bool) -> None:
    generator = torch.Generator().manual_seed(1)
    X = torch.randn(1501, 6, generator=generator).to(dtype)[:, :5]
    weight = torch.rand(1501, dtype=torch.float64, generator=generator) if weighted else None
    scale, shift = torch.rand(2, 5, dtype=torch.float64, generator=generator)
    sums = torch.zeros(2, 5, dtype=torch.float64)
    engine_for(X).spread_squares_(sums, X, scale, shift, weight)
    T = wide(X) * wide(scale) - wide(shift)
    W = T if weight is None else T * wide(weight)[:, None]
    np.testing.assert_allclose(sums.numpy(), np.stack([(T * W).sum(0), W.sum(0)]).astype(float), rtol=1e-12)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_column_squares_tell_what_is_not_finite(bad: float) -> None:
    X = torch.ones(600, 3)
    X[599, 1] = bad
    squares = torch.zeros(3, dtype=torch.float64)
    engine_for(X).column_squares_(squares, X, torch.zeros(600, dtype=torch.float64))
    assert torch.isfinite(squares).tolist() == [True, False, True]


@needs_kernels
def test_compiled_passes_give_the_same_bits_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads_table, "NUMBERS_FOR_ONE", 100)
    torch.set_num_threads(4)
    X = torch.randn(5000, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    results = []
    for _ in range(2):
        sums = pass_sums(20, 1, X.device)
        engine_for(X).residual_sums_(sums, X, X[:, :1], torch.ones(20, 1, dtype=torch.float64))
        results.append(sums.flat)
    torch.set_num_threads(1)
    assert torch.equal(*results)


@parametrize_covering(
    3,
    indirect=("way", "threads"),
    way=WAYS,
    threads=(1, 3),
    dtype=(torch.float32, torch.float64),
    sums=(torch.float32, torch.float64),
    scaled=(False, True),
    ones=(False, True),
    sizes=((1, 1, 1), (700, 7, 1), (300, 16, 3), (515, 33, 17)),
)
@pytest.mark.usefixtures("way", "threads")
def test_normal_equations(
    dtype: torch.dtype, sums: torch.dtype, scaled: bool, ones: bool, sizes: tuple[int, int, int]
) -> None:
    m, n, k = sizes
    generator = torch.Generator().manual_seed(m + n + k)

    def gaussian(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    X, Y, y_scale = gaussian(2 * m, n + 2).to(dtype)[::2, 1:-1], gaussian(m, k).to(dtype), gaussian(k)
    row_scale, x_scale = (gaussian(m), gaussian(n)) if scaled else (None, None)
    p = n + ones
    gram, cross = torch.zeros(p, p, dtype=sums), torch.zeros(p, k, dtype=sums)
    half = m // 2
    for part in (slice(0, half), slice(half, m)):
        rows = None if row_scale is None else row_scale[part]
        engine_for(X).normal_equations_(
            gram, cross, X[part], Y[part], y_scale, row_scale=rows, x_scale=x_scale, ones=ones
        )
    A, B = wide(X), wide(Y) * wide(y_scale)
    if x_scale is not None:
        A = A * wide(x_scale)
    if ones:
        A = np.column_stack([np.ones(m, dtype=np.longdouble), A])
    if row_scale is not None:
        A, B = A * wide(row_scale)[:, None], B * wide(row_scale)[:, None]
    slack = 20 * torch.finfo(sums).eps * m
    np.testing.assert_allclose(np.triu(gram.numpy()), np.triu(A.T @ A).astype(float), atol=slack, rtol=1e-5)
    np.testing.assert_allclose(cross.numpy(), (A.T @ B).astype(float), atol=slack, rtol=1e-5)


@parametrize_covering(
    3,
    indirect=("way", "threads"),
    way=WAYS,
    threads=(1, 3),
    dtype=(torch.float32, torch.float64),
    scaled=(False, True),
    ones=(False, True),
    sizes=((1, 1, 1), (2, 16, 1), (511, 33, 17), (513, 49, 1), (1500, 7, 3), (2049, 96, 20), (1100, 300, 3)),
)
@pytest.mark.usefixtures("way", "threads")
def test_normal_equations_in_bfloat16(
    dtype: torch.dtype, scaled: bool, ones: bool, sizes: tuple[int, int, int]
) -> None:
    m, n, k = sizes
    generator = torch.Generator().manual_seed(m + n + k)
    X, Y = (torch.randn(2 * m, c, dtype=torch.float64, generator=generator).to(dtype) for c in (n + 2, k))
    X, Y = X[::2, 1:-1], Y[:m]
    y_scale = torch.full((k,), 0.25, dtype=torch.float64)
    x_scale = torch.ldexp(torch.ones(n, dtype=torch.float64), torch.arange(n) % 5 - 2) if scaled else None
    row_scale = torch.randn(m, dtype=torch.float64, generator=generator) if scaled else None
    order = torch.randperm(m, generator=generator)[: m // 2 + 1].sort().values if scaled else None
    gram, cross = torch.zeros(n + ones, n + ones), torch.zeros(n + ones, k)
    engine_for(X).normal_equations_(
        gram, cross, X, Y, y_scale, row_scale=row_scale, x_scale=x_scale, order=order, ones=ones, bfloat16=True
    )
    A, B = X.double() if x_scale is None else X.double() * x_scale, Y.double() * 0.25
    if ones:
        A = torch.cat([A.new_ones(m, 1), A], 1)
    if row_scale is not None and order is not None:
        A, B = (row_scale.unsqueeze(1) * A)[order], (row_scale.unsqueeze(1) * B)[order]
    # Rounded as torch rounds, by way of float32.
    A, B = (wide(values.to(torch.float32).to(torch.bfloat16).to(torch.float64)) for values in (A, B))
    slack = 20 * torch.finfo(torch.float32).eps * m
    np.testing.assert_allclose(np.triu(gram.numpy()), np.triu(A.T @ A).astype(float), atol=slack, rtol=1e-5)
    np.testing.assert_allclose(cross.numpy(), (A.T @ B).astype(float), atol=slack, rtol=1e-5)


@needs_kernels
def test_bfloat16_is_refused_where_it_cannot_be_multiplied() -> None:
    assert compiled.library is not None
    X, gram = torch.ones(4, 2), torch.zeros(4, 4)
    try:
        compiled.library.use_vectors(32)
        assert not compiled.multiplies_bfloat16()
        table = (X.data_ptr(), True, 4, 2, 2)
        with pytest.raises(ValueError, match="a processor that multiplies it"):
            compiled.library.gram_add(table, None, (0, 0, 0), (0, 0), (0, 0, 1), (gram.data_ptr(), 0, 16), (0,) * 4, 1)
    finally:
        compiled.library.use_vectors(compiled.library.WIDEST)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_targets_in_columns_of_any_precision(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(9)
    X = torch.randn(50, 6, dtype=torch.float64, generator=generator)
    Y, one = torch.randn(5, 50, generator=generator).to(dtype).T, torch.ones(5, dtype=torch.float64)
    gram, cross = torch.zeros(6, 6, dtype=torch.float64), torch.zeros(6, 5, dtype=torch.float64)
    engine_for(X).normal_equations_(gram, cross, X, Y, one)
    sums = pass_sums(6, 5, X.device)
    engine_for(X).residual_sums_(sums, X, Y, torch.zeros(6, 5, dtype=torch.float64))
    expected = (X.T @ Y.double()).numpy()
    np.testing.assert_allclose(cross.numpy(), expected, atol=1e-12)
    np.testing.assert_allclose(sums.features.numpy(), expected, atol=1e-12)


@pytest.mark.usefixtures("way", "threads")
@pytest.mark.parametrize("sums", [torch.float32, torch.float64], ids=["sums in float32", "sums in float64"])
@pytest.mark.parametrize("weighted", [False, True], ids=["unweighted", "weighted"])
def test_normal_equations_of_some_rows(sums: torch.dtype, weighted: bool) -> None:
    generator = torch.Generator().manual_seed(8)
    X, Y = (torch.randn(700, n, dtype=torch.float64, generator=generator) for n in (37, 5))
    order = torch.randperm(700, generator=generator)[:411].sort().values
    rows = torch.rand(700, dtype=torch.float64, generator=generator) if weighted else None
    gram, cross = torch.zeros(37, 37, dtype=sums), torch.zeros(37, 5, dtype=sums)
    engine_for(X).normal_equations_(gram, cross, X, Y, torch.ones(5, dtype=torch.float64), row_scale=rows, order=order)
    A, B = wide(X[order]), wide(Y[order])
    if rows is not None:
        A, B = A * wide(rows[order])[:, None], B * wide(rows[order])[:, None]
    slack = 20 * torch.finfo(sums).eps * 411
    np.testing.assert_allclose(np.triu(gram.numpy()), np.triu(A.T @ A).astype(float), atol=slack, rtol=1e-5)
    np.testing.assert_allclose(cross.numpy(), (A.T @ B).astype(float), atol=slack, rtol=1e-5)


@parametrize_covering(
    3,
    indirect=("way", "threads"),
    way=WAYS,
    threads=(1, 3),
    dtype=(torch.float32, torch.float64),
    sums=(torch.float32, torch.float64),
    weighted=(False, True),
    ones=(False, True),
    sizes=((1, 1, 1), (700, 7, 1), (257, 16, 3), (2049, 33, 17), (1100, 300, 3)),
)
@pytest.mark.usefixtures("way", "threads")
def test_normal_equations_with_sums_of_the_columns(
    dtype: torch.dtype, sums: torch.dtype, weighted: bool, ones: bool, sizes: tuple[int, int, int]
) -> None:
    m, n, k = sizes
    generator = torch.Generator().manual_seed(m + n + k)
    X, Y = (torch.randn(2 * m, c, dtype=torch.float64, generator=generator).to(dtype) for c in (n + 2, k))
    X, Y = X[::2, 1:-1], Y[:m]
    X[:, 0] *= 1e12
    X[:, -1] *= 1e-15
    root = torch.rand(m, dtype=torch.float64, generator=generator) if weighted else None
    one = torch.ones(k, dtype=torch.float64)
    grams, crosses = torch.zeros(2, n + ones, n + ones, dtype=sums), torch.zeros(2, n + ones, k, dtype=sums)
    spread = torch.zeros(2, n, dtype=torch.float64)
    engine = engine_for(X)
    for gram, cross, taken in ((grams[0], crosses[0], spread), (grams[1], crosses[1], None)):
        for part in (slice(0, m // 2), slice(m // 2, m)):
            rows = None if root is None else root[part]
            engine.normal_equations_(gram, cross, X[part], Y[part], one, row_scale=rows, ones=ones, spread=taken)
    weight = np.ones(m, dtype=np.longdouble) if root is None else wide(root) ** 2
    squares, totals = weight @ wide(X) ** 2, weight @ wide(X)
    np.testing.assert_allclose(spread[0].numpy(), squares.astype(float), rtol=1e-13)
    np.testing.assert_allclose(totals.astype(float), spread[1].numpy(), rtol=0, atol=1e-14 * m * np.sqrt(squares.max()))
    # The products are those that they are without.
    np.testing.assert_array_equal(grams[0].triu().numpy(), grams[1].triu().numpy())
    np.testing.assert_array_equal(crosses[0].numpy(), crosses[1].numpy())


@needs_kernels
def test_sums_of_the_columns_are_refused_where_they_would_be_of_other_rows() -> None:
    assert compiled.library is not None
    X, gram = torch.ones(4, 2), torch.zeros(2, 2)
    table, order, one = (X.data_ptr(), True, 4, 2, 2), torch.tensor([0, 2]), torch.ones(2, dtype=torch.float64)
    with pytest.raises(ValueError, match="over all rows"):
        compiled.library.gram_add(
            table,
            None,
            (0, 0, 0),
            (order.data_ptr(), 2),
            (0, 0, 0),
            (gram.data_ptr(), 0, 32),
            (0, one.data_ptr(), one.data_ptr(), one.data_ptr()),
            1,
        )


@pytest.mark.usefixtures("way", "threads")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("sums", [torch.float32, torch.float64], ids=["sums in float32", "sums in float64"])
@pytest.mark.parametrize(("m", "n"), [(1, 5), (19, 700), (40, 301)])
def test_gram_of_the_rows(dtype: torch.dtype, sums: torch.dtype, m: int, n: int) -> None:
    X = torch.randn(m, n + 1, dtype=torch.float64, generator=torch.Generator().manual_seed(m)).to(dtype)[:, 1:]
    scale = torch.linspace(0.5, 2.0, m, dtype=torch.float64)
    gram = torch.zeros(m, m, dtype=sums)
    engine_for(X).row_gram_(gram, X, scale)
    A = wide(X) * wide(scale)[:, None]
    slack = 20 * torch.finfo(sums).eps * n
    np.testing.assert_allclose(np.triu(gram.numpy()), np.triu(A @ A.T).astype(float), atol=slack, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_gram_and_cholesky(dtype: torch.dtype) -> None:
    A = torch.randn(200, 30, dtype=torch.float64, generator=torch.Generator().manual_seed(5)).to(dtype)
    gram = torch.zeros(30, 30, dtype=dtype)
    for part in A.split(64):
        gram_(gram, part)
    expected = wide(A).T @ wide(A)
    eps = torch.finfo(dtype).eps
    np.testing.assert_allclose(np.triu(gram.numpy()), np.triu(expected).astype(float), atol=200 * 200 * eps)
    R, info = cholesky(gram)
    assert info == 0
    assert torch.equal(R, R.triu())
    np.testing.assert_allclose((wide(R).T @ wide(R)).astype(float), expected.astype(float), atol=200 * 200 * eps)
    assert cholesky(torch.tensor([[1.0, 2.0], [2.0, 1.0]], dtype=dtype))[1] == 2
