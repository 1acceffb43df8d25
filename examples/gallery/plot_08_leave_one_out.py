"""
Every ridge strength at once
============================

The leave-one-out error of each strength, exactly, from one factor: no folds, no refitting. Each target may choose its
own.
"""

# %%
# Thirty columns, forty rows, two targets: one with much noise, one with little.

import matplotlib.pyplot as plt
import torch

import closedform as cf

torch.manual_seed(0)
X = torch.randn(40, 30, dtype=torch.float64)
signal = X @ torch.randn(30, 2, dtype=torch.float64)
Y = signal + torch.randn(40, 2, dtype=torch.float64) * torch.tensor([0.3, 8.0], dtype=torch.float64)
path = cf.ridge_path(X, Y, l2=torch.logspace(-3, 4, 60, dtype=torch.float64), bias=True)
print(path)

# %%
# The truth about one strength, the long way: forty fits.

strength = float(path.strengths[30])
errors = []
for row in range(40):
    others = torch.arange(40) != row
    sol = cf.solve(X[others], Y[others], bias=True, l2=strength)
    errors.append((sol.predict(X[row]) - Y[row]) ** 2)
print("forty fits", torch.stack(errors).mean(0).tolist())
print("one factor", path.errors[30].tolist())

# %%

figure, ax = plt.subplots(figsize=(6, 3.5), layout="constrained")
for target, style in enumerate(("-", "--")):
    curve = path.errors[:, target]
    line = ax.loglog(path.strengths, curve, style, label=f"target {target}")[0]
    ax.plot(path.strengths[curve.argmin()], curve.min(), "o", color=line.get_color())
ax.set(title="Leave-one-out error by strength", xlabel="ridge strength", ylabel="mean squared error")
ax.legend()
plt.show()
