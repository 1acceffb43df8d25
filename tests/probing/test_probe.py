"""A linear probe: its numbers beside direct counts, and what its input may be."""

from __future__ import annotations

import itertools
import json
import math
import pickle
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from sklearn import linear_model, metrics
from torch import Tensor, nn

import closedform as cf
from closedform.files.numpy_files import NpyFormat
from closedform.probing.scores import ClassScores, wilson_interval
from closedform.probing.splits import split_rows
from closedform.rows.one_hot import OneHotRows
from closedform.words.errors import InputError
from closedform.words.outcome import Outcome


def blobs(rows: int = 240, features: int = 6, classes: int = 3, spread: float = 1.5) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(rows) % classes
    centres = spread * torch.randn(classes, features, dtype=torch.float64, generator=generator)
    return centres[labels] + torch.randn(rows, features, dtype=torch.float64, generator=generator), labels


def halves(classes: int = 3) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    X, labels = blobs(classes=classes, features=8)
    return X[:160], labels[:160], X[160:], labels[160:]


def test_scores_are_of_double_precision() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(120) % 3
    X = np.eye(3)[labels] + 0.6 * rng.standard_normal((120, 3))
    result = cf.probe(X, labels, test_features=X, test_labels=labels)
    said, scores = result.predict(X), result.best.scores
    pairs = (
        (scores.balanced_accuracy, metrics.balanced_accuracy_score(labels, said)),
        (scores.recall, metrics.recall_score(labels, said, average=None)),
        (scores.precision, metrics.precision_score(labels, said, average=None)),
    )
    for ours, theirs in pairs:
        np.testing.assert_allclose(ours, theirs, rtol=1e-14)


def test_a_probe_is_ridge_on_one_hot_rows() -> None:
    X, labels, X_test, truth = halves()
    result = cf.probe(X, labels, test_features=X_test, test_labels=truth, l2=[0.1, 1.0, 10.0])
    one_hot = np.eye(3)[labels.numpy()]
    reference = linear_model.RidgeCV([0.1, 1.0, 10.0]).fit(X.numpy(), one_hot)
    assert float(result.path.l2[0]) == reference.alpha_
    np.testing.assert_allclose(result.solution.weight, reference.coef_, rtol=1e-9)
    np.testing.assert_allclose(result.solution.bias, reference.intercept_, rtol=1e-9)
    said = reference.predict(X_test.numpy()).argmax(1)
    assert result.predict(X_test) == said.tolist()
    assert result.accuracy == metrics.accuracy_score(truth, said)
    scores = result.best.scores
    assert scores.balanced_accuracy == pytest.approx(metrics.balanced_accuracy_score(truth, said))
    np.testing.assert_array_equal(scores.confusion, metrics.confusion_matrix(truth, said))
    np.testing.assert_allclose(scores.recall, metrics.recall_score(truth, said, average=None))
    np.testing.assert_allclose(scores.precision, metrics.precision_score(truth, said, average=None))
    assert result.outcome.certified
    assert result.train_rows == 160
    assert result.test_rows == 80


def test_the_best_five_are_counted() -> None:
    X, labels, X_test, truth = halves(classes=9)
    result = cf.probe(X, labels, test_features=X_test, test_labels=truth)
    scores = result.solution.predict(X_test)
    expected = metrics.top_k_accuracy_score(truth, scores.numpy(), k=5)
    assert result.best.scores.top5 == pytest.approx(expected)


def test_calibration_adds_up() -> None:
    X, labels, X_test, truth = halves()
    result = cf.probe(X, labels, test_features=X_test, test_labels=truth)
    calibration = result.best.scores.calibration
    held = result.solution.predict(X_test).max(1).values.clamp(0, 1)
    right = (result.solution.predict(X_test).argmax(1) == truth).double()
    place = (held * 10).long().clamp(max=9)
    expected = sum(abs(float(right[place == at].sum() - held[place == at].sum())) for at in range(10)) / len(truth)
    assert sum(calibration.rows) == 80
    assert calibration.error == pytest.approx(expected)


