"""Several processes, each with its own rows: the answers of one, the same bits on all, and the same errors."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed

import closedform as cf
import fresh
from closedform.words.errors import InputError
from data import gaussian

pytestmark = pytest.mark.skipif(not distributed.is_available(), reason="torch was built without torch.distributed")

IMPORTS = fresh.GROUP_IMPORTS + "import os\nfrom closedform.fit import orchestrator"
#: What each rank does: everything in one start, because a start costs seconds. A line of JSON for each thing done.
RANK = (
    fresh.JOIN
    + """
world = distributed.group.WORLD
X, Y = gaussian(300, 6) + 1, gaussian(300, 2, seed=1)
#: Uneven, and the first rank has none.
ends = [0, 0, 37, 300, 300, 300][: size] + [300]
mine = slice(ends[rank], ends[rank + 1])

def tell(act):
    try:
        value = act()
    except ClosedformError as error:
        value = [type(error).__name__, str(error)]
    print(json.dumps(value), flush=True)

def bits(sol):
    bias = [] if sol.bias is None else sol.bias.tolist()
    return [sol.weight.tolist(), bias, sol.certificate.accepted, sol.certificate.loss, sol.notes[-1], str(sol.plan)]

def solve(**more):
    weight = more.pop("sample_weight", None)
    return bits(cf.solve(X[mine], Y[mine], group=world, sample_weight=None if weight is None else weight[mine], **more))

tell(solve)
tell(lambda: solve(bias=True, l2=[0.0, 2.0], sample_weight=gaussian(300, seed=3).abs()))
for method in ("gram32", "sketched", "householder", "svd"):
    tell(lambda: solve(method=method))
tell(lambda: solve(digits=12))

D = torch.cat([X, X[:, :1]], 1)
tell(lambda: bits(cf.solve(D[mine], Y[mine], group=world)))
wide = slice(rank, 4, size)
tell(lambda: bits(cf.solve(X[wide], Y[wide], group=world)))

layer = torch.nn.Linear(6, 2)
tell(lambda: bits(cf.fit_(layer, X[mine].to([torch.float32, torch.float64][rank % 2]), Y[mine], group=world)))
tell(lambda: [layer.weight.tolist(), layer.bias.tolist()])
before = layer.weight.detach().clone()

bad = X[mine].clone()
if rank == 1:
    bad[5, 3] = torch.nan
tell(lambda: bits(cf.fit_(layer, bad, Y[mine], group=world)))
tell(lambda: bits(cf.fit_(layer, X[mine, : 6 - rank % 2], Y[mine], group=world)))
tell(lambda: bits(cf.fit_(layer if rank else "no layer", X[mine], Y[mine], group=world)))
tell(lambda: solve(l2=float(rank)))
tell(lambda: bits(cf.solve(X[mine] if rank != 1 else "nowhere.npy", Y[mine], group=world)))
tell(lambda: bits(cf.solve(X[:0], Y[:0], group=world)))
tell(lambda: bool(torch.equal(before, layer.weight)))

def by(criterion, targets):
    sol = cf.solve(X[mine], targets[mine], bias=True, l2=1.0, criterion=criterion, group=world)
    return [sol.weight.tolist(), sol.certificate.accepted]

def layer_by(criterion, targets):
    classes = torch.nn.Linear(6, 3, dtype=torch.float64)
    sol = cf.fit_(classes, X[mine], targets[mine], l2=1.0, criterion=criterion, group=world)
    return [classes.weight.tolist(), sol.certificate.accepted]

labels = (X[:, 0] > 1).long() + (Y[:, 0] > 0).long()
tell(lambda: by(torch.nn.CrossEntropyLoss(), labels))
tell(lambda: by(torch.nn.L1Loss(), Y))
tell(lambda: by(torch.nn.HuberLoss(delta=1.0 + rank), Y))
tell(lambda: by(torch.nn.CrossEntropyLoss(), torch.where(torch.arange(300) == 299, -1, labels)))
tell(lambda: layer_by(torch.nn.CrossEntropyLoss(), labels))
tell(lambda: by(torch.nn.MultiMarginLoss(), labels))
if rank == size - 1:
    os._exit(3)
