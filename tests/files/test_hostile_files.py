"""Files that are made to hang, to crash or to fill the memory, and memory that is short."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

import fresh
from closedform.engine import capacity
from closedform.engine.capacity import available_memory
from closedform.files.discovery import discover
from closedform.files.opening import list_keys, open_source
from closedform.files.paths import check_memory
from closedform.words.errors import SourceError


def virtual(file: h5py.File, name: str, source: str, key: str) -> None:
    layout = h5py.VirtualLayout((5, 3), "f8")
    layout[:] = h5py.VirtualSource(source, key, shape=(5, 3))
    file.create_virtual_dataset(name, layout)


@pytest.mark.parametrize("kind", ["itself", "two files", "three", "soft link"])
def test_a_virtual_data_set_that_is_a_part_of_itself_is_refused(tmp_path: Path, kind: str) -> None:
    """HDF5 dies of these when they are read, so nothing here may get that far."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        if kind == "soft link":
            file["again"] = h5py.SoftLink("/X")
            virtual(file, "X", ".", "again")
        else:
            virtual(file, "X", {"itself": ".", "two files": "b.h5", "three": "b.h5"}[kind], "X")
    with h5py.File(tmp_path / "b.h5", "w") as file:
        virtual(file, "X", "c.h5" if kind == "three" else "a.h5", "X")
    with h5py.File(tmp_path / "c.h5", "w") as file:
        virtual(file, "X", "a.h5", "X")
    assert list_keys(tmp_path / "a.h5")["X"] == ((5, 3), "float64")
    with pytest.raises(SourceError, match="a part of itself"):
        open_source(tmp_path / "a.h5", key="X")


def test_a_virtual_data_set_of_honest_parts_is_read(tmp_path: Path) -> None:
    X = np.arange(15.0).reshape(5, 3)
    with h5py.File(tmp_path / "c.h5", "w") as file:
        file["X"] = X
    for name, source in (("b.h5", "c.h5"), ("a.h5", "b.h5")):
        with h5py.File(tmp_path / name, "w") as file:
            virtual(file, "X", source, "X")
    np.testing.assert_array_equal(open_source(tmp_path / "a.h5", key="X").read(0, 5).numpy(), X)
    (tmp_path / "c.h5").unlink()
    with pytest.raises(SourceError, match=r"c\.h5 is missing"):
        open_source(tmp_path / "a.h5", key="X")
    os.mkfifo(tmp_path / "c.h5")
    with pytest.raises(SourceError, match=r"c\.h5 is missing"):
        open_source(tmp_path / "a.h5", key="X")


def test_links_in_circles_and_diamonds_come_to_an_end(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "d.h5", "w") as file:
        file["g0/X"], file["g0/y"] = np.eye(3), np.arange(3.0)
        for level in range(1, 60):
            # Two ways down from each level: 2**60 names of one table.
            for name in "ab":
                file[f"g{level}/{name}"] = h5py.SoftLink(f"/g{level - 1}")
        file["g0/up"] = h5py.SoftLink("/g59")
        file["g0/self"] = file["g0"]
        file["lost"] = h5py.SoftLink("/lost")
    assert len(list_keys(tmp_path / "d.h5")) == 2
    assert discover(tmp_path / "d.h5").x.endswith("X")


def test_groups_nested_without_end_are_refused_and_deep_ones_read(tmp_path: Path) -> None:
    for depth in (500, 1500):
        with h5py.File(tmp_path / "deep.h5", "w") as file:
            group = file
            for _ in range(depth):
                group = group.create_group("g")
            group["X"], group["y"] = np.eye(3), np.arange(3.0)
        if depth == 500:
            assert len(list_keys(tmp_path / "deep.h5")) == 2
        else:
            with pytest.raises(SourceError, match="nested more than 1000 deep"):
                list_keys(tmp_path / "deep.h5")


def test_a_pipe_behind_a_link_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.h5")
    with h5py.File(tmp_path / "l.h5", "w") as file:
        file["X"], file["y"] = np.eye(3), np.arange(3.0)
        file["more"] = h5py.ExternalLink("pipe.h5", "/X")
    assert set(list_keys(tmp_path / "l.h5")) == {"X", "y"}
    with pytest.raises(SourceError, match="not a regular file"):
        open_source(tmp_path / "l.h5", key="more")
    with pytest.raises(SourceError, match="not a regular file"):
        discover(tmp_path / "l.h5", y=str(tmp_path / "pipe.h5"))