@pytest.mark.parametrize(("right", "rows"), [(0, 7), (7, 7), (13, 13), (90, 100), (1, 1)])
def test_the_interval_holds_the_proportions_that_the_score_test_allows(right: int, rows: int) -> None:
    """The ends are where the normal test of a proportion just rejects (Wilson 1927)."""
    low, high = wilson_interval(right, rows)
    for end in {low, high} - {0.0, 1.0}:
        z = (right / rows - end) / math.sqrt(end * (1 - end) / rows)
        assert abs(z) == pytest.approx(1.959963984540054, rel=1e-9)
    assert 0 <= low <= right / rows <= high <= 1
    # Next to certainty it is everything, and no error.
    low, high = wilson_interval(right, rows, 1 - 2**-53)
    assert 0 <= low <= right / rows <= high <= 1


@pytest.mark.parametrize("kind", ["int64", "uint8", "float", "strings", "list", "series", "polars", "one-hot", "bool"])
def test_labels_may_be_of_any_kind(kind: str) -> None:
    X, labels = blobs(classes=2 if kind == "bool" else 3)
    words = [f"class {int(code)}" for code in labels]
    given: Any = {
        "int64": labels,
        "uint8": labels.to(torch.uint8).numpy(),
        "float": labels.to(torch.float32),
        "strings": np.array(words),
        "list": words,
        "series": pd.Series(words, dtype="category"),
        "polars": pl.Series(words),
        "one-hot": torch.nn.functional.one_hot(labels),
        "bool": labels == 1,
    }[kind]
    result = cf.probe(X, given)
    plain = cf.probe(X, labels)
    assert result.accuracy == plain.accuracy
    assert torch.equal(result.solution.weight, plain.solution.weight)
    in_words = kind in ("strings", "list", "series", "polars")
    assert result.classes == (("class 0", "class 1", "class 2") if in_words else plain.classes)


def test_numbers_make_a_regression() -> None:
    X, _ = blobs()
    y = X @ torch.ones(6, 2, dtype=torch.float64) + 0.1 * X[:, :2] ** 2
    result = cf.probe(X[:160], y[:160], test_features=X[160:], test_labels=y[160:])
    assert result.accuracy is None
    assert result.interval is None
    predicted = result.solution.predict(X[160:])
    expected = metrics.r2_score(y[160:], predicted, multioutput="raw_values")
    np.testing.assert_allclose(result.r_squared, expected)
    assert "R^2" in str(result)
    numbers = torch.arange(240)
    # Of a target that is constant on the test rows, as scikit-learn's user knows it, and no nan for trackers.
    for constant in (torch.ones(240), torch.zeros(240)):
        met = cf.probe(X, constant, task="regression")
        assert met.r_squared == (1.0,) == (met.metrics()["r_squared"],)
    constant = torch.where(torch.arange(240) < 160, X[:, 0], 1.0)
    missed = cf.probe(X[:160], constant[:160], test_features=X[160:], test_labels=constant[160:], task="regression")
    assert missed.r_squared == (0.0,) == (missed.metrics()["r_squared"],)
    assert cf.probe(X, numbers, task="regression").classes == ()
    with pytest.raises(cf.ClosedformError, match="240 different integers in 240 rows"):
        cf.probe(X, numbers)


