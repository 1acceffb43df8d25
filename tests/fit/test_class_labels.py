"""Labels of classes given as targets: fitted as numbers, as was asked, and said; refused with the call that helps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

import closedform as cf
from closedform.cli.app import app
from closedform.words.errors import InputError

RNG = np.random.default_rng(0)
X = RNG.standard_normal((120, 4))


def notes(Y: object) -> list[str]:
    return [note for note in cf.solve(X, Y, bias=True).notes if "labels" in note]


LABELS = {
    "ten integers": RNG.integers(0, 10, 120),
    "a column": torch.from_numpy(RNG.integers(0, 3, (120, 1))),
    "booleans": X[:, 0] > 0,
    "from one": RNG.integers(1, 4, 120).astype(np.int8),
    "sorted": np.sort(RNG.integers(0, 5, 120)),
    "floats": RNG.integers(0, 5, 120).astype(np.float32),
    "a series": pd.Series(RNG.integers(0, 4, 120)),
    "minus one and one": np.sign(X[:, 0]).astype(int),
}
NO_LABELS = {
    "real numbers": X @ [1.0, 2.0, 3.0, 4.0],
    "one-hot": np.eye(3)[RNG.integers(0, 3, 120)],
    "years": RNG.integers(1900, 2020, 120),
    "large integers": RNG.integers(0, 10**6, 120),
    "counted once": np.arange(120),
    "contrasts": np.sign(X[:, 0]),
    "one value": np.ones(120, dtype=int),
}


@pytest.mark.parametrize("kind", LABELS)
def test_labels_are_fitted_and_said(kind: str) -> None:
    Y = LABELS[kind]
    (note,) = notes(Y)
    assert f"holds {len(np.unique(np.asarray(Y)))} different whole numbers" in note
    for remedy in ("one_hot", "criterion=torch.nn.CrossEntropyLoss()", "cf.probe", "closedform probe"):
        assert remedy in note


@pytest.mark.parametrize("kind", NO_LABELS)
def test_other_targets_are_left_alone(kind: str) -> None:
    assert notes(NO_LABELS[kind]) == []


def test_labels_of_a_file_are_said(tmp_path: Path) -> None:
    frame = pd.DataFrame(X, columns=list("abcd"))
    frame["labels"] = LABELS["ten integers"]
    frame.to_csv(tmp_path / "data.csv", index=False)
    result = CliRunner().invoke(app, ["solve", str(tmp_path / "data.csv"), "--y", "labels"])
    assert result.exit_code == 0
    said = " ".join(result.stdout.split())
    assert "--criterion cross-entropy fits them, and closedform probe counts the right answers" in said


def test_a_layer_with_an_output_for_each_class_gets_the_call() -> None:
    layer = torch.nn.Linear(4, 100)
    with pytest.raises(
        InputError, match=r"100 targets, but the data have 4 features and 1 target\. Y looks like labels"
    ) as seen:
        cf.fit_(layer, X, RNG.integers(0, 100, 120))
    assert "torch.nn.functional.one_hot(Y, 100)" in str(seen.value)
    assert "cf.probe(X, Y)" in str(seen.value)
    for Y in (X[:, 0], RNG.integers(0, 500, 120) - 200):
        with pytest.raises(InputError) as other:
            cf.fit_(layer, X, Y)
        assert "labels" not in str(other.value)


def test_what_the_note_says_to_do_works() -> None:
    labels = torch.from_numpy(LABELS["ten integers"])
    sol = cf.fit_(torch.nn.Linear(4, 10), X, torch.nn.functional.one_hot(labels, 10))
    assert sol.certified
    assert not any("labels" in note for note in sol.notes)


def test_labels_in_batches_are_said_too() -> None:
    X = torch.randn(60, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(60) % 3
    acc = cf.Accumulator(2, bias=True)
    for start in range(0, 60, 20):
        acc.fold(X[start : start + 20], labels[start : start + 20])
    for held in (acc, cf.Accumulator(2, bias=True).merge(acc)):
        assert any("labels of classes" in note for note in held.solve().notes)
    assert not any("labels" in note for note in cf.Accumulator(2).fold(X, X.sum(1)).solve().notes)
