"""A LightningModule whose head is kept at the least-squares solution while Adam trains the body.

Run it with ``python examples/lightning_module.py`` after ``pip install lightning``. Two optimizers need Lightning's
manual optimization; for a single linear layer automatic optimization works as well, with ``configure_optimizers``
returning ``RecursiveLeastSquares(self.layer)``.
"""

from __future__ import annotations

from typing import Any

import lightning
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import closedform as cf
from closedform.optim import RecursiveLeastSquares, fit_head_


class Regression(lightning.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.body = nn.Sequential(nn.Linear(8, 32), nn.Tanh())
        self.head = nn.Linear(32, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        optimizers = self.optimizers()
        for opt in optimizers:
            opt.zero_grad()
        loss = F.mse_loss(self(batch[0]), batch[1])
        self.manual_backward(loss)
        for opt in optimizers:
            opt.step()
        return loss.detach()

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.body.parameters(), lr=1e-3), RecursiveLeastSquares(self.head, forgetting=0.95)


def main() -> float:
    """Train, solve the head exactly at the end, and return how far it is from the optimum (relative excess loss)."""
    torch.manual_seed(0)
    X = torch.randn(256, 8)
    Y = torch.sin(X.sum(1, keepdim=True))
    model = Regression().double()
    loader = DataLoader(TensorDataset(X.double(), Y.double()), batch_size=32, shuffle=True)
    trainer = lightning.Trainer(
        max_epochs=5, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(model, loader)
    fit_head_(model, loader, head=model.head)
    with torch.no_grad():
        gap = cf.gap(model.head, model.body(X.double()), Y.double())
    print(gap)
    return gap.excess_loss / gap.loss


if __name__ == "__main__":
    main()
