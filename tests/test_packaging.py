"""What the package says of itself, and what its archives hold, as far as that can be seen without building it."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from email.parser import Parser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
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
    assert {"Makefile", "CONTRIBUTING.md", "constraints.txt", "src/closedform/engine/_passes.h"} <= set(listed)
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
