"""Set formulas as MathML when the site is built: browsers draw it without scripts, and without fonts from elsewhere."""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx
from sphinx.writers.html5 import HTML5Translator

#: A prime as an exponent is made too small to be seen; as it stands in a text it is raised already.
_PRIME = re.compile(r"<msup>((?:(?!<msup>).)*?)<mi>&#x02032;</mi></msup>")


def _formula(text: str, display: str = "inline") -> str:
    """Return a formula as MathML."""
    prime = r'<mrow>\1<mo form="postfix" lspace="0" rspace="0.1em">&#x02032;</mo></mrow>'
    return _PRIME.sub(prime, convert(text, display=display))


def visit_inline(self: HTML5Translator, node: nodes.math) -> None:
    """Set a formula in a line.

    Raises:
        SkipNode: always, as the formula is written.
    """
    self.body.append(_formula(node.astext()))
    raise nodes.SkipNode


def visit_block(self: HTML5Translator, node: nodes.math_block) -> None:
    """Set a formula in a line of its own.

    Raises:
        SkipNode: always, as the formula is written.
    """
    self.body.append(f'<div class="formula" tabindex="0">{_formula(node.astext(), "block")}</div>')
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, Any]:
    """Register with Sphinx."""
    app.add_html_math_renderer("mathml", (visit_inline, None), (visit_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
