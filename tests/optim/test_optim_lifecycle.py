"""The optimizer behaves as torch optimizers do: saving, copying, schedulers, scalers, accumulation, deep nets."""

from __future__ import annotations

import copy
import gc
import io
import pickle
import runpy
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from test_optim import gaussian, make_layer, slices, train
from torch import nn
from torch.nn import functional as F

import closedform as cf
from closedform.optim import RecursiveLeastSquares, fit_head_
from closedform.optim.call import Call
from closedform.words.errors import DataTypeError, InputError, NonFiniteError

X, Y = gaussian(120, 8), gaussian(120, 2, seed=1)
EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize("cut", [6, 60])
@pytest.mark.parametrize("options", [{}, {"forgetting": 0.95}, {"l2": 0.3}, {"l2": 0.3, "forgetting": 0.95}])
def test_resuming_gives_the_same_bits(options: dict[str, Any], cut: int) -> None:
    whole, first, second = (make_layer(8, 2) for _ in range(3))
    train(whole, RecursiveLeastSquares(whole, **options), X, Y, 2)
    opt = RecursiveLeastSquares(first, **options)
    train(first, opt, X[:cut], Y[:cut], 2)
    file = io.BytesIO()
    torch.save((first.state_dict(), opt.state_dict()), file)
    file.seek(0)
    weights, state = torch.load(file, weights_only=True)
    second.load_state_dict(weights)
    resumed = RecursiveLeastSquares(second)
    resumed.load_state_dict(state)
    train(second, resumed, X[cut:], Y[cut:], 2)
    assert torch.equal(whole.weight, second.weight)
    assert torch.equal(whole.bias, second.bias)


def test_a_float32_layer_keeps_a_float64_state_through_saving() -> None:
    layer = make_layer(8, 2, dtype=torch.float32)
    opt = RecursiveLeastSquares(layer)
    train(layer, opt, X.float(), Y.float(), 20)
    other = RecursiveLeastSquares(copy.deepcopy(layer))
    other.load_state_dict(opt.state_dict())
    assert other.state[other.layer.weight]["R"].dtype == torch.float64
    assert torch.equal(other.state[other.layer.weight]["R"], opt.state[layer.weight]["R"])


@pytest.mark.parametrize("how", ["deepcopy", "pickle"])
def test_copies_train_on_by_themselves(how: str) -> None:
    layer = make_layer(8, 2)
    opt = RecursiveLeastSquares(layer)
    train(layer, opt, X[:40], Y[:40], 2)
    twin, twin_opt = copy.deepcopy((layer, opt)) if how == "deepcopy" else pickle.loads(pickle.dumps((layer, opt)))
    half = layer.weight.detach().clone()
    train(twin, twin_opt, X[40:], Y[40:], 2)
    assert torch.equal(layer.weight, half)
    train(layer, opt, X[40:], Y[40:], 2)
    assert torch.equal(layer.weight, twin.weight)


def test_a_copied_layer_has_no_optimizer_and_a_dead_optimizer_lets_go() -> None:
    layer = make_layer(8, 2)
    opt = RecursiveLeastSquares(layer)
    assert type(copy.deepcopy(layer)(X)) is torch.Tensor
    with torch.no_grad():
        assert type(layer(X)) is torch.Tensor
    del opt
    gc.collect()
    assert not layer._forward_hooks


def test_passes_without_backward_are_not_counted() -> None:
    layer = make_layer(8, 2)
    opt = RecursiveLeastSquares(layer)
    for rows in slices(120, 10):
        opt.zero_grad()
        F.mse_loss(layer(X[rows]), Y[rows]).backward()
        layer.eval()
        F.mse_loss(layer(X + 1), Y)  # evaluation that forgot no_grad
        with torch.no_grad():
            layer(X + 2)
        layer.train()
        opt.step()
    assert cf.gap(layer, X, Y).weight_distance < 1e-12


