"""What stands in the folder of every page: the files that commands read."""

import h5py
import numpy as np
import torch

__all__ = ["write_files"]


def write_files() -> None:
    """Seed torch, and write one table as HDF5 and CSV files into the working directory."""
    torch.manual_seed(0)
    X = torch.randn(200, 5)
    Y = X @ torch.randn(5, 1) + 0.1 * torch.randn(200, 1)
    with h5py.File("data.h5", "w") as file:
        file["X"], file["y"] = X.numpy(), Y.numpy()[:, 0]
    table = torch.cat([X, Y], 1).numpy()
    np.savetxt("data.csv", table, delimiter=",", header="a,b,c,d,e,price", comments="")
