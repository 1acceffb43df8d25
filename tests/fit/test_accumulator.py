"""Rows that are read once: the same answers as all at once, whatever the batches and the order of merging."""

from __future__ import annotations

import copy
import math
import os
import pickle
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

import closedform as cf
from cases import Case
from closedform.rows import accumulated, as_rows
from closedform.words.errors import ClosedformError, InputError, NonFiniteError, SourceError
from solved import EVERY_CASE, assert_weights, exact_of, problem_of


def gaussian(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def relative(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max() / other.abs().max())


def same_weights(one: cf.Solution, other: cf.Solution, rtol: float = 1e-12) -> None:
    assert relative(one.weight, other.weight) <= rtol
    if other.bias is not None:
        assert one.bias is not None
        assert relative(one.bias, other.bias) <= rtol


def folded(X: Any, Y: Any, weight: Any = None, *, size: int = 7, bias: bool = False) -> cf.Accumulator:
    acc = cf.Accumulator(X.shape[1], 1 if Y.ndim == 1 else Y.shape[1], bias=bias)
    for start in range(0, X.shape[0], size):
        part = slice(start, start + size)
        acc.fold(X[part], Y[part], None if weight is None else weight[part])
    return acc


@EVERY_CASE
def test_the_cases_are_solved_from_batches(case: Case) -> None:
    problem = problem_of(case)
    rows = as_rows(problem.X, problem.Y, problem.sample_weight)
    whole = rows.gather()
    acc = folded(whole.X, whole.Y, whole.weight, size=max(1, rows.n_rows // 3), bias=problem.bias)
    sol = acc.solve(l2=problem.l2)
    assert sol.certificate.accepted
    if "ambiguous" not in case.tags:
        assert sol.certificate.rank == exact_of(case).rank
        assert_weights(case, sol)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_what_is_said_of_a_fit_is_that_of_the_rows(bias: bool, weighted: bool) -> None:
    X = gaussian(400, 5) + 3
    Y = X @ gaussian(5, 3, seed=1) + 7 + gaussian(400, 3, seed=2)
    weight = gaussian(400, seed=3).abs() * (gaussian(400, seed=4) > -1) if weighted else None
    acc = folded(X, Y, weight, bias=bias)
    one, all_at_once = acc.solve(), cf.solve(X, Y, bias=bias, sample_weight=weight)
    assert len(acc) == (400 if weight is None else int((weight > 0).sum()))
    same_weights(one, all_at_once)
    for name in ("loss", "r_squared", "residual_std", "residual_norm", "condition", "scaled_condition"):
        expected = getattr(all_at_once.certificate, name)
        loose = 0.1 if "condition" in name else 1e-11
        assert getattr(one.certificate, name) == pytest.approx(expected, rel=loose)
    for error, expected in zip(one.standard_errors(), all_at_once.standard_errors(), strict=True):
        assert (error is None) == (expected is None)
        if expected is not None:
            torch.testing.assert_close(error, expected, rtol=1e-10, atol=0)
    assert "of the triangle of" in str(one.certificate)
    assert f"{len(acc)} rows, read once" in str(one)
    assert one.certificate.triangle_of == len(acc)
    assert all_at_once.certificate.triangle_of is None


def test_strengths_one_for_all_one_for_each_and_many() -> None:
    X, Y = gaussian(60, 4), gaussian(60, 2, seed=1)
    acc = folded(X, Y, bias=True)
    for l2 in (2.5, [0.0, 3.0]):
        same_weights(acc.solve(l2=l2), cf.solve(X, Y, bias=True, l2=l2))
    for strength, sol in zip([0.0, 1e-3, 10.0], acc.solve_each([0.0, 1e-3, 10.0]), strict=True):
        same_weights(sol, cf.solve(X, Y, bias=True, l2=strength))
    layer = torch.nn.Linear(4, 2).double()
    wide = cf.Accumulator(4, 2, bias=True).fold(X[:2], Y[:2])
    same_weights(wide.solve(nearest_to=layer), cf.solve(X[:2], Y[:2], bias=True, nearest_to=layer))


def test_batches_go_on_after_a_solve_and_any_dtype_serves() -> None:
    X, Y = torch.randint(-9, 9, (300, 4)), torch.randint(-9, 9, (300,))
    acc = cf.Accumulator(4)
    kinds = (torch.float32, torch.float16, torch.bfloat16, torch.int16, torch.float64)
    for i, kind in enumerate(kinds):
        part = slice(60 * i, 60 * i + 60)
        acc.fold(X[part].to(kind), Y[part].to(kind).numpy() if kind is torch.float32 else Y[part].to(kind))
        same_weights(acc.solve(), cf.solve(X[: part.stop].double(), Y[: part.stop].double()))
    assert acc.solve().predict(X[0]).shape == ()
    assert acc.fold(X[:0], Y[:0]) is acc
    assert len(acc) == 300


def test_units_and_conditions_cost_no_digits() -> None:
    scale = torch.tensor([1e-200, 1e-30, 1.0, 1e40, 1e200], dtype=torch.float64)
    X = gaussian(900, 5)
    Y = (X @ gaussian(5, 1, seed=1) + gaussian(900, 1, seed=2)) * 1e50
    plain, scaled = folded(X, Y).solve(), folded(X * scale, Y).solve()
    assert scaled.certificate.accepted
    assert relative(scaled.weight * scale, plain.weight) <= 1e-12
    # Condition 1e9: a normal matrix would have lost all digits.
    Q = torch.linalg.qr(gaussian(900, 5)).Q * torch.logspace(0, -9, 5, dtype=torch.float64)
    X = Q @ torch.linalg.qr(gaussian(5, 5, seed=1)).Q
    weight = gaussian(5, 1, seed=2)
    assert relative(folded(X, X @ weight).solve().weight.T, weight) <= 1e-6


@pytest.mark.parametrize("bias", [False, True])
def test_merging_in_any_order_is_the_same(bias: bool) -> None:
    X, Y = gaussian(1800, 3) + 1, gaussian(1800, 2, seed=1)
    parts = [folded(X[i : i + 6], Y[i : i + 6], bias=bias) for i in range(0, 1800, 6)]
    copies = copy.deepcopy(parts)
    merged, backwards = (cf.Accumulator(3, 2, bias=bias) for _ in range(2))
    for part in parts:
        merged.merge(part)
    for i in torch.randperm(300, generator=torch.Generator().manual_seed(1)).tolist():
        backwards.merge(parts[i])
    tree = copies
    while len(tree) > 1:
        tree = [tree[i].merge(tree[i + 1]) if i + 1 < len(tree) else tree[i] for i in range(0, len(tree), 2)]
    whole = cf.solve(X, Y, bias=bias)
    for acc in (merged, backwards, tree[0]):
        assert len(acc) == 1800
        same_weights(acc.solve(), whole, rtol=1e-13)
        assert acc.solve().certificate.loss == pytest.approx(whole.certificate.loss, rel=1e-13)
    for one, other in ((merged, backwards), (merged, tree[0])):
        R, S = one.triangle.unscaled().R, other.triangle.unscaled().R
        sizes = torch.linalg.vector_norm(R, dim=0)
        assert float(((R.abs() - S.abs()) / sizes).abs().max()) <= 1e-14
    assert len(parts[0]) == 6


def test_many_small_batches_lose_no_digits() -> None:
    X = gaussian(60_000, 8) + 10
    Y = X @ gaussian(8, 1, seed=1) + gaussian(60_000, 1, seed=2)
    same_weights(folded(X, Y, size=32, bias=True).solve(), cf.solve(X, Y, bias=True), rtol=1e-12)
    # The same through the update of a triangle by few rows, when each batch is looked at.
    acc = cf.Accumulator(8, bias=True)
    for i in range(0, 6000, 32):
        acc.fold(X[i : i + 32], Y[i : i + 32])
        assert acc.triangle.rows == len(acc)
    same_weights(acc.solve(), cf.solve(X[:6016], Y[:6016], bias=True), rtol=1e-12)


def test_a_state_is_saved_loaded_copied_and_goes_on(tmp_path: Path) -> None:
    X, Y = gaussian(50, 4), gaussian(50, 2, seed=1)
    for rows in (0, 2, 30):
        acc = folded(X[:rows], Y[:rows], bias=True) if rows else cf.Accumulator(4, 2, bias=True)
        acc.save(tmp_path / "acc.safetensors")
        torch.save(acc.state_dict(), tmp_path / "acc.pt")
        state = torch.load(tmp_path / "acc.pt", weights_only=True)
        assert {name: value.shape for name, value in state.items()} == {
            name: value.shape for name, value in folded(X, Y, bias=True).state_dict().items()
        }
        others = (
            cf.Accumulator.load(tmp_path / "acc.safetensors"),
            cf.Accumulator(4, 2, bias=True).load_state_dict(state),
            copy.deepcopy(acc),
            pickle.loads(pickle.dumps(acc)),
        )
        expected = copy.deepcopy(acc).fold(X[rows:], Y[rows:]).solve()
        for other in others:
            assert str(other) == str(acc)
            again = other.fold(X[rows:], Y[rows:]).solve()
            assert torch.equal(again.weight, expected.weight)
            assert torch.equal(again.bias, expected.bias)
    assert [path.name for path in tmp_path.iterdir() if "part" in path.name] == []


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ((gaussian(5, 3), gaussian(5, 2)), "3 features and 2 targets"),
        ((gaussian(5, 4), gaussian(5, 3)), "4 features and 3 targets"),
        ((gaussian(5, 4), gaussian(6, 2)), "rows do not match"),
        ((gaussian(5, 4).log(), gaussian(5, 2)), "nan"),
        ((gaussian(5, 4), gaussian(5, 2) / 0), "inf"),
        ((gaussian(5, 4), gaussian(5, 2), torch.tensor([1.0, -1, 1, 1, 1])), "sample_weight holds -1.0 in row 1"),
        ((gaussian(5, 4) * 1e200, gaussian(5, 2), gaussian(5).exp() * 1e300), "beyond the range"),
        (("nowhere.npy", gaussian(5, 2)), "nowhere.npy"),
        ((object(), gaussian(5, 2)), "object"),
        (([(gaussian(5, 4), gaussian(5, 2))] * 2, None), "one batch of features and targets at a time: for X, Y in"),
    ],
)
def test_a_batch_that_cannot_be_used_changes_nothing(batch: tuple[Any, ...], message: str) -> None:
    acc = folded(gaussian(9, 4), gaussian(9, 2, seed=1), bias=True)
    before = copy.deepcopy(acc).state_dict()
    with pytest.raises(ClosedformError, match=message):
        acc.fold(*batch)
    assert all(torch.equal(value, before[name]) for name, value in acc.state_dict().items())


def test_a_block_that_fails_late_takes_back_those_before_it() -> None:
    acc = folded(gaussian(9, 300), gaussian(9, 1, seed=1))
    before = copy.deepcopy(acc)
    X = gaussian(4000, 300)
    X[3999, 7] = np.inf
    with pytest.raises(NonFiniteError, match="column 7, first in row 3999"):
        acc.fold(X, X[:, :1])
    assert len(acc) == 9
    assert all(torch.equal(value, before.state_dict()[name]) for name, value in acc.state_dict().items())


def test_frames_keep_the_order_of_their_columns() -> None:
    frame = pd.DataFrame({"a": [1.0, 2.0, 4.0], "b": [3.0, 1.0, 1.0]})
    acc = cf.Accumulator(2).fold(frame, [1.0, 2.0, 3.0])
    with pytest.raises(InputError, match="column 0 of X was 'a' and is 'b'"):
        acc.fold(frame[["b", "a"]], [1.0, 2.0, 3.0])
    with pytest.raises(InputError, match="column 0 of X was 'a' and is 'b'"):
        acc.merge(cf.Accumulator(2).fold(frame[["b", "a"]], [1.0, 2.0, 3.0]))
    assert len(acc.fold(frame.to_numpy(), [1.0, 2.0, 3.0])) == 6


def test_what_is_no_state_and_no_size_is_refused(tmp_path: Path) -> None:
    acc = folded(gaussian(9, 4), gaussian(9, 2, seed=1))
    before = acc.state_dict()
    damaged = {**before, "R": before["R"] * torch.nan}
    other = folded(gaussian(9, 3), gaussian(9, 2, seed=1)).state_dict()
    for state in ({}, {"R": before["R"]}, damaged, other, {**before, "C": before["C"][:2]}):
        with pytest.raises(InputError, match="the state"):
            acc.load_state_dict(state)
    assert all(torch.equal(value, before[name]) for name, value in acc.state_dict().items())
    for unfit in (cf.Accumulator(4, 2, bias=True), cf.Accumulator(4, 1), 3):
        with pytest.raises(InputError, match=r"do not belong together|is needed"):
            acc.merge(unfit)  # type: ignore[arg-type]
    for size in (0, -1, 2.5, True, "3"):
        with pytest.raises(InputError, match="n_features"):
            cf.Accumulator(size)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="no rows"):
        cf.Accumulator(4).solve()

    path = tmp_path / "acc.safetensors"
    acc.save(path)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(SourceError, match="could not be read"):
        cf.Accumulator.load(path)
    with pytest.raises(SourceError, match="cannot be read"):
        cf.Accumulator.load(tmp_path / "none.safetensors")
    with pytest.raises(InputError, match="writing failed"):
        acc.save(tmp_path / "no folder" / "acc.safetensors")


