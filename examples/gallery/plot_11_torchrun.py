"""
Many processes, each with its own rows
======================================

``torchrun`` starts the same script several times. Each process hands over its rows and the group; only small states
travel, and every process gets the weights of all rows.
"""

# %%
# The script that each process runs. Its rows differ by rank.

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import torch

import closedform as cf

SCRIPT = """
import json, sys, torch
import torch.distributed as dist
import closedform as cf

dist.init_process_group("gloo")
generator = torch.Generator().manual_seed(dist.get_rank())
X = torch.randn(1000, 5, dtype=torch.float64, generator=generator)
Y = X.sum(1, keepdim=True) + torch.randn(1000, 1, dtype=torch.float64, generator=generator)

alone = cf.solve(X, Y)
together = cf.solve(X, Y, group=dist.group.WORLD)
answer = {"alone": alone.weight[0].tolist(), "together": together.weight[0].tolist(), "said": together.outcome.value}
with open(f"{sys.argv[1]}/{dist.get_rank()}.json", "w") as file:
    json.dump(answer, file)
dist.destroy_process_group()
"""

# %%
# On a terminal: ``torchrun --nproc-per-node 2 script.py``.

with tempfile.TemporaryDirectory() as folder:
    script = Path(folder) / "script.py"
    script.write_text(SCRIPT)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    subprocess.run([*launch, str(script), folder], check=True, capture_output=True)
    ranks = [json.loads((Path(folder) / f"{rank}.json").read_text()) for rank in range(2)]
print(ranks[0]["said"])

# %%
# The same weights on every rank, and those of all rows in one process.

parts = []
for rank in range(2):
    generator = torch.Generator().manual_seed(rank)
    X = torch.randn(1000, 5, dtype=torch.float64, generator=generator)
    parts.append((X, X.sum(1, keepdim=True) + torch.randn(1000, 1, dtype=torch.float64, generator=generator)))
whole = cf.solve(*(torch.cat(tables) for tables in zip(*parts, strict=True)))
for rank, answer in enumerate(ranks):
    difference = (torch.tensor(answer["together"], dtype=torch.float64) - whole.weight[0]).abs().max().item()
    print("rank", rank, "differs from one process by", difference)

# %%

figure, ax = plt.subplots(figsize=(6, 3.5), layout="constrained")
for rank, (answer, mark) in enumerate(zip(ranks, ("v", "^"), strict=True)):
    ax.plot(answer["alone"], mark, label=f"rows of rank {rank} alone")
ax.plot(ranks[0]["together"], "k*", markersize=10, label="all ranks together")
ax.set(title="Weights by process", xlabel="feature", ylabel="weight", xticks=range(5))
ax.legend()
plt.show()
