"""A diagnosis of cross-entropy and its kin: every number against real training, autograd or scikit-learn."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

import closedform as cf
from closedform.words.errors import ClosedformError, InputError
from data import F64


def classes() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(80, 4, generator=generator, dtype=F64)
    return X, (2 * X[:, :3] + 2 * torch.randn(80, 3, generator=generator, dtype=F64)).argmax(1)


def layer_of(seed: int = 0) -> nn.Linear:
    torch.manual_seed(seed)
    return nn.Linear(4, 3, dtype=F64)


def test_the_excess_is_that_over_scikit_learns_minimum() -> None:
    X, y = classes()
    layer = layer_of()
    found = cf.diagnose(X, y, model=layer, criterion=nn.CrossEntropyLoss(), l2=0.4)
    peer = LogisticRegression(C=2.5, tol=1e-13, max_iter=10000).fit(X, y)

    def loss(weight: Tensor, bias: Tensor) -> float:
        value = nn.functional.cross_entropy(nn.functional.linear(X, weight, bias), y)
        return float((value + 0.2 / 80 * weight.square().sum()).detach())

    now = loss(layer.weight, layer.bias)
    least = loss(torch.from_numpy(peer.coef_), torch.from_numpy(peer.intercept_))
    assert found.loss == pytest.approx(now, rel=1e-13)
    assert found.excess_loss == pytest.approx(now - least, abs=1e-12)
    assert found.condition > 1
    json.dumps(found.to_dict(), allow_nan=False)
    assert "above the minimum" in str(found)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_sgd_rests_below_the_limit_and_not_above_it(momentum: float) -> None:
    X, y = classes()
    exact = cf.diagnose(X, y, bias=True, criterion=nn.CrossEntropyLoss())
    limit = exact.learning_rate_limit * (1 + momentum)
    for share, resting in ((0.95, True), (1.05, False)):
        layer = layer_of()
        with torch.no_grad():  # near the minimum: on the way there the loss bends otherwise
            layer.weight.mul_(1e-3).add_(exact.solution.weight)
            layer.bias.copy_(exact.solution.bias)
        before = cf.gap(layer, X, y, criterion=nn.CrossEntropyLoss()).excess_loss
        optimizer = torch.optim.SGD(layer.parameters(), lr=share * limit, momentum=momentum)
        said = cf.diagnose(X, y, model=layer, optimizer=optimizer, criterion=nn.CrossEntropyLoss()).sentences
        assert any("cannot come to rest" in sentence for sentence in said) is not resting
        for _ in range(300):
            optimizer.zero_grad()
            nn.functional.cross_entropy(layer(X), y).backward()
            optimizer.step()
        after = cf.gap(layer, X, y, criterion=nn.CrossEntropyLoss()).excess_loss
        assert after < 0.1 * before if resting else after > 10 * before


def test_the_slowest_error_shrinks_as_told() -> None:
    X, y = classes()
    criterion, lr = nn.CrossEntropyLoss(), 0.5
    layer = layer_of()
    optimizer = torch.optim.SGD(layer.parameters(), lr=lr)
    found = cf.diagnose(X, y, model=layer, optimizer=optimizer, criterion=criterion)
    assert found.at_minimum is not None
    steps = round(2 / (lr * found.at_minimum.smallest))
    distances = []
    for step in range(5 * steps + 1):
        if step in (4 * steps, 5 * steps):
            distances.append(cf.gap(layer, X, y, criterion=criterion).weight_distance)
        optimizer.zero_grad()
        criterion(layer(X), y).backward()
        optimizer.step()
    assert distances[1] / distances[0] == pytest.approx(float(torch.tensor(-2.0).exp()), rel=0.05)


def test_weights_that_grow_for_ever_are_told() -> None:
    X, y = torch.tensor([[-2.0], [-1.0], [1.0], [2.0]], dtype=F64), torch.tensor([0, 0, 1, 1])
    found = cf.diagnose(X, y, criterion=nn.CrossEntropyLoss())
    assert found.sentences[0].startswith("No minimiser exists: the weights grow for ever")
    assert found.solution.direction is not None
    weight = found.solution.direction.weight
    assert bool(((X @ (weight[1] - weight[0])) * torch.tensor([-1.0, -1.0, 1.0, 1.0]) >= 0).all())


def test_weight_decay_is_told_as_a_ridge() -> None:
    X, y = classes()
    layer = layer_of()
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1, weight_decay=0.01)
    found = cf.diagnose(X, y, model=layer, optimizer=optimizer, criterion=nn.CrossEntropyLoss())
    assert any("l2=0.8 " in sentence for sentence in found.sentences)


def said_of(optimizer: Any, layer: nn.Linear, **options: Any) -> str:
    X, y = classes()
    found = cf.diagnose(X, y, model=layer, optimizer=optimizer, criterion=nn.CrossEntropyLoss(), **options)
    return " ".join(found.sentences)


def test_close_to_the_limit_the_steepest_error_is_the_slowest() -> None:
    ones, y = torch.ones(40, 1, dtype=F64), (torch.arange(40) % 2).double()
    layer = nn.Linear(1, 1, bias=False, dtype=F64)
    optimizer = torch.optim.SGD(layer.parameters(), lr=1.999 / 0.25)
    found = cf.diagnose(ones, y, model=layer, optimizer=optimizer, criterion=nn.BCEWithLogitsLoss())
    with torch.no_grad():
        layer.weight.fill_(1e-3)
    for _ in range(999):
        optimizer.zero_grad()
        nn.functional.binary_cross_entropy_with_logits(layer(ones)[:, 0], y).backward()
        optimizer.step()
    assert abs(float(layer.weight.detach())) == pytest.approx(1e-3 / math.e, rel=0.01)
    assert "by a factor e every 999 steps" in " ".join(found.sentences)


def test_climbing_is_told() -> None:
    layer = layer_of()
    said = said_of(torch.optim.SGD(layer.parameters(), lr=0.1, maximize=True), layer)
    assert "maximize=True climbs" in said
    assert "shrinks" not in said


def test_decay_beside_the_gradient_is_no_ridge() -> None:
    layer = layer_of()
    assert "acts beside the gradient, as no ridge does" in said_of(torch.optim.AdamW(layer.parameters()), layer)


@pytest.mark.parametrize(
    ("l2", "words"),
    [(0.8, "weight_decay=0.01 is the l2=0.8 given;"), (0.2, "that of l2=1."), (0.0, "that of l2=0.8.")],
)
def test_decay_is_told_beside_the_ridge_given(l2: float, words: str) -> None:
    layer = nn.Linear(4, 3, bias=False, dtype=F64)
    said = said_of(torch.optim.SGD(layer.parameters(), lr=0.1, weight_decay=0.01), layer, l2=l2)
    assert words in said
    assert "bias" not in said
    assert ("shrinks the slowest error" in said) is (l2 == 0.8)


def test_a_frozen_bias_is_told() -> None:
    layer = layer_of()
    assert "does not train the layer's bias" in said_of(torch.optim.SGD([layer.weight], lr=0.1), layer)


def test_where_sgd_rests_on_a_level_or_smooth_minimum_nothing_else_is_said() -> None:
    ones, y = torch.ones(4, 1, dtype=F64), torch.tensor([1.0, -1, 1, -1], dtype=F64)
    for X, rests in ((ones, False), (1e-3 * ones * y.unsqueeze(1), True)):
        layer = nn.Linear(1, 1, bias=False, dtype=F64)
        optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
        # All margins are short of 1 there, so that the ridge alone decides.
        found = cf.diagnose(
            X, y, l2=1.0 if rests else 0.0, model=layer, optimizer=optimizer, criterion=cf.losses.HingeLoss()
        )
        assert found.solution.outcome.certified
        assert not any("never comes to rest" in sentence for sentence in found.sentences)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"steps": 10}, "steps= is for squared error"),
        ({"model": layer_of(), "optimizer": torch.optim.SGD(layer_of().parameters())}, "does not belong to the model"),
        ({"model": nn.Linear(5, 3)}, "the model takes 5 features"),
        ({"model": nn.Sequential(nn.Linear(4, 3, dtype=F64), nn.Softmax(1))}, "model"),
    ],
)
def test_what_cannot_be_used_is_refused(options: dict[str, Any], words: str) -> None:
    X, y = classes()
    with pytest.raises((InputError, ClosedformError), match=words):
        cf.diagnose(X, y, criterion=nn.CrossEntropyLoss(), **options)


def test_a_function_is_explained_as_its_module() -> None:
    X, y = classes()
    layer = layer_of()
    found = cf.diagnose(X, y, model=layer, criterion=nn.functional.cross_entropy)
    assert found.loss == cf.diagnose(X, y, model=layer, criterion=nn.CrossEntropyLoss()).loss
    with pytest.raises(InputError, match="but not for these"):
        cf.diagnose(X, 80 * y, criterion=lambda z, t: nn.functional.cross_entropy(z, t, ignore_index=80))


def test_criteria_of_residuals_are_explained_beside_squared_error() -> None:
    X, _ = classes()
    assert isinstance(cf.diagnose(X, X.sum(1), criterion=nn.L1Loss()), cf.Diagnosis)
