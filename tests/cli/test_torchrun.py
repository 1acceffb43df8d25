"""The command line under torchrun: a share of the rows for each process, one voice, the same exit status."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import distributed

import closedform as cf
from closedform.files import open_source
from closedform.words.errors import InputError
from data import gaussian

pytestmark = pytest.mark.skipif(not distributed.is_available(), reason="torch was built without torch.distributed")

#: What each process does: several commands in one start, because a start costs seconds. A line of JSON for each.
RANK = """
import json, os, sys
import torch
from typer.testing import CliRunner
from closedform.cli.app import app
torch.set_num_threads(1)
folders, commands, ports = json.loads(sys.argv[1])
os.chdir(folders[int(os.environ["RANK"])])
for words, port in zip(commands, ports, strict=True):
    os.environ["MASTER_PORT"] = str(port)
    run = CliRunner().invoke(app, words)
    print(json.dumps([run.exit_code, run.stdout, run.stderr]), flush=True)
"""
JOB = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
COMMANDS = [
    ["solve", "emb_*.npy", "--y", "y.npy", "--bias", "--out", "layer.safetensors", "--json", "sol.json"],
    ["solve", "emb_*.npy", "--y", "y.npy", "--out", "none/layer.safetensors"],
    ["solve", "only_here.npy", "--y", "y.npy"],
    ["solve", "dependent.npy", "--y", "y.npy", "--digits", "8"],
]


def free_port() -> int:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return int(opened.getsockname()[1])


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Path], list[list[tuple[int, str, str]]]]:
    """The folders of two hosts, and what each process told of each command."""
    folders = [tmp_path_factory.mktemp(f"host{rank}") for rank in range(2)]
    X = gaussian(41, 3).numpy()
    for rank, folder in enumerate(folders):
        for shard in range(4):
            np.save(folder / f"emb_{shard}.npy", X[11 * shard : 11 * shard + 11])
        np.save(folder / "y.npy", X[:, :2].sum(1) + 1)
        np.save(folder / "dependent.npy", X[:, [0, 1, 1]])
        if rank == 0:
            np.save(folder / "only_here.npy", X)

    told = []
    given = json.dumps([list(map(str, folders)), COMMANDS, [free_port() for _ in COMMANDS]])
    started = [
        subprocess.Popen(
            [sys.executable, "-c", RANK, given],
            env={
                **os.environ,
                "RANK": str(rank),
                "WORLD_SIZE": "2",
                "LOCAL_WORLD_SIZE": "2",
                "MASTER_ADDR": "127.0.0.1",
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    for process in started:
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        told.append([tuple(json.loads(line)) for line in out.splitlines()])
    return folders, told


def test_the_first_process_writes_the_fit_of_all_rows(
    told: tuple[list[Path], list[list[tuple[int, str, str]]]],
) -> None:
    from safetensors.torch import load_file

    folders, (first, other) = told
    X = gaussian(41, 3)
    whole = cf.solve(X, X[:, :2].sum(1) + 1, bias=True)
    written = load_file(folders[0] / "layer.safetensors")
    torch.testing.assert_close(written["weight"], whole.weight, rtol=1e-12, atol=1e-13)
    assert whole.bias is not None
    torch.testing.assert_close(written["bias"], whole.bias, rtol=1e-12, atol=1e-13)
    assert (first[0][0], other[0][0]) == (0, 0)
    assert "2 processes with 41 rows together" in " ".join(first[0][1].split())
    assert other[0][1:] == ("", "")
    assert not (folders[1] / "layer.safetensors").exists()
    record = json.loads((folders[0] / "sol.json").read_text())
    assert record["rows"] == 41
    assert record["data_hash"] is None


@pytest.mark.parametrize(
    ("command", "said"),
    [(1, "rank 0 of 2: --out none/layer.safetensors"), (2, "rank 1 of 2: there is no file")],
)
def test_what_fails_on_one_ends_all_and_is_said_once(
    told: tuple[list[Path], list[list[tuple[int, str, str]]]], command: int, said: str
) -> None:
    first, other = (each[command] for each in told[1])
    assert first[0] == other[0] == 2
    assert said in " ".join(first[2].split())
    assert other[1:] == ("", "")


def test_a_fit_that_is_not_certified_is_not_on_any(told: tuple[list[Path], list[list[tuple[int, str, str]]]]) -> None:
    first, other = (each[3] for each in told[1])
    assert first[0] == other[0] == 1
    assert first[1]
    assert other[1:] == ("", "")


@pytest.mark.parametrize("share", [0, 0.25])
def test_parts_are_the_rows_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: float) -> None:
    monkeypatch.chdir(tmp_path)
    X = gaussian(7, 2)
    for shard, rows in enumerate((X[:3], X[3:4], X[4:])):
        np.save(f"x_{shard}.npy", rows.numpy())
    for parts in (1, 2, 3, 9):
        opened = [open_source("x_*.npy", memory_share=share, part=(number, parts)) for number in range(parts)]
        read = [source.read(0, source.shape[0]) for source in opened]
        assert torch.equal(torch.cat(read), X)
        assert max(map(len, read)) - min(map(len, read)) <= 1
    for part in ((1, 1), (-1, 2), (0, 0)):
        with pytest.raises(InputError, match="part is"):
            open_source("x_*.npy", part=part)
