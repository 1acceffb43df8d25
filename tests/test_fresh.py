"""A fresh interpreter of the tests is one: nothing of closedform is imported, and it ends as a script does."""

from __future__ import annotations

from pathlib import Path

import pytest

import fresh


def test_a_run_is_a_script_of_its_own() -> None:
    code = "import sys; print(sys.argv[1:], any(name.startswith('closedform') for name in sys.modules))"
    for arguments in (("a", 1), ()):
        done = fresh.run(code, *arguments)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == f"{[str(a) for a in arguments]} False\n"


def test_status_and_messages_are_those_of_a_script() -> None:
    assert fresh.run("import sys; sys.exit(3)").returncode == 3
    done = fresh.run("print('seen'); raise ValueError('wrong')")
    assert done.returncode == 1
    assert done.stdout == "seen\n"
    assert done.stderr.splitlines()[-1] == "ValueError: wrong"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no full device here")
def test_what_cannot_be_written_at_the_end_is_told() -> None:
    done = fresh.run("print('lost')", stdout="/dev/full")
    assert done.returncode == 120
    assert "No space left on device" in done.stderr


def test_warnings_can_be_errors() -> None:
    code = "import warnings; warnings.warn('careful')"
    assert fresh.run(code).returncode == 0
    assert "UserWarning: careful" in fresh.run(code, warnings=("error",)).stderr
    assert fresh.run(code, warnings=("error",)).returncode == 1
