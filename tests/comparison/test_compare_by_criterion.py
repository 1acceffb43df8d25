"""Optimizers trained on a criterion: losses are torch's, excesses are those over an independent minimum."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import linprog
from sklearn import linear_model
from torch import Tensor, nn
from typer.testing import CliRunner

import closedform as cf
from clocks import Ticking
from closedform.cli.app import app
from closedform.comparison import entry
from closedform.fit.convex import curvature_at
from closedform.fit.weights import Weights
from closedform.rows import as_rows
from closedform.words.errors import InputError
from closedform.words.outcome import Outcome
from data import F64


def compare(*tables: Any, **options: Any) -> cf.CriterionComparison:
    result = entry.compare(*tables, **{"clock": Ticking(1e-3), **options})
    assert isinstance(result, cf.CriterionComparison)
    return result


def classes(rows: int = 80, count: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(rows, 4, generator=generator, dtype=F64)
    noise = torch.randn(rows, count, generator=generator, dtype=F64)
    return X, (2 * X[:, :count] + 2 * noise).argmax(1)


def test_excess_is_that_over_scikit_learns_minimum() -> None:
    X, y = classes()
    result = compare(
        X[:60], y[:60], X[60:], y[60:], bias=True, criterion="cross-entropy", l2=0.5, budget=1.0, optimizers=["sgd"]
    )
    peer = linear_model.LogisticRegression(C=2.0, tol=1e-13, max_iter=10000).fit(X[:60], y[:60])
    weight = torch.from_numpy(peer.coef_)
    logits = X[:60] @ weight.T + torch.from_numpy(peer.intercept_)
    minimum = float(nn.CrossEntropyLoss()(logits, y[:60]) + 0.25 / 60 * weight.square().sum())
    for row in result.methods:
        assert row.excess_loss == pytest.approx(row.train_loss - minimum, abs=1e-12)
    sgd = result["sgd"]
    assert sgd.curve[0].excess_loss > 1e-2 > sgd.excess_loss
    assert result.outcome.certified
    tested = float(nn.CrossEntropyLoss()(X[60:] @ weight.T + torch.from_numpy(peer.intercept_), y[60:]))
    assert result["exact minimiser"].test_loss == pytest.approx(tested, rel=1e-5)


def test_training_is_torchs_own() -> None:
    X, y = classes(40)
    layer = nn.Linear(4, 3, dtype=F64)
    start = [parameter.clone() for parameter in layer.parameters()]
    criterion = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 0.5]), label_smoothing=0.1)
    row = compare(X, y, bias=True, criterion=criterion, layer=layer, l2=2.0, optimizers=["sgd"], budget=1.0)["sgd"]
    assert all(torch.equal(*pair) for pair in zip(start, layer.parameters(), strict=True))
    # weight_decay decays the bias as well, which l2 does not.
    weighed = float(torch.tensor([1.0, 2.0, 0.5])[y].sum())
    optimizer = torch.optim.SGD(
        [{"params": [layer.weight], "weight_decay": 2.0 / weighed}, {"params": [layer.bias]}],
        lr=row.hyperparameters["lr"],
    )
    assert row.steps
    for _ in range(row.steps):
        optimizer.zero_grad()
        criterion.double()(layer(X), y).backward()
        optimizer.step()
    with torch.no_grad():
        loss = criterion(layer(X), y) + 1.0 / weighed * layer.weight.square().sum()
    assert row.train_loss == pytest.approx(float(loss), rel=1e-12)


def test_absolute_error_with_weights_against_the_linear_program() -> None:
    generator = torch.Generator().manual_seed(1)
    X, y = (torch.randn(30, *more, generator=generator, dtype=F64) for more in ((3,), ()))
    weight = torch.rand(30, generator=generator, dtype=F64)
    result = compare(X, y, criterion=nn.L1Loss(), sample_weight=weight, optimizers=["adam"], budget=1.0)
    A = np.hstack([X, -X, np.eye(30), -np.eye(30)])
    costs = np.concatenate([np.zeros(6), weight, weight])
    minimum = linprog(costs, A_eq=A, b_eq=y.numpy(), method="highs").fun / float(weight.sum())
    adam = result["adam"]
    assert adam.excess_loss == pytest.approx(adam.train_loss - minimum, abs=1e-12)
    assert adam.excess_loss > 1e-6
    assert np.isnan(result.condition)


def test_where_no_minimiser_exists_nothing_is_trained() -> None:
    X = torch.tensor([[-2.0], [-1.0], [1.0], [2.0]], dtype=F64)
    result = compare(X, torch.tensor([0, 0, 1, 1]), criterion="cross-entropy", budget=0.2)
    assert result.outcome is Outcome.NO_MINIMISER
    assert [row.name for row in result.methods] == ["exact minimiser"]
    assert "no minimiser exists" in result.sentence
    assert "no minimiser exists" in str(result)
    json.dumps(result.to_dict(), allow_nan=False)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("criterion", [nn.CrossEntropyLoss(), nn.BCEWithLogitsLoss(reduction="sum")])
def test_the_curvature_is_autograds(criterion: nn.Module, bias: bool) -> None:
    X, y = classes(25)
    Y = y if isinstance(criterion, nn.CrossEntropyLoss) else nn.functional.one_hot(y, 3).double()
    layer = nn.Linear(4, 3, bias=bias, dtype=F64)
    divisor = 25 if isinstance(criterion, nn.CrossEntropyLoss) else 1

    def loss(flat: Tensor) -> Tensor:
        weight = flat[:12].reshape(3, 4)
        value = criterion(nn.functional.linear(X, weight, flat[12:] if bias else None), Y)
        return value + 0.15 / divisor * weight.square().sum()

    flat = torch.cat([parameter.detach().reshape(-1) for parameter in layer.parameters()])
    values = torch.linalg.eigvalsh(torch.autograd.functional.hessian(loss, flat))
    found = curvature_at(as_rows(X, Y), criterion, Weights.of_layer(layer, X.device), 0.3)
    assert found is not None
    assert found.largest == pytest.approx(float(values[-1]), rel=1e-12)
    if not isinstance(criterion, nn.CrossEntropyLoss):
        assert found.smallest == pytest.approx(float(values[0]), rel=1e-10)
    else:
        # A shift of all classes bends by the ridge alone, the smallest there is; the rest follows it.
        rest = values[4 + bias :]
        assert found.smallest == pytest.approx(float(rest[0]), rel=1e-10)


def test_sgd_diverges_just_above_the_limit_near_the_minimum() -> None:
    X, y = classes()
    request: dict[str, Any] = {"bias": True, "criterion": "cross-entropy"}
    result = compare(X, y, **request, optimizers=[], budget=0.1)
    solution = cf.solve(X, y, **request)
    for share, growing in ((0.95, False), (1.05, True)):
        layer = nn.Linear(4, 3, dtype=F64)
        with torch.no_grad():
            layer.weight.copy_(solution.weight + 1e-7 * torch.randn(3, 4, generator=torch.Generator().manual_seed(0)))
            layer.bias.copy_(solution.bias)
        optimizer = torch.optim.SGD(layer.parameters(), lr=share * result.learning_rate_limit)
        losses = []
        for _ in range(150):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(layer(X), y)
            loss.backward()
            losses.append(float((layer.weight.detach() - solution.weight).norm()))
            optimizer.step()
        assert (losses[-1] > 100 * losses[20]) == growing


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"l2": 1.0}, "is for another criterion than squared error"),
        ({"criterion": "cross-entropy", "optimizers": ["rls"]}, "rls minimises squared error"),
        ({"criterion": nn.CrossEntropyLoss(reduction="none")}, "gives no single loss"),
    ],
)
def test_what_cannot_be_used_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        entry.compare(*classes(20), **options)


def test_the_command_line(tmp_path: Path) -> None:
    X, y = classes(40)
    np.savez(tmp_path / "d.npz", X=X.numpy(), y=y.numpy())
    page, data = tmp_path / "page.html", tmp_path / "out.json"
    options = ["--criterion", "cross-entropy", "--l2", "1", "--budget", "0.2", "--optimizers", "lbfgs"]
    command = ["compare", str(tmp_path / "d.npz"), *options, "--html", str(page), "--json", str(data)]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    rows = {row["name"]: row for row in json.loads(data.read_text())["methods"]}
    assert {"exact minimiser", "lbfgs"} <= rows.keys()
    assert {"train_loss", "test_loss", "excess_loss"} <= rows["lbfgs"].keys()
    assert "<svg" in page.read_text()
    assert "Hessian of CrossEntropyLoss" in " ".join(result.stdout.split())
