"""Cases on another device are the same numbers, and by default they are left as they are."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import placement
from cases import CASES
from oracle import to_numpy


def test_on_the_cpu_data_are_left_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placement, "name", "cpu")
    for value in (np.ones((3, 2))[::-1], torch.ones(3, 2).T, None, 0.5, True):
        assert placement.place(value) is value


def test_elsewhere_they_are_tensors_of_the_same_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placement, "name", "cpu")
    here = [case.make() for case in CASES]
    monkeypatch.setattr(placement, "name", "cpu:0")
    for one, other in zip(here, [case.make() for case in CASES], strict=True):
        for field in ("X", "Y"):
            assert isinstance(getattr(other, field), torch.Tensor)
            assert np.array_equal(to_numpy(getattr(one, field)), to_numpy(getattr(other, field)))
        assert (one.bias, one.sample_weight is None) == (other.bias, other.sample_weight is None)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is such a device here")
def test_cases_are_made_on_the_cpu_whatever_the_default_device() -> None:
    # Anything made on the meta device would have no numbers to convert.
    with torch.device("meta"):
        made = [case.make() for case in CASES]
    assert all(np.isfinite(to_numpy(problem.X)).all() for problem in made)
