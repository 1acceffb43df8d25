"""Layers that are spread over processes, sharded or quantised are refused by name; a world of one process is fine."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from test_optim import make_layer, train
from torch import distributed, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

import closedform as cf
import fresh
from closedform.optim import RecursiveLeastSquares
from closedform.words.errors import DataTypeError, InputError
from data import gaussian

X, Y = gaussian(40, 3), gaussian(40, 2, seed=1)

pytestmark = pytest.mark.skipif(not distributed.is_available(), reason="torch was built without torch.distributed")

#: The compiler as well, which optimizers of torch load.
IMPORTS = """
import json, torch, torch._dynamo
from torch.nn.functional import mse_loss
from closedform.fit import orchestrator
from closedform.optim import RecursiveLeastSquares, fit_head_
from closedform.words.errors import ClosedformError
from data import gaussian
"""
#: What each of two ranks does: the optimizer before there is a group, and after; with DDP around the layer; a head.
RANK = """
X, Y = gaussian(40, 3), gaussian(40, 2, seed=1)
torch.manual_seed(rank)
layer = torch.nn.Linear(3, 2).double()
opt = RecursiveLeastSquares(layer)
torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
world = torch.distributed.group.WORLD

def refused(act):
    before = layer.weight.detach().clone()
    try:
        act()
        print(json.dumps("taken"))
    except ClosedformError as error:
        print(json.dumps([type(error).__name__, str(error), torch.equal(before, layer.weight)]))

def step(model, x, y):
    opt.zero_grad()
    mse_loss(model(x), y).backward()
    opt.step()

refused(lambda: step(layer, X[:4], Y[:4]))
ddp = torch.nn.parallel.DistributedDataParallel(layer)
#: Two steps; the first rank has fewer rows.
for start, middle, stop in ((0, 3, 20), (20, 24, 40)):
    mine = slice(start, middle) if rank == 0 else slice(middle, stop)
    step(ddp, X[mine], Y[mine])
print(json.dumps([layer.weight.tolist(), layer.bias.tolist()]))
bad = X[:4].clone()
if rank == 1:
    bad[2, 1] = torch.nan
refused(lambda: step(ddp, bad, Y[:4]))
refused(lambda: opt.step())

#: The layer moves at every third step, with rows of both ranks in it, weighted, and the earlier ones faded.
def waiting(**options):
    torch.manual_seed(0)
    one = torch.nn.Linear(3, 2).double()
    model = torch.nn.parallel.DistributedDataParallel(one)
    late = RecursiveLeastSquares(model, sync_every=3, **options)
    moved = []
    for number, start in enumerate(range(0, 40, 8)):
        before = one.weight.detach().clone()
        part = slice(start, start + 3) if rank == 0 else slice(start + 3, start + 8)
        late.zero_grad()
        mse_loss(model(X[part]), Y[part]).backward()
        late.step()
        moved.append(not torch.equal(before, one.weight))
        if number == 3:
            try:
                late.state_dict()
            except ClosedformError as error:
                moved.append(str(error))
    late.sync()
    late.sync()
    late.state_dict()
    rows = len(late.accumulator) if not options else 0
    return [one.weight.tolist(), one.bias.tolist(), moved, rows]

print(json.dumps(waiting()))
print(json.dumps(waiting(forgetting=0.8)))
#: What is wrong on one rank before the exchange is raised there, on both.
bad = X[:4].clone()
if rank == 1:
    bad[2, 1] = torch.inf
late = RecursiveLeastSquares(layer, sync_every=2)
mse_loss(layer(bad), Y[:4]).backward()
late.step()
mse_loss(layer(X[:4]), Y[:4]).backward()
refused(late.step)
late.state_dict()
unlike = RecursiveLeastSquares(layer, lr=1.0 - rank / 2)
mse_loss(layer(X), Y).backward()
refused(unlike.step)

#: However many rows a step has, no more than a triangle of them travels.
from closedform.rows.walkers.process_group import ProcessGroup
sent, merge_all = [], ProcessGroup.merge_all
ProcessGroup.merge_all = lambda self, part, *more: (
    sent.append(sum(value.nbytes for value in part.state())), merge_all(self, part, *more)
)[1]
for rows in (1, 2, 20):
    own = RecursiveLeastSquares(layer)
    own.zero_grad()
    mse_loss(layer(X[:rows]), Y[:rows]).backward()
    own.step()
