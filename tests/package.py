"""The files of the package as text and as syntax trees, parsed once for the tests that read them."""

from __future__ import annotations

import ast
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TypeVar

import closedform

__all__ = ["FILES", "SOURCE", "package_of", "text_of", "tree_of", "wrong_in"]

SOURCE = Path(closedform.__file__).parent

Wrong = TypeVar("Wrong")


def _name_of(path: Path) -> str:
    parts = ("closedform", *path.relative_to(SOURCE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


#: The file of each module by its dotted name.
FILES = {_name_of(path): path for path in sorted(SOURCE.rglob("*.py"))}


def package_of(module: str) -> tuple[str, ...]:
    """Return the package that a module's relative imports start from, as the parts of its name."""
    return ("closedform", *FILES[module].relative_to(SOURCE).parts[:-1])


@cache
def text_of(module: str) -> str:
    return FILES[module].read_text(encoding="utf-8")


@cache
def tree_of(module: str) -> ast.Module:
    return ast.parse(text_of(module))


def wrong_in(find: Callable[[str], Wrong]) -> dict[str, Wrong]:
    """Return what ``find`` finds wrong in each module, without the modules in which it finds nothing."""
    return {module: wrong for module in FILES if (wrong := find(module))}
