"""Text from files: what acts on a terminal is shown, not done."""

from __future__ import annotations

import pytest

from closedform.words.errors import ClosedformError, InputError, SourceError
from closedform.words.text import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("größe in °C, 身長", "größe in °C, 身長"),
        ("a\r\nb\tc", "a b c"),
        ("\x1b]0;owned\x07", "\\x1b]0;owned\\x07"),
        ("\x9b31m", "\\x9b31m"),
        ("abc\u202edef\u2066", "abc\\u202edef\\u2066"),
        ("\udcff", "\\udcff"),
        ("a\u2028b", "a b"),
        ("zero\u200bwidth", "zero\\u200bwidth"),
        ("nul\0", "nul\\x00"),
    ],
)
def test_control_characters_are_shown(text: str, shown: str) -> None:
    assert printable(text) == shown
    shown.encode("utf-8")
    assert printable(shown) == shown


@pytest.mark.parametrize("kind", [ClosedformError, InputError, SourceError])
def test_an_error_shows_and_does_not_act(kind: type[ClosedformError]) -> None:
    assert str(kind("no data set 'a\x1b[2J'.")) == "no data set 'a\\x1b[2J'."
    assert str(kind("two\nlines")) == "two\nlines"