def test_whoever_is_killed_while_saving_leaves_a_whole_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "acc.safetensors"
    first = folded(gaussian(50, 40), gaussian(50), size=50)
    first.save(path)
    second = folded(gaussian(60, 40), gaussian(60), size=60)
    assert second.triangle.rows == 60
    monkeypatch.setattr(os, "fsync", lambda _: os.kill(os.getpid(), signal.SIGKILL))
    child = os.fork()
    if not child:
        try:
            second.save(path)
        finally:
            os._exit(1)
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
    loaded = cf.Accumulator.load(path)
    assert len(loaded) == 50
    assert torch.equal(loaded.solve().weight, first.solve().weight)


def train(opt: cf.optim.RecursiveLeastSquares, layer: torch.nn.Linear, X: Tensor, Y: Tensor) -> None:
    for x, y in zip(X.split(9), Y.split(9), strict=True):
        opt.zero_grad()
        torch.nn.functional.mse_loss(layer(x), y).backward()
        opt.step()


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("l2", [0.0, 2.0])
@pytest.mark.parametrize("before", [3, 60])
def test_the_optimizer_starts_from_one(bias: bool, l2: float, before: int) -> None:
    X, Y = gaussian(100, 4) + 1, gaussian(100, 2, seed=1)
    acc = folded(X[:before], Y[:before], bias=bias)
    layer = torch.nn.Linear(4, 2, bias=bias).double()
    opt = cf.optim.RecursiveLeastSquares(layer, l2=l2, accumulator=acc)
    train(opt, layer, X[before:], Y[before:])
    whole = cf.solve(X, Y, bias=bias, l2=l2)
    assert relative(layer.weight.detach(), whole.weight) <= 1e-12
    if bias:
        assert relative(layer.bias.detach(), whole.bias) <= 1e-12
    with pytest.raises(InputError, match="but this is an Accumulator"):
        cf.optim.RecursiveLeastSquares(torch.nn.Linear(4, 3, bias=bias), accumulator=acc)


