"""The record of a diagnosis: the schema that docs/report.md promises, and nothing of the user's rows in it."""

from __future__ import annotations

import copy
import json
import pickle
import re
from pathlib import Path

import torch

from closedform.comparison.entry import compare
from closedform.explain.entry import diagnose

DOCS = Path(__file__).parents[2] / "docs" / "report.md"


def test_the_schema_is_the_one_in_the_docs() -> None:
    X = torch.randn(30, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = diagnose(X, X.sum(1)).to_dict()
    text = DOCS.read_text(encoding="utf-8").split("## The schema", 1)[1]
    assert found["schema_version"] == 1
    table, rest = text.split("`compare --json`", 1)
    named = set(re.findall(r"`(\w+)`", table))
    rows = [row for value in found.values() for row in (value if isinstance(value, list) else [value])]
    inner = {key for row in rows if isinstance(row, dict) and row is not found["environment"] for key in row}
    assert set(found) | inner <= named | {"schema_version"}
    compared = compare(X, X.sum(1), optimizers=["sgd"], budget=0.05).to_dict()
    assert set(compared) | set(compared["methods"][1]) <= set(re.findall(r"`(\w+)`", rest))


def test_a_record_compares_copies_and_pickles() -> None:
    X = torch.randn(30, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    record = diagnose(X, X.sum(1) + 1).record
    assert pickle.loads(pickle.dumps(record)) == record
    assert copy.deepcopy(record) == record
    assert json.loads(json.dumps(record.to_dict(), allow_nan=False)) == record.to_dict()
    assert len(pickle.dumps(record)) < 100_000
