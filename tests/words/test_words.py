"""Numbers, names and values in words: each set in one way, whatever it holds."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from enum import Enum

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from closedform.words.json_values import json_text, plain
from closedform.words.numbers import below, number, short, value_text

JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


class Colour(Enum):
    RED = "red"


@dataclass(frozen=True)
class Inner:
    size: float
    _hidden: int = 3


@dataclass(frozen=True)
class Outer:
    inner: tuple[Inner, ...]
    colour: Colour


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(JSON)
def test_whatever_is_cleaned_is_strict_json(value: object) -> None:
    text = json_text(value)
    assert json.loads(text) == plain(value) == plain(plain(value))


def test_dataclasses_and_enumerations_become_plain_values() -> None:
    assert plain(Outer((Inner(math.inf), Inner(2.0)), Colour.RED)) == {
        "inner": [{"size": None}, {"size": 2.0}],
        "colour": "red",
    }


def test_what_json_cannot_hold_is_an_error() -> None:
    with pytest.raises(TypeError):
        json_text({"a": object()})


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_keeps_its_leading_digits(value: float) -> None:
    assert len(number(abs(value))) <= 8  # 1.8e-300
    for text, error in ((number(value), 0.06), (short(value), 0.06)):
        if value == 0:
            assert text == "0"
        elif 1e-300 < abs(value) < 1e300:
            assert float(text) == pytest.approx(value, rel=error)


@given(st.floats(1e-300, 1e300), st.floats(0, 1))
@example(0.7, 0.0)
@example(9.999999999999999e-5, 0.5)
def test_what_is_below_its_floor_is_said_to_be(floor: float, share: float) -> None:
    text = below(share * floor, floor)
    assert text.startswith("< ")
    assert floor < float(text[2:]) <= 2.0000001 * floor
    assert len(text) <= 8
    assert not below(2 * floor, floor).startswith("<")


def test_values_of_any_kind_are_set() -> None:
    assert value_text({"a": [1, 2.5], "b": False}) == "a: 1, 2.50, b: no"