@pytest.mark.parametrize("rows", [0, 3, 100])
def test_the_optimizer_gives_one(rows: int) -> None:
    X, Y = gaussian(100, 4) + 1, gaussian(100, 2, seed=1)
    layer = torch.nn.Linear(4, 2).double()
    opt = cf.optim.RecursiveLeastSquares(layer)
    if rows:
        train(opt, layer, X[:rows], Y[:rows])
    assert len(opt.accumulator) == rows
    sol = opt.accumulator.fold(X[rows:], Y[rows:]).solve() if rows < 100 else opt.accumulator.solve()
    same_weights(sol, cf.solve(X, Y, bias=True))
    with pytest.raises(InputError, match="holds no accumulator"):
        _ = cf.optim.RecursiveLeastSquares(torch.nn.Linear(4, 2), l2=1.0).accumulator


@pytest.mark.parametrize(
    "make", [lambda: torch.nested.nested_tensor([torch.ones(2, 2), torch.ones(1, 2)]), torch.nn.UninitializedParameter]
)
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_tensors_without_a_shape_are_refused(make: Any) -> None:
    with pytest.raises(ClosedformError):
        cf.Accumulator(2).fold(make(), torch.ones(2))


def test_a_shallow_copy_goes_its_own_way() -> None:
    acc = folded(gaussian(9, 4), gaussian(9, 2, seed=1), bias=True)
    before = copy.deepcopy(acc).state_dict()
    other = copy.copy(acc).fold(gaussian(5, 4), gaussian(5, 2))
    assert (len(acc), len(other)) == (9, 14)
    assert all(torch.equal(value, before[name]) for name, value in acc.state_dict().items())