def test_rows_are_held_out_class_by_class_by_a_seed() -> None:
    X, labels = blobs(classes=4)
    first, same, other = (cf.probe(X, labels, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first.solution.weight, same.solution.weight)
    assert not torch.equal(first.solution.weight, other.solution.weight)
    assert first.best.scores.confusion.sum(1).tolist() == [15, 15, 15, 15]
    assert first.train_rows == 180
    assert any("held out" in note for note in first.notes)


def test_a_class_of_one_row_is_learnt_and_not_judged() -> None:
    X, labels = blobs()
    labels[0] = 7
    result = cf.probe(X, labels)
    assert result.classes == (0, 1, 2, 7)
    assert any("1 class of 4 without test rows" in note for note in result.notes)
    assert any("classes[k]" in note for note in result.notes)


def test_every_layer_has_a_probe_and_the_best_is_found_without_the_test_rows() -> None:
    X, labels = blobs()
    noise = torch.randn(240, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    result = cf.probe({"early": noise, "late": X}, labels)
    assert [layer.name for layer in result.layers] == ["early", "late"]
    assert result.best.name == "late"
    assert result.accuracy == cf.probe(X, labels).accuracy
    assert result.metrics()["early/accuracy"] < result.metrics()["late/accuracy"] == result.metrics()["accuracy"]
    listed = cf.probe([noise, X], labels)
    assert [layer.name for layer in listed.layers] == ["0", "1"]
    assert listed.accuracy == result.accuracy
    apart = cf.probe([X[:100], X[100:]], labels)
    assert torch.equal(apart.solution.weight, result.solution.weight)


def test_classes_and_rows_are_weighted() -> None:
    X, labels, X_test, truth = halves()
    X, labels = X[labels.ne(2) | (torch.arange(160) < 30)], labels[labels.ne(2) | (torch.arange(160) < 30)]
    given = {"test_features": X_test, "test_labels": truth, "l2": [1.0]}
    balanced = cf.probe(X, labels, class_weight="balanced", **given)
    counts = torch.bincount(labels).double()
    weights = {code: float(len(labels) / (3 * counts[code])) for code in range(3)}
    mapped = cf.probe(X, labels, class_weight=weights, **given)
    rows = cf.probe(X, labels, sample_weight=[weights[int(code)] for code in labels], **given)
    reference = linear_model.Ridge(1.0).fit(X, np.eye(3)[labels], [weights[int(code)] for code in labels])
    for result in (balanced, mapped, rows):
        np.testing.assert_allclose(result.solution.weight, reference.coef_, rtol=1e-9)


def test_tokens_are_rows_where_each_has_a_label() -> None:
    X, labels = blobs()
    assert torch.equal(
        cf.probe(X.view(40, 6, 6), labels.view(40, 6)).solution.weight, cf.probe(X, labels).solution.weight
    )


def test_the_head_is_a_layer_of_the_same_scores() -> None:
    X, labels = blobs()
    result = cf.probe(X.float(), labels)
    head = result.head()
    assert isinstance(head, nn.Linear)
    torch.testing.assert_close(head(X.float()), result.solution.predict(X.float()))
    again = pickle.loads(pickle.dumps(result))
    assert again.accuracy == result.accuracy
    assert len(pickle.dumps(result)) < 100_000


def test_many_classes_are_never_a_table_of_rows_and_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    """No array of all rows and classes is made: the largest is a block, which is small here."""
    monkeypatch.setattr("closedform.rows.block._PASS_BYTES", 2**20)
    monkeypatch.setattr("closedform.rows.block._CACHED_BYTES", 2**16)
    monkeypatch.setattr("closedform.rows.folds.triangle_of_rows._BLOCK_ENTRIES", 2**13)
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(6000, 8, generator=generator)
    labels = torch.arange(6000) % 200
    largest = 0
    read = OneHotRows.read

    def watched(self: OneHotRows, start: int, stop: int) -> Tensor:
        nonlocal largest
        largest = max(largest, stop - start)
        return read(self, start, stop)

    monkeypatch.setattr(OneHotRows, "read", watched)
    result = cf.probe(X, labels, l2=[1.0, 10.0])
    assert result.outcome.certified
    assert 0 < largest < 2000


BAD: dict[str, tuple[Any, str]] = {
    "a single class": (["a"] * 240, "all .* labels are a"),
    "none among words": (["a", "b", None] * 80, "missing in 80 rows, first in row 2"),
    "none": (None, "labels are missing: give one for each row"),
    "words of NumPy and numbers": ([np.str_("a"), 1] * 120, "hold words and numbers: 'a' in row 0 and 1 in row 1"),
    "nan among words": (np.array(["a", "b", float("nan")] * 80, dtype=object), "missing in 80 rows"),
    "empty words": (["a", "b", ""] * 80, "missing"),
    "words and numbers": (["a", 1] * 120, "words and numbers"),
    "nan among numbers": (torch.tensor([0.5, math.nan] * 120), "NaN or an infinity, first in row 1"),
    "too few": (torch.arange(239) % 3, "240 rows, and there are 239 labels"),
    "several ones": (torch.ones(240, 3, dtype=torch.int64), "single one among zeros"),
    "no rows": (torch.zeros(0), "shape"),
    "three dimensions": (torch.zeros(2, 3, 40), "shape"),
    "complex": (np.ones(240, dtype=complex), "complex"),
}


@pytest.mark.parametrize("name", BAD)
def test_labels_that_are_none_are_named(name: str) -> None:
    labels, message = BAD[name]
    with pytest.raises(cf.ClosedformError, match=message):
        cf.probe(blobs()[0], labels)


def test_strangers_in_the_test_labels_are_named() -> None:
    X, labels, X_test, truth = halves()
    words, others = [f"c{code}" for code in labels], [f"c{code}" for code in truth]
    others[5] = "zebra"
    with pytest.raises(cf.ClosedformError, match=r"1 class that no training row has \(zebra; first in row 5\)"):
        cf.probe(X, words, test_features=X_test, test_labels=others)
    with pytest.raises(cf.ClosedformError, match="2 classes that no training row has"):
        cf.probe(
            X[labels == 0].repeat(2, 1), [0, 3] * int((labels == 0).sum()), test_features=X_test, test_labels=truth
        )
    with pytest.raises(cf.ClosedformError, match="strings"):
        cf.probe(X, labels, test_features=X_test, test_labels=others)
    with pytest.raises(cf.ClosedformError, match="test_labels without test_features"):
        cf.probe(X, labels, test_labels=truth)
    with pytest.raises(cf.ClosedformError, match="7 features"):
        cf.probe(X, labels, test_features=X_test[:, :7], test_labels=truth)


def test_one_hot_columns_are_known_by_name_or_by_number() -> None:
    X, labels, X_test, truth = halves()
    words, others = (np.array([f"c{code}" for code in codes]) for codes in (labels, truth))
    kept = torch.from_numpy(others != "c1")
    plain = cf.probe(X, words, test_features=X_test[kept], test_labels=others[others != "c1"])
    frames = [pd.get_dummies(pd.Series(names)) for names in (words, others[others != "c1"])]
    turned = frames[1][frames[1].columns[::-1]]
    for test in (*frames[1:], turned, others[others != "c1"]):
        result = cf.probe(X, frames[0], test_features=X_test[kept], test_labels=test)
        assert (result.classes, result.accuracy) == (plain.classes, plain.accuracy)
    bare = [frame.to_numpy() for frame in frames]
    with pytest.raises(cf.ClosedformError, match="labels are 3 one-hot columns, and test_labels 2"):
        cf.probe(X, bare[0], test_features=X_test[kept], test_labels=bare[1])
    wider = cf.probe(X, np.pad(bare[0], ((0, 0), (0, 2))))
    assert wider.head().out_features == 3
    assert any("2 columns of 5 (3, 4), which have no output" in note for note in wider.notes)
    sevens = cf.probe(X, pd.get_dummies(labels.numpy() + 7))
    assert sevens.classes == (7, 8, 9)


def test_weights_of_classes_are_looked_at() -> None:
    X, labels = blobs()
    for value in (-1.0, math.nan, "x"):
        with pytest.raises(cf.ClosedformError, match=r"class_weight holds .* for 1; weights are finite"):
            cf.probe(X, labels, class_weight={1: value})
    with pytest.raises(cf.ClosedformError, match=r"sample_weight holds -1\.0 in row 0"):
        cf.probe(X, labels, class_weight="balanced", sample_weight=-torch.ones(len(labels)))
    weight = (labels != 2) * (1.0 + labels)
    result = cf.probe(X, labels, class_weight="balanced", sample_weight=weight)
    assert any("1 class of 3 with rows of weight zero alone (2)" in note for note in result.notes)
    # Balanced weights undo those that are constant in each class.
    plain = cf.probe(X, labels, class_weight="balanced", sample_weight=(labels != 2).double())
    torch.testing.assert_close(result.solution.weight, plain.solution.weight)


@pytest.mark.parametrize(
    ("training", "test", "task", "message"),
    [
        ("classes", "numbers", None, "not whole, and labels are taken for classes"),
        ("classes", "numbers", "classification", "not whole, and task='classification' asks for classes"),
        ("numbers", "words", None, "hold words, and labels are taken for numbers"),
        ("numbers", "words", "regression", "hold words, and task='regression' asks for numbers"),
    ],
)
def test_what_settled_the_task_is_said(training: str, test: str, task: str | None, message: str) -> None:
    X, codes, X_test, truth = halves()
    kinds = {"classes": codes.double(), "numbers": truth + 0.5, "words": [f"c{code}" for code in truth]}
    labels = codes + 0.5 * codes.double().cos() if training == "numbers" else kinds[training]
    with pytest.raises(cf.ClosedformError, match=message):
        cf.probe(X, labels, test_features=X_test, test_labels=kinds[test], task=task)


def test_numbers_of_numpy_are_numbers() -> None:
    X, labels = blobs()
    result = cf.probe(X, labels, seed=np.int64(3), test_size=np.float32(0.25), confidence=np.float32(0.5))
    assert result.accuracy == cf.probe(X, labels, seed=3).accuracy
    with pytest.raises(cf.ClosedformError, match="give such labels as strings"):
        cf.probe(X, labels.numpy().astype(np.uint64) + np.uint64(2**63))


def test_activations_with_positions_say_how_to_pool() -> None:
    labels = torch.arange(12) % 2
    with pytest.raises(cf.ClosedformError, match=r"x\.mean\(\(2, 3\)\)"):
        cf.probe(torch.randn(12, 3, 4, 4), labels)
    with pytest.raises(cf.ClosedformError, match=r"x\[:, 0\]"):
        cf.probe(torch.randn(12, 3, 4), labels)


def test_tables_that_are_neither_layers_nor_shards_are_listed() -> None:
    X, labels = blobs()
    with pytest.raises(cf.ClosedformError, match="2 tables of features with 200 rows in all"):
        cf.probe([X[:100], X[100:200]], labels)
    with pytest.raises(cf.ClosedformError, match="same columns"):
        cf.probe([X[:100], X[100:, :3]], labels)
    with pytest.raises(cf.ClosedformError, match="empty mapping"):
        cf.probe({}, labels)


@pytest.mark.parametrize(
    "argument",
    [
        {"task": "classify"}, {"test_size": 0.0}, {"test_size": 1}, {"seed": "a"}, {"confidence": 1.0},
        {"class_weight": "even"}, {"class_weight": {9: 1.0}}, {"sample_weight": [1.0]}, {"l2": [-1.0]},
    ],
)  # fmt: skip
def test_arguments_that_are_none_are_named(argument: dict[str, Any]) -> None:
    with pytest.raises(cf.ClosedformError, match=next(iter(argument))):
        cf.probe(*blobs(), **argument)


def files_of_labels(folder: Path, labels: Tensor) -> list[str]:
    words = [f"c{int(code)}" for code in labels]
    np.save(folder / "codes.npy", labels.numpy())
    np.save(folder / "words.npy", np.array(words))
    (folder / "words.txt").write_text("\n".join(words) + "\n")
    pd.DataFrame({"label": words}).to_csv(folder / "words.csv", index=False)
    pd.DataFrame({"id": range(len(words)), "label": words}).to_parquet(folder / "two.parquet")
    pd.DataFrame({"id": range(len(words)), "label": words}).to_csv(folder / "two.csv", index=False, sep=";")
    pl.DataFrame({"label": pl.Series(words, dtype=pl.Categorical)}).write_ipc(folder / "words.arrow")
    np.savez(folder / "words.npz", label=np.array(words), other=labels.numpy())
    with h5py.File(folder / "words.h5", "w") as file:
        file["deep/label"] = words
        kind = h5py.enum_dtype({word: code for code, word in enumerate(sorted(set(words)))})
        file.create_dataset("named", data=labels.numpy(), dtype=kind)
    half = len(words) // 2
    for part, some in enumerate((words[:half], words[half:])):
        pd.DataFrame({"label": some}).to_csv(folder / f"part_{part}.csv", index=False)
    names = [
        "codes.npy", "words.npy", "words.txt", "words.csv", "two.parquet::label", "two.csv::label", "words.arrow",
        "words.npz::label", "words.h5::deep/label", "words.h5::named", "part_*.csv::label",
    ]  # fmt: skip
    return [str(folder / name) for name in names]


def test_labels_are_read_from_files(tmp_path: Path) -> None:
    X, labels = blobs()
    np.save(tmp_path / "x.npy", X.numpy())
    expected = cf.probe(X, labels)
    for file in files_of_labels(tmp_path, labels):
        result = cf.probe(str(tmp_path / "x.npy"), file)
        assert torch.equal(result.solution.weight, expected.solution.weight)
    with pytest.raises(cf.ClosedformError, match=r"label .* name the column: .*::COLUMN"):
        cf.probe(X, str(tmp_path / "two.parquet"))


@pytest.mark.parametrize("words", [True, False])
def test_labels_are_a_column_of_the_one_table(words: bool, tmp_path: Path) -> None:
    X, labels = blobs()
    table = pd.DataFrame(X.numpy(), columns=list("abcdef"))
    table.insert(2, "kind", [f"c{code}" for code in labels.tolist()] if words else labels.numpy())
    table.to_csv(tmp_path / "table.csv", index=False)
    table.to_parquet(tmp_path / "table.parquet")
    expected = cf.probe(X, labels).solution
    csv, parquet = str(tmp_path / "table.csv"), str(tmp_path / "table.parquet")
    # Labels named as a column of the very file must not be among its features.
    for features, column in [(table, "kind"), (csv, "kind"), (parquet, "kind"), (parquet, f"{parquet}::kind")]:
        result = cf.probe(features, column)
        torch.testing.assert_close(result.solution.weight, expected.weight, rtol=1e-12, atol=1e-15)
        assert "kind" in "".join(result.notes)
    given = cf.probe(csv, "kind", test_features=csv, test_labels="kind")
    assert given.test_rows == given.train_rows == len(table)
    table["weight"] = np.linspace(1, 2, len(table))
    table.to_csv(csv, index=False)
    weighted = cf.probe(X, labels, sample_weight=table["weight"].to_numpy()).solution
    for features in (table, csv):
        by_name = cf.probe(features, "kind", sample_weight="weight").solution
        torch.testing.assert_close(by_name.weight, weighted.weight, rtol=1e-12, atol=1e-15)
    with pytest.raises(cf.ClosedformError, match="kinds"):
        cf.probe(csv, "kinds")
    with pytest.raises(InputError, match="kinds"):
        cf.probe(table, "kinds")


def test_rows_of_files_are_chosen_block_by_block(tmp_path: Path) -> None:
    X, labels = blobs()
    np.save(tmp_path / "x.npy", X.numpy())
    streamed = NpyFormat().open(tmp_path / "x.npy", "", 0)
    assert not streamed.in_memory
    from_file, from_memory = cf.probe(streamed, labels), cf.probe(X, labels)
    assert from_file.accuracy == from_memory.accuracy
    torch.testing.assert_close(from_file.solution.weight, from_memory.solution.weight, rtol=1e-9, atol=1e-12)


def test_it_is_shown_as_text_page_plot_and_json() -> None:
    pytest.importorskip("matplotlib").use("agg")
    X, labels = blobs(classes=7)
    for features in (X, {"<a>": X, "b": X[:, :3]}):
        result = cf.probe(features, labels)
        assert str(result).startswith("accuracy") or "accuracy" in str(result)
        assert json.loads(json.dumps(result.to_dict(), allow_nan=False))["accuracy"] == result.accuracy
        assert "Calibration" in result._repr_html_()
        assert "<a>" not in result._repr_html_()
        assert result.plot().lines
        assert all(isinstance(value, float) for value in result.metrics().values())


def test_every_pair_of_choices_goes_together() -> None:
    X, labels = blobs(120)
    choices = itertools.product([True, False], [None, "balanced"], [torch.float32, torch.float64])
    for bias, class_weight, dtype in choices:
        result = cf.probe(X.to(dtype), labels, bias=bias, class_weight=class_weight)
        assert result.outcome.certified
        assert (result.solution.bias is not None) == bias
        assert result.solution.weight.dtype == dtype


def test_a_probe_by_cross_entropy_is_the_logistic_regression_chosen_by_its_folds(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(150, 4, dtype=torch.float64, generator=generator)
    y = (X[:, :3] + torch.randn(150, 3, dtype=torch.float64, generator=generator)).argmax(1)
    strengths = [0.1, 1.0, 10.0]
    result = cf.probe(X, y, criterion="cross-entropy", l2=strengths)
    path = result.path
    assert path.scoring == "cross-entropy"
    assert path.errors.shape == (3, 1)
    best = int(path.errors.argmin())
    assert float(path.l2) == strengths[best]
    assert result.outcome is Outcome.CERTIFIED

    rows, _ = split_rows(150, y, 0.25, 0)
    direct = cf.solve(X[rows], y[rows], bias=True, l2=strengths[best], criterion=nn.CrossEntropyLoss())
    torch.testing.assert_close(result.solution.weight, direct.weight, rtol=1e-9, atol=1e-12)
    assert result.best.left_out_error == pytest.approx(float(path.errors.min()))
    # Scores are probabilities: of three classes the best is a third at least.
    scores = result.best.scores
    assert isinstance(scores, ClassScores)
    assert sum(scores.calibration.rows[:3]) == 0
    result.to_html(tmp_path / "probe.html")
    assert "mean cross-entropy" in (tmp_path / "probe.html").read_text(encoding="utf-8")

    with pytest.raises(InputError, match="regression"):
        cf.probe(X, X[:, 0], criterion="cross-entropy")
    with pytest.raises(InputError, match="class_weight"):
        cf.probe(X, y, criterion=nn.CrossEntropyLoss(label_smoothing=0.1))
    with pytest.raises(InputError, match=r"by 'squared' error or by 'cross-entropy'"):
        cf.probe(X, y, criterion="hinge")
    with pytest.raises(InputError, match="too few"):
        cf.probe(X[:6], torch.arange(6) % 2, criterion="cross-entropy")


def test_cross_entropy_of_few_rows_takes_one_strength() -> None:
    X, labels = blobs(20, classes=2)
    weight = (torch.arange(20) < 4).double()
    few: list[tuple[dict[str, Any], int]] = [
        ({"labels": torch.tensor([0, 0, 0, 0, 1])}, 5),  # the row that is alone in its class is never left out
        ({"labels": labels, "sample_weight": weight}, 4),
    ]
    for asked, rows in few:
        count = len(asked["labels"])
        given = {"test_features": X[:count], "test_labels": asked["labels"], "criterion": "cross-entropy"}
        with pytest.raises(InputError, match=rf"{rows} rows are too few .* give one strength, l2="):
            cf.probe(X[:count], **asked, **given)
        result = cf.probe(X[:count], **asked, **given, l2=1.0)
        assert result.outcome.certified
        assert "left_out_error" not in result.metrics()


def test_features_of_float16_may_tell_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    X, labels = torch.randn(60, 8, generator=generator).half(), torch.randint(0, 2, (60,), generator=generator)
    result = cf.probe(X, labels)
    assert result.head().weight.dtype == torch.float32
    assert result.outcome.certified
    assert any("the weights are float32 where the features are float16" in note for note in result.path.notes)
