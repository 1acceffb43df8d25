"""
Why SGD stalls, in two dimensions
=================================

Two weights, so that the loss is a landscape: a long valley whose floor hardly falls. Each method starts at the same
point and takes the same number of steps.
"""

# %%
# Two columns that nearly agree. The condition number says how long the valley is, the largest stable step how fast one
# may walk.

import matplotlib.pyplot as plt
import torch
from torch import nn

import closedform as cf

torch.manual_seed(0)
common = torch.randn(200, 1, dtype=torch.float64)
X = common + 0.15 * torch.randn(200, 2, dtype=torch.float64)
Y = X @ torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
diagnosis = cf.diagnose(X, Y)
limit = diagnosis.learning_rate_limit
print("condition", diagnosis.condition, "largest stable step", limit)

# %%
# Real runs of torch, sixty steps each.


def path(make_optimizer, steps=60):
    """The weights before each step."""
    layer = nn.Linear(2, 1, bias=False, dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[-1.0, 1.5]]))
    optimizer, weights = make_optimizer(layer.parameters()), []
    for _ in range(steps):
        weights.append(layer.weight.detach().clone())
        optimizer.zero_grad()
        nn.functional.mse_loss(layer(X), Y).backward()
        optimizer.step()
    return torch.cat(weights)


paths = {
    "SGD": path(lambda params: torch.optim.SGD(params, lr=0.9 * limit)),
    "momentum 0.9": path(lambda params: torch.optim.SGD(params, lr=0.3 * limit, momentum=0.9)),
    "Adam": path(lambda params: torch.optim.Adam(params, lr=0.05)),
}
exact = cf.solve(X, Y).weight[0]

# %%
# SGD jumps across the valley and then creeps along it; the exact point is one solve away.

grid = torch.linspace(-2.5, 2.5, 120, dtype=torch.float64)
a, b = torch.meshgrid(grid, grid, indexing="xy")
loss = ((X @ torch.stack([a.flatten(), b.flatten()]) - Y) ** 2).mean(0).reshape(a.shape)
figure, ax = plt.subplots(figsize=(6, 5), layout="constrained")
ax.contour(a, b, loss, levels=torch.logspace(-3, 1.5, 16).tolist(), colors="0.75", linewidths=0.8)
for (name, weights), style in zip(paths.items(), ("o-", "s--", "^:"), strict=True):
    ax.plot(*weights.T, style, markersize=3, linewidth=1, label=name)
ax.plot(*exact, "k*", markersize=14, label="exact")
ax.set(title="Sixty steps on one landscape", xlabel="first weight", ylabel="second weight", aspect="equal")
ax.legend()
plt.show()
