"""What is no setting is refused at every door in the house's own words, whatever it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import closedform as cf
from closedform.words.errors import ClosedformError

X = np.random.default_rng(0).standard_normal((12, 3))
Y = X @ [1.0, 2.0, 3.0] + 1


class Undecided:
    """It has no truth value, as arrays and missing values have none."""

    def __bool__(self) -> bool:
        raise ZeroDivisionError

    def __repr__(self) -> str:
        return "Undecided()"


#: Values that are no number, no name and no flag.
ODD: dict[str, Any] = {
    "text": "x",
    "none": None,
    "huge": 10**400,
    "complex": 1j,
    "empty": [],
    "array": np.array([1, 2]),
    "tensor": torch.tensor([1.0, 2.0]),
    "empty tensor": torch.tensor(()),
    "missing": pd.NA,
    "date": np.datetime64("2020"),
    "object": object(),
    "class": int,
    "undecided": Undecided(),
    "range": range(3),
    "dtype": torch.float32,
}
MANY = ("empty", "array", "tensor", "empty tensor", "range")


def accumulated() -> cf.Accumulator:
    return cf.Accumulator(3).fold(X, Y)


#: A call with one argument open, and which of the odd values may be right there.
CALLS: dict[str, tuple[Callable[[Any], Any], tuple[str, ...]]] = {
    "solve l2": (lambda value: cf.solve(X, Y, l2=value), ()),
    "solve rcond": (lambda value: cf.solve(X, Y, rcond=value), ("none",)),
    "solve bias": (lambda value: cf.solve(X, Y, bias=value), ()),
    "solve kernel": (lambda value: cf.solve(X, Y, kernel=value), ()),
    "solve digits": (lambda value: cf.solve(X, Y, digits=value), ("none",)),
    "solve method": (lambda value: cf.solve(X, Y, method=value), ()),
    "batched l2": (lambda value: cf.solve_batched(X[None], Y[None], l2=value), ()),
    "features": (lambda value: cf.Accumulator(value), ()),
    "device": (lambda value: cf.Accumulator(3, device=value), ()),
    "strengths": (lambda value: accumulated().solve_each(value), MANY),
    "state": (lambda value: accumulated().load_state_dict(value), ()),
    "path of a file": (lambda value: cf.Accumulator.load(value), ()),
    "ridge path l2": (lambda value: cf.ridge_path(X, Y, l2=value), ("none", *MANY)),
    "scoring": (lambda value: cf.ridge_path(X, Y, scoring=value), ("none",)),
    "task": (lambda value: cf.probe(X, (Y > 1).astype(int), task=value), ("none",)),
    "diagnose bias": (lambda value: cf.diagnose(X, Y, bias=value), ()),
    "diagnose l2": (lambda value: cf.diagnose(X, Y, l2=value), ()),
    "goal": (lambda value: cf.diagnose(X, Y, goal=value), ()),
    "names": (lambda value: cf.diagnose(X, Y, feature_names=value), ("none", "range")),
    "exact up to": (lambda value: cf.diagnose(X, Y, exact_up_to=value), ("huge",)),
    "budget": (lambda value: cf.compare(X, Y, budget=value), ()),
    "seed": (lambda value: cf.compare(X, Y, seed=value), ()),
    "optimizers": (lambda value: cf.compare(X, Y, optimizers=value), ("empty", "empty tensor")),
}


@pytest.mark.parametrize("name", CALLS)
def test_what_is_no_setting_is_refused_in_one_line(name: str) -> None:
    call, taken = CALLS[name]
    for kind, value in ODD.items():
        if kind not in taken:
            with pytest.raises(ClosedformError) as caught:
                call(value)
            assert len(str(caught.value).splitlines()) == 1, kind


def test_numbers_of_other_libraries_are_numbers(tmp_path: Path) -> None:
    for number in (np.float32(0.5), np.float64(0.5), torch.tensor(0.5)):
        assert cf.solve(X, Y, rcond=number).certificate.rank_cut == pytest.approx(0.5)
    for size in (np.int64(3), torch.tensor(3), np.array(3)):
        assert cf.Accumulator(size).n_features == 3
    acc = accumulated()
    for strengths in ([0.0, 1.0], (0, 1), np.array([0.0, 1.0]), torch.tensor([0.0, 1.0])):
        assert len(acc.solve_each(strengths)) == 2
    with pytest.raises(ClosedformError):
        acc.save(3)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []
