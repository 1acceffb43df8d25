"""
The kernel that no optimizer fits
=================================

A user trained ``nn.Linear`` on a kernel matrix with SGD, Adam and LBFGS, and none came near what
``numpy.linalg.solve`` gives at once. Here is such a matrix, of handwritten digits, with every method given the same
time.
"""

# %%
# The closed form first, with its certificate.

import closedform as cf
from closedform.files.example import kernel_example

data = kernel_example()
sol = cf.solve(data.X, data.Y)
print(sol)

# %%
# Now the optimizers, each at the best setting that is known for it.

comparison = cf.compare(data.X, data.Y, data.X_test, data.Y_test, budget=4)
print(comparison)

# %%
# Loss above the minimum, second by second. The lines at the top are not slow to converge: along most directions they
# have not begun.

comparison.plot()
