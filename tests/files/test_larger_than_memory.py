"""Tables larger than the memory: read by blocks, ahead of the work, within a limit."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import closedform as cf
import fresh
from closedform.cli.app import app
from closedform.engine.capacity import available_memory, limited_memory
from closedform.files import open_source, selection
from closedform.files.numpy_files import NpySource
from closedform.rows import Block, as_rows, block
from closedform.rows.ahead import read_ahead
from closedform.rows.folds import TriangleOfRows
from closedform.rows.tensors import TensorSource
from closedform.words.errors import InputError
from data import gaussian

#: Rows of the small tables here.
ROWS = 600


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    X = gaussian(ROWS, 5)
    np.save(tmp_path / "x.npy", X.numpy())
    np.save(tmp_path / "y.npy", (X[:, :2] + 0.1 * gaussian(ROWS, 2, seed=1)).numpy())
    # So that the small tables have several blocks.
    monkeypatch.setattr(block, "_FILE_BYTES", 1)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_one_call_is_ahead_and_no_more() -> None:
    begun: list[int] = []
    threads = set()

    def read(number: int) -> int:
        begun.append(number)
        threads.add(threading.get_ident())
        return number

    for number in (read_number := iter(read_ahead([lambda i=i: read(i) for i in range(5)]))):  # type: ignore[misc]
        # Whatever it has begun by now, the one after the next it has not.
        time.sleep(0.01)
        assert max(begun) <= number + 1
    assert begun == list(range(5))
    assert len(threads) == 1
    assert threading.get_ident() not in threads
    assert next(read_number, None) is None


def test_a_column_is_taken_out_of_a_table_block_by_block(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "_BLOCK_BYTES", 5 * 8 * 70)
    read = NpySource.read
    sizes = []
    monkeypatch.setattr(NpySource, "read", lambda self, i, j: (sizes.append(j - i), read(self, i, j))[1])
    expected = torch.from_numpy(np.load(folder / "x.npy"))
    for columns, positions in (("-1", [4]), ("0:3", [0, 1, 2])):
        assert torch.equal(open_source(f"x.npy::[{columns}]").read(0, ROWS), expected[:, positions])
    assert max(sizes) == 70
    assert sum(sizes) == 2 * ROWS


def test_an_error_of_the_reader_is_raised_where_the_rows_are_used() -> None:
    def fail() -> int:
        raise OSError("the disk is gone")

    values = read_ahead([lambda: 1, fail, lambda: 3])
    assert next(values) == 1
    with pytest.raises(OSError, match="the disk is gone"):
        next(values)
    assert not _readers()


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_who_stops_early_leaves_no_reader_behind(error: type[BaseException]) -> None:
    finished = []

    def slow() -> int:
        time.sleep(0.05)
        finished.append(1)
        return 1

    def use(values: Iterator[int]) -> None:
        for _ in values:
            raise error

    with pytest.raises(error), closing(read_ahead([lambda: 0, slow, slow, slow])) as values:
        use(values)
    assert len(finished) <= 1
    assert not _readers()


def _readers() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("closedform-reading")]


def test_blocks_of_a_file_are_read_by_another_thread_and_those_in_memory_are_not(folder: Path) -> None:
    seen: list[int] = []
    plain = TensorSource.read

    def in_memory(self: TensorSource, start: int, stop: int) -> torch.Tensor:
        seen.append(threading.get_ident())
        return plain(self, start, stop)

    streamed = open_source("x.npy", memory_share=0)
    kind = type(streamed)
    read = kind.read

    def watched(self: object, start: int, stop: int) -> torch.Tensor:
        seen.append(threading.get_ident())
        return read(self, start, stop)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kind, "read", watched)
        rows = as_rows(streamed, open_source("y.npy"))
        found = [each.X for each in rows.blocks(64)]
        assert torch.equal(torch.cat(found), gaussian(ROWS, 5))
        assert len(found) == -(-ROWS // 64)
        assert len(set(seen) - {threading.get_ident()}) == 1

        seen.clear()
        patch.setattr(
            TensorSource, "read", lambda self, a, b: (seen.append(threading.get_ident()), plain(self, a, b))[1]
        )
        list(as_rows(gaussian(ROWS, 5), gaussian(ROWS, 1)).blocks(64))
        assert set(seen) == {threading.get_ident()}


def test_a_fold_that_fails_leaves_no_reader_behind(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: object, part: Block) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(TriangleOfRows, "add", fail)
    with pytest.raises(KeyboardInterrupt):
        cf.solve(open_source("x.npy", memory_share=0), open_source("y.npy"), method="householder")
    assert not _readers()


def test_a_limit_makes_blocks_of_what_was_read_whole(folder: Path) -> None:
    whole = cf.solve("x.npy", "y.npy", bias=True)
    assert whole.plan.facts.in_memory
    with limited_memory(1):
        assert available_memory() == 0
        streamed = cf.solve("x.npy", "y.npy", bias=True)
    assert available_memory() > 0
    assert not streamed.plan.facts.in_memory
    assert streamed.certified
    torch.testing.assert_close(streamed.weight, whole.weight, rtol=1e-13, atol=1e-14)
    sampled = next(step for step in streamed.plan.steps if step.name == "projected gram64")
    assert "not sampled" in sampled.refusals[0]


def test_what_needs_all_rows_at_once_is_refused_before_they_are_read(folder: Path) -> None:
    with limited_memory(1), pytest.raises(InputError, match=r"all 600 rows .* needed at once.*GB are available"):
        cf.solve("x.npy", "y.npy", criterion=torch.nn.L1Loss())


def test_the_command_line_takes_a_limit(folder: Path) -> None:
    run = CliRunner().invoke(app, ["solve", "x.npy", "--y", "y.npy", "--memory", "1MB", "--json", "-"])
    assert run.exit_code == 0, run.output
    assert '"in_memory": false' in run.stdout
    assert available_memory() > 0
    for size in ("much", "-1GB", "5iB", "GB", "1e9"):
        run = CliRunner().invoke(app, ["solve", "x.npy", "--y", "y.npy", "--memory", size])
        assert run.exit_code == 2, run.output
        assert "is no size of memory" in run.output


def test_a_file_of_columns_is_read_as_one_of_rows(tmp_path: Path) -> None:
    table = np.arange(60.0).reshape(12, 5)
    for name, held in (("rows", table), ("columns", np.asfortranarray(table)), ("cube", table.reshape(3, 4, 5))):
        np.save(tmp_path / f"{name}.npy", held)
        source = open_source(tmp_path / f"{name}.npy", memory_share=0)
        np.testing.assert_array_equal(source.read(1, 3).numpy(), held[1:3])
        np.testing.assert_array_equal(source.read(2, 99).numpy(), held[2:])
        assert source.read(2, 2).shape == (0, *held.shape[1:])


#: A process that may not take a third of its file. Nearly all rows are zeros, which take no room on the disk.
LIMITED = """
import resource, sys
import numpy as np, torch, closedform as cf
torch.set_num_threads(1)
x, y, limit = sys.argv[1], sys.argv[2], int(sys.argv[3])
cf.solve(np.eye(3), np.eye(3)[0])
pages = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (pages + limit, resource.RLIM_INFINITY))
sol = cf.solve(x, y)
assert sol.certified and not sol.plan.facts.in_memory, str(sol)
assert abs(sol.weight - torch.arange(1.0, sol.weight.shape[1] + 1)).max() < 1e-5
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
def test_a_process_may_be_allowed_less_than_its_file(tmp_path: Path) -> None:
    rows, columns, limit = 4_000_000, 32, 170_000_000
    X = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", np.float32, (rows, columns))
    Y = np.lib.format.open_memmap(tmp_path / "y.npy", "w+", np.float32, (rows,))
    for place in (0, rows // 2, rows - 100):
        X[place : place + 100] = gaussian(100, columns, seed=place).numpy()
        Y[place : place + 100] = X[place : place + 100] @ np.arange(1.0, columns + 1, dtype=np.float32)
    X.flush()
    Y.flush()
    assert (tmp_path / "x.npy").stat().st_size > 3 * limit
    run = fresh.run(LIMITED, tmp_path / "x.npy", tmp_path / "y.npy", limit)
    assert run.returncode == 0, run.stderr