def test_looks_at_a_file_grow_with_its_keys_and_no_faster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted, not timed: each pair of tables was looked at, so 500 molecules took a minute."""
    from closedform.files import pairing

    looks: list[int] = []
    original = pairing.misfit
    monkeypatch.setattr(pairing, "misfit", lambda *given, **names: looks.append(1) or original(*given, **names))
    for names in (("R", "E"), ("X", "y")):
        with h5py.File(tmp_path / "m.h5", "w") as file:
            for i in range(400):
                file[f"mol{i}/{names[0]}"], file[f"mol{i}/{names[1]}"] = np.zeros((9, 3)), np.zeros(9)
        looks.clear()
        with pytest.raises(SourceError, match="and 780 more"):
            discover(tmp_path / "m.h5")
        assert len(looks) <= 800


def test_containers_of_a_pt_file_in_circles_and_diamonds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from closedform.files import tensor_files

    monkeypatch.setattr(tensor_files, "_DEEPEST", 50)
    circle: list[object] = [torch.ones(3, 2)]
    circle.append({"again": circle})
    diamond: list[object] = [torch.ones(3, 2)]
    for _ in range(40):
        diamond = [diamond, diamond]
    deep: list[object] = [torch.ones(3, 2)]
    for _ in range(60):
        deep = [deep]
    cases = {"circle": (circle, "contains itself"), "diamond": (diamond, "entries"), "deep": (deep, "deep")}
    for name, (value, reason) in cases.items():
        torch.save(value, tmp_path / f"{name}.pt")
        with pytest.raises(SourceError, match=reason):
            list_keys(tmp_path / f"{name}.pt")
    shared = {"X": torch.ones(3, 2)}
    torch.save({"a": shared, "b": shared, "losses": [0.5] * 200_000}, tmp_path / "shared.pt")
    assert set(list_keys(tmp_path / "shared.pt")) == {"a/X", "b/X"}


# Memory


@pytest.mark.parametrize(
    ("cgroup", "files"),
    [
        ("0::/jobs/one\n", {"jobs/memory.max": "5000000", "jobs/memory.current": "1000000", "memory.max": "max"}),
        ("0::/jobs/one\n", {"jobs/one/memory.max": "4000000", "jobs/one/memory.current": "0"}),
        (
            "9:cpu:/x\n7:memory:/docker/a\n",
            {"memory/docker/a/memory.limit_in_bytes": "5000000", "memory/docker/a/memory.usage_in_bytes": "1000000"},
        ),
        ("", {"memory/memory.limit_in_bytes": "4000000", "memory/memory.usage_in_bytes": "0"}),
    ],
)
def test_limits_of_control_groups_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cgroup: str, files: dict[str, str]
) -> None:
    monkeypatch.setattr(capacity, "_CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(capacity, "_PROCESS", tmp_path / "process")
    (tmp_path / "process").mkdir()
    (tmp_path / "process" / "cgroup").write_text(cgroup)
    for name, text in files.items():
        path = tmp_path / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert available_memory() == 4_000_000


def test_a_limit_of_the_process_counts() -> None:
    if not Path("/proc/self/statm").exists():
        pytest.skip("needs /proc")
    code = (
        "import resource\n"
        "from closedform.engine.capacity import available_memory\n"
        "free = available_memory()\n"
        "pages = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (pages + 500_000_000, resource.RLIM_INFINITY))\n"
        "left = available_memory()\n"
        "assert 0 < left <= min(free + 10**8, 500_000_000), left\n"
    )
    done = fresh.run(code)
    assert done.returncode == 0, done.stderr
    assert resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY


def test_what_does_not_fit_is_refused_with_the_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from closedform.files import opening, paths

    np.savez(tmp_path / "x.npz", X=np.ones((1000, 100)))
    np.save(tmp_path / "wide.npy", np.ones((100, 1000)))
    monkeypatch.setattr(opening, "available_memory", lambda: 1_200_000)
    monkeypatch.setattr(paths, "available_memory", lambda: 1_200_000)
    with pytest.raises(SourceError, match=r"takes 0\.00 GB, over the share"):
        open_source(tmp_path / "x.npz", key="X")
    wide = open_source(tmp_path / "wide.npy")
    assert not wide.in_memory
    with pytest.raises(SourceError, match=r"no more rows than columns.*GB in float64, and .* GB are available"):
        check_memory(wide)
    monkeypatch.setattr(paths, "available_memory", lambda: 10_000_000)
    check_memory(wide)
    assert "read whole" in wide.notes[-1]


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")])
def test_memory_that_runs_out_while_reading_is_a_refusal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    from closedform.files.numpy_files import NpySource

    def run_out(*args: object) -> None:
        raise error

    np.save(tmp_path / "x.npy", np.ones((3, 2)))
    monkeypatch.setattr(NpySource, "read", run_out)
    with pytest.raises(SourceError, match=r"takes .* GB, and .* GB are left"):
        open_source(tmp_path / "x.npy")
