"""Text that came from a file or a user, made fit for one line of a terminal or a page."""

from __future__ import annotations

import re
import unicodedata

__all__ = ["printable"]

#: Categories of Unicode that act on a screen and show nothing: controls, formats (bidirectional overrides among
#: them), surrogates, private use and line separators.
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def printable(text: str) -> str:
    r"""Return ``text`` as one line in which every character is seen and none acts on the terminal.

    Breaks of lines and tabs become blanks; any other control character is written as its escape.

    Example:
        >>> printable("height\n(cm)")
        'height (cm)'
        >>> printable("\x1b[2Jx\u202e")
        '\\x1b[2Jx\\u202e'
    """
    if text.isascii() and text.isprintable():
        return text
    line = re.sub(r"[\r\n\t\v\f\x85\u2028\u2029]+", " ", text)
    return "".join(_escaped(mark) if unicodedata.category(mark) in _UNSEEN else mark for mark in line)


def _escaped(mark: str) -> str:
    return mark.encode("unicode_escape").decode("ascii")
