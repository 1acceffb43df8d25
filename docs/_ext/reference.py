"""Write the pages of the reference from what the code says: one for each public name, and one for the command line."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from pathlib import Path
from types import ModuleType
from typing import Any

from sphinx.application import Sphinx

import closedform

_FOLDER = "reference"
_OPTIONS = {"class": "   :members:\n   :show-inheritance:\n", "exception": "   :show-inheritance:\n", "function": ""}


def write_reference(app: Sphinx) -> None:
    """Write a page for each name of ``closedform.__all__`` and of the public modules in it."""
    folder = Path(app.srcdir) / _FOLDER
    folder.mkdir(exist_ok=True)
    written: dict[str, str] = {}
    names: dict[str, list[str]] = {"function": [], "class": [], "exception": [], "data": []}
    modules = {"closedform": closedform, **_modules()}
    for home, module in modules.items():
        for name in sorted(module.__all__, key=str.lower):
            value = getattr(module, name)
            if not isinstance(value, ModuleType):
                names[_kind(value)].append(f"{home}.{name}")
    for kind, all_of_kind in names.items():
        for name in all_of_kind:
            short = name.removeprefix("closedform.")
            title = short.replace("_", r"\_")
            entry = _table(name) if kind == "data" else f".. auto{kind}:: {name}\n{_OPTIONS[kind]}"
            written[short] = f"{title}\n{'=' * len(title)}\n\n{entry}\n"
    written["errors"] = _errors()
    written["command-line"] = _command_line()
    written["index"] = _index(names)
    for name, text in written.items():
        file = folder / f"{name}.rst"
        if not file.exists() or file.read_text(encoding="utf-8") != text:
            file.write_text(text, encoding="utf-8")
    for stale in {path.stem for path in folder.glob("*.rst")} - written.keys():
        (folder / f"{stale}.rst").unlink()


def _modules() -> dict[str, ModuleType]:
    """Return the public modules: those named in ``__all__``, and the doors that a user imports by their name."""
    found = {f"closedform.{name}": getattr(closedform, name) for name in closedform.__all__}
    modules = {name: value for name, value in found.items() if isinstance(value, ModuleType)}
    doors = {info.name for info in pkgutil.iter_modules(closedform.__path__)} & {"estimators"}
    return modules | {f"closedform.{name}": importlib.import_module(f"closedform.{name}") for name in doors}


def _kind(value: Any) -> str:
    if inspect.isclass(value):
        return "exception" if issubclass(value, Exception) else "class"
    return "function" if callable(value) else "data"


def _table(name: str) -> str:
    """Return an entry for a mapping: its names, and what stands behind each."""
    found = {key: getattr(value, "func", value) for key, value in _value(name).items()}  # what partial() calls
    lines = (f"   * ``{key}``: :class:`~{value.__module__}.{value.__qualname__}`" for key, value in found.items())
    return f".. py:data:: {name}\n\n" + "\n".join(lines) + "\n"


def _index(names: dict[str, list[str]]) -> str:
    titles = {"function": "Functions", "class": "Classes", "exception": "Errors", "data": "Tables"}
    text = "API reference\n=============\n\nEvery public name, from the docstrings of the code.\n"
    for kind, title in titles.items():
        text += f"\n{title}\n{'-' * len(title)}\n\n.. list-table::\n   :widths: 30 70\n\n"
        for name in names[kind]:
            short, value = name.removeprefix("closedform."), _value(name)
            documented = kind != "data" and inspect.getdoc(value)
            first = documented.split("\n\n")[0].replace("\n", " ") if documented else ""
            text += f"   * - :doc:`{short}`\n     - {first}\n"
    hidden = "\n".join(f"   {name.removeprefix('closedform.')}" for group in names.values() for name in group)
    return text + (
        "\nBeyond Python\n-------------\n\n* :doc:`command-line`\n* :doc:`errors`\n"
        f"\n.. toctree::\n   :hidden:\n\n{hidden}\n   errors\n   command-line\n"
    )


def _value(name: str) -> Any:
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module), attribute)


def _errors() -> str:
    from closedform.words import errors

    kinds = [name for name in errors.__all__ if name != "ClosedformError"]
    text = "Errors that are raised\n======================\n\nAll are kinds of :exc:`closedform.ClosedformError`.\n"
    entry = "\n.. autoexception:: closedform.words.errors.{}\n   :show-inheritance:\n"
    return text + "".join(entry.format(name) for name in kinds)


def _command_line() -> str:
    from typer.main import get_command
    from typer.testing import CliRunner

    from closedform.cli.app import app

    text = (
        "The command line\n================\n\nEach command explains itself with ``--help``. "
        "Exit status: 0 certified, 1 not certified, 2 usage or input error.\n"
    )
    runner = CliRunner(env={"COLUMNS": "92", "TERMINAL_WIDTH": "92", "NO_COLOR": "1", "TERM": "dumb"})
    for name in get_command(app).commands:
        title = f"closedform {name}"
        shown = runner.invoke(app, [name, "--help"], prog_name="closedform").output
        lines = "\n".join(f"   {line.rstrip()}" for line in shown.strip().splitlines())
        text += f"\n{title}\n{'-' * len(title)}\n\n.. code-block:: text\n\n{lines}\n"
    return text


def skip_foreign(app: Sphinx, what: str, name: str, value: Any, skip: bool, options: Any) -> bool | None:
    """Leave out what scikit-learn puts into every estimator: its words refer to its own site."""
    return True if re.fullmatch(r"set_\w+_request|get_metadata_routing", name) else None


def setup(app: Sphinx) -> dict[str, Any]:
    """Register with Sphinx."""
    app.connect("builder-inited", write_reference)
    app.connect("autodoc-skip-member", skip_foreign)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
