"""Arrays of NumPy and of others: read where they lie, copied where torch cannot hold them, or refused in our words."""

from __future__ import annotations

import ctypes
import sys
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.lib.recfunctions import structured_to_unstructured

import closedform as cf
from closedform.rows.arrays import array_to_tensor
from closedform.rows.tensors import as_tensor
from closedform.words.errors import ClosedformError, DataTypeError, InputError
from fresh import run

RNG = np.random.default_rng(11)
TABLE = RNG.standard_normal((6, 4))


def packed() -> np.ndarray[Any, Any]:
    """A record whose field starts at an odd address, with strides that are multiples of its size."""
    records = np.zeros(6, dtype=[("flag", "i1"), ("x", "f8", 2), ("rest", "S7")])
    records["x"] = TABLE[:, :2]
    return records["x"]


STRIDED: dict[str, Callable[[], np.ndarray[Any, Any]]] = {
    "reversed": lambda: TABLE[::-1],
    "reversed both ways": lambda: TABLE[::-1, ::-1],
    "one row reversed": lambda: TABLE[:1][::-1],
    "one column reversed": lambda: TABLE[:, :1][:, ::-1],
    "one number reversed": lambda: TABLE[:1, :1][::-1, ::-1],
    "one row of a record": lambda: np.ones(1, dtype=[("x", "f4", 3), ("flag", "i1")])["x"],
    "rows of a record": lambda: np.ones(5, dtype=[("x", "f4", 3), ("flag", "i1")])["x"],
    "at an odd address": packed,
    "invented strides of one row": lambda: np.lib.stride_tricks.as_strided(TABLE, (1, 4), (-7, 8)),
    "broadcast": lambda: np.broadcast_to(TABLE[0], (5, 4)),
    "windows": lambda: np.lib.stride_tricks.sliding_window_view(TABLE.ravel(), 3),
    "Fortran": lambda: np.asfortranarray(TABLE),
    "other bytes": lambda: TABLE.astype(">f8"),
    "other bytes, reversed": lambda: TABLE.astype(">f4")[::-1],
    "read-only": lambda: np.frombuffer(TABLE.tobytes()).reshape(6, 4),
    "a subclass": lambda: TABLE.view(np.recarray),
    "masked without a mask": lambda: np.ma.masked_array(TABLE),
    "no rows, reversed": lambda: TABLE[:0][::-1],
    "half": lambda: TABLE.astype(np.float16),
    "long double": lambda: TABLE.astype(np.longdouble),
    "boolean": lambda: TABLE > 0,
}


@pytest.mark.parametrize("kind", STRIDED)
def test_every_layout_of_numpy_holds_its_numbers(kind: str) -> None:
    array = STRIDED[kind]()
    tensor, _ = as_tensor(array, "X")
    assert tuple(tensor.shape) == array.shape
    np.testing.assert_array_equal(tensor.to(torch.float64).numpy(), np.asarray(array, dtype=np.float64))
    if array.size:
        Y = RNG.standard_normal(array.shape[0])
        expected = cf.solve(np.array(array, dtype=np.float64), Y)
        torch.testing.assert_close(
            cf.solve(array, Y).predict(array).double(), expected.predict(array), rtol=1e-2, atol=1e-2
        )


def test_what_torch_can_hold_is_not_copied() -> None:
    for array in (TABLE, TABLE[::2], TABLE.T, TABLE[:, 1:3], np.broadcast_to(TABLE[0], (5, 4))):
        assert array_to_tensor(array, "X")[0].data_ptr() == array.ctypes.data


def test_records_are_the_table_of_their_fields() -> None:
    kinds = [("a", "f8"), ("b", "i4"), ("c", "f4", (2,))]
    records = np.array([(1.0, 2, (3, 4)), (3.0, 4, (1, 9)), (5.0, 9, (2, 6))], dtype=kinds)
    table = structured_to_unstructured(records)
    assert torch.equal(cf.solve(records, table[:, 0]).weight, cf.solve(table, table[:, 0]).weight)
    assert "(a, b, c[0], c[1])" in str(cf.solve(records, table[:, 0]))
    masked = np.ma.array(records[["a", "b"]], mask=[(False, False), (False, True), (False, False)])
    for data, error, message in [
        (masked, InputError, r"column 'b' of X has a missing value, first in row 1"),
        (np.array([("u", 1.0)], dtype=[("word", "U1"), ("b", "f8")]), DataTypeError, r"column 'word' of X holds <U1"),
        (np.array([((1,), 1.0)], dtype=[("in", [("u", "i4")]), ("b", "f8")]), DataTypeError, r"'in' of X .* record"),
        (records[:, None], DataTypeError, "structured_to_unstructured"),
    ]:
        with pytest.raises(error, match=message):
            as_tensor(data, "X")


