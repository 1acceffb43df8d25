r"""Names that came from a file or a user, made safe to show: no character of theirs steers a terminal or a page."""

from __future__ import annotations

import unicodedata

__all__ = ["printable"]

#: Categories of Unicode that are no text: control characters, halves of surrogate pairs, separators of lines.
_HIDDEN = frozenset({"Cc", "Cs", "Zl", "Zp"})
#: Characters that change the direction of the text around them, so that it reads as something else.
_TURNS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def printable(text: str, *, lines: bool = False) -> str:
    r"""Return text in which characters that are not shown, but act, stand as their escape sequences.

    Args:
        text: Any text: a key of a file, a column's name, an error of another library.
        lines: Whether line breaks and tabulators are meant, as in code.

    Example:
        >>> printable("a\x1b[31mb")
        'a\\x1b[31mb'
        >>> printable("x = 1\ny = 2", lines=True)
        'x = 1\ny = 2'
    """
    if text.isprintable():
        return text
    kept = "\n\t" if lines else ""
    return "".join(
        character
        if character in kept or not (unicodedata.category(character) in _HIDDEN or character in _TURNS)
        else character.encode("unicode_escape").decode("ascii")
        for character in text
    )