def test_accumulation_and_zero_grad() -> None:
    layer = make_layer(8, 2)
    opt = RecursiveLeastSquares(layer)
    F.mse_loss(layer(X + 5), Y).backward()
    opt.zero_grad()  # drops these rows
    for rows in slices(120, 6):
        (F.mse_loss(layer(X[rows]), Y[rows]) / 4).backward()
        if rows.stop % 24 == 0:
            opt.step()
            opt.zero_grad()
    assert cf.gap(layer, X, Y).weight_distance < 1e-12


def test_a_reused_input_buffer_is_safe() -> None:
    layer = make_layer(8, 2, bias=False)
    opt = RecursiveLeastSquares(layer)
    buffer = torch.empty(60, 8, dtype=torch.float64)
    for rows in slices(120, 60):
        buffer.copy_(X[rows])
        F.mse_loss(layer(buffer), Y[rows]).backward()
    opt.step()
    assert cf.gap(layer, X, Y).weight_distance < 1e-12


def test_closure() -> None:
    layer = make_layer(8, 2)
    opt = RecursiveLeastSquares(layer)

    def closure() -> torch.Tensor:
        opt.zero_grad()
        loss = F.mse_loss(layer(X), Y)
        loss.backward()
        return loss

    first, second = opt.step(closure).item(), opt.step(closure).item()
    assert second < first
    assert second == pytest.approx(cf.gap(layer, X, Y).optimal_loss, rel=1e-12)


def test_leading_dimensions() -> None:
    layer = make_layer(8, 2)
    opt = RecursiveLeastSquares(layer)
    F.mse_loss(layer(X.reshape(4, 30, 8)), Y.reshape(4, 30, 2)).backward()
    opt.step()
    assert cf.gap(layer, X, Y).weight_distance < 1e-12


def test_learning_rate_is_the_part_of_the_way() -> None:
    layer = make_layer(8, 2)
    start, end = layer.weight.detach().clone(), cf.solve(X, Y, bias=True).weight
    opt = RecursiveLeastSquares(layer, lr=0.5)
    scheduler = torch.optim.lr_scheduler.StepLR(opt, step_size=1, gamma=2.0)
    with pytest.warns(UserWarning, match=r"lr=0.5: a step goes 0.5 of the way"):
        train(layer, opt, X, Y, 120)
    torch.testing.assert_close(layer.weight.detach(), (start + end) / 2, rtol=1e-12, atol=1e-13)
    scheduler.step()  # now 1
    train(layer, opt, X, Y, 120)
    torch.testing.assert_close(layer.weight.detach(), end, rtol=1e-12, atol=1e-13)


def test_grad_scaler_clipping_and_a_skipped_step() -> None:
    layer = make_layer(8, 2, dtype=torch.float32)
    opt = RecursiveLeastSquares(layer)
    scaler = torch.amp.GradScaler("cpu", init_scale=1000.0, growth_interval=3)
    bad = torch.full((2, 8), 3e38)
    scaler.scale(F.mse_loss(layer(bad), torch.zeros(2, 2))).backward()
    scaler.step(opt)  # infinite gradients: the scaler does not call step()
    scaler.update()
    assert "rows" not in opt.state[layer.weight]
    for rows in slices(120, 16):
        opt.zero_grad()
        scaler.scale(F.mse_loss(layer(X[rows].float()), Y[rows].float())).backward()
        scaler.unscale_(opt)
        nn.utils.clip_grad_norm_(layer.parameters(), 1e-3)
        scaler.step(opt)
        scaler.update()
    assert cf.gap(layer, X.float(), Y.float()).weight_distance < 1e-7


def test_autocast() -> None:
    layer = make_layer(8, 2, dtype=torch.float32)
    opt = RecursiveLeastSquares(layer)
    for rows in slices(120, 16):
        opt.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = F.mse_loss(layer(X[rows].float()), Y[rows].float())
        loss.backward()
        opt.step()
    assert opt.state[layer.weight]["targets"] == "exact"
    assert cf.gap(layer, X.float(), Y.float()).weight_distance < 1e-7


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")
def test_compiled_model_and_compiled_loss() -> None:
    layer = make_layer(8, 2)
    model = torch.compile(layer, backend="eager")
    opt = RecursiveLeastSquares(model)
    for rows in slices(120, 20):
        opt.zero_grad()
        F.mse_loss(model(X[rows]), Y[rows]).backward()
        opt.step()
    assert cf.gap(layer, X, Y).weight_distance < 1e-12
    opt.zero_grad()
    compiled = torch.compile(lambda output, y: F.mse_loss(output, y), backend="eager")
    compiled(layer(X + 1), Y).backward()
    opt.step()
    assert cf.gap(layer, torch.cat([X, X + 1]), torch.cat([Y, Y])).weight_distance < 1e-12


