"""
Rank, and the columns that are to blame
=======================================

One column is the sum of two others. Nothing is dropped: the weights are those of least norm, and the columns that take
part are named.
"""

# %%
# A table with names.

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

import closedform as cf

rng = np.random.default_rng(0)
table = pd.DataFrame(rng.standard_normal((200, 4)), columns=["north", "south", "east", "west"])
table["total"] = table["north"] + table["south"]
price = 2 * table["north"] + table["east"] + 0.1 * rng.standard_normal(200)

sol = cf.solve(table, price, bias=True)
print(sol)

# %%
# The spectrum shows it: one singular value is rounding, with a wide gap above.

diagnosis = cf.diagnose(table, price, bias=True)
print("rank", sol.certificate.rank, "of", sol.certificate.columns, "gap", sol.certificate.rank_gap)
figure, ax = plt.subplots(figsize=(6, 3.5), layout="constrained")
ax.semilogy(range(1, 1 + len(diagnosis.singular_values)), diagnosis.singular_values, "o")
ax.set(title="Singular values of a table with a dependent column", xlabel="number", ylabel="singular value")
plt.show()
