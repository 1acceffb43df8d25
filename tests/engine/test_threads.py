"""The threads of torch during a solve: passes take all of them, small matrices one, and the user finds them again."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import pytest
import torch

import closedform as cf
from closedform.engine import compiled, products
from closedform.engine.choice import engine_for
from closedform.engine.threads import all_threads, one_thread, team

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    assert torch.get_num_threads() == 3
    assert team() == 3
    torch.set_num_threads(before)


def test_small_matrices_take_one_thread_and_the_rows_all() -> None:
    with one_thread(10, CPU):
        assert (torch.get_num_threads(), team()) == (1, 3)
        with all_threads():
            assert (torch.get_num_threads(), team()) == (3, 3)
            with one_thread(10, CPU):
                assert (torch.get_num_threads(), team()) == (1, 3)
        with one_thread(10, CPU):
            assert (torch.get_num_threads(), team()) == (1, 3)
        assert (torch.get_num_threads(), team()) == (1, 3)


def test_large_matrices_keep_their_threads() -> None:
    with one_thread(5000, CPU):
        assert torch.get_num_threads() == 3
    with all_threads():
        assert torch.get_num_threads() == 3


def test_threads_that_begin_meanwhile_have_their_own() -> None:
    seen: list[int] = []
    with one_thread(10, CPU):
        other = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
        other.start()
        other.join()
    assert seen == [3]


def test_an_error_inside_gives_the_threads_back() -> None:
    with pytest.raises(ValueError, match="inside"), one_thread(10, CPU), all_threads():
        raise ValueError("inside")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("rows", "columns"), [(1100, 40), (9000, 24)])
def test_a_gram_matrix_has_the_same_bits_by_few_and_many_threads(
    monkeypatch: pytest.MonkeyPatch, rows: int, columns: int, dtype: torch.dtype
) -> None:
    monkeypatch.setattr("closedform.engine.threads.NUMBERS_FOR_ONE", 1)
    X = torch.randn(rows, columns, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = []
    try:
        for count in (1, 2, 3, 4):
            torch.set_num_threads(count)
            sums = torch.zeros(columns, columns, dtype=dtype), torch.zeros(columns, 1, dtype=dtype)
            engine_for(X).normal_equations_(*sums, X, X[:, :1], torch.ones(1, dtype=torch.float64))
            found.append(torch.cat([sums[0].triu(), sums[1]], 1))
    finally:
        torch.set_num_threads(3)
    assert float(found[0].diagonal().min()) > 0.8 * rows
    if compiled.available():
        assert all(torch.equal(found[0], other) for other in found)


@pytest.mark.parametrize("by_loops", [True, False])
def test_passes_of_a_solve_find_all_threads(monkeypatch: pytest.MonkeyPatch, by_loops: bool) -> None:
    seen: list[int] = []
    residual_sums_ = products._residual_sums_

    def watched(*arguments: object) -> None:
        seen.append(torch.get_num_threads())
        residual_sums_(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(products, "_residual_sums_", watched)
    if not by_loops:
        monkeypatch.setattr("closedform.engine.compiled.library", None)
    X = torch.randn(200, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert cf.solve(X, X[:, :2].clone()).certificate.accepted
    assert set(seen) == (set() if by_loops and compiled.available() else {3})


def test_an_interrupted_solve_gives_the_threads_back() -> None:
    def stop(label: str, done: float) -> None:
        if label == "refining":
            raise KeyboardInterrupt

    X = torch.randn(200, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with pytest.raises(KeyboardInterrupt):
        cf.solve(X, X[:, :2].clone(), progress=stop)


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="processors of a process are those of Linux")
def test_passes_leave_the_processors_of_the_process_alone() -> None:
    before = os.sched_getaffinity(0)
    X = torch.ones(2**17, 20, dtype=torch.float64)
    squares = torch.zeros(20, dtype=torch.float64)
    engine_for(X).column_squares_(squares, X)
    os.sched_setaffinity(0, {min(before)})
    try:
        engine_for(X).column_squares_(squares, X)
        assert os.sched_getaffinity(0) == {min(before)}
    finally:
        os.sched_setaffinity(0, before)
    assert torch.equal(squares, torch.full((20,), 2.0**18, dtype=torch.float64))
