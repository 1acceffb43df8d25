"""
A target that is broadcast
==========================

The output has shape (rows, 1), the target (rows,). Subtracting them makes a square of all differences, and the best
that the layer can do is to predict the mean.
"""

# %%
# The loss goes down, and then it does not. Nothing fails.

import warnings

import matplotlib.pyplot as plt
import torch
from torch import nn

import closedform as cf

warnings.simplefilter("ignore")  # torch warns, once
torch.manual_seed(0)
X = torch.randn(100, 3)
y = X @ torch.tensor([1.0, -2.0, 0.5])
model = nn.Linear(3, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

# %%
# What the diagnosis says before any step is taken:

print(cf.diagnose(X, y, model=model, optimizer=optimizer, criterion=nn.MSELoss(), steps=100))

# %%
# And what the runs do.


def train(target):
    """Losses of a hundred steps from the same start."""
    torch.manual_seed(1)
    model, losses = nn.Linear(3, 1), []
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(100):
        loss = nn.functional.mse_loss(model(X), target)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return losses, model


flat, stuck = train(y)
right, _ = train(y[:, None])
figure, (left, rest) = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
left.semilogy(flat, label="target (100,)")
left.semilogy(right, "--", label="target (100, 1)")
left.axhline(y.var(correction=0), color="0.5", linestyle=":", label="variance of the target")
left.set(title="Loss", xlabel="step", ylabel="loss")
left.legend()
rest.scatter(y, stuck(X).detach()[:, 0], s=10)
rest.plot(y, y, color="0.5", linewidth=0.8)  # where predictions belong
rest.set(title="Predictions after the first run", xlabel="target", ylabel="prediction")
plt.show()
