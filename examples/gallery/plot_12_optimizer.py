"""
The optimizer in a loop
=======================

``RecursiveLeastSquares`` in place of Adam: the loop stays as it is, and after each step the layer is at the
least-squares solution of the rows seen so far.
"""

# %%
# Columns over three orders of magnitude, batches of twenty.

import matplotlib.pyplot as plt
import torch
from torch import nn

import closedform as cf

torch.manual_seed(0)
X = torch.randn(600, 8, dtype=torch.float64) * torch.logspace(0, -3, 8, dtype=torch.float64)
Y = X @ (torch.randn(8, 1, dtype=torch.float64) * torch.logspace(0, 3, 8, dtype=torch.float64)[:, None])
Y += 0.01 * torch.randn(600, 1, dtype=torch.float64)
best = cf.solve(X, Y, bias=True).certificate.loss


def train(make_optimizer, epochs=5):
    """Loss on all rows after each batch."""
    torch.manual_seed(1)
    layer, losses = nn.Linear(8, 1, dtype=torch.float64), []
    optimizer = make_optimizer(layer)
    for _ in range(epochs):
        for start in range(0, 600, 20):
            optimizer.zero_grad()
            nn.functional.mse_loss(layer(X[start : start + 20]), Y[start : start + 20]).backward()
            optimizer.step()
            with torch.no_grad():
                losses.append(nn.functional.mse_loss(layer(X), Y).item())
    return losses


# %%

figure, ax = plt.subplots(figsize=(6, 3.5), layout="constrained")
ax.semilogy(train(cf.optim.RecursiveLeastSquares), label="recursive least squares")
ax.semilogy(train(lambda layer: torch.optim.Adam(layer.parameters(), lr=0.05)), "--", label="Adam")
ax.semilogy(train(lambda layer: torch.optim.SGD(layer.parameters(), lr=0.1)), ":", label="SGD")
ax.axhline(best, color="0.4", linewidth=0.8, label="least loss of all weights")
ax.set(title="Five epochs of batches", xlabel="step", ylabel="loss on all rows")
ax.legend()
plt.show()
