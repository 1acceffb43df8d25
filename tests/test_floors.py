"""The floors of the house, as CONTRIBUTING.md draws them: a room imports only from floors below its own."""

from __future__ import annotations

import ast
import importlib
import inspect
from pathlib import Path

import pytest

import closedform
from package import FILES, SOURCE, package_of, tree_of, wrong_in

#: Doors may use another door's public name, in one direction: the comparison runs the optimizer beside torch's own.
BETWEEN_DOORS = {("comparison", "optim"), ("probe", "layer")}


def floors() -> dict[str, int]:
    """Read the table of floors: the floor of each room, which is a folder or a file of the package."""
    text = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")
    table = text.split("| floor | rooms |", 1)[1].split("\n\n", 1)[0]
    found: dict[str, int] = {}
    for line in table.splitlines()[2:]:
        _, floor, rooms, *_ = line.split("|")
        for room in rooms.replace("`", "").split(","):
            found[room.strip().strip("/").removesuffix(".py")] = int(floor)
    return found


FLOORS = floors()


def room_of_file(module: str) -> str:
    """Return the room that the file of a module lies in."""
    return FILES[module].relative_to(SOURCE).parts[0].removesuffix(".py")


def imported_names(tree: ast.AST, package: tuple[str, ...]) -> set[tuple[str, str]]:
    """Return what a file imports of closedform, anywhere in it, as pairs of a module and a name in it or ``""``."""
    names: set[tuple[str, str]] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {(alias.name, "") for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (base, node.module) if part)
            names |= {(module, alias.name) for alias in node.names}
    return {(module, name) for module, name in names if module.split(".")[0] == "closedform"}


def imported_modules(tree: ast.AST, package: tuple[str, ...]) -> set[str]:
    """Return the modules that a file imports: ``"closedform.rows.table"``, ``"closedform"``."""
    found = set()
    for module, name in imported_names(tree, package):
        # "from closedform import solve" and "from closedform.engine import compiled" may name a module.
        inner = f"{module}.{name}"
        found.add(inner if name and (inner in FILES or module == "closedform") else module)
    return found


def room_of(module: str) -> str:
    """Return the room of a module: the first part of its name in the package; the package itself is one."""
    room = module.partition(".")[2].split(".")[0]
    return room if room in FLOORS else "__init__"


def violations(room: str, imports: set[str]) -> list[str]:
    """Return what is wrong with the imports of a file that lives in ``room``."""
    wrong = []
    for module in sorted(imports):
        other = room_of(module)
        if other == room or FLOORS[other] < FLOORS[room] or (room, other) in BETWEEN_DOORS:
            continue
        wrong.append(f"{room} (floor {FLOORS[room]}) imports {module} (floor {FLOORS[other]})")
    return wrong


def private_imports(package: tuple[str, ...], tree: ast.AST) -> list[str]:
    """Return the private names and modules of other rooms that a file imports."""
    own = package[1] if len(package) > 1 else ""
    return [
        f"{module}.{name}"
        for module, name in sorted(imported_names(tree, package))
        if room_of(module) != own and any(part.startswith("_") for part in f"{module}.{name}".split(".") if part)
    ]


def circles(imports: dict[str, set[str]]) -> list[list[str]]:
    """Return the modules that import each other, in groups (strongly connected components: Tarjan 1972)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(module: str) -> None:
        index[module] = low[module] = len(index)
        stack.append(module)
        for other in imports[module] & imports.keys():
            if other not in index:
                visit(other)
                low[module] = min(low[module], low[other])
            elif other in stack:
                low[module] = min(low[module], index[other])
        if low[module] == index[module]:
            group = stack[stack.index(module) :]
            del stack[stack.index(module) :]
            if len(group) > 1:
                found.append(sorted(group))

    for module in imports:
        if module not in index:
            visit(module)
    return found


def imports_of(module: str) -> set[str]:
    return imported_modules(tree_of(module), package_of(module))


def test_every_room_exists_and_every_file_has_one() -> None:
    assert set(map(room_of_file, FILES)) == FLOORS.keys()


def test_a_file_imports_only_from_floors_below() -> None:
    assert wrong_in(lambda module: violations(room_of_file(module), imports_of(module))) == {}


def test_no_file_imports_a_private_name_of_another_room() -> None:
    assert wrong_in(lambda module: private_imports(package_of(module), tree_of(module))) == {}


def test_no_modules_import_each_other() -> None:
    assert circles({module: imports_of(module) for module in FILES}) == []


def test_a_circle_is_seen() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": set()}) == [["a", "b", "c"]]


def test_no_module_bears_the_name_of_a_function_in_it() -> None:
    def functions(module: str) -> set[str]:
        return {node.name for node in tree_of(module).body if isinstance(node, ast.FunctionDef)}

    assert wrong_in(lambda module: functions(module) & {module.split(".")[-1]}) == {}


def test_importing_a_module_gives_that_module() -> None:
    def another(module: str) -> str:
        importlib.import_module(module)
        value: object = closedform
        for part in module.split(".")[1:]:
            value = getattr(value, part)
        name = value.__name__ if inspect.ismodule(value) else repr(value)
        return "" if name == module else name

    # Importing the script that ``python -m`` runs would run it.
    assert wrong_in(lambda module: "" if module == "closedform.__main__" else another(module)) == {}


def test_the_package_shows_its_public_names_and_nothing_else() -> None:
    assert dir(closedform) == sorted(closedform.__all__)
    for name in closedform.__all__:
        assert getattr(closedform, name) is not None


@pytest.mark.parametrize(
    ("room", "package", "code"),
    [
        ("numerics", ("closedform", "numerics"), "from closedform.rows.table import Rows"),
        ("numerics", ("closedform", "numerics"), "from ..rows import table"),
        ("fit", ("closedform", "fit"), "def f():\n    import closedform.explain.spectra"),
        ("layer", ("closedform",), "from closedform import compare"),
        ("fit", ("closedform", "fit"), "import closedform"),
        ("rows", ("closedform", "rows"), "from closedform import Solution"),
        ("optim", ("closedform", "optim"), "from closedform.comparison.entry import compare"),
    ],
)
def test_a_forbidden_import_is_seen(room: str, package: tuple[str, ...], code: str) -> None:
    assert len(violations(room, imported_modules(ast.parse(code), package))) == 1


def test_a_private_import_is_seen() -> None:
    tree = ast.parse("from closedform.rows.table import _reshape\nfrom closedform.fit._x import y")
    assert private_imports(("closedform", "fit"), tree) == ["closedform.rows.table._reshape"]


def test_an_allowed_import_is_allowed() -> None:
    code = "from closedform.numerics.scaling import f\nfrom .table import Rows\nfrom ..words.errors import InputError"
    imports = imported_modules(ast.parse(code), ("closedform", "rows"))
    assert imports == {"closedform.numerics.scaling", "closedform.rows.table", "closedform.words.errors"}
    assert violations("rows", imports) == []
