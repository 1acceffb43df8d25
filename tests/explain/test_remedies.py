"""Remedies run as they stand: in Python on what was passed, on a command line as commands."""

from __future__ import annotations

import copy
import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from closedform.cli.app import app
from closedform.explain.entry import diagnose
from covering import parametrize_covering
from data import F64, gaussian

X = gaussian(80, 3) * torch.tensor([1.0, 1e-3, 10.0], dtype=F64) + 5
Y = X.sum(1, keepdim=True) + 0.1 * gaussian(80, 1, seed=1)


class Head(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.ModuleList([nn.Linear(3, 1, dtype=F64)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner[0](x)


MODELS = {
    "plain": lambda: nn.Linear(3, 1, dtype=F64),
    "sequential": lambda: nn.Sequential(nn.Flatten(), nn.Linear(3, 1, dtype=F64)),
    "wrapped": Head,
}
OPTIMIZERS = {
    "sgd too fast": lambda p: torch.optim.SGD(p, lr=3.0),
    "sgd too slow": lambda p: torch.optim.SGD(p, lr=1e-7),
    "adam too slow": lambda p: torch.optim.Adam(p, lr=1e-6),
    "adamw in its box": lambda p: torch.optim.AdamW(p, lr=0.5, weight_decay=3.0),
    "decay": lambda p: torch.optim.SGD(p, lr=1e-3, weight_decay=0.5),
    "climbs": lambda p: torch.optim.SGD(p, lr=1e-3, maximize=True),
    "lbfgs": lambda p: torch.optim.LBFGS(p, max_iter=1),
}


@parametrize_covering(2, kind=list(MODELS), optimizer=list(OPTIMIZERS), given=["tensor", "numpy"])
def test_every_remedy_runs_on_what_was_passed(kind: str, optimizer: str, given: str) -> None:
    torch.manual_seed(0)
    model = MODELS[kind]()
    made = OPTIMIZERS[optimizer](model.parameters())
    tables: tuple[Any, Any] = (X, Y) if given == "tensor" else (X.numpy(), Y.numpy())
    d = diagnose(*tables, model=model, optimizer=made, criterion=nn.MSELoss(), steps=200)
    assert d.findings
    for finding in d.findings:
        names = {"torch": torch, "model": copy.deepcopy(model), "X": tables[0], "Y": tables[1], "optimizer": made}
        names |= {"train": lambda trained, rows: trained(rows), "LinearRegression": lambda tol: None}
        exec(finding.remedy, names)


@pytest.mark.parametrize("options", [["--lr", "3"], ["--lr", "1e-9"], ["--optimizer", "adam", "--lr", "1e-6"], []])
def test_on_the_command_line_every_remedy_is_a_command(options: list[str], tmp_path: Path) -> None:
    file = tmp_path / "my data.npz"
    np.savez(file, X=X.numpy(), y=Y[:, 0].numpy())
    output = tmp_path / "d.json"
    run = CliRunner().invoke(app, ["diagnose", str(file), "--bias", "--steps", "100", *options, "--json", str(output)])
    assert run.exit_code in (0, 1), run.output
    for finding in json.loads(output.read_text())["findings"]:
        for line in finding["remedy"].splitlines():
            words = shlex.split(line)
            assert words[0] == "closedform"
            if "--out" in words:
                words[words.index("--out") + 1] = str(tmp_path / f"{finding['name']}.safetensors")
            assert CliRunner().invoke(app, words[1:]).exit_code in (0, 1)