tell(lambda: bits(cf.fit_(layer, X[mine], Y[mine], group=world)))
tell(lambda: bool(torch.equal(before, layer.weight)))
os._exit(0)
"""
)


def run(size: int, folder: Path) -> list[list[Any]]:
    told = fresh.run_ranks(IMPORTS, RANK, size, folder)
    return [[json.loads(line) for line in lines.splitlines()] for lines in told]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> list[list[Any]]:
    return run(3, tmp_path_factory.mktemp("ranks"))


X, Y = gaussian(300, 6) + 1, gaussian(300, 2, seed=1)
D = torch.cat([X, X[:, :1]], 1)

#: What one process finds for the first things that the ranks do, and how near they must be.
ALONE = (
    (lambda: cf.solve(X, Y), 1e-12),
    (lambda: cf.solve(X, Y, bias=True, l2=[0.0, 2.0], sample_weight=gaussian(300, seed=3).abs()), 1e-12),
    *((lambda: cf.solve(X, Y), 1e-12) for _ in range(4)),
    (lambda: cf.solve(X, Y, digits=12), 1e-14),
    (lambda: cf.solve(D, Y), 1e-12),
    (lambda: cf.solve(X[:4], Y[:4]), 1e-12),
    (lambda: cf.fit_(torch.nn.Linear(6, 2), X, Y), 1e-6),
)


def test_all_ranks_have_the_same_bits(told: list[list[Any]]) -> None:
    for one, *others in zip(*(rank[:10] for rank in told), strict=True):
        assert all(other == one for other in others), one


@pytest.mark.parametrize("number", range(len(ALONE)))
def test_they_are_those_of_one_process(told: list[list[Any]], number: int) -> None:
    make, near = ALONE[number]
    expected = make()
    for rank in told:
        weight, bias, accepted, loss, note, plan = rank[number]
        assert accepted
        found = torch.tensor(weight, dtype=torch.float64)
        assert float((found - expected.weight).norm() / expected.weight.norm()) <= near
        if expected.bias is not None:
            assert torch.allclose(torch.tensor(bias, dtype=torch.float64), expected.bias.double(), rtol=near, atol=near)
        assert loss == pytest.approx(expected.certificate.loss, rel=1e-9, abs=1e-25)
        assert "3 processes with" in note
        assert "bytes sent" in note
        # The plan says what was counted, and how often each method reads the rows.
        assert note in plan
        assert re.search(r"flops, \d+ passes reading .* bytes, ", plan)


def test_a_layer_is_written_on_all_ranks(told: list[list[Any]]) -> None:
    for rank in told:
        assert rank[10] == [rank[9][0], rank[9][1]]


@pytest.mark.parametrize(
    ("number", "kind", "text"),
    [
        (11, "NonFiniteError", "rank 1 of 3: X holds nan in column 3, first in row 5"),
        (12, "InputError", "rank 1 of 3"),
        (13, "DataTypeError", "rank 0 of 3: layer is a str"),
        (14, "InputError", "l2 is (0.0, 0.0) on rank 0 and (1.0, 1.0) on rank 1"),
        (15, "SourceError", "rank 1 of 3: X is the path 'nowhere.npy'"),
        (16, "InputError", "no process of the group has any rows"),
        (20, "InputError", "HuberLoss(delta=1.0, reduction='mean')"),
        (21, "InputError", "rank 2 of 3: Y holds -1 in row"),
    ],
)
def test_what_is_wrong_on_one_rank_is_raised_on_all(told: list[list[Any]], number: int, kind: str, text: str) -> None:
    errors = [rank[number] for rank in told]
    assert all(error == errors[0] for error in errors)
    assert errors[0][0] == kind
    assert text in errors[0][1]
    assert all(rank[17] is True for rank in told)


def test_a_rank_that_dies_ends_the_others_with_an_error(told: list[list[Any]]) -> None:
    *alive, dead = told
    assert len(dead) == 24
    for rank in alive:
        assert rank[24][0] == "GroupError"
        assert "died or did not answer" in rank[24][1]
        assert rank[25] is True


@pytest.mark.parametrize("number", [18, 19, 23])
def test_criteria_are_minimised_over_all_ranks(told: list[list[Any]], number: int) -> None:
    labels = (X[:, 0] > 1).long() + (Y[:, 0] > 0).long()
    module, targets = {
        18: (torch.nn.CrossEntropyLoss(), labels),
        19: (torch.nn.L1Loss(), Y),
        23: (torch.nn.MultiMarginLoss(), labels),
    }[number]
    expected = cf.solve(X, targets, bias=True, l2=1.0, criterion=module)
    for rank in told:
        assert rank[number] == told[0][number]
        assert rank[number][1] is True
        torch.testing.assert_close(torch.tensor(rank[number][0]).double(), expected.weight, rtol=1e-6, atol=1e-7)


def test_a_layer_is_put_at_the_minimum_of_a_criterion_on_all_ranks(told: list[list[Any]]) -> None:
    labels = (X[:, 0] > 1).long() + (Y[:, 0] > 0).long()
    expected = cf.solve(X, labels, bias=True, l2=1.0, criterion=torch.nn.CrossEntropyLoss())
    for rank in told:
        weight, accepted = rank[22]
        assert accepted is True
        assert weight == told[0][22][0]
        torch.testing.assert_close(torch.tensor(weight).double(), expected.weight, rtol=1e-6, atol=1e-7)


def test_a_group_must_be_one() -> None:
    with pytest.raises(InputError, match="not initialised"):
        cf.solve(X, Y, group="world")


def test_without_a_group_it_is_said_that_the_rows_are_those_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert "one of 4 processes, without group=" in str(cf.solve(X, Y))
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert "processes" not in str(cf.solve(X, Y))


def test_a_group_of_one_is_a_plain_fit(tmp_path: Path) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        alone, shared = cf.solve(X, Y), cf.solve(X, Y, group=distributed.group.WORLD)
        assert torch.allclose(alone.weight, shared.weight, rtol=1e-13)
        for group in (3, distributed.GroupMember.NON_GROUP_MEMBER):
            with pytest.raises(InputError, match="group"):
                cf.solve(X, Y, group=group)
    finally:
        distributed.destroy_process_group()
