"""Ridge paths of rows that are spread over the processes of a group."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.model_selection import KFold
from torch import distributed

import closedform as cf
import fresh
from closedform.words.errors import InputError
from data import gaussian

pytestmark = pytest.mark.skipif(not distributed.is_available(), reason="torch was built without torch.distributed")

IMPORTS = fresh.GROUP_IMPORTS + "from sklearn.model_selection import KFold"
#: What each rank does, a line of JSON for each.
RANK = (
    fresh.JOIN
    + """
X, Y, weight, folds = gaussian(60, 4), gaussian(60, 2, seed=1), gaussian(60, seed=2).abs(), torch.arange(60) % 4
X[3] = torch.tensor([0.0, 1e7, 0.0, 0.0])  # of leverage near 1
#: Uneven, and the first rank has none.
mine = slice(*((0, 0), (0, 23), (23, 60))[rank])

def tell(**more):
    try:
        more = {"l2": [0.0, 0.1, 3.0], **more}
        path = cf.ridge_path(X[mine], Y[mine], group=distributed.group.WORLD, **more)
        value = [path.errors.tolist(), path.standard_errors.nan_to_num().tolist(), path.l2.tolist(), path.notes]
        value += [path.solution.weight.tolist(), path.solution.certificate.accepted]
    except ClosedformError as error:
        value = [type(error).__name__, str(error)]
    print(json.dumps(value), flush=True)

tell(bias=True)
tell(scoring="mae", sample_weight=weight[mine], per_target=False)
tell(select="gcv", bias=True)
tell(select=3)
tell(select=KFold(4, shuffle=True, random_state=0), bias=True)
tell(select=folds[mine])
tell(l2=[1.0 + rank])
tell(l2=[1.0 - rank])
tell(select=2 + rank)
tell(select=KFold(3, shuffle=True, random_state=rank))
tell(select=folds[mine][: 23 if rank < 2 else 5])
tell(kernel=True)
"""
)
#: The same in one process.
ALONE: tuple[dict[str, Any], ...] = (
    {"bias": True},
    {"scoring": "mae", "sample_weight": gaussian(60, seed=2).abs(), "per_target": False},
    {"select": "gcv", "bias": True},
    {"select": 3},
    {"select": KFold(4, shuffle=True, random_state=0), "bias": True},
    {"select": torch.arange(60) % 4},
)
#: What is refused after these, on all ranks alike.
REFUSED = (
    "l2 is (1.0,) on rank 0 and (2.0,) on rank 1",
    "rank 2 of 3: l2 holds -1.0",
    "select makes other folds on other ranks",
    "the same random_state on all",
    "rank 2 of 3: select has shape (5,)",
    "kernel=True with group=",
)


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> list[list[Any]]:
    ranks = fresh.run_ranks(IMPORTS, RANK, 3, tmp_path_factory.mktemp("ranks"))
    return [[json.loads(line) for line in lines.splitlines()] for lines in ranks]


def test_all_ranks_say_the_same(told: list[list[Any]]) -> None:
    assert len(told[0]) == len(ALONE) + len(REFUSED)
    assert told[0] == told[1] == told[2]


@pytest.mark.parametrize("number", range(len(ALONE)))
def test_paths_are_those_of_one_process(told: list[list[Any]], number: int) -> None:
    X, Y = gaussian(60, 4), gaussian(60, 2, seed=1)
    X[3] = torch.tensor([0.0, 1e7, 0.0, 0.0])
    path = cf.ridge_path(X, Y, l2=[0.0, 0.1, 3.0], **ALONE[number])
    errors, deviations, l2, notes, weight, accepted = told[0][number]
    np.testing.assert_allclose(errors, path.errors, rtol=1e-9)
    np.testing.assert_allclose(deviations, path.standard_errors.nan_to_num(), rtol=1e-9)
    assert l2 == path.l2.tolist()
    assert notes == list(path.notes)
    np.testing.assert_allclose(weight, path.solution.weight, rtol=1e-9, atol=1e-15)
    assert accepted


@pytest.mark.parametrize("number", range(len(REFUSED)))
def test_what_processes_do_not_agree_on_is_refused(told: list[list[Any]], number: int) -> None:
    kind, message = told[0][len(ALONE) + number]
    assert kind == "InputError"
    assert REFUSED[number] in message


def test_an_accumulator_has_no_group() -> None:
    with pytest.raises(InputError, match="merge those of all processes"):
        cf.ridge_path(cf.Accumulator(1), select="gcv", group=object())
