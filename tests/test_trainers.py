"""The head of a network, fitted exactly at the end of an epoch."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import closedform as cf
import fresh
from closedform import trainers


class Net(nn.Module):
    def __init__(self, outputs: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Dropout(0.5))
        self.head = nn.Linear(6, outputs)
        self.logged: dict[str, float] = {}

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))

    def log_dict(self, found: dict[str, float], *, sync_dist: bool) -> None:
        self.logged |= found


class Trainer:
    world_size = 1

    def __init__(self, X: Tensor, Y: Tensor) -> None:
        self.train_dataloader = [(X[start : start + 16], Y[start : start + 16]) for start in range(0, len(X), 16)]


class Fitting(trainers.HeadFitting):
    pass


def rows() -> Tensor:
    return torch.randn(100, 4, generator=torch.Generator().manual_seed(1)).double()


@pytest.mark.parametrize("l2", [0.0, 2.0])
def test_the_head_is_fitted_and_the_gap_before_is_logged(l2: float) -> None:
    X, net = rows(), Net(2).double()
    Y = X[:, :2].sin()
    features = net.eval().body(X).detach()
    expected = cf.gap(net.head, features, Y, l2=l2)
    net.train()
    callback = Fitting(l2=l2)
    callback.on_train_epoch_end(Trainer(X, Y), net)
    assert net.logged["head/loss"] == pytest.approx(expected.loss, rel=1e-10)
    assert net.logged["head/excess_loss"] == pytest.approx(expected.excess_loss, rel=1e-8)
    assert net.logged["head/optimal_loss"] == pytest.approx(expected.optimal_loss, rel=1e-8)
    assert net.logged["head/certified"] == 1.0
    assert "head/accuracy" not in net.logged
    torch.testing.assert_close(net.head.weight.detach(), expected.solution.weight)
    assert callback.solution is not None
    assert all(part.training for part in net.modules())


def test_what_features_vary_in_by_rounding_is_left_as_it_is() -> None:
    X, net = rows().float(), Net(3)
    net.body.append(nn.LayerNorm(6))
    Fitting("head").on_train_epoch_end(Trainer(X, X[:, :3].argmax(1)), net)
    assert net.head.weight.abs().max() < 10
    assert net.logged["head/condition"] < 1e4
    assert net.logged["head/certified"] == 1.0


def test_the_least_loss_does_not_cancel_where_the_head_is_far_off() -> None:
    X, net = rows(), Net(2).double()
    Y = X[:, :2].sin()
    nn.utils.vector_to_parameters(1e9 * net.head.weight.detach().flatten(), [net.head.weight])
    Fitting().on_train_epoch_end(Trainer(X, Y), net)
    least = cf.solve(net.eval().body(X).detach(), Y, bias=True).certificate.loss
    assert net.logged["head/optimal_loss"] == pytest.approx(least, rel=1e-9)
    assert net.logged["head/loss"] > 1e15


class Precise(Trainer):
    """A trainer that trains in bfloat16, on a device that doubles its inputs."""

    def __init__(self, X: Tensor, Y: Tensor) -> None:
        super().__init__(X, Y)
        self.precision_plugin = self.strategy = self
        self.forward_context = torch.no_grad

    def convert_input(self, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        return batch[0].bfloat16(), batch[1]

    def batch_to_device(self, batch: tuple[Tensor, Tensor], *_: Any) -> tuple[Tensor, Tensor]:
        return 2 * batch[0], batch[1]


class Moved(Net):
    def on_before_batch_transfer(self, batch: Any, number: int) -> Any:
        return (batch[0] + 1, batch[1])


def test_batches_are_prepared_as_for_a_training_step() -> None:
    X, net = rows(), Moved(3).bfloat16()
    labels = X[:, :3].argmax(1)
    seen: list[Tensor] = []
    net.body.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    Fitting("head").on_train_epoch_end(Precise(X, labels), net)
    torch.testing.assert_close(torch.cat(seen)[:100], 2 * (X.bfloat16() + 1))
    with pytest.raises(cf.ClosedformError, match=r"labels 0 to 2, and the head has 2 outputs; name the layer"):
        Fitting("head").on_train_epoch_end(Trainer(X, labels), Net(2).double())


def test_labels_are_fitted_as_one_hot_rows() -> None:
    X, net = rows(), Net(3).double()
    labels = X[:, :3].argmax(1)
    features = net.eval().body(X).detach()
    before = float((net.head(features).argmax(1) == labels).double().mean())
    Fitting("head", prefix="probe").on_train_epoch_end(Trainer(X, labels), net)
    best = cf.solve(features, nn.functional.one_hot(labels), bias=True)
    after = float((best.predict(features).argmax(1) == labels).double().mean())
    assert net.logged["probe/accuracy"] == pytest.approx(before)
    assert net.logged["probe/fitted_accuracy"] == pytest.approx(after)
    torch.testing.assert_close(net.head.weight.detach(), best.weight)


def test_the_gap_alone_can_be_logged() -> None:
    X, net = rows(), Net(1).double()
    before = net.head.weight.detach().clone()
    loader = Trainer(X, X[:, 0]).train_dataloader
    Fitting(fit=False, loader=loader).on_train_epoch_end(Trainer(X[:0], X[:0]), net)
    assert torch.equal(net.head.weight, before)
    assert net.logged["head/excess_loss"] > 0


@pytest.mark.parametrize(
    ("settings", "targets", "message"),
    [
        ({"head": "neck"}, 0, "head='neck' is no nn.Linear of the module; it has body.0, head"),
        ({}, 1, "integer labels, or targets of the shape"),
        ({"loader": [torch.zeros(2, 4)]}, 0, "pairs"),
        ({"loader": []}, 0, "no rows"),
        ({"l2": -1.0}, 0, "l2=-1.0"),
    ],
)
def test_what_cannot_be_fitted_is_named_and_changes_nothing(
    settings: dict[str, Any], targets: int, message: str
) -> None:
    X, net = rows(), Net(2).double()
    Y = [X[:, :2], X[:, :3]][targets]
    before = net.head.weight.detach().clone()
    with pytest.raises(cf.ClosedformError, match=message):
        Fitting(**settings).on_train_epoch_end(Trainer(X, Y), net)
    assert torch.equal(net.head.weight, before)
    assert all(part.training for part in net.modules())


def test_processes_without_a_group_are_refused() -> None:
    X, net = rows(), Net(1).double()
    trainer = Trainer(X, X[:, 0])
    trainer.world_size = 2
    with pytest.raises(cf.ClosedformError, match="is not initialised"):
        Fitting().on_train_epoch_end(trainer, net)


#: What each of two ranks does: its own uneven part of the rows; then a part that cannot be fitted on one of them.
IMPORTS = """
import json, os, torch
from test_trainers import Fitting, Net, Trainer, rows
import closedform as cf
"""
RANK = """
torch.set_num_threads(1)
torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=size)
X, net = rows(), Net(3).double()
labels = X[:, :3].argmax(1)
mine = slice(0, 37) if rank == 0 else slice(37, 100)
trainer = Trainer(X[mine], labels[mine])
trainer.world_size = 2
Fitting(l2=0.5).on_train_epoch_end(trainer, net)
print(json.dumps([net.head.weight.tolist(), net.head.bias.tolist(), net.logged]), flush=True)
bad = Trainer(X[mine], X[mine] if rank else labels[mine])
bad.world_size = 2
try:
    Fitting().on_train_epoch_end(bad, net)