def test_a_saved_state_knows_names_and_the_shape_of_targets(tmp_path: Path) -> None:
    frame = pd.DataFrame({"a": [1.0, 2.0, 4.0], "b": [3.0, 1.0, 1.0]})
    acc = cf.Accumulator(2).fold(frame, [1.0, 2.0, 3.0])
    acc.save(tmp_path / "acc.safetensors")
    loaded = cf.Accumulator.load(tmp_path / "acc.safetensors")
    assert loaded.solve().predict(frame.to_numpy()).shape == acc.solve().predict(frame.to_numpy()).shape == (3,)
    with pytest.raises(InputError, match="column 0 of X was 'a' and is 'b'"):
        loaded.fold(frame[["b", "a"]], [1.0, 2.0, 3.0])
    state = acc.state_dict()
    first = {name: state[name] for name in state if name not in ("names", "single_target")}
    assert len(cf.Accumulator(2).load_state_dict(first)) == 3
    for wrong in ({"names": state["names"][:5]}, {"single_target": torch.tensor(7)}, {"single_target": torch.ones(2)}):
        with pytest.raises(InputError, match="says of its columns is damaged"):
            cf.Accumulator(2).load_state_dict({**state, **wrong})


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ((np.zeros((0, 4)), np.zeros((5, 2))), "rows do not match"),
        ((np.zeros((0, 4)), np.zeros((0, 3))), "4 features and 3 targets"),
        ((torch.zeros(0, 4), torch.zeros(0, 2), torch.ones(3)), "one weight per row"),
        ((torch.zeros(4), torch.tensor(1.0)), "shape"),
    ],
)
def test_batches_of_no_rows_are_looked_at_as_well(batch: tuple[Any, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        cf.Accumulator(4, 2).fold(*batch)


@pytest.mark.parametrize("integers", [False, True])
def test_labels_are_counted_over_batches(integers: bool) -> None:
    labels = torch.arange(60) % 3
    labels = labels if integers else labels.double()
    parts = [cf.Accumulator(4), cf.Accumulator(4)]
    for i in range(0, 60, 2):
        parts[i % 4 // 2].fold(gaussian(2, 4, seed=i), labels[i : i + 2])
    notes = parts[0].merge(parts[1]).solve().notes
    assert any("Y holds 3 different whole numbers, 0 to 2" in note for note in notes)
    assert not any("whole numbers" in note for note in folded(gaussian(60, 4), gaussian(60, 1, seed=1)).solve().notes)


def test_thousands_of_blocks_round_no_more_than_some_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """Products of numbers in float32 are exact, so that sums of them by ``fsum`` are correctly rounded."""
    monkeypatch.setattr(accumulated, "_block_rows", lambda columns, targets: 64)
    generator, worst = torch.Generator().manual_seed(0), 0.0
    for _ in range(3):
        x = torch.randn(128_000, 1, generator=generator)
        y = 3 * x + torch.randn(128_000, 1, generator=generator)
        acc = cf.Accumulator(1, bias=False)
        acc.fold(x, y)
        pairs = list(zip(x[:, 0].tolist(), y[:, 0].tolist(), strict=True))
        exact = math.fsum(a * b for a, b in pairs) / math.fsum(a * a for a, _ in pairs)
        worst = max(worst, abs(float(acc.solve().weight) / exact - 1))
    assert worst <= 4e-15
