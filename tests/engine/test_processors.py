"""How many processors there are: affinity, the quotas of control groups, and threads that nobody asked for."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import closedform as cf
from closedform.engine import capacity, threads
from closedform.engine import processors as module
from closedform.engine.processors import Processors, busy_elsewhere, known_processors
from closedform.engine.threads import all_threads, one_thread, team
from data import gaussian


@pytest.fixture
def fresh() -> Iterator[None]:
    module._kept.found = None
    yield
    module._kept.found = None


@pytest.mark.parametrize(
    ("groups", "files", "quota"),
    [
        ("0::/jobs/one\n", {"jobs/cpu.max": "150000 100000", "jobs/one/cpu.max": "max 100000"}, 1.5),
        ("0::/jobs/one\n", {"jobs/cpu.max": "150000 100000", "jobs/one/cpu.max": "50000 100000"}, 0.5),
        (
            "4:memory:/x\n7:cpu,cpuacct:/docker/a\n",
            {"cpu/docker/a/cpu.cfs_quota_us": "400000", "cpu/docker/a/cpu.cfs_period_us": "100000"},
            4.0,
        ),
        ("7:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ("0::/\n", {"cpu.max": "damaged"}, None),
        ("", {}, None),
    ],
)
def test_quotas_of_control_groups_count(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fresh: None,
    groups: str,
    files: dict[str, str],
    quota: float | None,
) -> None:
    monkeypatch.setattr(capacity, "_CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(capacity, "_PROCESS", tmp_path / "process")
    (tmp_path / "process").mkdir()
    (tmp_path / "process" / "cgroup").write_text(groups)
    for name, text in files.items():
        path = tmp_path / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(module, "_allowed", lambda: 8)
    found = known_processors()
    assert found == Processors(64, 8, quota)
    assert found.usable == {0.5: 1, 1.5: 2, 4.0: 4, None: 8}[quota]


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="processors of a process are those of Linux")
def test_the_affinity_counts(fresh: None) -> None:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        assert known_processors().usable == 1
    finally:
        os.sched_setaffinity(0, before)


def test_threads_that_nobody_asked_for_are_as_many_as_the_quota(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(8)
    monkeypatch.setattr(threads, "known_processors", lambda: Processors(8, 8, 2.0))
    cpu, many = torch.device("cpu"), 10**6
    try:
        monkeypatch.setattr(threads, "_UNASKED", 8)
        assert team() == 2
        with one_thread(10, cpu):
            assert (torch.get_num_threads(), team()) == (1, 2)
            with all_threads():
                assert (torch.get_num_threads(), team()) == (2, 2)
            assert (torch.get_num_threads(), team()) == (1, 2)
        with one_thread(many, cpu):
            assert (torch.get_num_threads(), team()) == (2, 2)
            with one_thread(10, cpu), all_threads():
                assert (torch.get_num_threads(), team()) == (2, 2)
            assert (torch.get_num_threads(), team()) == (2, 2)
        assert torch.get_num_threads() == 8

        # Who asked for eight has eight.
        monkeypatch.setattr(threads, "_UNASKED", 0)
        assert team() == 8
        with one_thread(many, cpu):
            assert (torch.get_num_threads(), team()) == (8, 8)
    finally:
        torch.set_num_threads(before)


def test_tasks_of_others_are_counted_without_our_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "loadavg").write_text("1.80 1.55 1.78 4/92 10250\n")
    for number, state in ((1, "R"), (2, "S")):
        (tmp_path / "task" / str(number)).mkdir(parents=True)
        (tmp_path / "task" / str(number) / "stat").write_text(f"{number} (a) R) {state} 1 1\n")
    monkeypatch.setattr(module, "_RUNNING", tmp_path / "loadavg")
    monkeypatch.setattr(module, "_TASKS", tmp_path / "task")
    assert busy_elsewhere() == 3
    (tmp_path / "loadavg").unlink()
    assert busy_elsewhere() == 0


def test_a_plan_says_how_many_threads_there_are_and_why_not_more() -> None:
    plan = cf.solve(gaussian(30, 3), gaussian(30, 1)).plan
    facts = replace(plan.facts, threads=2, processors=Processors(64, 8, 1.5))
    text = str(replace(plan, facts=facts, busy=3))
    assert "threads: 2 of 64 processors; the quota of this container is 1.5; this process may run on 8; " in text
    assert "other work runs on 3" in text
    assert "threads: 1 of 1 processor)" in str(
        replace(plan, facts=replace(facts, threads=1, processors=Processors(1, 1, None)))
    )
    assert plan.facts.threads == team()