class Exporter:
    """An array of another library, which says so by DLPack alone."""

    def __init__(self, array: Any, device: tuple[int, int] = (1, 0), error: Exception | None = None) -> None:
        self.array, self.device, self.error = array, device, error

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device

    def __dlpack__(self, **options: Any) -> Any:
        if self.error is not None:
            raise self.error
        return self.array.__dlpack__(**options)


class OldExporter(Exporter):
    """One that was written before version 1."""

    def __dlpack__(self, stream: Any = None) -> Any:
        return self.array.__dlpack__(stream=stream)


@pytest.mark.parametrize("exporter", [Exporter, OldExporter])
@pytest.mark.parametrize("kind", [kind for kind in STRIDED if kind not in {"at an odd address", "long double"}])
def test_strides_of_exporters(kind: str, exporter: type[Exporter]) -> None:
    # A mistake here ends the process, which pytest reports as a lost worker.
    array = np.asarray(STRIDED[kind]())
    try:
        tensor, _ = as_tensor(exporter(array), "X")
    except DataTypeError as error:
        assert "DLPack" in str(error)  # noqa: PT017 - NumPy refuses to export some
        assert not array.flags.writeable or not array.dtype.isnative or "of a record" in kind or "invented" in kind
    else:
        np.testing.assert_array_equal(tensor.to(torch.float64).numpy(), np.asarray(array, dtype=np.float64))


