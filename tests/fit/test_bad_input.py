"""Bad input at the Python door: a documented exception that says where the trouble is, and nothing changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch

import closedform as cf
from closedform.fit.plan import METHOD_NAMES
from closedform.words.errors import ClosedformError, DataTypeError, InputError, MethodRefusedError, NonFiniteError

RNG = np.random.default_rng(0)
X = RNG.standard_normal((10, 3))
Y = RNG.standard_normal((10, 2))


def spoiled(table: np.ndarray[Any, Any], *places: tuple[int, int], value: float = np.nan) -> np.ndarray[Any, Any]:
    table = table.copy()
    for place in places:
        table[place] = value
    return table


def weights(value: float, row: int = 6) -> np.ndarray[Any, Any]:
    w = np.ones(10)
    w[row] = value
    return w


#: name, call arguments, exception, words that the message must hold
BAD: list[tuple[str, dict[str, Any], type[ClosedformError], list[str]]] = [
    ("NaN in X", {"X": spoiled(X, (7, 1), (4, 1))}, NonFiniteError, ["X", "nan", "column 1", "row 4"]),
    ("infinity in X", {"X": spoiled(X, (9, 2), value=np.inf)}, NonFiniteError, ["X", "inf", "column 2", "row 9"]),
    ("-infinity in Y", {"Y": spoiled(Y, (3, 1), value=-np.inf)}, NonFiniteError, ["Y", "column 1", "row 3"]),
    ("NaN in one-dimensional Y", {"Y": spoiled(Y, (5, 0))[:, 0]}, NonFiniteError, ["Y", "nan", "row 5"]),
    (
        "NaN in a float32 tensor",
        {"X": torch.as_tensor(spoiled(X, (2, 0))).float()},
        NonFiniteError,
        ["X", "nan", "column 0", "row 2"],
    ),
    (
        "NaN in a row of weight zero",
        {"X": spoiled(X, (6, 0)), "sample_weight": weights(0.0)},
        NonFiniteError,
        ["X", "column 0", "row 6"],
    ),
    (
        "NaN beside an infinity",
        {"X": spoiled(spoiled(X, (1, 0), value=np.inf), (8, 0), value=-np.inf)},
        NonFiniteError,
        ["X", "column 0", "row 1"],
    ),
    ("no rows", {"X": X[:0], "Y": Y[:0]}, InputError, ["X", "empty", "(0, 3)"]),
    ("no features", {"X": X[:, :0]}, InputError, ["X", "empty", "(10, 0)"]),
    ("no targets", {"Y": Y[:, :0]}, InputError, ["Y", "empty", "(10, 0)"]),
    ("rows do not match", {"Y": Y[:9]}, InputError, ["(10, 3)", "(9, 2)"]),
    ("Y transposed", {"Y": Y.T}, InputError, ["(10, 3)", "(2, 10)", "transposed"]),
    ("Y with one dimension too many", {"Y": Y[:, :, None]}, InputError, ["(10, 3)", "(10, 2, 1)"]),
    ("leading dimensions do not match", {"X": X.reshape(2, 5, 3)}, InputError, ["(2, 5, 3)", "(10, 2)"]),
    ("one-dimensional X", {"X": X[:, 0]}, InputError, ["(10,)", "reshape(-1, 1)"]),
    ("X is one number", {"X": np.float64(1.0), "Y": np.float64(1.0)}, InputError, ["()"]),
    ("complex X", {"X": X + 0j}, DataTypeError, ["X", "complex"]),
    ("complex tensor Y", {"Y": torch.as_tensor(Y) + 0j}, DataTypeError, ["Y", "complex"]),
    ("object X", {"X": X.astype(object)}, DataTypeError, ["X", "object"]),
    ("string X", {"X": X.astype(str)}, DataTypeError, ["X", "<U"]),
    ("ragged lists", {"X": [[1.0, 2.0], [3.0]]}, DataTypeError, ["X"]),
    ("X is a word", {"X": "table"}, ClosedformError, ["X"]),
    ("X is None", {"X": None}, DataTypeError, ["X"]),
    ("dates", {"X": np.zeros((10, 3), dtype="datetime64[s]")}, DataTypeError, ["X", "datetime64"]),
    ("sparse COO X", {"X": torch.as_tensor(X).to_sparse()}, DataTypeError, ["X", "sparse", "to_dense"]),
    ("sparse Y", {"Y": torch.as_tensor(Y).to_sparse()}, DataTypeError, ["Y", "sparse"]),
    ("meta X", {"X": torch.empty(10, 3, device="meta")}, DataTypeError, ["X", "meta"]),
    ("meta Y", {"Y": torch.empty(10, 2, device="meta")}, DataTypeError, ["Y", "meta"]),
    (
        "masked entries",
        {"X": np.ma.masked_array(X, mask=X > 1)},
        DataTypeError,
        ["X", "masked"],
    ),
    ("integers beyond float64", {"X": np.full((10, 3), 2**64 - 1, dtype=np.uint64)}, DataTypeError, ["X", "2**63"]),
    (
        "pandas string column",
        {"X": pd.DataFrame({"height": X[:, 0], "colour": ["red"] * 10})},
        DataTypeError,
        ["X", "'colour'"],
    ),
    (
        "pandas missing value",
        {"X": pd.DataFrame({"height": spoiled(X, (4, 0))[:, 0]})},
        InputError,
        ["X", "'height'", "row 4"],
    ),
    (
        "polars string column",
        {"X": pl.DataFrame({"height": X[:, 0], "colour": ["red"] * 10})},
        DataTypeError,
        ["X", "'colour'"],
    ),
    (
        "polars null",
        {"Y": pl.DataFrame({"price": [1.0] * 8 + [None, None]})},
        InputError,
        ["Y", "'price'", "row 8"],
    ),
    ("negative weight", {"sample_weight": weights(-0.5)}, InputError, ["sample_weight", "-0.5", "row 6"]),
    ("NaN weight", {"sample_weight": weights(np.nan)}, InputError, ["sample_weight", "nan", "row 6"]),
    ("infinite weight", {"sample_weight": weights(np.inf)}, InputError, ["sample_weight", "inf", "row 6"]),
    ("no positive weight", {"sample_weight": np.zeros(10)}, InputError, ["sample_weight", "positive"]),
    ("weights of another length", {"sample_weight": np.ones(9)}, InputError, ["sample_weight", "(9,)", "(10,)"]),
    ("weights per entry", {"sample_weight": np.ones((10, 2))}, InputError, ["sample_weight", "(10, 2)"]),
    ("complex weights", {"sample_weight": np.ones(10) + 0j}, DataTypeError, ["sample_weight", "complex"]),
    ("negative l2", {"l2": -0.1}, InputError, ["l2", "-0.1"]),
    ("negative l2 of one target", {"l2": [0.5, -2.0]}, InputError, ["l2", "-2.0"]),
    ("NaN l2", {"l2": float("nan")}, InputError, ["l2", "nan"]),
    ("infinite l2", {"l2": float("inf")}, InputError, ["l2", "inf"]),
    ("l2 of another length", {"l2": [0.5, 0.5, 0.5]}, InputError, ["l2", "3", "2"]),
    ("l2 is a truth value", {"l2": True}, InputError, ["l2=True", "number"]),
    ("l2 holds a truth value", {"l2": [True, 2.0]}, InputError, ["l2=[True, 2.0]", "number"]),
    ("l2 is a word", {"l2": "strong"}, ClosedformError, ["l2"]),
    ("negative rcond", {"rcond": -1e-3}, InputError, ["rcond", "-0.001"]),
    ("NaN rcond", {"rcond": float("nan")}, InputError, ["rcond", "nan"]),
    ("more digits than float64 holds", {"digits": 16}, InputError, ["digits", "16", "15"]),
    ("no digits", {"digits": 0}, InputError, ["digits", "0"]),
    ("half a digit", {"digits": 2.5}, InputError, ["digits", "2.5"]),
    ("unknown method", {"method": "magic"}, InputError, ["method", "magic"]),
]

NAMES = [name for name, *_ in BAD]


def holds(error: BaseException, words: list[str]) -> None:
    message = str(error)
    assert "\n" not in message.strip(), "one line is asked for"
    for word in words:
        assert word in message, f"{word!r} is missing from: {message}"


@pytest.mark.parametrize(("name", "arguments", "kind", "words"), BAD, ids=NAMES)
def test_solve_says_what_is_wrong(
    name: str, arguments: dict[str, Any], kind: type[ClosedformError], words: list[str]
) -> None:
    with pytest.raises(kind) as caught:
        cf.solve(**{"X": X, "Y": Y, **arguments})
    holds(caught.value, words)


@pytest.mark.parametrize(("name", "arguments", "kind", "words"), BAD, ids=NAMES)
def test_a_failed_fit_leaves_the_layer_as_it_was(
    name: str, arguments: dict[str, Any], kind: type[ClosedformError], words: list[str]
) -> None:
    layer = torch.nn.Linear(3, 2, dtype=torch.float64)
    before = [p.detach().clone() for p in layer.parameters()]
    with pytest.raises(ClosedformError):
        cf.fit_(layer, **{"X": X, "Y": Y, **arguments})
    assert all(torch.equal(a, b) for a, b in zip(before, layer.parameters(), strict=True))


def linear(features: int, targets: int, **options: Any) -> Callable[[], torch.nn.Module]:
    return lambda: torch.nn.Linear(features, targets, dtype=torch.float64, **options)


def holding(**parameters: torch.Tensor) -> Callable[[], torch.nn.Module]:
    def make() -> torch.nn.Module:
        layer = torch.nn.Linear(3, 2, dtype=torch.float64)
        for name, value in parameters.items():
            setattr(layer, name, torch.nn.Parameter(value, requires_grad=False))
        return layer

    return make


class _Elsewhere(torch.Tensor):
    """Values that are not where the tensor says, as those of sharded and quantised ones."""

    @staticmethod
    def __new__(cls, values: torch.Tensor) -> _Elsewhere:
        made = torch.Tensor._make_wrapper_subclass(cls, values.shape, dtype=values.dtype)  # type: ignore[attr-defined]
        made.values_elsewhere = values
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.detach.default:
            return cls(args[0].values_elsewhere.clone())
        raise NotImplementedError(f"{func} on values elsewhere")


#: name, layer, exception, words that the message must hold
BAD_LAYERS: list[tuple[str, Callable[[], torch.nn.Module], type[ClosedformError], list[str]]] = [
    ("too wide", linear(4, 2), InputError, ["4", "3"]),
    ("too narrow", linear(2, 2), InputError, ["2", "3"]),
    ("too many outputs", linear(3, 5), InputError, ["5", "2"]),
    ("meta layer", linear(3, 2, device="meta"), DataTypeError, ["meta"]),
    ("sharded or quantised", holding(weight=_Elsewhere(torch.ones(2, 3))), DataTypeError, ["_Elsewhere", "quantised"]),
    ("a bias elsewhere", holding(bias=_Elsewhere(torch.ones(2))), DataTypeError, ["bias", "quantised"]),
    ("float8", holding(weight=torch.ones(2, 3).to(torch.float8_e4m3fn)), DataTypeError, ["float8", "floating dtype"]),
    ("a shard", holding(weight=torch.ones(1, 3)), DataTypeError, ["(1, 3)", "shard"]),
    ("not a Linear", lambda: torch.nn.Sequential(torch.nn.Linear(3, 2)), ClosedformError, ["Linear", "Sequential"]),
]

DOORS: dict[str, Callable[[Any], Any]] = {
    "fit_": lambda layer: cf.fit_(layer, X, Y),
    "nearest_to": lambda layer: cf.solve(X, Y, bias=True, nearest_to=layer),
    "gap": lambda layer: cf.gap(layer, X, Y),
}


@pytest.mark.parametrize(("name", "make", "kind", "words"), BAD_LAYERS, ids=[name for name, *_ in BAD_LAYERS])
@pytest.mark.parametrize("door", DOORS)
def test_a_layer_that_does_not_fit(
    door: str, name: str, make: Callable[[], torch.nn.Module], kind: type[ClosedformError], words: list[str]
) -> None:
    layer: Any = make()
    before = {
        key: value.clone()
        for key, value in layer.state_dict().items()
        if not value.is_meta and not isinstance(value, _Elsewhere)
    }
    with pytest.raises(kind) as caught:
        DOORS[door](layer)
    holds(caught.value, words)
    after = layer.state_dict()
    assert all(torch.equal(value, after[key]) for key, value in before.items())


def _bias_within_weight() -> torch.nn.Linear:
    layer = torch.nn.Linear(3, 2, dtype=torch.float64)
    layer.bias = torch.nn.Parameter(layer.weight.detach()[:, 0])
    return layer


def _overlapping_rows() -> torch.nn.Linear:
    layer = torch.nn.Linear(3, 2, dtype=torch.float64)
    layer.weight = torch.nn.Parameter(torch.arange(4.0, dtype=torch.float64).as_strided((2, 3), (1, 1)))
    return layer


@pytest.mark.parametrize("make", [_bias_within_weight, _overlapping_rows])
def test_a_layer_whose_entries_share_memory_is_not_written(make: Callable[[], torch.nn.Linear]) -> None:
    layer = make()
    before = [p.detach().clone() for p in layer.parameters()]
    with pytest.raises(InputError, match="share memory"):
        cf.fit_(layer, X, Y)
    assert all(torch.equal(a, b) for a, b in zip(before, layer.parameters(), strict=True))


def test_weight_and_bias_side_by_side_in_one_memory_are_written() -> None:
    layer = torch.nn.Linear(3, 2, dtype=torch.float64)
    both = torch.zeros(2, 4, dtype=torch.float64)
    layer.weight, layer.bias = torch.nn.Parameter(both[:, 1:]), torch.nn.Parameter(both[:, 0])
    sol = cf.fit_(layer, X, Y)
    assert torch.equal(layer.weight, sol.weight)
    assert sol.bias is not None
    assert torch.equal(layer.bias, sol.bias)


class _Doubled(torch.nn.Linear):
    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(input)


def test_a_layer_with_an_output_of_its_own_is_said() -> None:
    hooked = torch.nn.Linear(3, 2, dtype=torch.float64)
    hooked.register_forward_pre_hook(lambda module, inputs: inputs)
    for layer, words in ((_Doubled(3, 2, dtype=torch.float64), "_Doubled computes"), (hooked, "forward hooks")):
        assert any(words in note for note in cf.fit_(layer, X, Y).notes)
        assert any(words in note for note in cf.gap(layer, X, Y).solution.notes)
    plain = torch.nn.Linear(3, 2, dtype=torch.float64)
    assert not any("alone" in note for note in cf.fit_(plain, X, Y).notes)


def test_nearest_to_a_layer_without_the_bias_that_is_asked_for() -> None:
    with pytest.raises(InputError) as caught:
        cf.solve(X, Y, bias=True, nearest_to=torch.nn.Linear(3, 2, bias=False))
    holds(caught.value, ["bias"])


def test_nearest_to_a_layer_that_is_not_finite() -> None:
    layer = torch.nn.Linear(3, 2)
    with torch.no_grad():
        layer.weight[1, 2] = torch.nan
    with pytest.raises(InputError) as caught:
        cf.solve(X, Y, bias=True, nearest_to=layer)
    holds(caught.value, ["nan"])


def test_weights_beyond_the_dtype_of_the_layer_are_not_written() -> None:
    layer = torch.nn.Linear(1, 1, bias=False, dtype=torch.float16)
    before = layer.weight.detach().clone()
    with pytest.raises(InputError) as caught:
        cf.fit_(layer, np.array([[1.0], [2.0]]), np.array([1e6, 2e6]))
    holds(caught.value, ["float16"])
    assert torch.equal(layer.weight, before)


def test_a_method_that_cannot_take_the_problem_says_why() -> None:
    with pytest.raises(MethodRefusedError) as caught:
        cf.solve(X, Y, method="square")
    holds(caught.value, ["square"])


def test_progress_that_raises_leaves_the_layer_as_it_was() -> None:
    layer = torch.nn.Linear(3, 2, dtype=torch.float64)
    before = layer.weight.detach().clone()

    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cf.fit_(layer, X, Y, progress=stop)
    assert torch.equal(layer.weight, before)


def test_every_error_can_be_caught_as_one() -> None:
    for kind in (InputError, NonFiniteError, DataTypeError):
        assert issubclass(kind, ClosedformError)
    assert issubclass(InputError, ValueError)
    assert issubclass(DataTypeError, TypeError)


def test_rows_of_weight_zero_do_not_scale_the_others() -> None:
    X = np.array([[1e200, 3.0], [1.0, 1e-200], [2.0, 5e-200], [4.0, 1e-200]])
    sol = cf.solve(X, np.array([9.0, 1.0, 2.0, 3.0]), sample_weight=[0.0, 1.0, 1.0, 1.0])
    alone = cf.solve(X[1:], np.array([1.0, 2.0, 3.0]))
    assert sol.outcome is cf.Outcome.CERTIFIED
    np.testing.assert_allclose(sol.weight.numpy(), alone.weight.numpy(), rtol=1e-12)


def test_weights_near_the_end_of_the_range_have_a_joint_backward_error() -> None:
    # Weights whose squares overflow: the eigenvalues of infinities do not exist.
    rng = np.random.default_rng(0)
    X = rng.standard_normal((2, 7)) * np.array([[1e-3], [1e157]])
    sol = cf.solve(X, rng.standard_normal((2, 3)), sample_weight=[3.0, 5e7])
    assert sol.outcome is cf.Outcome.CERTIFIED_NOT_UNIQUE
    assert 0 <= sol.certificate.joint_backward_error <= 1 + 1e-15


@pytest.mark.parametrize("shape", [(200, 5), (200, 120), (30, 30), (8, 40)], ids=str)
def test_a_default_device_of_the_users_changes_nothing(shape: tuple[int, int]) -> None:
    X = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    Y = torch.stack([X.sum(1), X[:, 0]], 1)
    for method in ("auto", *METHOD_NAMES):
        try:
            expected = cf.solve(X, Y, l2=[0.0, 1.0], method=method)
        except ClosedformError:
            continue
        # Nothing can be computed on the meta device: whatever is made there by mistake fails.
        with torch.device("meta"):
            found = cf.solve(X, Y, l2=[0.0, 1.0], method=method)
        assert torch.equal(found.weight, expected.weight)
    batch = X.expand(2, *shape), Y.expand(2, *Y.shape)
    expected_batch = cf.solve_batched(*batch)
    with torch.device("meta"):
        assert torch.equal(cf.solve_batched(*batch).weight, expected_batch.weight)
        cf.diagnose(X, Y, l2=1.0)