def test_change_of_dtype_midway() -> None:
    layer = make_layer(8, 2)
    opt = RecursiveLeastSquares(layer)
    train(layer, opt, X[:60].float().double(), Y[:60].float().double(), 20)
    layer.float()
    train(layer, opt, X[60:].float(), Y[60:].float(), 20)
    assert cf.gap(layer, X.float(), Y.float()).weight_distance < 1e-7


def test_a_weight_beyond_the_dtype_is_refused() -> None:
    layer = nn.Linear(1, 1, bias=False, dtype=torch.float16)
    opt = RecursiveLeastSquares(layer)
    F.mse_loss(layer(torch.full((1, 1), 1e-4, dtype=torch.float16)), torch.full((1, 1), 100.0).half()).backward()
    before = layer.weight.detach().clone()
    with pytest.raises(InputError):
        opt.step()
    assert torch.equal(before, layer.weight.detach())


def test_changes_by_others_are_seen() -> None:
    layer = make_layer(8, 2)
    opt = RecursiveLeastSquares(layer)
    train(layer, opt, X[:100], Y[:100], 20)
    nn.init.zeros_(layer.weight)
    train(layer, opt, X[100:], Y[100:], 20)
    assert cf.gap(layer, X, Y).weight_distance < 1e-12


def test_nothing_is_kept_of_past_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    live: weakref.WeakSet[Call] = weakref.WeakSet()
    create = Call.__init__

    def counted(self: Call, *args: Any) -> None:
        create(self, *args)
        live.add(self)

    monkeypatch.setattr(Call, "__init__", counted)
    layer = make_layer(8, 2)
    opt = RecursiveLeastSquares(layer)
    gc.collect()
    gc.disable()  # no cycles may be needed to be found
    try:
        train(layer, opt, X, Y, 2)
    finally:
        gc.enable()
    assert len(live) <= 1


def test_head_of_a_network_beside_adam() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 2)).double()
    head, body = RecursiveLeastSquares(net[2], forgetting=0.9), torch.optim.Adam(net[0].parameters(), lr=1e-3)
    for _ in range(3):
        for rows in slices(120, 40):
            head.zero_grad()
            body.zero_grad()
            F.mse_loss(net(X[rows]), Y[rows]).backward()
            body.step()
            head.step()
    fit_head_(net, [(X, Y)])
    with torch.no_grad():
        features = net[:2](X)
    assert cf.gap(net[2], features, Y).weight_distance < 1e-10


@pytest.mark.parametrize("l2", [0.0, 0.4])
def test_fit_head_reads_a_loader_once(l2: float) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 16), nn.Dropout(), nn.Tanh(), nn.Linear(16, 2)).double()
    body = net[0].weight.detach().clone()
    solution = fit_head_(net, ((X[rows], Y[rows]) for rows in slices(120, 7)), l2=l2)
    assert net.training
    assert torch.equal(body, net[0].weight)
    net.eval()
    with torch.no_grad():
        features = net[:3](X)
    assert solution.outcome.certified
    assert cf.gap(net[3], features, Y, l2=l2).weight_distance < 1e-10
    assert solution.certificate.loss == pytest.approx(F.mse_loss(net(X), Y).item(), rel=1e-10)


