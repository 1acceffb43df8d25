"""What is no table says what to call instead, and the call that it names works."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import torch
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

import closedform as cf
from closedform.words.errors import ClosedformError, DataTypeError, InputError

X = torch.randn(8, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
Y = X.sum(1)
LOADER = DataLoader(TensorDataset(X, Y), batch_size=3)


class Rows(IterableDataset[torch.Tensor]):
    def __iter__(self) -> Any:
        return iter(X)


#: Data, and words that the refusal must hold.
OTHERS: dict[str, tuple[Callable[[], Any], list[str]]] = {
    "loader": (lambda: LOADER, ["DataLoader", "torch.cat", "fit_head_"]),
    "data set": (lambda: LOADER.dataset, ["TensorDataset", "dataset.tensors"]),
    "data set that is walked": (Rows, ["Rows", "torch.stack"]),
    "generator": (lambda: (row for row in X), ["generator", "list(X)"]),
    "map": (lambda: map(float, Y), ["map", "list(X)"]),
    "iterator of a loader": (lambda: iter(LOADER), ["list(X)"]),
    "set": (lambda: {1.0, 2.0}, ["set", "order"]),
    "dictionary": (lambda: {"X": X}, ["dict", "X[key]"]),
    "scipy matrix": (lambda: scipy.sparse.csr_matrix(np.eye(3)), ["scipy sparse matrix", "X.toarray()"]),
    "scipy array": (lambda: scipy.sparse.coo_array(np.eye(3)), ["scipy sparse matrix", "X.toarray()"]),
    "scipy operator": (lambda: scipy.sparse.linalg.aslinearoperator(np.eye(3)), ["multiplies", "np.eye"]),
    "torch COO": (lambda: torch.eye(3).to_sparse(), ["sparse", "X.to_dense()"]),
    "torch CSR": (lambda: torch.eye(3).to_sparse_csr(), ["sparse", "X.to_dense()"]),
    "module": (lambda: torch.nn.Linear(2, 2), ["Linear", "X(features)"]),
    "class": (lambda: torch.Tensor, ["class Tensor"]),
    "function": (lambda: len, ["builtin_function_or_method"]),
    "module of Python": (lambda: np, ["module"]),
    "nothing": (lambda: None, ["NoneType"]),
    "bytes": (lambda: b"12", ["S2"]),
    "texts": (lambda: [["a"], ["b"]], ["<U1"]),
}


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta state")
@pytest.mark.parametrize("kind", OTHERS)
def test_what_to_call_instead_is_said(kind: str) -> None:
    make, words = OTHERS[kind]
    with pytest.raises(DataTypeError) as caught:
        cf.solve(make(), Y)
    for word in words:
        assert word in str(caught.value)
    for arguments in ((X, make()), (X, Y, make())):
        if make() is None and len(arguments) == 3:
            continue
        with pytest.raises(ClosedformError):
            cf.solve(*arguments[:2], sample_weight=arguments[2] if len(arguments) > 2 else None)


def test_the_calls_that_are_named_work() -> None:
    expected = cf.solve(X, Y).weight
    xs, ys = zip(*LOADER, strict=True)
    assert torch.equal(cf.solve(torch.cat(xs), torch.cat(ys)).weight, expected)
    features, targets = LOADER.dataset.tensors
    assert torch.equal(cf.solve(features, targets).weight, expected)
    assert torch.equal(cf.solve(list(X), list(Y)).weight, expected)
    operator = scipy.sparse.linalg.aslinearoperator(X.numpy())
    assert torch.equal(cf.solve(operator @ np.eye(2), Y).weight, expected)


def test_paths_and_texts(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", X.numpy())
    for path in (tmp_path / "absent.npy", str(tmp_path / "absent.npy"), "x" * 5000, ""):
        with pytest.raises(
            ClosedformError, match=r"X is the path .*: (there is no file|.* cannot be read|.* is a directory)"
        ):
            cf.solve(path, Y)
    with pytest.raises(InputError, match="no such file"):
        cf.solve_batched("absent.npy", Y)
