"""A linear layer that two processes keep at the least-squares solution of all their rows, under Lightning's ``ddp``.

Run it with ``python examples/lightning_ddp.py`` after ``pip install lightning``; Lightning starts the other process.
Each has its share of the rows, by the ``DistributedSampler`` that Lightning puts into the loader, and after each step
all have the same layer: that of one process which saw all rows. ``sync_every=4`` exchanges a quarter as often; then
``sync()`` folds what waits at the end of an epoch.
"""

from __future__ import annotations

import lightning
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import closedform as cf
from closedform.optim import RecursiveLeastSquares


class Regression(lightning.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 1)

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        return F.mse_loss(self.layer(batch[0]), batch[1])

    def configure_optimizers(self) -> RecursiveLeastSquares:
        return RecursiveLeastSquares(self.layer, sync_every=4)

    def on_train_epoch_end(self) -> None:
        self.optimizers(use_pl_optimizer=False).sync()


def main() -> float:
    """Train for one epoch, and return how far the layer is from the minimiser over all rows."""
    torch.manual_seed(0)
    X = torch.randn(256, 8)
    Y = X.sum(1, keepdim=True) + 0.1 * torch.randn(256, 1)
    model = Regression().double()
    loader = DataLoader(TensorDataset(X.double(), Y.double()), batch_size=20, shuffle=True)
    trainer = lightning.Trainer(
        max_epochs=1, accelerator="cpu", devices=2, strategy="ddp", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(model, loader)
    distance = cf.gap(model.layer, X.double(), Y.double()).weight_distance
    print(f"rank {trainer.global_rank} of {trainer.world_size}: {distance:.1e} from the minimiser", flush=True)
    return distance


if __name__ == "__main__":
    main()
