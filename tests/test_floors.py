"""The floors of the house: a file imports only from floors below its own."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import closedform

SOURCE = Path(closedform.__file__).parent

#: (floor, room) of every file or folder of the package. Files of one room may import each other.
#: The rows stand on the numerics, although both are called floor 1; each door is a room of its own.
ROOMS: dict[str, tuple[float, str]] = {
    "errors": (0, "words"),
    "outcome": (0, "words"),
    "numerics": (1, "numerics"),
    "rows": (1.5, "rows"),
    "factors": (2, "factors"),
    "certify": (2, "certify"),
    "plan": (3, "plan"),
    "refine": (3, "plan"),
    "extended": (3, "plan"),
    "solution": (4, "fit"),
    "digits": (4, "fit"),
    "groups": (4, "fit"),
    "door": (4, "fit"),
    "solve": (4, "fit"),
    "statistics": (4, "fit"),
    "progress": (0, "words"),
    "linear": (1, "linear"),
    "machine": (1.2, "machine"),
    "spectrum": (4, "explain"),
    "forecast": (4, "explain"),
    "rehearse": (4, "explain"),
    # Above the report, which it hands itself to on request.
    "diagnose": (4.7, "diagnose"),
    # A door that the comparison runs beside torch's own optimizers.
    "optim": (4.5, "optim"),
    **{name: (5, name) for name in ("layer", "batched", "estimators", "stream", "distributed")},
    "compare": (5, "compare"),
    # Doors hand their data to the report, and the report knows no door.
    "report": (4.5, "report"),
    "cli": (6, "cli"),
    "__main__": (7, "__main__"),
    "__init__": (7, "__init__"),
}

FILES = sorted(SOURCE.rglob("*.py"))


def imported_modules(tree: ast.AST, package: tuple[str, ...]) -> set[str]:
    """Return what a file imports of closedform, anywhere in it: ``"rows.scan"``, ``"errors"``, ``""``."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (base, node.module) if part)
            # "from closedform import solve" may name a submodule, so what it names counts.
            top = module == "closedform"
            names |= {f"{module}.{alias.name}" for alias in node.names} if top else {module}
    return {name.partition(".")[2] for name in names if name.split(".")[0] == "closedform"}


def violations(room_name: str, imports: set[str]) -> list[str]:
    """Return what is wrong with the imports of a file that lives in ``room_name``."""
    floor, room = ROOMS[room_name]
    wrong = []
    for name in sorted(imports):
        other_name = name.split(".")[0] if name.split(".")[0] in ROOMS else "__init__"
        other_floor, other_room = ROOMS[other_name]
        if other_room != room and other_floor >= floor:
            wrong.append(f"{room_name} (floor {floor}) imports {name or 'closedform'} (floor {other_floor})")
    return wrong


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_file_imports_only_from_floors_below(path: Path) -> None:
    relative = path.relative_to(SOURCE)
    room_name = relative.parts[0].removesuffix(".py")
    assert room_name in ROOMS, f"{relative} stands on no floor; give it one in ROOMS and in the design"
    package = ("closedform", *relative.parts[:-1])
    imports = imported_modules(ast.parse(path.read_text(encoding="utf-8")), package)
    assert violations(room_name, imports) == []


@pytest.mark.parametrize(
    ("room", "package", "code"),
    [
        ("numerics", ("closedform", "numerics"), "from closedform.rows.table import Rows"),
        ("numerics", ("closedform", "numerics"), "from ..rows import table"),
        ("certify", ("closedform",), "def f():\n    import closedform.factors.gram"),
        ("layer", ("closedform",), "from closedform import compare"),
        ("solve", ("closedform",), "import closedform"),
        ("rows", ("closedform", "rows"), "from closedform import Solution"),
    ],
)
def test_a_forbidden_import_is_seen(room: str, package: tuple[str, ...], code: str) -> None:
    assert len(violations(room, imported_modules(ast.parse(code), package))) == 1


def test_an_allowed_import_is_allowed() -> None:
    code = "import torch\nfrom closedform.numerics.gram import gram\nfrom .table import Rows\nfrom .. import errors"
    imports = imported_modules(ast.parse(code), ("closedform", "rows"))
    assert imports == {"numerics.gram", "rows.table", "errors"}
    assert violations("rows", imports) == []
