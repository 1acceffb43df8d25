"""Rules of the house that a reader would miss: abstract or final, short, in paragraphs, and in place by name."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from package import FILES, text_of, tree_of, wrong_in

Function = ast.FunctionDef | ast.AsyncFunctionDef

#: Code lines of a function: without its docstring, comments and blank lines.
MOST_CODE_LINES = 60
#: Lines of a body, from which on it has paragraphs.
PARAGRAPHS_FROM = 20

ABSTRACT = {"ABC", "ABCMeta", "Protocol"}
#: Classes whose instances are what they are by their base: constants, errors, plain tuples and dictionaries.
SETTLED = {"Enum", "IntEnum", "StrEnum", "NamedTuple", "TypedDict"}

#: Methods of a tensor whose result shares its memory.
VIEWS = {"view", "unsqueeze", "squeeze", "diagonal", "narrow", "t", "mT", "flatten", "detach"}


def last_name(node: ast.expr) -> str:
    """``Generic`` of ``typing.Generic[T]``."""
    if isinstance(node, ast.Subscript):
        return last_name(node.value)
    if isinstance(node, ast.Call):
        return last_name(node.func)
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def neither_abstract_nor_final(tree: ast.AST) -> list[str]:
    """The classes of a file that may be both subclassed and used. An exception may: callers catch its bases."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            bases = {last_name(base) for base in node.bases} | {last_name(k.value) for k in node.keywords}
            is_error = any(base.endswith(("Error", "Exception", "Warning")) for base in bases)
            is_abstract = bool(bases & ABSTRACT)
            is_final = any(last_name(decorator) == "final" for decorator in node.decorator_list)
            if not (is_error or is_abstract or is_final or bases & SETTLED):
                found.append(node.name)
    return found


