"""Tensors whose memory is not what they say: resolved where that can be, refused where there is nothing to read."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from closedform.engine import compiled
from closedform.engine.choice import engine_for
from closedform.engine.memory import address, held, resolved, table
from closedform.engine.products import Blas, gram_
from closedform.engine.sums import pass_sums
from closedform.numerics.lu import LU
from closedform.numerics.matrix_product import product, scaled_columns
from closedform.words.errors import DataTypeError

ONE = torch.ones(1, dtype=torch.float64)


@pytest.fixture(params=["compiled", "many sums", "blas"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param != "blas" and not compiled.available():
        pytest.skip("no C compiler built the loops here")
    if request.param == "blas":
        monkeypatch.setattr(compiled, "library", None)
    elif request.param == "many sums":
        monkeypatch.setattr(compiled, "_MOST_SUMS", 0)
    return str(request.param)


def negated(rows: int, columns: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Numbers whose memory holds their negatives."""
    generator = torch.Generator().manual_seed(rows + columns)
    table = torch.complex(*(torch.randn(rows, columns, dtype=dtype, generator=generator) for _ in range(2)))
    lazy = table.conj().imag
    # Their step is two numbers; a copy of them that keeps the promise is a table that loops read.
    values = torch._neg_view(lazy.neg().resolve_neg().contiguous())
    assert values.is_neg()
    assert torch.equal(values, lazy)
    return values


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_lazy_signs_reach_every_sum(dtype: torch.dtype) -> None:
    X, Y = negated(30, 4, dtype), negated(30, 2, dtype)
    V, offset, weight, scale = negated(4, 2), negated(1, 2)[0], negated(30, 1)[:, 0], negated(1, 2)[0]
    row_scale, x_scale = negated(30, 1)[:, 0], negated(1, 4)[0]
    plain = [values.resolve_neg() for values in (X, Y, V, offset, weight, scale, row_scale, x_scale)]
    engine = engine_for(X)

    def all_sums(values: list[Tensor]) -> list[Tensor]:
        X, Y, V, offset, weight, scale, row_scale, x_scale = values
        squares, spread, gram, cross, rows, sketch = (
            torch.zeros(*shape, dtype=torch.float64) for shape in ((4,), (2, 4), (4, 4), (4, 2), (30, 30), (5, 4))
        )
        sums = pass_sums(4, 2, X.device)
        engine.column_squares_(squares, X, weight)
        engine.spread_squares_(spread, X, x_scale, x_scale, weight)
        engine.residual_sums_(sums, X, Y, V, offset, weight, scale)
        engine.normal_equations_(gram, cross, X, Y, scale, row_scale=row_scale, x_scale=x_scale)
        engine.row_gram_(rows, X, row_scale)
        targets = torch.zeros(30, 1, dtype=torch.int32)
        engine.sketch_(sketch, X, targets, row_scale.unsqueeze(1))
        return [squares, spread, sums.flat, gram.triu(), cross, rows.triu(), sketch]

    lazy = [X, Y, V, offset, weight, scale, row_scale, x_scale]
    for found, expected in zip(all_sums(lazy), all_sums(plain), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.skipif(not compiled.available(), reason="no C compiler built the loops here")
def test_lazy_signs_reach_sums_of_three_doubles() -> None:
    X, Y = negated(30, 4), negated(30, 2)
    V, offset = torch.zeros(3, 2, 4, dtype=torch.float64), torch.zeros(3, 2, dtype=torch.float64)
    V[0], offset[0] = negated(2, 4), negated(1, 2)
    found = []
    for values in ((X, Y), (X.resolve_neg(), Y.resolve_neg())):
        sums = torch.zeros(3 * 2 * 5 + 2, dtype=torch.float64)
        engine_for(X).expansion_sums_(sums, *values, V, offset, None, ONE.repeat(2))
        found.append(sums)
    assert torch.equal(*found)


def test_the_gram_matrix_of_lazy_signs() -> None:
    A = torch.cat([negated(6, 2), torch.ones(6, 1, dtype=torch.float64)], 1)
    lazy = torch._neg_view(A.neg())
    gram = torch.zeros(3, 3, dtype=torch.float64)
    gram_(gram, lazy)
    torch.testing.assert_close(gram.triu(), (A.T @ A).triu())


def test_lazy_signs_reach_blas_and_lapack() -> None:
    M, V, scale = negated(4, 4), negated(4, 3), negated(1, 4)[0]
    plain = [values.resolve_neg() for values in (M, V, scale)]
    torch.testing.assert_close(product(M, V), plain[0] @ plain[1])
    torch.testing.assert_close(product(M, V[:, :1]), plain[0] @ plain[1][:, :1])
    torch.testing.assert_close(product(M.T, V, adjoint=True), plain[0] @ plain[1])
    torch.testing.assert_close(scaled_columns(M, scale), plain[0] * plain[2])
    torch.testing.assert_close(plain[0] @ LU(M).solve(V), plain[1])


class Named(Tensor):
    """A subclass that changes nothing about its memory."""


class Wrapped(Tensor):
    """A subclass whose numbers are in another tensor, and whose own memory is none."""

    @staticmethod
    def __new__(cls, values: Tensor) -> Wrapped:
        wrapped = Tensor._make_wrapper_subclass(cls, values.shape, dtype=values.dtype, device=values.device)
        wrapped.values = values
        return wrapped

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        return function(*(each.values if isinstance(each, cls) else each for each in args), **(kwargs or {}))


def fake(values: Tensor) -> Tensor:
    return FakeTensorMode().from_tensor(values)


def given_back(values: Tensor) -> Tensor:
    values = values.clone()
    values.untyped_storage().resize_(0)
    return values


def cut_short(values: Tensor) -> Tensor:
    values = values.clone()
    values.untyped_storage().resize_(values.numel() * values.itemsize - 1)
    return values


WITHOUT_MEMORY: dict[str, Callable[[Tensor], Tensor]] = {
    "wrapper": Wrapped,
    "fake": fake,
    "functional": torch._to_functional_tensor,
    "zeros that are not stored": lambda values: torch._efficientzerotensor(*values.shape, dtype=values.dtype),
    "given back": given_back,
    "cut short": cut_short,
}


@pytest.mark.skipif(not compiled.available(), reason="no C compiler built the loops here")
@pytest.mark.parametrize("make", WITHOUT_MEMORY.values(), ids=WITHOUT_MEMORY)
def test_without_memory_nothing_is_read(make: Callable[[Tensor], Tensor]) -> None:
    X = torch.ones(8, 2, dtype=torch.float64)
    bad = make(X)
    squares, sums = torch.zeros(2, dtype=torch.float64), pass_sums(2, 2, X.device)
    gram, cross = torch.zeros(2, 2, dtype=torch.float64), torch.zeros(2, 2, dtype=torch.float64)
    engine = engine_for(X)
    with pytest.raises(DataTypeError, match="memory"):
        engine.column_squares_(squares, bad)
    with pytest.raises(DataTypeError, match="memory"):
        engine.residual_sums_(sums, X, bad, torch.eye(2, dtype=torch.float64))
    with pytest.raises(DataTypeError, match="memory"):
        engine.normal_equations_(gram, cross, bad, X, ONE.repeat(2))
    # A call that fails has changed nothing.
    assert not squares.any()
    assert not sums.flat.any()
    assert not gram.any()


@pytest.mark.skipif(not compiled.available(), reason="no C compiler built the loops here")
def test_under_a_transformation_nothing_is_read() -> None:
    def read(X: Tensor) -> Tensor:
        squares = torch.zeros(2, dtype=torch.float64)
        engine_for(X).column_squares_(squares, X)
        return squares

    with pytest.raises(DataTypeError, match="outside of torch"):
        torch.func.vmap(read)(torch.ones(3, 8, 2, dtype=torch.float64))
    with pytest.raises(DataTypeError, match="outside of torch"):
        torch.func.jacrev(read)(torch.ones(8, 2, dtype=torch.float64))


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda: torch.quantize_per_tensor(torch.ones(3, 2), 1.0, 0, torch.quint8), id="quantised"),
        pytest.param(lambda: torch.eye(3).to_sparse(), id="sparse"),
        pytest.param(lambda: torch.eye(3, device="meta"), id="meta"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*:UserWarning", "ignore:.*:DeprecationWarning")
def test_other_layouts_and_devices_have_no_memory_to_read(make: Callable[[], Tensor]) -> None:
    with pytest.raises(DataTypeError, match="no memory of its own"):
        address(resolved(make()))


def test_a_subclass_with_plain_memory_is_unwrapped() -> None:
    values = torch.arange(6.0).view(3, 2).as_subclass(Named)
    found, described = table(values)
    assert type(found) is Tensor
    assert described == (values.data_ptr(), True, 3, 2, 2)
    parameter = torch.nn.Parameter(torch.ones(2, 2))
    assert held(parameter) is parameter


@pytest.mark.skipif(not compiled.available(), reason="no C compiler built the loops here")
@pytest.mark.parametrize(
    "values",
    [
        pytest.param(
            torch.randn(4, 30, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).T, id="columns"
        ),
        pytest.param(torch.arange(120.0).half().view(30, 4), id="half precision"),
        pytest.param(torch.arange(240.0).view(30, 8)[:, ::2], id="every second column"),
        pytest.param(torch.arange(4.0).expand(30, 4), id="one row again and again"),
        pytest.param(torch.arange(120).view(30, 4), id="integers"),
    ],
)
def test_a_block_that_is_not_like_its_table_is_read_right(values: Tensor) -> None:
    engine = engine_for(torch.ones(30, 4, dtype=torch.float64))
    assert not isinstance(engine, Blas)
    squares = torch.zeros(4, dtype=torch.float64)
    engine.column_squares_(squares, values)
    torch.testing.assert_close(squares, values.double().square().sum(0))


def test_sums_that_have_no_memory_are_not_written_to() -> None:
    for make in (given_back, torch._to_functional_tensor):
        with pytest.raises(DataTypeError, match="no memory of its own"):
            address(make(torch.ones(3, 2)))
    assert address(None) == 0
    assert address(torch.ones(0, 3)) == 0


def test_the_engine_of_matrix_products_has_no_expansions() -> None:
    assert not Blas().sums_expansions
    nothing = torch.zeros(0, dtype=torch.float64)
    with pytest.raises(NotImplementedError, match="Blas has no sums of three doubles"):
        Blas().expansion_sums_(nothing, nothing, nothing, nothing, nothing, None, nothing)
