"""
The floor of float32
====================

Residuals of numbers with seven digits are known to seven digits of what was added up. Below that the loss is noise,
whatever the optimizer.
"""

# %%
# The same data and the same optimizer in two dtypes.

import matplotlib.pyplot as plt
import torch
from torch import nn

import closedform as cf

torch.manual_seed(0)
X = torch.randn(200, 4, dtype=torch.float64) * torch.tensor([1.0, 3.0, 10.0, 30.0], dtype=torch.float64)
Y = X.sum(1, keepdim=True)


def train(dtype):
    """Losses of LBFGS, call by call of the closure."""
    torch.manual_seed(1)
    model, losses = nn.Linear(4, 1, dtype=dtype), []
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=60, tolerance_grad=0, tolerance_change=0)
    x, y = X.to(dtype), Y.to(dtype)

    def closure():
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(x), y)
        loss.backward()
        losses.append(max(loss.item(), 1e-33))
        return loss

    optimizer.step(closure)
    return losses


# %%
# The floor is forecast from the data:

model = nn.Linear(4, 1)
optimizer = torch.optim.LBFGS(model.parameters(), max_iter=60, tolerance_grad=0, tolerance_change=0)
for finding in cf.diagnose(X.float(), Y.float(), model=model, optimizer=optimizer, steps=1, goal=1e-15).findings:
    print(finding.title)

# %%
# float32 data lose nothing in an exact solve: they are taken as exact numbers, and the work is done in float64.

print(cf.solve(X.float(), Y.float()))

figure, ax = plt.subplots(figsize=(6, 3.5), layout="constrained")
ax.semilogy(train(torch.float32), label="float32")
ax.semilogy(train(torch.float64), "--", label="float64")
ax.set(title="LBFGS in two dtypes", xlabel="evaluation of the loss", ylabel="loss")
ax.legend()
plt.show()