def test_fit_head_with_too_few_rows_stays_near() -> None:
    net = nn.Sequential(make_layer(8, 2))
    start = copy.deepcopy(net[0])
    fit_head_(net, [(X[:4], Y[:4])])
    nearest = cf.solve(X[:4], Y[:4], bias=True, nearest_to=start, progress=False)
    torch.testing.assert_close(net[0].weight.detach(), nearest.weight, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("loader", "error", "match"),
    [
        ([], InputError, "no rows"),
        ([X], InputError, "pairs"),
        ([(X, Y[:, 0])], InputError, "one-hot"),
        ([(X, Y[:60])], InputError, "must agree"),
        ([(X, Y), (X, Y * float("nan"))], NonFiniteError, "batch 1: the targets hold nan"),
        ([(X * float("inf"), Y)], NonFiniteError, "what reaches the head"),
    ],
)
def test_fit_head_refuses_bad_loaders(loader: Any, error: type[Exception], match: str) -> None:
    net = nn.Sequential(make_layer(8, 2))
    before = net[0].weight.detach().clone()
    with pytest.raises(error, match=match):
        fit_head_(net, loader)
    assert torch.equal(before, net[0].weight)


def _frozen() -> nn.Linear:
    layer = make_layer(8, 2)
    layer.bias.requires_grad_(False)
    return layer


def _shared() -> nn.Module:
    net = nn.Sequential(nn.Embedding(8, 8), make_layer(8, 8, bias=False))
    net[1].weight = net[0].weight
    return net


@pytest.mark.parametrize(
    ("module", "error", "match"),
    [
        (lambda: list(make_layer(8).parameters()), DataTypeError, "not its parameters"),
        (lambda: nn.Sequential(make_layer(8, 8), make_layer(8)), InputError, "2 linear layers"),
        (lambda: nn.Sequential(make_layer(8, 8), nn.LayerNorm(8)), InputError, "beside"),
        (_frozen, InputError, "bias of the layer needs no gradient"),
        (_shared, InputError, "shared"),
        (lambda: nn.utils.parametrizations.weight_norm(make_layer(8)), InputError, "computed from other parameters"),
        (lambda: nn.Linear(8, 1, device="meta"), DataTypeError, "meta"),
        (lambda: nn.LazyLinear(1), DataTypeError, "lazy"),
    ],
)
def test_layers_it_cannot_serve(module: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        RecursiveLeastSquares(module())


@pytest.mark.parametrize(
    "options", [{"l2": -1.0}, {"l2": float("nan")}, {"forgetting": 0.0}, {"forgetting": 1.1}, {"lr": -1.0},
                {"dtype": torch.float16}]
)  # fmt: skip
def test_arguments_out_of_range(options: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        RecursiveLeastSquares(make_layer(8), **options)


def test_a_second_group_and_a_foreign_state_are_refused() -> None:
    opt = RecursiveLeastSquares(make_layer(8, 2))
    with pytest.raises(InputError, match="one layer"):
        opt.add_param_group({"params": [torch.zeros(1, requires_grad=True)]})
    train(opt.layer, opt, X, Y, 30)
    with pytest.raises(InputError, match="state is of a layer"):
        RecursiveLeastSquares(make_layer(5, 2)).load_state_dict(opt.state_dict())


def test_the_plain_example_runs() -> None:
    result = runpy.run_path(str(EXAMPLES / "plain_loop.py"))["main"]()
    assert result["rls"] < 1e-20
    assert result["adam"] > 1e-6


@pytest.mark.filterwarnings("ignore")  # those of lightning itself
def test_the_lightning_example_runs() -> None:
    pytest.importorskip("lightning", reason="lightning is not a dependency of the tests")
    assert runpy.run_path(str(EXAMPLES / "lightning_module.py"))["main"]() < 1e-10


def test_the_lightning_example_of_two_processes_runs() -> None:
    pytest.importorskip("lightning", reason="lightning is not a dependency of the tests")
    command = [sys.executable, "-W", "ignore", str(EXAMPLES / "lightning_ddp.py")]
    told = subprocess.run(command, check=True, timeout=300, capture_output=True, text=True).stdout
    distances = {line.split(" from ")[0].partition(": ")[::2] for line in told.splitlines() if " from the min" in line}
    assert {rank for rank, _ in distances} == {"rank 0 of 2", "rank 1 of 2"}
    (distance,) = {distance for _, distance in distances}
    assert float(distance) < 1e-12
