"""``closedform probe`` on files."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

import closedform as cf
from closedform.cli.app import app


def run(*arguments: str, status: int = 0) -> tuple[str, str]:
    result = CliRunner().invoke(app, ["probe", *arguments])
    assert result.exit_code == status, result.output
    return result.stdout, result.stderr


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    codes = np.arange(120) % 3
    X = 2 * random.standard_normal((3, 5))[codes] + random.standard_normal((120, 5))
    np.save("late.npy", X)
    np.save("early.npy", X[:, :2])
    np.save("part_1.npy", X[:50])
    np.save("part_2.npy", X[50:])
    np.save("codes.npy", codes)
    Path("labels.txt").write_text("\n".join(np.array(["ant", "bee", "cat"])[codes]) + "\n")
    return tmp_path


def test_layers_are_probed_written_and_recorded(folder: Path) -> None:
    text, aside = run(
        "early.npy", "late.npy", "--labels", "labels.txt", "--out", "head.safetensors", "--json", "p.json"
    )
    assert "accuracy" in text
    assert "late" in text
    assert "head.safetensors" in aside
    record = json.loads(Path("p.json").read_text())
    result = cf.probe({"early": np.load("early.npy"), "late": np.load("late.npy")}, np.load("codes.npy"))
    assert record["accuracy"] == result.accuracy
    assert record["best"] == "late"
    assert record["classes"] == ["ant", "bee", "cat"]
    tensors = load_file("head.safetensors")
    assert torch.equal(tensors["weight"], result.solution.weight)


def test_the_record_of_one_table_with_words_for_labels(folder: Path) -> None:
    classes, values = np.array(["ant", "bee", "cat"])[np.load("codes.npy")], np.load("late.npy")
    records = []
    for order in (classes, classes[::-1]):
        lines = [",".join([*map(repr, map(float, row)), kind]) for row, kind in zip(values, order, strict=True)]
        names = ",".join([*(f"x{i}" for i in range(values.shape[1])), "kind"])
        Path("table.csv").write_text("\n".join([names, *lines]))
        text, _ = run("table.csv", "--labels", "kind", "--quiet", "--json", "-")
        records.append(json.loads(text))
    assert records[0]["file"] == "table.csv"
    assert records[0]["keys"]["labels"] == "table.csv::kind"
    assert records[0]["keys"]["X"].startswith("table.csv::x0,x1")
    assert records[0]["data_hash"] != records[1]["data_hash"]


def test_shards_are_one_table(folder: Path) -> None:
    text, _ = run("part_1.npy", "part_2.npy", "--labels", "codes.npy", "--quiet", "--json", "-")
    assert [layer["name"] for layer in json.loads(text)["layers"]] == ["features"]


def test_test_rows_and_strengths_are_given(folder: Path) -> None:
    given = ("--test-features", "late.npy", "--test-labels", "labels.txt", "--l2", "0.5,2")
    text, _ = run("late.npy", "--labels", "labels.txt", *given, "--html", "page.html", "--json", "-")
    record = json.loads(text)
    assert record["test_rows"] == record["train_rows"] == 120
    assert record["layers"][0]["path"]["strengths"] == [0.5, 2.0]
    assert "Calibration" in Path("page.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("late.npy", "--labels", "none.txt"), "none.txt"),
        (("part_1.npy", "--labels", "codes.npy"), "50 rows, and there are 120 labels"),
        (("late.npy", "--labels", "codes.npy", "--l2", "a"), "--l2 a"),
        (("late.npy", "--labels", "codes.npy", "--test-labels", "codes.npy"), "test_labels without test_features"),
        (("late.npy", "--labels", "codes.npy", "--out", "head.pt"), "--out"),
        (("late.npy", "--labels", "codes.npy", "--criterion", "nope"), "'squared' error or by 'cross-entropy'"),
        (("late.npy", "--labels", "codes.npy", "--task", "nope"), "--task nope must be classification or regression"),
        (("late.npy", "--labels", "codes.npy", "--class-weight", "no"), "--class-weight no must be balanced"),
        (("late.npy", "--labels", "codes.npy", "--test-size", "2"), "--test-size 2.0 must be the part"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(folder: Path, arguments: tuple[str, ...], message: str) -> None:
    _, aside = run(*arguments, status=2)
    assert message in aside
    assert aside.startswith("error: ")
    assert aside.count("\n") == 1


def test_a_probe_by_cross_entropy(folder: Path) -> None:
    text, _ = run("late.npy", "--labels", "labels.txt", "--criterion", "cross-entropy", "--l2", "1,10")
    assert "left-out cross-entropy" in text
    result = CliRunner().invoke(app, ["probe", "late.npy", "--labels", "labels.txt", "--criterion", "hinge"])
    assert result.exit_code == 2


def test_labels_that_are_no_file_are_told_as_other_files_are(folder: Path) -> None:
    Path("folder.txt").mkdir()
    Path("empty.txt").touch()
    told = {"nope": "there is no file nope.txt; check the path", "folder": "is a directory", "empty": "is empty"}
    if hasattr(os, "mkfifo"):  # which would keep the reader waiting
        os.mkfifo("pipe.txt")
        told["pipe"] = "pipe.txt is not a regular file"
    for name, message in told.items():
        _, aside = run("late.npy", "--labels", f"{name}.txt", status=2)
        assert message in aside