def test_negative_strides_of_an_exporter_do_not_end_the_process() -> None:
    result = run(
        "import numpy as np, torch, closedform as cf\n"
        "class Flipped:\n"
        "    array = np.arange(12.0).reshape(6, 2)[::-1] ** 2\n"
        "    def __dlpack__(self, **options): return self.array.__dlpack__(**options)\n"
        "    def __dlpack_device__(self): return self.array.__dlpack_device__()\n"
        "Y = np.arange(6.0)\n"
        "assert torch.equal(cf.solve(Flipped(), Y).weight, cf.solve(Flipped.array.copy(), Y).weight)\n"
        "class Elsewhere(Flipped):\n"
        "    def __dlpack_device__(self): return (2, 0)\n"
        "try:\n"
        "    cf.solve(Elsewhere(), Y)\n"
        "except cf.ClosedformError as error:\n"
        "    assert 'DLPack' in str(error)\n"
        "else:\n"
        "    raise AssertionError('solved on a device that is not there')\n"
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("error", [BufferError("busy"), ZeroDivisionError("odd"), KeyError("key"), AssertionError()])
def test_errors_of_an_exporter_are_told_in_our_words(error: Exception) -> None:
    with pytest.raises(DataTypeError, match=str(error).strip("'") or "AssertionError"):
        cf.solve(Exporter(TABLE, error=error), np.ones(6))
    for device in ((2, 0), (99, 0), (1, 7)):
        with pytest.raises(DataTypeError, match="DLPack"):
            cf.solve(Exporter(TABLE, device, error), np.ones(6))


class Protocol:
    """An object with one attribute of its class."""

    def __init__(self, array: Any) -> None:
        self.array = array


def following(name: str, value: Any) -> Any:
    return type("Follower", (Protocol,), {name: value})(TABLE[::-1])


def test_the_older_protocols_are_read() -> None:
    expected = cf.solve(TABLE[::-1].copy(), np.arange(6.0)).weight
    for data in (
        following("__array__", lambda self, dtype=None, copy=None: self.array),
        following("__array_interface__", property(lambda self: self.array.__array_interface__)),
        following("__array_struct__", property(lambda self: self.array.__array_struct__)),
        memoryview(TABLE[::-1]),
        (ctypes.c_double * 4 * 6)(*(tuple(row) for row in TABLE[::-1].tolist())),
    ):
        assert torch.equal(cf.solve(data, np.arange(6.0)).weight, expected)


def boom(*_: Any, **__: Any) -> Any:
    raise RuntimeError("boom\nof its own")


@pytest.mark.parametrize(
    "data",
    [
        following("__array__", boom),
        following("__array_interface__", property(boom)),
        following("__array_interface__", {"shape": (2,), "typestr": "?!", "version": 3}),
        following("__cuda_array_interface__", {"shape": (6, 4), "typestr": "<f8", "data": (0, False), "version": 3}),
        following("__getattr__", boom),
        following("__dask_graph__", boom),
        following("__arrow_c_stream__", boom),
        following("__arrow_c_array__", boom),
        following("__dlpack__", boom),
        following("__torch_function__", boom),
        following("__len__", boom),
    ],
    ids=lambda data: next(
        name for name in vars(type(data)) if name.startswith("__") and name not in ("__module__", "__doc__")
    ),
)
def test_whatever_a_class_raises_is_told_in_one_line_of_ours(data: Any) -> None:
    for arguments in ((data, np.ones(6)), (TABLE, data), (TABLE, np.ones(6), data)):
        with pytest.raises(ClosedformError) as caught:
            cf.solve(*arguments[:2], sample_weight=arguments[2] if len(arguments) > 2 else None)
        assert "\n" not in str(caught.value)


class Lazy:
    """A collection as Dask's are."""

    def __init__(self, result: Any) -> None:
        self.result = result

    def __dask_graph__(self) -> dict[str, Any]:
        return {}

    def compute(self) -> Any:
        return self.result


class OnDemand:
    """An array that is somewhere else until it is asked for."""

    shape, dtype = TABLE.shape, TABLE.dtype

    def __getitem__(self, index: Any) -> Any:
        return TABLE[index]

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        return TABLE


def test_what_is_pulled_into_memory_is_told() -> None:
    sol = cf.solve(Lazy(TABLE), Lazy(np.arange(6)))
    assert sum("Dask collection" in note and "into memory" in note for note in sol.notes) == 2
    (note,) = as_tensor(OnDemand(), "X")[1]
    assert note.startswith("X is a OnDemand")
    assert "into memory as a whole" in note
    assert as_tensor(TABLE, "X")[1] == ()


def test_an_array_of_xarray_is_the_array_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    class DataArray:
        data = TABLE
        ndim = 2
        dims = ("row", "column")
        indexes: dict[str, Any] = {}  # noqa: RUF012

    monkeypatch.setitem(sys.modules, "xarray", types.SimpleNamespace(DataArray=DataArray))
    assert torch.equal(cf.solve(DataArray(), np.arange(6.0)).weight, cf.solve(TABLE, np.arange(6.0)).weight)
    DataArray.data = Lazy(TABLE)  # type: ignore[assignment]
    assert any("Dask" in note for note in cf.solve(DataArray(), np.arange(6.0)).notes)


def test_the_small_floats_of_ml_dtypes() -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    tensor, notes = as_tensor(TABLE.astype(ml_dtypes.bfloat16)[::-1], "X")
    assert tensor.dtype == torch.bfloat16
    assert notes == ()
    assert torch.equal(tensor, torch.as_tensor(TABLE[::-1].copy()).bfloat16())
    for name in ("float8_e4m3fn", "float8_e5m2", "float8_e8m0fnu", "int4", "uint2", "float4_e2m1fn"):
        with pytest.raises(DataTypeError, match=rf"{name} values, .* pass X\.astype\(np\.float"):
            cf.solve(np.ones((6, 4)).astype(getattr(ml_dtypes, name)), np.ones(6))


def endless() -> Any:
    class Endless:
        def __len__(self) -> int:
            return 2

        def __getitem__(self, index: int) -> Any:
            return self

    return Endless()


def holding_itself() -> list[Any]:
    items: list[Any] = []
    items += [items, items]
    return items


@pytest.mark.parametrize("make", [endless, holding_itself])
def test_what_is_nested_without_end_is_refused_at_once(make: Callable[[], Any]) -> None:
    with pytest.raises(DataTypeError, match="nested more than 32 levels"):
        cf.solve(make(), [1.0, 2.0])


@pytest.mark.parametrize(
    "change",
    [
        list,
        tuple,
        lambda t: [list(row) for row in t],
        lambda t: list(t.clone().requires_grad_()),
        lambda t: list(torch._neg_view(-t)),
    ],
    ids=["rows", "tuple", "numbers", "in a graph", "lazily negative"],
)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_lists_of_tensors(change: Callable[[torch.Tensor], Any], dtype: torch.dtype) -> None:
    X = torch.as_tensor(TABLE).to(dtype)
    tensor, _ = as_tensor(change(X), "X")
    assert torch.equal(tensor, X)
    assert tensor.dtype == dtype


def test_lists_of_tensors_that_do_not_belong_together() -> None:
    with pytest.raises(InputError, match=r"X\[0\] has shape \(2,\), but X\[1\] has shape \(3,\)|X\[1\] has \(3,\)"):
        cf.solve([torch.ones(2), torch.ones(3)], [1.0, 2.0])
    with pytest.raises(DataTypeError, match=r"X\[1\] is complex"):
        cf.solve([torch.ones(2), torch.ones(2) + 0j], [1.0, 2.0])
    tensor, _ = as_tensor([torch.tensor([1, 2**24 + 1]), torch.tensor([0.5, 1.0])], "X")
    assert tensor.tolist() == [[1.0, 2.0**24 + 1], [0.5, 1.0]]
