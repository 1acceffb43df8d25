"""What a user does with a solution: read it, write it as JSON, predict."""

from __future__ import annotations

import json

import pytest
from numpy.testing import assert_allclose

from cases import BY_NAME
from oracle import as_tables, to_numpy
from solved import (
    problem_of,
    solution_of,
)

pytestmark = pytest.mark.device


def test_result_as_a_dictionary_is_json() -> None:
    sol = solution_of(BY_NAME["tall with bias"])
    record = json.loads(json.dumps(sol.to_dict()))
    assert {"outcome", "certificate", "plan", "attempts"} <= set(record)
    fields = {"accepted", "backward_error", "forward_error", "condition", "scaled_condition", "rank", "loss"}
    assert fields | {"gradient_norm"} <= set(record["certificate"])
    assert record["certificate"]["loss"] == sol.certificate.loss


def test_result_can_be_read() -> None:
    sol = solution_of(BY_NAME["tall with bias"])
    assert "certified" in str(sol).splitlines()[0]
    assert "certified" in sol._repr_html_()


def test_predict_is_the_layer() -> None:
    problem, sol = problem_of(BY_NAME["tall with bias"]), solution_of(BY_NAME["tall with bias"])
    assert sol.bias is not None
    predicted, (X, Y) = to_numpy(sol.predict(problem.X)), as_tables(problem.X, problem.Y)
    assert_allclose(predicted, X @ to_numpy(sol.weight).T + to_numpy(sol.bias), rtol=1e-12, atol=1e-13)
    left_over = predicted - Y
    assert_allclose(sol.certificate.loss, (left_over**2).mean(), rtol=1e-12)
