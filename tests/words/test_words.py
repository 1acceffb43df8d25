"""Numbers, names and values in words: each set in one way, whatever it holds."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from enum import Enum

import pytest
from hypothesis import given
from hypothesis import strategies as st

from closedform.words.json_values import json_text, plain
from closedform.words.numbers import below, number, short, value_text
from closedform.words.printable import printable

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
    assert len(number(abs(value))) <= 7
    for text, error in ((number(value), 0.06), (short(value), 0.06)):
        if value == 0:
            assert text == "0"
        elif 1e-300 < abs(value) < 1e300:
            assert float(text) == pytest.approx(value, rel=error)


def test_what_is_below_its_floor_is_said_to_be() -> None:
    assert below(8.4e-16, 3.1e-14) == "< 3.1e-14"
    assert below(3.1e-14, 3.1e-14) == "3.1e-14"
    assert below(0.0, 3.1e-14) == "< 3.1e-14"
    assert value_text({"a": [1, 2.5], "b": False}) == "a: 1, 2.50, b: no"


@given(st.text())
def test_no_character_that_acts_is_left(text: str) -> None:
    shown = printable(text)
    assert not any(ord(c) < 32 or 127 <= ord(c) < 160 or c in "\u2028\u202e\u2066" for c in shown)
    shown.encode()  # halves of surrogate pairs, as names of files may hold, cannot be written


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("a\nb", r"a\nb"),
        ("\udcff", r"\udcff"),
        ("abc\u202egnp.exe", r"abc\u202egnp.exe"),
        ("\x9b31m", r"\x9b31m"),
        ("größe 大小 👩‍🔬", "größe 大小 👩‍🔬"),
    ],
)
def test_control_characters_are_seen(text: str, shown: str) -> None:
    assert printable(text) == shown