print(json.dumps(sent))

head = torch.nn.Linear(3, 2).double()
net = torch.nn.Sequential(torch.nn.Identity(), head)
with torch.no_grad():
    head.weight.fill_(rank)
mine = slice(0, 7) if rank == 0 else slice(7, 40)
sol = fit_head_(net, [(X[mine], Y[mine])], group=world)
print(json.dumps([head.weight.tolist(), head.bias.tolist()]))
layer = head
refused(lambda: fit_head_(net, [(X[mine], Y[mine])] if rank else [], group=world))
torch.distributed.destroy_process_group()
"""


def test_two_ranks_fold_the_rows_of_both(tmp_path: Path) -> None:
    told = fresh.run_ranks(IMPORTS, RANK, 2, tmp_path)
    one, other = ([json.loads(line) for line in lines.splitlines()] for lines in told)
    assert one == other
    apart, fitted, bad, none, late, faded, delayed, unlike, sent, head, empty = one
    assert apart[0] == "InputError"
    assert "the layer of rank 1 holds other weights" in apart[1]
    whole = cf.solve(X, Y, bias=True)
    for weight, bias in (fitted, late[:2], head):
        torch.testing.assert_close(torch.tensor(weight, dtype=torch.float64), whole.weight, rtol=1e-12, atol=1e-13)
        torch.testing.assert_close(torch.tensor(bias, dtype=torch.float64), whole.bias, rtol=1e-12, atol=1e-13)
    assert bad[0] == "NonFiniteError"
    assert bad[1].startswith("rank 1 of 2: ")
    assert "rank 0 of 2: step() has no rows" in none[1]
    assert "rank 0 of 2: the loader yielded no rows" in empty[1]
    assert "rank 1 of 2: the layer's input holds inf" in delayed[1]
    assert "lr is 1 on rank 0 and 0.5 on rank 1" in unlike[1]
    assert all(refusal[2] for refusal in (apart, bad, none, delayed, unlike, empty))

    moved = [False, False, True, False, False]
    assert [step for step in late[2] if isinstance(step, bool)] == moved
    assert "rows of 1 step wait for the next exchange (sync_every=3)" in late[2][4]
    assert late[3] == 40
    weight = 0.8 ** (4 - torch.arange(40, dtype=torch.float64) // 8)
    expected = cf.solve(X, Y, bias=True, sample_weight=weight)
    torch.testing.assert_close(torch.tensor(faded[0], dtype=torch.float64), expected.weight, rtol=1e-12, atol=1e-13)
    # Of 4 columns and 2 targets: two rows, four, and a triangle where there are 40.
    assert [size - 8 * (2 + 2) for size in sent] == [8 * 6 * rows for rows in (2, 4, 4)]


@pytest.mark.parametrize("l2", [0.0, 3.0])
@pytest.mark.parametrize("size", [1, 7])
def test_rows_that_wait_are_folded_as_if_they_had_not(size: int, l2: float) -> None:
    layers = [make_layer(3, 2) for _ in range(2)]
    every = [RecursiveLeastSquares(layer, l2=l2, sync_every=many) for layer, many in zip(layers, (1, 4), strict=True)]
    start = layers[1].weight.detach().clone()
    for layer, opt in zip(layers, every, strict=True):
        train(layer, opt, X[: 3 * size], Y[: 3 * size], size)
    assert torch.equal(layers[1].weight, start)
    for refused in (lambda: every[1].state_dict(), lambda: copy.deepcopy(every[1])):
        with pytest.raises(InputError, match=r"rows of 3 steps wait .* call sync\(\) first"):
            refused()
    for layer, opt in zip(layers, every, strict=True):
        train(layer, opt, X[3 * size :], Y[3 * size :], size)
        opt.sync()
    for one, other in zip(layers[0].parameters(), layers[1].parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-13)
    if l2 == 0:
        assert len(every[1].accumulator) == 40
        assert every[1].accumulator.solve().certificate.loss == pytest.approx(
            cf.solve(X, Y, bias=True).certificate.loss, rel=1e-12
        )
    for count in (0, 1.5, True):
        with pytest.raises(InputError, match="sync_every"):
            RecursiveLeastSquares(layers[0], sync_every=count)  # type: ignore[arg-type]


@pytest.fixture
def world_of_one(tmp_path: Path) -> Iterator[None]:
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


@pytest.mark.usefixtures("world_of_one")
@pytest.mark.filterwarnings("ignore:find_unused_parameters=True")
def test_ddp_in_a_world_of_one() -> None:
    layer = make_layer(3, 2)
    ddp = DistributedDataParallel(layer)
    opt = RecursiveLeastSquares(ddp)
    for rows in (slice(0, 25), slice(25, 40)):
        opt.zero_grad()
        F.mse_loss(ddp(X[rows]), Y[rows]).backward()
        opt.step()
    assert cf.gap(layer, X, Y).weight_distance < 1e-12


@pytest.mark.usefixtures("world_of_one")
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("options", [{"find_unused_parameters": True}, {"static_graph": True}])
def test_what_ddp_puts_behind_the_layer_is_named(options: dict[str, bool]) -> None:
    layer = make_layer(3, 2)
    ddp = DistributedDataParallel(layer, **options)
    opt = RecursiveLeastSquares(ddp)
    F.mse_loss(ddp(X), Y).backward()
    with pytest.raises(InputError, match=r"DistributedDataParallel with find_unused_parameters=True or static_graph"):
        opt.step()
    train(layer, opt, X, Y, 8)  # the layer by itself is served
    assert cf.gap(layer, X, Y).weight_distance < 1e-12


@pytest.mark.usefixtures("world_of_one")
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_sharded_layers_are_refused() -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    layer = make_layer(3, 2)
    opt = RecursiveLeastSquares(layer)
    fully_shard(layer, mesh=init_device_mesh("cpu", (1,)))
    with pytest.raises(DataTypeError, match=r"is a DTensor, not a plain nn.Parameter.*FSDP2"):
        RecursiveLeastSquares(layer)
    with pytest.raises(InputError, match="parameters were replaced"):
        opt.step()


class _Quantised(torch.Tensor):
    """A tensor of a kind of its own, as torchao makes them."""


def _quantised() -> Any:
    layer = make_layer(3, 2)
    layer.weight = nn.Parameter(layer.weight.detach().as_subclass(_Quantised))
    return layer


def _sparse() -> Any:
    layer = make_layer(3, 2)
    layer.weight = nn.Parameter(layer.weight.detach().to_sparse())
    return layer


def _shard() -> Any:
    layer = make_layer(3, 2)
    layer.weight = nn.Parameter(layer.weight.detach()[:1])
    return layer


def _lazy_beside() -> Any:
    return nn.Sequential(nn.LazyLinear(3), nn.Linear(3, 1))


@pytest.mark.parametrize(
    ("module", "match"),
    [
        (_quantised, "is a _Quantised"),
        (_sparse, "sparse_coo"),
        (_shard, "is it a shard"),
        (lambda: nn.LazyLinear(2), "lazy"),
    ],
)
def test_weights_that_are_no_table_are_refused(module: Any, match: str) -> None:
    with pytest.raises(DataTypeError, match=match):
        RecursiveLeastSquares(module())


def test_a_lazy_layer_beside_another_is_refused() -> None:
    with pytest.raises(InputError, match="2 linear layers"):
        RecursiveLeastSquares(_lazy_beside())


def test_a_subclass_of_parameter_is_fine() -> None:
    class Named(nn.Parameter):
        pass

    layer = make_layer(3, 2)
    layer.weight = Named(layer.weight.detach())
    opt = RecursiveLeastSquares(layer)
    train(layer, opt, X, Y, 7)
    assert cf.gap(layer, X, Y).weight_distance < 1e-12


@pytest.mark.usefixtures("world_of_one")
def test_an_optimizer_with_a_group_of_its_own_is_not_copied() -> None:
    opt = RecursiveLeastSquares(make_layer(3, 2), group=distributed.group.WORLD)
    opt.load_state_dict(opt.state_dict())
    for copied in (copy.deepcopy, pickle.dumps):
        with pytest.raises(InputError, match="process group cannot"):
            copied(opt)