except cf.ClosedformError as error:
    print(json.dumps([str(error), net.head.weight.tolist()]), flush=True)
os._exit(0)
"""


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch was built without torch.distributed")
def test_several_processes_fit_the_head_of_one(tmp_path: Path) -> None:
    X, net = rows(), Net(3).double()
    Fitting(l2=0.5).on_train_epoch_end(Trainer(X, X[:, :3].argmax(1)), net)
    told = [[json.loads(line) for line in text.splitlines()] for text in fresh.run_ranks(IMPORTS, RANK, 2, tmp_path)]
    assert told[0] == told[1]
    (weight, bias, logged), (message, after) = told[0]
    for values, parameter in ((weight, net.head.weight), (bias, net.head.bias)):
        torch.testing.assert_close(parameter.data, parameter.new_tensor(values), rtol=1e-12, atol=1e-13)
    assert logged == pytest.approx(net.logged, rel=1e-9)
    assert "(16, 4)" in message
    assert after == weight


def test_without_lightning_the_pip_line_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lightning.pytorch", None)
    monkeypatch.delitem(vars(trainers), "FitHead", raising=False)
    with pytest.raises(cf.ClosedformError, match=r"pip install 'closedform\[lightning\]'"):
        _ = trainers.FitHead


@pytest.mark.filterwarnings("ignore")  # those of lightning itself
def test_lightning_runs_it() -> None:
    lightning = pytest.importorskip("lightning", reason="lightning is not a dependency of the tests")
    import pickle

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = Net(3)

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x)

        def training_step(self, batch: Any, index: int) -> Tensor:
            return nn.functional.cross_entropy(self(batch[0]), batch[1])

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.01)

    X = rows().float()
    labels = X[:, :3].argmax(1)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(X, labels), batch_size=32)
    callback = trainers.FitHead("net.head")
    assert pickle.loads(pickle.dumps(callback)).head == "net.head"
    trainer = lightning.Trainer(
        max_epochs=1, accelerator="cpu", callbacks=[callback], logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(Module(), loader)
    assert trainer.callback_metrics["head/certified"] == 1.0
    assert trainer.callback_metrics["head/fitted_accuracy"] > trainer.callback_metrics["head/accuracy"]
