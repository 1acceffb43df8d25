"""``--criterion`` on the command line: scikit-learn's and HiGHS's minimisers, exit status, what is written."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from scipy.optimize import linprog
from sklearn.linear_model import LogisticRegression
from typer.testing import CliRunner, Result

from closedform.cli.app import app
from closedform.words.numbers import short

runner = CliRunner()


def run(*args: object) -> Result:
    return runner.invoke(app, [str(arg) for arg in args])


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    X = random.standard_normal((90, 3))
    y = (X @ random.standard_normal((3, 3)) + 2 * random.standard_normal((90, 3))).argmax(1)
    path = tmp_path / "classes.npz"
    np.savez(path, X_train=X[:70], y_train=y[:70], X_test=X[70:], y_test=y[70:])
    return path


def test_solve_by_cross_entropy_is_scikit_learns(classes: Path, tmp_path: Path) -> None:
    out, js = tmp_path / "layer.safetensors", tmp_path / "out.json"
    options = ["--criterion", "cross-entropy", "--bias", "--l2", 0.5, "--out", out, "--json", js]
    result = run("solve", classes, *options)
    assert result.exit_code == 0, result.output
    with np.load(classes) as archive:
        data = dict(archive)
    record, layer = json.loads(js.read_text()), load_file(out)
    peer = LogisticRegression(C=2.0, tol=1e-12, max_iter=10000).fit(data["X_train"], data["y_train"])
    np.testing.assert_allclose(layer["weight"].numpy(), peer.coef_, atol=1e-6)

    logits = torch.from_numpy(data["X_test"]) @ layer["weight"].T + layer["bias"]
    labels = torch.from_numpy(data["y_test"])
    loss = float(torch.nn.functional.cross_entropy(logits, labels))
    assert record["test"]["loss"] == pytest.approx(loss, rel=1e-13)
    assert record["test"]["accuracy"] == float((logits.argmax(1) == labels).double().mean())
    assert record["criterion"] == "CrossEntropyLoss"
    assert record["options"]["criterion"] == "cross-entropy"
    assert record["certificate"]["relative_gap"] < 1e-12
    assert f"test loss {loss:.6g}" in result.stdout


@pytest.mark.parametrize("criterion", ["cross-entropy", "multi-margin"])
def test_a_column_of_labels_in_a_file_is_one(criterion: str, classes: Path, tmp_path: Path) -> None:
    with np.load(classes) as archive:
        data = dict(archive)
    table = np.column_stack([data["X_train"], data["y_train"]])
    np.savetxt(tmp_path / "t.csv", table, ["%.17g"] * 3 + ["%d"], ",", header="a,b,c,label", comments="")
    np.savez(tmp_path / "t.npz", X=data["X_train"], y=data["y_train"])
    told = []
    for source in (tmp_path / "t.csv", tmp_path / "t.npz"):
        named = ["--y", "label"] if source.suffix == ".csv" else []
        js = tmp_path / "out.json"
        result = run("solve", source, *named, "--criterion", criterion, "--l2", 0.5, "--json", js)
        assert result.exit_code == 0, result.output
        assert "converted to float64" not in result.output
        judged = run("diagnose", source, *named, "--criterion", criterion, "--l2", 0.5, "--lr", 0.1)
        assert judged.exit_code == 0, judged.output
        said = " ".join(judged.stdout.split())
        told.append((json.loads(js.read_text())["certificate"]["objective"], said[said.index("The loss is") :]))
    assert told[0] == told[1]


def test_weights_that_their_dtype_cannot_hold_are_not_called_certified(tmp_path: Path) -> None:
    X = np.random.default_rng(0).standard_normal((60, 2)).astype(np.float32)
    np.savez(tmp_path / "d.npz", X=X + np.float32(3e4), y=X[:, 0])
    out = tmp_path / "w.safetensors"
    options = ["--criterion", "l1", "--bias", "--json", "-", "--out", out]
    result = run("solve", tmp_path / "d.npz", *options)
    assert result.exit_code == 1
    record = json.loads(result.stdout)
    assert (record["outcome"], record["certified"]) == ("certified", False)
    assert record["stored"]["lost"] is True
    with safe_open(out, "pt") as file:
        assert file.metadata()["certified"] == "false"
    assert run("solve", tmp_path / "d.npz", *options, "--double").exit_code == 0


def test_solve_by_absolute_error_is_the_linear_program(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    X, y = random.standard_normal((40, 3)), random.standard_normal(40)
    np.savez(tmp_path / "d.npz", X=X, y=y)
    result = run("solve", tmp_path / "d.npz", "--criterion", "l1", "--json", "-")
    assert result.exit_code == 0, result.output
    A = np.hstack([X, -X, np.eye(40), -np.eye(40)])
    program = linprog([0] * 6 + [1] * 80, A_eq=A, b_eq=y, method="highs")
    assert json.loads(result.stdout)["certificate"]["objective"] == pytest.approx(program.fun, rel=1e-12)


def test_solve_without_a_minimiser_writes_no_weights_and_is_status_one(tmp_path: Path) -> None:
    X = np.array([[-2.0, 1.0], [-1.0, -1.0], [1.0, 1.0], [2.0, -1.0]])
    np.savez(tmp_path / "d.npz", X=X, y=np.array([0, 0, 1, 1]))
    out = tmp_path / "layer.safetensors"
    result = run("solve", tmp_path / "d.npz", "--criterion", "cross-entropy", "--out", out, "--json", "-")
    assert result.exit_code == 1
    weight = np.array(json.loads(result.stdout)["direction"]["weight"])
    assert (np.array([-1, -1, 1, 1]) * (X @ (weight[1] - weight[0])) >= 0).all()
    assert not out.exists()
    assert "was not written" in result.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--criterion", "crossentropy"], "is not known"),
        (["--criterion", "quantile:2"], "between 0 and 1"),
        (["--criterion", "cross-entropy", "--digits", "3"], "--digits is for squared error"),
        (["--criterion", "hinge"], "must be -1 or 1"),
    ],
)
def test_what_cannot_be_used_is_one_line_and_status_two(options: list[str], words: str, classes: Path) -> None:
    result = run("solve", classes, *options)
    assert result.exit_code == 2
    assert words in result.stderr


def test_the_name_of_squared_error_is_least_squares(classes: Path, tmp_path: Path) -> None:
    one, other = (run("solve", classes, *options) for options in (["--criterion", "mse"], []))
    assert one.exit_code == other.exit_code == 0
    assert "backward error" in one.stdout


def test_diagnose_says_whether_absolute_error_and_least_squares_share_their_minimiser(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    X, y = random.standard_normal((40, 3)), random.standard_normal(40)
    np.savez(tmp_path / "tall.npz", X=X, y=y)
    result = run("diagnose", tmp_path / "tall.npz", "--criterion", "l1", "--lr", 0.1)
    assert result.exit_code == 0, result.output
    said = " ".join(result.stdout.split())
    least = np.linalg.lstsq(X, y, rcond=None)[0]
    assert f"L1Loss is {short(np.abs(y - X @ least).mean())} there" in said
    assert f"mean squared error {short(((y - X @ least) ** 2).mean())} there" in said
    assert "never comes to rest" in said

    np.savez(tmp_path / "square.npz", X=X[:3], y=y[:3])
    same = run("diagnose", tmp_path / "square.npz", "--criterion", "l1")
    assert "same minimiser" in " ".join(same.stdout.split())


def test_diagnose_by_cross_entropy_judges_a_fresh_layer(classes: Path, tmp_path: Path) -> None:
    js, page = tmp_path / "out.json", tmp_path / "page.html"
    options = ["--criterion", "cross-entropy", "--bias", "--l2", 0.5, "--lr", 1e6, "--json", js, "--html", page]
    result = run("diagnose", classes, *options)
    assert result.exit_code == 0, result.output
    record = json.loads(js.read_text())
    with np.load(classes) as archive:
        data = dict(archive)
    torch.manual_seed(0)
    layer = torch.nn.Linear(3, 3, dtype=torch.float64)
    logits = layer(torch.from_numpy(data["X_train"])).detach()
    penalty = 0.25 * float(layer.weight.detach().square().sum()) / 70
    loss = float(torch.nn.functional.cross_entropy(logits, torch.from_numpy(data["y_train"]))) + penalty
    assert record["loss"] == pytest.approx(loss, rel=1e-12)
    assert 0 < record["excess_loss"] < loss
    assert "cannot come to rest" in page.read_text(encoding="utf-8")
    refused = run("diagnose", classes, "--criterion", "cross-entropy", "--steps", 5)
    assert refused.exit_code == 2
