"""
Wide data, and where gradient descent ends
==========================================

With more columns than rows many weights fit exactly. Gradient descent goes to the one nearest to its start;
``nearest_to`` computes that limit at once.
"""

# %%
# Ten rows, forty columns, a layer with some weights already.

import copy

import matplotlib.pyplot as plt
import torch
from torch import nn

import closedform as cf

torch.manual_seed(0)
X = torch.randn(10, 40, dtype=torch.float64)
Y = torch.randn(10, 1, dtype=torch.float64)
layer = nn.Linear(40, 1, bias=False, dtype=torch.float64)

least = cf.solve(X, Y)
nearest = cf.solve(X, Y, nearest_to=layer)
print(nearest)

# %%
# Train from those weights, and measure the distance to both.

trained = copy.deepcopy(layer)
optimizer = torch.optim.SGD(trained.parameters(), lr=0.9 * cf.diagnose(X, Y).learning_rate_limit)
to_least, to_nearest = [], []
for _ in range(400):
    to_least.append((trained.weight - least.weight).norm().item())
    to_nearest.append((trained.weight - nearest.weight).norm().item())
    optimizer.zero_grad()
    nn.functional.mse_loss(trained(X), Y).backward()
    optimizer.step()

figure, ax = plt.subplots(figsize=(6, 3.5), layout="constrained")
ax.semilogy(to_nearest, label="to the minimiser nearest to the start")
ax.semilogy(to_least, "--", label="to the one of least norm")
ax.set(title="Gradient descent on wide data", xlabel="step", ylabel="distance of the weights")
ax.legend()
plt.show()
