"""Loaders and datasets as rows: the answers of the same rows in memory, in any order; no quiet change of content."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

import closedform as cf
from closedform.words.errors import ClosedformError
from data import gaussian

X = gaussian(300, 5) + 1
Y = X @ gaussian(5, 2, seed=1) + gaussian(300, 2, seed=2)
WEIGHT = gaussian(300, seed=3).abs()


class Lines(IterableDataset):  # type: ignore[type-arg]
    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return iter([(X[i : i + 7], Y[i : i + 7]) for i in range(0, 300, 7)])


class Single(IterableDataset):  # type: ignore[type-arg]
    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return zip(X, Y, strict=True)


class Failing(Dataset):  # type: ignore[type-arg]
    """Rows of which one cannot be read, or none is a table."""

    def __init__(self, *, none: bool = False) -> None:
        self.none = none

    def __len__(self) -> int:
        return len(X)

    def __getitem__(self, row: int) -> Any:
        return None if self.none else (X[row], Y[row] + 1 // (25 - row))


def batches() -> Iterator[tuple[Tensor, Tensor]]:
    return iter(Lines())


STREAMS: dict[str, tuple[Any, Any]] = {
    "loader": (lambda: DataLoader(TensorDataset(X, Y), batch_size=32), None),
    "shuffled": (lambda: DataLoader(TensorDataset(X, Y), batch_size=32, shuffle=True), None),
    "dataset": (lambda: TensorDataset(X, Y), None),
    "iterable dataset": (Lines, None),
    "rows": (Single, None),
    "an empty batch": (lambda: [(X[:0], Y[:0]), (X[:9], Y[:9]), (X[:0], Y[:0]), (X[9:], Y[9:])], None),
    "list of pairs": (lambda: [(X[:200], Y[:200]), (X[200:], Y[200:])], None),
    "factory": (lambda: batches, None),
    "generator": (lambda: (pair for pair in batches()), None),
    "dictionaries": (lambda: [{"a": X, "b": Y}], {"X": "a", "Y": "b"}),
    "triples": (lambda: [(Y, "names", X)], {"X": 2, "Y": 0}),
    "arrays": (lambda: [(X.numpy(), Y.numpy())], None),
}


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_is_solved_like_its_rows(name: str) -> None:
    make, fields = STREAMS[name]
    sol, whole = cf.solve(make(), fields=fields, bias=True, l2=0.5), cf.solve(X, Y, bias=True, l2=0.5)
    assert sol.certificate.accepted
    torch.testing.assert_close(sol.weight, whole.weight, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(sol.bias, whole.bias, rtol=1e-12, atol=1e-13)
    assert sol.certificate.loss == pytest.approx(whole.certificate.loss, rel=1e-12)
    if name == "generator":
        assert "read once" in str(sol.certificate)
        assert "can be read once" in sol.notes[-1]
    else:
        assert sol.certificate.triangle_of is None
        assert "read again for each pass" in str(sol)


def test_weights_and_layers_come_from_batches_too() -> None:
    fields = {"X": 0, "Y": 1, "sample_weight": 2}
    loader = DataLoader(TensorDataset(X, Y, WEIGHT), batch_size=50, shuffle=True)
    whole = cf.solve(X, Y, sample_weight=WEIGHT)
    torch.testing.assert_close(cf.solve(loader, fields=fields).weight, whole.weight, rtol=1e-12, atol=1e-13)
    once = cf.solve((batch for batch in loader), fields=fields)
    torch.testing.assert_close(once.weight, whole.weight, rtol=1e-12, atol=1e-13)
    layer = torch.nn.Linear(5, 2).double()
    cf.fit_(layer, DataLoader(TensorDataset(X, Y), batch_size=50))
    torch.testing.assert_close(layer.weight.detach(), cf.solve(X, Y, bias=True).weight, rtol=1e-12, atol=1e-13)
    # Fewer rows than columns are gathered, whatever the batches.
    few = cf.solve([(X[:2], Y[:2]), (X[2:3], Y[2:3])])
    torch.testing.assert_close(few.weight, cf.solve(X[:3], Y[:3]).weight, rtol=1e-12, atol=1e-13)


def test_each_target_has_its_own_strength_and_one_is_chosen() -> None:
    pairs = [(X[:200], Y[:200]), (X[200:], Y[200:])]
    whole = cf.solve(X, Y, bias=True, l2=[0.5, 20.0])
    torch.testing.assert_close(cf.solve(pairs, bias=True, l2=[0.5, 20.0]).weight, whole.weight, rtol=1e-12, atol=1e-13)
    few = cf.solve([(X[:2], Y[:2]), (X[2:4], Y[2:4])], l2=[0.5, 20.0])
    torch.testing.assert_close(few.weight, cf.solve(X[:4], Y[:4], l2=[0.5, 20.0]).weight, rtol=1e-12, atol=1e-13)
    path, alone = (cf.ridge_path(*data, l2=[0.1, 10.0], bias=True) for data in ((pairs,), (X, Y)))
    torch.testing.assert_close(path.errors, alone.errors, rtol=1e-12, atol=0)
    with pytest.raises(ClosedformError, match="X is a generator, which is read once"):
        cf.ridge_path(pair for pair in pairs)


class Lists(Dataset):  # type: ignore[type-arg]
    """Rows as lists of numbers, of which torch's collation makes columns; as many rows as features in a batch."""

    def __len__(self) -> int:
        return 30

    def __getitem__(self, row: int) -> Any:
        return {"x": X[row].tolist(), "y": Y[row].tolist()}


