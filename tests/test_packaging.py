"""What the package says of itself, and what its archives hold, as far as that can be seen without building it."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from email.parser import Parser
from pathlib import Path

import pytest

from closedform.cli import machine
from package import FILES, tree_of

ROOT = Path(__file__).parents[1]
RECIPE = "packaging/conda-forge/recipe.yaml"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def egg(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("egg")
    call = [sys.executable, "setup.py", "-q", "egg_info", "--egg-base", str(base)]
    subprocess.run(call, check=True, cwd=ROOT, capture_output=True)
    return base / "closedform.egg-info"


def test_the_source_distribution_holds_what_its_tests_read(egg: Path) -> None:
    listed = (egg / "SOURCES.txt").read_text(encoding="utf-8").splitlines()
    for folder in ("tests", "benchmarks", "examples", "docs"):
        there = {
            path.relative_to(ROOT).as_posix() for path in (ROOT / folder).rglob("*.*") if path.suffix in {".py", ".md"}
        }
        assert there
        assert there <= set(listed)
    assert {"Makefile", "CONTRIBUTING.md", "constraints.txt", RECIPE, "src/closedform/engine/_passes.h"} <= set(listed)
    assert not [name for name in listed if name.endswith((".so", ".pyc"))]


def test_links_of_the_readme_lead_somewhere_from_the_index(egg: Path) -> None:
    told = Parser().parsestr((egg / "PKG-INFO").read_text(encoding="utf-8"))
    links = re.findall(r"\]\(([^)]*)\)", str(told.get_payload()))
    assert links
    assert not [link for link in links if not link.startswith(("https://", "#"))]


def test_a_wheel_takes_only_what_is_listed() -> None:
    options = PROJECT["tool"]["setuptools"]
    assert options["include-package-data"] is False
    assert not [pattern for pattern in options["package-data"]["closedform"] if pattern.endswith((".c", ".h", ".inc"))]


def test_the_floor_is_that_of_the_dependencies() -> None:
    floor = dict(
        line.split("#")[0].strip().split("==")
        for line in (ROOT / "constraints-floor.txt").read_text(encoding="utf-8").splitlines()
        if "==" in line
    )
    for dependency in PROJECT["project"]["dependencies"]:
        name, least = dependency.split(">=")
        assert (floor[name] + ".0").startswith(least + "."), (name, floor[name], least)


def asked_for(*extras: str) -> set[str]:
    """Return the names of the packages that extras bring, those that they name in turn with them."""
    names: set[str] = set()
    for extra in extras:
        for requirement in PROJECT["project"]["optional-dependencies"][extra]:
            name, inner = re.match(r"([\w-]+)(?:\[([\w,]+)\])?", requirement).groups()  # type: ignore[union-attr]
            names |= asked_for(*inner.split(",")) if name == "closedform" else {name}
    return names


NEEDED = {re.split(r"\W*>=", dependency)[0] for dependency in PROJECT["project"]["dependencies"]}
EXTRAS = PROJECT["project"]["optional-dependencies"].keys() - {"dev", "docs"}


def test_what_is_pinned_is_what_tests_and_documentation_ask_for() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {line.split("==")[0] for line in lines if not line.startswith("#")}
    assert pinned == (NEEDED | asked_for("dev", "docs")) - {"setuptools", "typing-extensions"}  # torch brings both


def test_the_extra_that_an_error_names_brings_the_package() -> None:
    named = {
        (module, package.value, extra.value)
        for module in FILES
        for call in ast.walk(tree_of(module))
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "MissingExtraError"
        for package, extra in [call.args[:2]]
        if isinstance(package, ast.Constant) and isinstance(extra, ast.Constant)
    }
    assert len(named) > 10
    assert {found for found in named if found[1] not in asked_for(found[2])} == set()


def test_all_has_every_small_extra() -> None:
    assert asked_for("all") == asked_for(*(EXTRAS - {"dask", "lightning"}))


def test_reports_of_faults_name_every_package_that_users_install() -> None:
    assert NEEDED | asked_for(*EXTRAS) <= set(machine._PACKAGES)


def test_a_release_has_one_version() -> None:
    version = re.escape(PROJECT["project"]["version"])
    said = {
        "CITATION.cff": f"^version: {version}$",
        RECIPE: f'^  version: "{version}"$',
        "CHANGELOG.md": f"^## {version}",
    }
    for name, line in said.items():
        assert re.search(line, (ROOT / name).read_text(encoding="utf-8"), re.MULTILINE), name


def test_the_recipe_for_conda_asks_for_what_the_package_does() -> None:
    listed = re.search(r"^  run:\n((?:    - .*\n)+)", (ROOT / RECIPE).read_text(encoding="utf-8"), re.MULTILINE)
    assert listed is not None
    asked = {line.removeprefix("    - ").replace("pytorch", "torch") for line in listed[1].splitlines()}
    assert asked == {"python", *(each.replace(">=", " >=") for each in PROJECT["project"]["dependencies"])}
