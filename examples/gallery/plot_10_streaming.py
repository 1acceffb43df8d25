"""
Rows that come once
===================

Batches are folded into a small triangle and forgotten. At any time it gives the fit of all rows seen so far.
"""

# %%
# A sensor sends batches of fifty rows.

import matplotlib.pyplot as plt
import torch

import closedform as cf

torch.manual_seed(0)
truth = torch.tensor([[1.0], [-0.5], [0.25]], dtype=torch.float64)
accumulator = cf.Accumulator(3, 1, bias=True)
error, batches = [], []
for _ in range(40):
    X = torch.randn(50, 3, dtype=torch.float64)
    Y = 2.0 + X @ truth + torch.randn(50, 1, dtype=torch.float64)
    batches.append((X, Y))
    accumulator.fold(X, Y)
    error.append((accumulator.solve().weight.T - truth).norm().item())
print(accumulator.solve())

# %%
# The same as all rows at once, to rounding.

whole = cf.solve(*(torch.cat(parts) for parts in zip(*batches, strict=True)), bias=True)
print("largest difference", (whole.weight - accumulator.solve().weight).abs().max().item())

# %%

figure, ax = plt.subplots(figsize=(6, 3.5), layout="constrained")
seen = torch.arange(1, 41) * 50
ax.loglog(seen, error, label="error of the weights")
ax.loglog(seen, error[0] * (50 / seen) ** 0.5, "--", label="one over the root of the rows")
ax.set(title="A fit that follows the stream", xlabel="rows seen", ylabel="distance to the truth")
ax.legend()
plt.show()
