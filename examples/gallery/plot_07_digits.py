"""
Correct digits on Filip
=======================

A polynomial of degree ten through 82 points, published by NIST to try regression programs. Most lose it.
"""

# %%
# The exact answer to the numbers as a program gets them, in rational arithmetic, is what counts here: 15 digits and
# more with ``digits``, each proven.

import matplotlib.pyplot as plt
import torch

import closedform as cf
from closedform.files.nist import nist_sets

filip = next(each for each in nist_sets() if each.name == "filip")
X, y = filip.binary64()
exact = cf.solve(X, y, digits=15)
print(exact)

# %%
# Digits of the worst coefficient, of what is usually called. Against the weights that are proven above.


def digits(weights):
    """Minus the logarithm of the largest relative error."""
    error = ((weights.flatten() - exact.weight.flatten()) / exact.weight.flatten()).abs().max()
    return float((-torch.log10(error)).clamp(0, 16)) if error > 0 else 16.0


found = {
    "normal equations": digits(torch.linalg.solve(X.T @ X, X.T @ y)),
    "torch lstsq, default": digits(torch.linalg.lstsq(X, y[:, None]).solution),
    "torch lstsq, gels": digits(torch.linalg.lstsq(X, y[:, None], driver="gels").solution),
    "closedform": digits(cf.solve(X, y).weight),
    "closedform, digits=15": digits(exact.weight),
}
for name, value in found.items():
    print(f"{name:<22} {value:.1f}")

# %%

figure, ax = plt.subplots(figsize=(6, 3), layout="constrained")
bars = ax.barh(list(found), list(found.values()), color="#0a7d91")
ax.bar_label(bars, fmt="%.1f", padding=3)
ax.set(title="Filip: digits of the worst coefficient", xlabel="correct digits", xlim=(0, 18))
ax.invert_yaxis()
plt.show()
