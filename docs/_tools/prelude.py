"""What every page starts with: data, a model with its optimizer, and the files that commands read."""

import numpy as np
import torch
from torch import nn

import closedform as cf  # noqa: F401  # for the pages

torch.manual_seed(0)
X = torch.randn(200, 5)
Y = X @ torch.randn(5, 1) + 0.1 * torch.randn(200, 1)
X_test = torch.randn(50, 5)
Y_test = X_test @ torch.randn(5, 1)
layer = nn.Linear(5, 1)
model = nn.Linear(5, 1)
criterion = nn.MSELoss()
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(X, Y), batch_size=50)


def write_files() -> None:
    """Write the same table as HDF5, CSV and NumPy files."""
    import h5py

    with h5py.File("data.h5", "w") as file:
        file["X"], file["y"] = X.numpy(), Y.numpy()[:, 0]
    np.save("X.npy", X.numpy())
    np.save("y.npy", Y.numpy())
    table = torch.cat([X, Y], 1).numpy()
    np.savetxt("data.csv", table, delimiter=",", header="a,b,c,d,e,price", comments="")


write_files()
