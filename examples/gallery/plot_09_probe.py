"""
A linear probe
==============

What does a layer of a network know? Fit a linear readout to its activations: exactly, with its penalty chosen by
leave-one-out and an interval for its accuracy.
"""

# %%
# Digits of 8 x 8 pixels, and three layers of a small network that was never trained.

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits
from torch import nn

import closedform as cf

digits = load_digits()
images = torch.as_tensor(digits.data, dtype=torch.float32)[:800] / 16
labels = torch.as_tensor(digits.target)[:800]

torch.manual_seed(0)
layers = {"pixels": images}
for depth in range(1, 4):
    narrow = nn.Sequential(nn.Linear(layers[list(layers)[-1]].shape[1], 40), nn.Tanh())
    with torch.no_grad():
        layers[f"layer {depth}"] = narrow(layers[list(layers)[-1]])

# %%
# One call for each.

results = {name: cf.probe(features, labels) for name, features in layers.items()}
print(results["pixels"])

# %%

figure, ax = plt.subplots(figsize=(6, 3.5), layout="constrained")
for place, result in enumerate(results.values()):
    low, high = result.interval
    ax.plot([place, place], [low, high], color="#0a7d91", linewidth=3)
    ax.plot(place, result.accuracy, "ko")
ax.set_xticks(range(len(results)), results)
ax.set(title="What a linear readout finds", xlabel="features", ylabel="accuracy on rows held out")
plt.show()