@pytest.mark.parametrize("kind", ["dataset", "loader", "iterable"])
def test_rows_that_are_lists_of_numbers_stay_rows(kind: str) -> None:
    class Iterated(IterableDataset):  # type: ignore[type-arg]
        def __iter__(self) -> Iterator[Any]:
            return map(Lists().__getitem__, range(30))

    stream = {"dataset": Lists(), "loader": DataLoader(Lists(), batch_size=5), "iterable": Iterated()}[kind]
    sol = cf.solve(stream, fields={"X": "x", "Y": "y"})
    torch.testing.assert_close(sol.weight, cf.solve(X[:30], Y[:30]).weight, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(("scale", "select"), [(1e7, "loo"), (1.0, torch.arange(300) % 3)])
def test_rows_that_are_known_by_number_come_in_one_order(scale: float, select: Any) -> None:
    far = X.clone()
    far[7] *= scale
    whole = cf.ridge_path(far, Y, l2=[1.0], select=select)
    loaders = [DataLoader(TensorDataset(far, Y), batch_size=32, shuffle=shuffle) for shuffle in (False, True)]
    torch.testing.assert_close(
        cf.ridge_path(loaders[0], l2=[1.0], select=select).errors, whole.errors, rtol=1e-9, atol=0
    )
    with pytest.raises(ClosedformError, match=r"another order than before.*shuffle=False"):
        cf.ridge_path(loaders[1], l2=[1.0], select=select)
    # Folds of no certain rows, and rows that share what they say, may come in any order.
    assert cf.ridge_path(loaders[1], l2=[1.0], select=3).solution.certified
    near = DataLoader(TensorDataset(X, Y), batch_size=32, shuffle=True)
    torch.testing.assert_close(
        cf.ridge_path(near, l2=[1.0]).errors, cf.ridge_path(X, Y, l2=[1.0]).errors, rtol=1e-9, atol=0
    )


def noisy() -> Iterator[tuple[Tensor, Tensor]]:
    return iter([(torch.randn(50, 3), torch.randn(50))])


class Shrinking:
    """One batch less in every pass."""

    def __init__(self) -> None:
        self.left = 9

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        self.left -= 1
        return iter([(X[i * 30 : i * 30 + 30], Y[i * 30 : i * 30 + 30]) for i in range(self.left)])


class Turning:
    """The same numbers, but every other pass pairs them in another way."""

    def __init__(self) -> None:
        self.passes = 0

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        self.passes += 1
        return iter([(X, Y.flip(0) if self.passes % 2 else Y)])


@pytest.mark.parametrize(
    ("stream", "options", "message"),
    [
        (noisy, {}, "its passes differ"),
        (Shrinking(), {}, r"210 rows, and 240 before"),
        (Turning(), {}, "other numbers than before"),
        ([], {}, "yielded no rows"),
        (iter([]), {}, "yielded no rows"),
        ([{"a": X, "b": Y}], {}, "dictionary with 'a', 'b'.*fields="),
        ([(X, Y, WEIGHT)], {}, "batch 0 is 3 parts.*fields="),
        ([(X, Y)], {"fields": {"X": 0, "Y": 5}}, "fields= names"),
        ([{"a": X}], {"fields": {"X": "a", "Y": "c"}}, "'c', which fields= names; it holds 'a'"),
        ([(X, Y)], {"fields": {"X": 0}}, "which part of a batch is X"),
        ([(X, Y), (X[:, :3], Y)], {}, "batch 1 has 3 features"),
        (iter([(X, Y), (X[:, :3], Y)]), {}, "batch 1 has 3 features"),
        ([(X, Y[:7])], {}, "batch 0: .*rows do not match"),
        ([(X, ["cat"] * 300)], {}, "batch 0: "),
        ([(X.log(), Y)], {}, "X holds nan"),
        ([(X, Y)], {"sample_weight": WEIGHT}, "leave Y and sample_weight out"),
        (X, {}, "Y is missing"),
        ("data.csv", {}, "Y is missing"),
        (3, {}, "there is no Y"),
        ({"train": [(X, Y)]}, {}, r"X is a dict of 'train'; pass one of its parts, X\["),
        ([(X, Y)], {"fields": (0, 1)}, r"fields=\(0, 1\): it says which part of a batch is X"),
        ([(X, Y)], {"fields": "X"}, "fields='X': it says which part of a batch is X"),
        (DataLoader(Failing(), 7), {}, "the DataLoader failed at batch 3: ZeroDivisionError: integer division"),
        (Failing(), {}, "the Failing failed at batch 0: ZeroDivisionError"),
        (DataLoader(Failing(none=True), 7), {}, "failed at batch 0: TypeError: default_collate: batch must contain"),
    ],
)
def test_what_cannot_be_used_is_named(stream: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ClosedformError, match=message):
        cf.solve(stream, **options)


@pytest.mark.parametrize("batch", [300, 70])
def test_whole_numbers_as_targets_are_said(batch: int) -> None:
    labels = torch.arange(300) % 3
    sol = cf.solve(list(zip(X.split(batch), labels.split(batch), strict=True)))
    assert any("whole numbers (torch.int64)" in note and "one-hot" in note for note in sol.notes)
    assert not any("whole numbers" in note for note in cf.solve([(X, Y)]).notes)


def test_batches_that_are_read_together_keep_the_names_of_their_columns() -> None:
    frame = pd.DataFrame(X.numpy(), columns=[f"c{i}" for i in range(X.shape[1])])
    sol = cf.solve([(frame[:100], Y[:100]), (frame[100:], Y[100:])])
    assert sol.feature_names == tuple(frame.columns)


def test_a_dataset_of_hugging_face_is_read_from_its_columns() -> None:
    datasets = pytest.importorskip("datasets")
    data = datasets.Dataset.from_dict({"emb": X.tolist(), "score": Y[:, 0].tolist(), "name": ["a"] * len(X)})
    fields = {"X": "emb", "Y": "score"}
    whole = cf.solve(X.float(), Y[:, 0].float(), bias=True)
    for source in (data, data.to_iterable_dataset(), data.with_format("torch")):
        sol = cf.solve(source, fields=fields, bias=True)
        assert sol.certified
        torch.testing.assert_close(sol.weight.float(), whole.weight, rtol=1e-5, atol=1e-6)
        # What is stored in float64 is not rounded on the way.
        assert sol.weight.dtype == torch.float64
        torch.testing.assert_close(
            sol.weight, cf.solve(X.double(), Y[:, 0].double(), bias=True).weight, rtol=0, atol=1e-13
        )
    narrow = data.cast_column("emb", datasets.Sequence(datasets.Value("float32")))
    assert cf.solve(narrow.to_iterable_dataset(), fields=fields).weight.dtype == torch.float32
    unknown = datasets.IterableDataset.from_generator(lambda: iter(data))
    assert torch.equal(
        cf.solve(unknown, fields=fields, bias=True).weight, cf.solve(data, fields=fields, bias=True).weight
    )
    with pytest.raises(ClosedformError, match=r"dictionary with 'emb', 'score', 'name'.*fields="):
        cf.solve(data)
    with pytest.raises(ClosedformError, match=r"batch 0: Y holds .* values, which are not real numbers"):
        cf.solve(data, fields={"X": "emb", "Y": "name"})
    with pytest.raises(ClosedformError, match="DatasetDict of 'train'; pass one of its parts"):
        cf.solve(datasets.DatasetDict({"train": data}), fields=fields)
