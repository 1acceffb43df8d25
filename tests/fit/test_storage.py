"""Weights as stored: what rounding them to the dtype of the layer does to the loss is measured and said."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import closedform as cf
from closedform.cli.app import app
from closedform.fit.storage import Stored

WIDTH = 60


def kernel() -> tuple[torch.Tensor, torch.Tensor]:
    """A kernel matrix of condition 2e10: its weights are so large that float32 cannot hold them well enough."""
    t = torch.linspace(0, 1, WIDTH, dtype=torch.float64)
    K = torch.exp(-20 * (t[:, None] - t).square()) + 1e-9 * torch.eye(WIDTH, dtype=torch.float64)
    return K, torch.sin(9 * t)


def loss_of(layer: torch.nn.Linear, X: torch.Tensor, Y: torch.Tensor) -> float:
    """Mean squared error of the layer's numbers, in float64, without a line of the library."""
    predicted = X.double().numpy() @ layer.weight.detach().double().numpy().T
    if layer.bias is not None:
        predicted = predicted + layer.bias.detach().double().numpy()
    return float(np.mean((predicted - Y.double().numpy().reshape(predicted.shape)) ** 2))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_first_line_holds_the_loss_of_the_layer_as_it_is(dtype: torch.dtype) -> None:
    X, Y = kernel()
    layer = torch.nn.Linear(WIDTH, 1, bias=False, dtype=dtype)
    sol = cf.fit_(layer, X * 64, Y)  # weights small enough for float16
    truth = loss_of(layer, X * 64, Y)
    assert sol.stored is not None
    assert sol.stored.loss == pytest.approx(truth, rel=1e-9)
    assert sol.stored.certified_loss == sol.certificate.loss
    assert sol.stored.lost
    assert not sol.certified
    first = str(sol).splitlines()[0]
    assert first.startswith(f"certified; as {str(dtype).removeprefix('torch.')} the loss is ")
    assert "use .double()" in first
    assert first in sol._repr_html_().replace("&gt;", ">")


def test_a_float64_layer_loses_nothing() -> None:
    X, Y = kernel()
    sol = cf.fit_(torch.nn.Linear(WIDTH, 1, bias=False).double(), X, Y)
    assert sol.certified
    assert sol.stored is None
    assert str(sol).startswith("certified: the weights minimise the loss")


@pytest.mark.parametrize(
    ("noise", "dtype"),
    [(0.0, torch.float32), (1e-3, torch.float32), (1.0, torch.float32), (0.0, torch.bfloat16), (5.0, torch.bfloat16)],
)
@pytest.mark.parametrize("bias", [False, True])
def test_what_the_users_own_rounding_does_is_not_called_a_loss(noise: float, dtype: torch.dtype, bias: bool) -> None:
    generator = torch.Generator().manual_seed(3)
    X = torch.randn(400, 12, generator=generator)
    Y = X @ torch.randn(12, 3, generator=generator) + noise * torch.randn(400, 3, generator=generator)
    sol = cf.fit_(torch.nn.Linear(12, 3, bias=bias, dtype=dtype), X, Y)
    assert sol.certified, str(sol)
    assert sol.stored is not None
    assert not sol.stored.lost


def test_an_offset_that_float32_cannot_hold_is_said() -> None:
    generator = torch.Generator().manual_seed(4)
    X = torch.randn(300, 2, dtype=torch.float64, generator=generator)
    Y = 1e9 + 7.0 + X.sum(1) + torch.randn(300, dtype=torch.float64, generator=generator)
    layer = torch.nn.Linear(2, 1)
    sol = cf.fit_(layer, X, Y)
    assert sol.stored is not None
    assert sol.stored.lost
    assert sol.stored.loss == pytest.approx(loss_of(layer, X, Y), rel=1e-6)


def test_penalties_and_weights_count_in_what_is_stored() -> None:
    X, Y = kernel()
    weight = torch.linspace(0.0, 2.0, WIDTH, dtype=torch.float64)
    sol = cf.solve(X.float(), Y.float(), l2=1e-9, sample_weight=weight)
    assert sol.stored is not None
    W = sol.weight.double().numpy()
    residual = X.float().double().numpy() @ W.T - Y.float().double().numpy()[:, None]
    total = float(weight.sum())
    truth = (float((weight.numpy()[:, None] * residual**2).sum()) + 1e-9 * float((W**2).sum())) / total
    assert sol.stored.loss == pytest.approx(truth, rel=1e-6)
    assert sol.stored.lost == (sol.stored.loss > 1.01 * sol.stored.certified_loss)


def test_strengths_of_their_own_are_stored_together() -> None:
    X, Y = kernel()
    sol = cf.solve(X.float(), torch.stack([Y, Y], 1).float(), l2=[0.0, 1.0])
    assert sol.stored is not None
    assert sol.stored.lost