def functions(tree: ast.AST, prefix: str = "") -> Iterator[tuple[str, Function]]:
    """Every function of a file with its dotted name."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, Function):
            yield prefix + node.name, node
        name = f"{prefix}{node.name}." if isinstance(node, Function | ast.ClassDef) else prefix
        yield from functions(node, name)


def body_of(function: Function) -> list[ast.stmt]:
    """The statements of a function without its docstring."""
    return function.body[1:] if ast.get_docstring(function, clean=False) is not None else function.body


def body_lines(text: str, function: Function) -> list[str]:
    """The lines of a body, comments and blank lines included."""
    body = body_of(function)
    if not body:
        return []
    first = min([body[0].lineno, *(d.lineno for d in getattr(body[0], "decorator_list", []))])
    return text.splitlines()[first - 1 : function.end_lineno]


def code_lines(text: str, function: Function) -> int:
    """How many lines of code a function has, its head included."""
    head = text.splitlines()[function.lineno - 1 : function.body[0].lineno - 1]
    lines = [line.strip() for line in [*head, *body_lines(text, function)]]
    return sum(1 for line in lines if line and not line.startswith("#"))


def too_long(text: str, tree: ast.AST) -> list[str]:
    """The functions of too many lines."""
    return [name for name, function in functions(tree) if code_lines(text, function) > MOST_CODE_LINES]


def without_paragraphs(text: str, tree: ast.AST) -> list[str]:
    """The functions of many lines without a blank one."""
    found = []
    for name, function in functions(tree):
        lines = body_lines(text, function)
        if len(lines) >= PARAGRAPHS_FROM and all(line.strip() for line in lines):
            found.append(name)
    return found


def root_name(node: ast.expr) -> str:
    """``gram`` of ``gram[:n].view(-1)`` and of ``gram.T``: what a change of it would change."""
    while True:
        if isinstance(node, ast.Subscript | ast.Attribute):
            node = node.value
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in VIEWS:
            node = node.func.value
        else:
            return getattr(node, "id", "")


def changed_parameters(function: Function) -> set[str]:
    """The tensors among the parameters of a function that its own statements change."""
    arguments = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    tensors = {a.arg for a in arguments if a.annotation is not None and "Tensor" in ast.unparse(a.annotation)}
    # A name that is given a value of its own is no longer what was passed.
    own = {
        target.id
        for node in ast.walk(function)
        if isinstance(node, ast.Assign)
        for whole in node.targets
        for target in ([whole] if isinstance(whole, ast.Name) else getattr(whole, "elts", []))
        if isinstance(target, ast.Name)
    }
    found: set[str] = set()
    for node in ast.walk(function):
        if isinstance(node, ast.Assign):
            found |= {root_name(target) for target in node.targets if isinstance(target, ast.Subscript)}
        elif isinstance(node, ast.AugAssign):
            found.add(root_name(node.target))
        elif isinstance(node, ast.Call):
            found |= {root_name(keyword.value) for keyword in node.keywords if keyword.arg == "out"}
            name = node.func.attr if isinstance(node.func, ast.Attribute) else ""
            if name.endswith("_") and not name.endswith("__") and isinstance(node.func, ast.Attribute):
                found.add(root_name(node.func.value))
            elif isinstance(node.func, ast.Name) and node.func.id.endswith("_") and node.args:
                # Who hands a tensor to a function that works in place works in place.
                found.add(root_name(node.args[0]))
    return (found & tensors) - own


def in_place_without_a_mark(tree: ast.AST) -> list[str]:
    """The functions that change a tensor they are given, and whose names do not end in ``_``."""
    return [
        name for name, function in functions(tree) if not function.name.endswith("_") and changed_parameters(function)
    ]


def test_a_class_is_abstract_or_final() -> None:
    found = wrong_in(lambda module: neither_abstract_nor_final(tree_of(module)))
    assert found == {}, "decorate with @final, or derive from abc.ABC"


def test_no_function_is_too_long() -> None:
    assert wrong_in(lambda module: too_long(text_of(module), tree_of(module))) == {}


def test_a_long_function_has_paragraphs() -> None:
    found = wrong_in(lambda module: without_paragraphs(text_of(module), tree_of(module)))
    assert found == {}, "set blank lines between the steps of these functions"


def test_what_works_in_place_ends_in_an_underscore() -> None:
    rooms = ("closedform.numerics.", "closedform.engine.")
    modules = [module for module in FILES if f"{module}.".startswith(rooms)]
    assert modules
    assert [name for module in modules for name in in_place_without_a_mark(tree_of(module))] == []


@pytest.mark.parametrize(
    "code",
    [
        "class A: ...",
        "@dataclass(frozen=True)\nclass A: ...",
        "class A(Base): ...",
        "def f():\n    class A: ...",
    ],
)
def test_an_open_class_is_seen(code: str) -> None:
    assert neither_abstract_nor_final(ast.parse(code)) == ["A"]


@pytest.mark.parametrize(
    "code",
    [
        "class A(ABC): ...",
        "class A(Protocol[T]): ...",
        "class A(Base, metaclass=ABCMeta): ...",
        "@final\n@dataclass(frozen=True)\nclass A: ...",
        "@typing.final\nclass A(Base): ...",
        "class A(Enum): ...",
        "class A(NamedTuple): ...",
        "class A(InputError, TypeError): ...",
    ],
)
def test_a_closed_class_is_let_pass(code: str) -> None:
    assert neither_abstract_nor_final(ast.parse(code)) == []


def long_function(lines: int, doc: str = "", between: str = "") -> str:
    return "def f(a):\n" + doc + between.join(f"    a += {i}\n" for i in range(lines))


def test_lines_are_counted_without_docstring_comments_and_blank_lines() -> None:
    doc = '    """One.\n\n    Two.\n    """\n'
    for text in (long_function(60), long_function(59, doc), long_function(59, doc, "\n    # Why.\n")):
        found = ast.parse(text).body[0]
        assert isinstance(found, Function)
        assert code_lines(text, found) == 1 + text.count("+=")
    assert too_long(long_function(60), ast.parse(long_function(60))) == ["f"]
    assert too_long(long_function(59), ast.parse(long_function(59))) == []


def test_a_function_without_paragraphs_is_seen() -> None:
    doc = '    """One.\n\n    Two.\n    """\n'
    for text, expected in (
        (long_function(20), ["f"]),
        (long_function(20, doc), ["f"]),
        (long_function(19), []),
        (long_function(20, between="\n"), []),
    ):
        assert without_paragraphs(text, ast.parse(text)) == expected


@pytest.mark.parametrize(
    "code",
    ["x.add_(1)", "x[0] = 1", "x += 1", "x[1:] *= 2", "x.T.view(-1).copy_(y)", "torch.mm(y, y, out=x)", "fill_(x, y)"],
)
def test_a_change_in_place_is_seen(code: str) -> None:
    assert in_place_without_a_mark(ast.parse(f"def f(x: Tensor, y: Tensor | None): {code}")) == ["f"]
    assert in_place_without_a_mark(ast.parse(f"def f_(x: Tensor, y: Tensor | None): {code}")) == []


@pytest.mark.parametrize("code", ["x = x + 1; x += 1", "x.clone().add_(1)", "x.add(1)", "g(x)", "x.__len__()"])
def test_what_leaves_its_arguments_alone_is_let_pass(code: str) -> None:
    assert in_place_without_a_mark(ast.parse(f"def f(x: Tensor): {code}")) == []


def test_no_two_files_of_tests_have_one_name() -> None:
    """They are imported without a package, so pytest could not collect both."""
    names = [path.name for path in Path(__file__).parent.rglob("*.py")]
    assert sorted(names) == sorted(set(names))


def constants_in_one_line(tree: ast.Module) -> list[str]:
    """The targets of assignments at the top that give several constants their values."""
    return [
        ast.unparse(node.targets[0])
        for node in tree.body
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Tuple)
        and all(isinstance(name, ast.Name) and name.id.isupper() for name in node.targets[0].elts)
    ]


def test_a_constant_has_a_line_of_its_own() -> None:
    assert constants_in_one_line(ast.parse("A, B = 1, 2\nC = 3\nd, e = f")) == ["(A, B)"]
    assert wrong_in(lambda module: constants_in_one_line(tree_of(module))) == {}


def records_compared_by_entries(tree: ast.AST) -> list[str]:
    """The dataclasses with tensors in them that have a generated ``__eq__``."""
    return [
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
        and any(isinstance(field, ast.AnnAssign) and "Tensor" in ast.unparse(field.annotation) for field in node.body)
        and any("dataclass" in (text := ast.unparse(mark)) and "eq=False" not in text for mark in node.decorator_list)
    ]


def test_a_record_of_tensors_compares_by_identity() -> None:
    # Tensors compare entry by entry, so that a generated __eq__ raises.
    assert records_compared_by_entries(ast.parse("@dataclass(frozen=True)\nclass A:\n    x: Tensor")) == ["A"]
    assert records_compared_by_entries(ast.parse("@dataclass(eq=False)\nclass A:\n    x: Tensor")) == []
    assert wrong_in(lambda module: records_compared_by_entries(tree_of(module))) == {}


#: Functions that make a tensor where the user's default device is, which need not hold numbers.
MAKERS = frozenset(
    {"arange", "as_tensor", "asarray", "empty", "eye", "full", "linspace", "logspace", "ones", "rand", "randint"}
    | {"randn", "randperm", "tensor", "zeros"}
)


def without_device(tree: ast.AST) -> list[int]:
    """Lines on which a tensor is made without saying where."""
    return [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == "torch"
        and node.func.attr in MAKERS
        and not any(keyword.arg in ("device", None) for keyword in node.keywords)
    ]


def test_a_tensor_without_device_is_found() -> None:
    text = "torch.zeros(3)\ntorch.zeros(3, device=d)\ntorch.ones(2, **options)\nx.new_zeros(3)"
    assert without_device(ast.parse(text)) == [1]


def test_every_tensor_says_where_it_is_made() -> None:
    found = wrong_in(lambda module: without_device(tree_of(module)))
    assert found == {}, "name the device: the default is the user's, torch.set_default_device"


#: A role of Sphinx with a name of this package, or a file of the repository between backticks.
REFERENCE = re.compile(r":(?:mod|class|func|data|meth|attr|exc):`[~!]?(closedform[\w.]*)`")
FILE = re.compile(r"`((?:tests|benchmarks|docs|examples)/[\w/]+\.\w+)`")


def leads_somewhere(name: str) -> bool:
    module = name
    while module not in FILES:
        module = module.rpartition(".")[0]
        if not module:
            return False
    found = importlib.import_module(module)
    for part in name.removeprefix(module).split(".")[1:]:
        found = getattr(found, part, None)
    return found is not None


def test_what_a_docstring_refers_to_is_there() -> None:
    wrong = wrong_in(lambda module: [name for name in REFERENCE.findall(text_of(module)) if not leads_somewhere(name)])
    assert wrong == {}
    assert leads_somewhere("closedform.files.recognition.FORMATS")
    assert not leads_somewhere("closedform.files.opening.FORMATS")


def test_files_that_the_documentation_names_are_there() -> None:
    root = Path(__file__).parents[1]
    pages = [root / "README.md", root / "CONTRIBUTING.md", *(root / "docs").glob("*.md")]
    named = {(page.name, file) for page in pages for file in FILE.findall(page.read_text(encoding="utf-8"))}
    # Records are made by benchmarks, and kept by nobody.
    missing = {(page, file) for page, file in named if not (root / file).exists() and "docs/_data/" not in file}
    assert missing == set()
    assert len(named) > 10
