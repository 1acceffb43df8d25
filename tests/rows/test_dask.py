"""Dask collections as rows: they stay in their partitions, and the answers are those of the same rows in memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import closedform as cf
from closedform.words.errors import ClosedformError
from data import gaussian

dask = pytest.importorskip("dask")
da = pytest.importorskip("dask.array")
dd = pytest.importorskip("dask.dataframe")

X = (gaussian(400, 4) + 1).numpy()
Y = X @ gaussian(4, 2, seed=1).numpy() + gaussian(400, 2, seed=2).numpy()
WEIGHT = gaussian(400, seed=3).abs().numpy()
FRAME = pd.DataFrame(np.hstack([X, Y]), columns=list("abcdyz"))


@pytest.fixture(autouse=True)
def threads() -> Any:
    with dask.config.set(scheduler="threads", num_workers=2):
        yield


def array(values: Any, rows: int) -> Any:
    return da.from_array(values, chunks=(rows, *values.shape[1:]))


def frames() -> tuple[Any, Any]:
    frame = dd.from_pandas(FRAME, npartitions=3)
    return frame[list("abcd")], frame[["y", "z"]]


def with_empty_partitions() -> tuple[Any, Any]:
    x, y = array(X, 100), array(Y, 100)
    kept = x[:, 0] > -100
    return da.concatenate([x[:0], x[kept], x[:0]]), da.concatenate([y[:0], y[kept], y[:0]])


TABLES: dict[str, Any] = {
    "arrays": lambda: (array(X, 130), array(Y, 130)),
    "other chunks": lambda: (array(X, 130), array(Y, 90)),
    "targets in memory": lambda: (array(X, 130), Y),
    "persisted": lambda: (array(X, 130).persist(), array(Y, 130).persist()),
    "frames": frames,
    "delayed": lambda: tuple([dask.delayed(t[i : i + 150]) for i in range(0, 400, 150)] for t in (X, Y)),
    "unknown chunks": lambda: (array(X, 130)[array(X, 130)[:, 0] > -100], Y),
    "empty partitions": with_empty_partitions,
}


@pytest.mark.parametrize("name", TABLES)
def test_a_collection_is_solved_like_its_rows(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = TABLES[name]()
    whole = cf.solve(X, Y, bias=True)
    for kind in (da.Array, dd.DataFrame):
        monkeypatch.setattr(kind, "compute", lambda *_, **__: pytest.fail("computed whole"))
    sol = cf.solve(x, y, bias=True)
    assert sol.certificate.accepted
    np.testing.assert_allclose(sol.weight, whole.weight, rtol=1e-12, atol=1e-13)
    assert torch.equal(sol.weight, cf.solve(x, y, bias=True).weight)
    assert "rows stayed on the workers" in str(sol)
    acc = cf.Accumulator(4, 2, bias=True).fold(x, y)
    assert len(acc) == 400
    np.testing.assert_allclose(acc.solve().weight, whole.weight, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("method", ["gram32", "sketched", "householder", "svd"])
def test_every_method_goes_with_weights(method: str) -> None:
    x, y, weight = array(X, 70), array(Y, 70), array(WEIGHT, 110)
    sol, whole = (
        cf.solve(*data[:2], sample_weight=data[2], method=method) for data in ((x, y, weight), (X, Y, WEIGHT))
    )
    assert sol.certificate.accepted
    np.testing.assert_allclose(sol.weight, whole.weight, rtol=1e-12, atol=1e-13)


def test_a_wide_collection_is_gathered_and_a_layer_is_written() -> None:
    np.testing.assert_allclose(cf.solve(array(X[:3], 2), Y[:3]).weight, cf.solve(X[:3], Y[:3]).weight, atol=1e-12)
    layer = torch.nn.Linear(4, 2)
    cf.fit_(layer, array(X, 130), array(Y, 130))
    np.testing.assert_allclose(layer.weight.detach(), cf.solve(X, Y, bias=True).weight, rtol=1e-6, atol=1e-6)


def test_each_target_has_its_own_strength() -> None:
    x, y, strengths = array(X, 130), array(Y, 130), [0.5, 20.0]
    whole = cf.solve(X, Y, bias=True, l2=strengths)
    sol = cf.solve(x, y, bias=True, l2=strengths)
    assert sol.certificate.accepted
    np.testing.assert_allclose(sol.weight, whole.weight, rtol=1e-12, atol=1e-13)
    few = cf.solve(array(X[:3], 2), Y[:3], l2=strengths)
    np.testing.assert_allclose(few.weight, cf.solve(X[:3], Y[:3], l2=strengths).weight, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("select", ["loo", "gcv", 4])
def test_a_strength_is_chosen_on_the_workers(select: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = cf.ridge_path(X, Y, l2=[0.1, 10.0], bias=True, select=select)
    monkeypatch.setattr(da.Array, "compute", lambda *_, **__: pytest.fail("computed whole"))
    path = cf.ridge_path(array(X, 130), array(Y, 130), l2=[0.1, 10.0], bias=True, select=select)
    np.testing.assert_allclose(path.errors, whole.errors, rtol=1e-12)
    np.testing.assert_allclose(path.solution.weight, whole.solution.weight, rtol=1e-12, atol=1e-13)


def test_partitions_of_parquet_belong_together(tmp_path: Any) -> None:
    """Dask joins small files for frames of few columns, and so gives targets other partitions than features."""
    for start in range(0, 400, 100):
        FRAME[start : start + 100].to_parquet(tmp_path / f"{start}.parquet")
    frame = dd.read_parquet(tmp_path)
    np.testing.assert_allclose(cf.solve(frame[list("abcd")], frame["y"]).weight, cf.solve(X, Y[:, 0]).weight)
    np.testing.assert_allclose(cf.solve(frame.drop(columns="z"), "y").weight, cf.solve(X, Y[:, 0]).weight)


def parts_of(*columns: str) -> Any:
    parts = [FRAME[list(names)].iloc[200 * i : 200 * i + 200] for i, names in enumerate(columns)]
    return [dask.delayed(part) for part in parts], [dask.delayed(Y[:200]), dask.delayed(Y[200:])]


def with_nan() -> Any:
    damaged = X.copy()
    damaged[301, 2] = np.nan
    return array(damaged, 130)


def fail(block: Any) -> Any:
    raise OSError("the disk is gone")


def cut(block: Any) -> Any:
    return block[:, :3]


def turned(part: pd.DataFrame) -> pd.DataFrame:
    return part[["b", "a"]] if part.index[0] else part


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: (X, array(Y, 130)), "Y is a Dask collection and X is none; pass X as one too, or Y.compute()"),
        (lambda: (array(X, 130)[:, 0], Y), r"X has shape \(400,\); a Dask array of \(rows, columns\) is needed"),
        (lambda: (array(X, 130).sum(), Y), r"X has shape \(\); a Dask array of \(rows, columns\) is needed"),
        (
            lambda: (array(X, 130).map_blocks(fail, dtype=float, meta=X[:0]), Y),
            "partition failed: OSError: the disk",
        ),
        (
            lambda: (array(X, 130).map_blocks(cut, dtype=float), Y),
            "X is a Dask array of 4 columns, but its first",
        ),
        (
            lambda: (frames()[0][["a", "b"]].map_partitions(turned, meta=FRAME[["a", "b"]][:0]), Y),
            "failed: Val",
        ),
        (
            lambda: ([dask.delayed(None)], [dask.delayed(None)]),
            "partition failed: TypeError: object of type",
        ),
        (lambda: (da.from_array(X, chunks=(100, 2)), Y), r"2 chunks along its columns.*rechunk\(\{1: -1\}\)"),
        (lambda: (array(X, 130), array(Y[:300], 130)), "rows do not match"),
        (lambda: (array(X, 130), Y[:300]), "rows do not match"),
        (lambda: (array(X, 130)[array(X, 130)[:, 0] > 0], array(Y, 90)), "rows do not match"),
        (lambda: (frames()[0], dd.from_pandas(FRAME, npartitions=2)[["y", "z"]]), "partitions of X have"),
        (lambda: (array(X.astype(object), 130), Y), "object"),
        (lambda: (array(X.astype(complex), 130), Y), "complex"),
        (lambda: (dd.from_pandas(FRAME.assign(a="x"), npartitions=2)[["a", "b"]], Y), "column 'a' of X"),
        (lambda: (array(X, 130)[:0], Y[:0]), "X is empty"),
        (
            lambda: tuple(
                dd.from_pandas(part, npartitions=1, sort=False) for part in (FRAME[list("abcd")], FRAME["y"][::-1])
            ),
            "first rows of the Dask collection: the indexes of X and Y do not agree",
        ),
        (lambda: parts_of("abcd", "abdc"), "column 2 of X was 'c' and is 'd' in another partition"),
        (lambda: parts_of("abcd", "abc"), "column 3 of X was 'd' and is None in another partition"),
        (
            lambda: ([dask.delayed(X[:9]), dask.delayed(X[9:, :3])], [dask.delayed(Y[:9]), dask.delayed(Y[9:])]),
            "a partition has 3 features and 2 targets, and the first one with rows 4 and 2",
        ),
        (lambda: (with_nan(), Y), "X holds nan in column 2, first in row 301"),
    ],
)
def test_what_cannot_be_used_is_named(make: Any, message: str) -> None:
    acc = cf.Accumulator(4, 2)
    with pytest.raises(ClosedformError, match=message):
        cf.solve(*make())
    if message == "X is empty":
        acc.fold(*make())
    else:
        with pytest.raises(ClosedformError, match=message):
            acc.fold(*make())
    assert len(acc) == 0


def counted_makes(targets: Any, *, frames: bool) -> int:
    """How often partitions are made while a fit with targets made from the features runs, one thread."""
    made = []

    def make(start: int) -> Any:
        made.append(start)
        return FRAME[start : start + 200] if frames else X[start : start + 200]

    if frames:
        whole = dd.from_map(make, [0, 200], meta=FRAME[:0])
        x, y = whole[list("abcd")], whole["y"]
    else:
        x = da.concatenate(
            [da.from_delayed(dask.delayed(make, pure=False)(start), (200, 4), float) for start in (0, 200)]
        )
        y = x.sum(axis=1)
    del made[:]
    with dask.config.set(scheduler="synchronous"):
        cf.solve(x, targets(y))
    return len(made)


def test_what_features_and_targets_are_made_from_is_made_once_a_pass() -> None:
    """Left to themselves, features and targets on one graph would each make it."""
    alone = counted_makes(lambda y: X.sum(axis=1), frames=False)
    assert counted_makes(lambda y: y, frames=False) == alone
    # A frame does not know its rows: they are counted first, those of features and of targets in one go.
    assert counted_makes(lambda y: y, frames=True) == alone + 2


def test_a_cluster_serves_and_a_killed_worker_costs_no_answer() -> None:
    distributed = pytest.importorskip("distributed")
    options: dict[str, Any] = {"n_workers": 2, "threads_per_worker": 1, "processes": False, "dashboard_address": ":0"}
    with distributed.LocalCluster(**options) as cluster, distributed.Client(cluster), dask.config.set(scheduler=None):
        x, y = array(X, 130).persist(), array(Y, 130).persist()
        first = cf.solve(x, y)
        cluster.scale(1)
        again = cf.solve(x, y)
    np.testing.assert_allclose(first.weight, cf.solve(X, Y).weight, rtol=1e-12, atol=1e-13)
    assert torch.equal(first.weight, again.weight)


def test_labels_on_workers_are_said() -> None:
    sol = cf.solve(array(X, 130), array(np.arange(400) % 3, 130))
    assert any("whole numbers (torch.int64)" in note and "one-hot" in note for note in sol.notes)
    assert not any("whole numbers" in note for note in cf.solve(array(X, 130), array(Y, 130)).notes)