def test_losses_that_differ_late_are_printed_as_different() -> None:
    said = [str(Stored("float32", loss, certified, lost=True)) for loss, certified in ((9.9812, 9.98), (3 + 1e-12, 3))]
    assert said == [
        "as float32 the loss is 9.9812, not 9.98: use .double()",
        "as float32 the loss is 1.0e-12 above 3: use .double()",
    ]


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_coefficients_of_a_kernel_are_certified_as_stored(dtype: torch.dtype, weighted: bool) -> None:
    K, Y = (table.to(dtype) for table in kernel())
    weight = torch.linspace(0.5, 2.0, WIDTH, dtype=torch.float64) if weighted else None
    sol = cf.solve(K, Y, l2=1e-4 if dtype == torch.float16 else 1e-9, sample_weight=weight, kernel=True)
    a, x, y = sol.weight.double().numpy()[0], K.double().numpy(), Y.double().numpy()
    w = np.ones(WIDTH) if weight is None else weight.numpy()
    l2 = 1e-4 if dtype == torch.float16 else 1e-9
    truth = (w @ (y - x @ a) ** 2 + l2 * a @ x @ a) / w.sum()
    assert sol.stored is not None
    assert sol.stored.loss == pytest.approx(truth, rel=1e-6)
    assert sol.stored.lost
    assert not sol.certified

    mild = cf.solve(K, Y, l2=1.0, sample_weight=weight, kernel=True)
    assert mild.certified
    assert cf.solve(K.double(), Y, l2=1e-9, sample_weight=weight, kernel=True).stored is None


@pytest.mark.parametrize(("dtype", "status"), [("f4", 1), ("f8", 0)])
def test_the_command_counts_what_storing_lost(tmp_path: Path, dtype: str, status: int) -> None:
    X, Y = (table.numpy().astype(dtype) for table in kernel())
    np.savez(tmp_path / "data.npz", X=X, y=Y)
    out, record = tmp_path / "layer.safetensors", tmp_path / "solve.json"
    result = CliRunner().invoke(
        app, ["solve", str(tmp_path / "data.npz"), "--out", str(out), "--json", str(record), "--quiet"]
    )
    assert result.exit_code == status, result.output
    data = json.loads(record.read_text())
    assert data["certified"] is (status == 0)
    assert (data["stored"] is None) is (dtype == "f8")


def test_the_command_writes_float64_where_it_is_asked_to(tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.torch")
    X, Y = (table.numpy().astype("f4") for table in kernel())
    np.savez(tmp_path / "data.npz", X=X, y=Y)
    out = tmp_path / "layer.safetensors"
    lost = CliRunner().invoke(app, ["solve", str(tmp_path / "data.npz"), "--out", str(out)])
    assert lost.exit_code == 1
    assert "--double" in lost.stderr
    kept = CliRunner().invoke(app, ["solve", str(tmp_path / "data.npz"), "--out", str(out), "--double"])
    assert kept.exit_code == 0, kept.output
    weight = safetensors.load_file(out)["weight"].numpy()
    assert weight.dtype == np.float64
    assert np.mean((X.astype(float) @ weight[0] - Y) ** 2) < 1e-18
    assert "for data rounded to float32" in " ".join(kept.stdout.split())


def test_the_command_warns_of_loading_float64_weights_into_float32(tmp_path: Path) -> None:
    X, Y = kernel()
    np.savez(tmp_path / "data.npz", X=X.numpy(), y=Y.numpy())
    result = CliRunner().invoke(app, ["solve", str(tmp_path / "data.npz"), "--out", str(tmp_path / "w.safetensors")])
    said = " ".join(result.stderr.split())
    assert result.exit_code == 0
    assert "Load them into a float64 layer: as float32 the loss is" in said


def test_a_batch_names_the_problems_that_storing_lost() -> None:
    X, Y = kernel()
    easy = torch.randn(WIDTH, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    easy += 20 * torch.eye(WIDTH, dtype=torch.float64)
    batch, targets = torch.stack([easy, X, easy]).float(), torch.stack([Y, Y, Y]).float()
    sol = cf.solve_batched(batch, targets)
    assert sol.lost == (1,)
    assert str(sol).startswith("1 of 3 lost by storing: as float32")
    assert cf.solve_batched(batch.double(), targets.double()).lost == ()


@pytest.mark.parametrize("bias", [False, True])
def test_a_head_is_certified_as_it_is_stored(bias: bool) -> None:
    X, Y = kernel()
    net = torch.nn.Sequential(torch.nn.Identity(), torch.nn.Linear(WIDTH, 1, bias=bias))
    sol = cf.optim.fit_head_(net, [(X.float(), Y.float()[:, None])])
    assert sol.stored is not None
    assert sol.stored.lost
    head = net[1]
    assert isinstance(head, torch.nn.Linear)
    assert sol.stored.loss == pytest.approx(loss_of(head, X.float(), Y.float()), rel=1e-6)
    assert f"{WIDTH} rows, {WIDTH} features {'with' if bias else 'without'} a bias" in str(sol).splitlines()[0]
    plain = cf.optim.fit_head_(torch.nn.Sequential(torch.nn.Linear(4, 1)), [(torch.eye(4), torch.ones(4, 1))])
    assert plain.certified
