"""How commands behave beside their results: JSON, silence, status, help, files kept as they are, interrupts."""

from __future__ import annotations

import json
import os
import platform
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
from typer.testing import CliRunner, Result

from closedform.cli.app import app
from closedform.cli.commands import command_for
from closedform.cli.output import OutputFile, Screen, StandardOutput
from closedform.engine import rates
from closedform.words.errors import InputError

runner = CliRunner()
PROGRAM = [sys.executable, "-c", "from closedform.cli import main; main()"]


def run(*args: object) -> Result:
    return runner.invoke(app, [str(arg) for arg in args])


@pytest.fixture
def table(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((40, 3))
    y = X @ [1.0, -2.0, 0.5] + 4 + 0.1 * rng.standard_normal(40)
    path = tmp_path / "data.npz"
    np.savez(path, X_train=X[:30], y_train=y[:30], X_test=X[30:], y_test=y[30:])
    return path


COMMANDS = {
    "solve": ("--bias",),
    "diagnose": ("--lr", "0.01", "--steps", "10"),
    "compare": ("--budget", "0.2", "--optimizers", "sgd"),
}

# JSON


@pytest.mark.parametrize("command", COMMANDS)
def test_json_on_the_standard_output_stands_alone(command: str, table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(table.parent)
    result = run(command, table, *COMMANDS[command], "--json", "-")
    assert result.exit_code == 0, result.output
    data = json.loads(result.stdout)
    assert data["command"] == command
    assert len(result.stderr.splitlines()) > 3
    assert not (table.parent / "-").exists()


@pytest.mark.parametrize("command", COMMANDS)
def test_json_says_how_it_was_made(command: str, table: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    assert run(command, table, *COMMANDS[command], "--json", out).exit_code == 0
    data = json.loads(out.read_text())
    assert data["schema_version"] == 1
    assert data["versions"].keys() == {"python", "closedform", "torch", "numpy", "scipy"}
    assert data["file"] == str(table)
    tests = None if command == "diagnose" else f"{table}::X_test"
    assert (data["keys"]["X"], data["keys"]["X_test"]) == (f"{table}::X_train", tests)
    assert data["options"]["bias"] is (command == "solve")
    assert not {"x", "files", "json", "quiet"} & data["options"].keys()

    first = data["data_hash"]
    assert first.startswith("sha256:")
    with np.load(table) as arrays:
        tables = dict(arrays)
    np.savez_compressed(table, **tables)
    run(command, table, *COMMANDS[command], "--json", out)
    assert json.loads(out.read_text())["data_hash"] == first
    tables["y_train"][7] = np.nextafter(tables["y_train"][7], 9)
    np.savez(table, **tables)
    run(command, table, *COMMANDS[command], "--json", out)
    assert json.loads(out.read_text())["data_hash"] != first


def test_the_demo_and_the_accuracy_have_json_too() -> None:
    pytest.importorskip("sklearn")
    result = run("demo", "--budget", 0.2, "--json", "-")
    assert json.loads(result.stdout).keys() >= {"schema_version", "versions", "data_hash", "methods"}
    assert "import closedform as cf" in result.stderr


# Silence


@pytest.mark.parametrize("command", COMMANDS)
def test_quiet_is_quiet(command: str, table: Path) -> None:
    result = run(command, table, *COMMANDS[command], "--quiet")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")
    result = run(command, table, *COMMANDS[command], "-q", "--json", "-")
    assert (result.stderr, json.loads(result.stdout)["command"]) == ("", command)
    result = run(command, table, "--y", "nope", "-q")
    assert (result.exit_code, len(result.stderr.splitlines())) == (2, 1)


# Results


def test_solve_reports_the_test_rows_it_announces(table: Path) -> None:
    result = run("solve", table, "--bias", "--json", "-")
    data = json.loads(result.stdout)
    with np.load(table) as arrays:
        A = np.c_[arrays["X_train"], np.ones(30)]
        weights = np.linalg.lstsq(A, arrays["y_train"], rcond=None)[0]
        errors = np.c_[arrays["X_test"], np.ones(10)] @ weights - arrays["y_test"]
    np.testing.assert_allclose(data["test"]["mse"], (errors**2).mean(), rtol=1e-12)
    np.testing.assert_allclose(data["test"]["mae"], np.abs(errors).mean(), rtol=1e-12)
    assert data["test"]["rows"] == 10
    assert f"test MSE {(errors**2).mean():.6g}" in result.stderr
    assert (
        run("solve", table, "--x", "X_train", "--y", "X_train", "--x-test", "X_test", "--y-test", "y_test").exit_code
        == 2
    )


def test_diagnose_announces_no_test_rows(table: Path) -> None:
    result = run("diagnose", table)
    assert "test rows" not in result.stderr
    assert "X_train" in result.stderr


@pytest.mark.parametrize(
    ("options", "limit", "status"),
    [
        (("--lr", "100", "--steps", "10"), None, 0),
        (("--lr", "100", "--steps", "10"), "error", 1),
        (("--lr", "100", "--steps", "10"), "warning", 1),
        (("--lr", "0.1", "--steps", "100000", "--bias"), "error", 0),
        (("--lr", "0.1"), "fatal", 2),
    ],
)
def test_fail_on(options: tuple[str, ...], limit: str | None, status: int, table: Path) -> None:
    result = run("diagnose", table, *options, *(["--fail-on", limit] if limit else []))
    assert result.exit_code == status, result.output


def test_remedies_are_commands_that_run(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import shlex

    monkeypatch.chdir(table.parent)
    table.rename("my data.npz")
    result = run("diagnose", "my data.npz", "--lr", "100", "--steps", "10", "--bias", "--json", "-")
    remedies = set(json.loads(result.stdout)["commands"].values()) - {None}
    # Where there are two ways to mend a run, each stands on a line of its own.
    commands = {line for remedy in remedies for line in remedy.splitlines()}
    assert commands
    assert "cf.fit_(" not in result.stderr
    for command in commands:
        words = shlex.split(command)
        assert words[0] == "closedform"
        assert "my data.npz" in words
        assert run(*words[1:]).exit_code == 0, command


def test_commands_carry_the_tables_and_the_settings() -> None:
    options = ["--x", "X.T", "--y", "a b", "--bias"]
    code = "optimizer = torch.optim.Adam(model.parameters(), lr=0.1)"
    assert command_for(code, "d.h5\ne.h5", options) == (
        "closedform diagnose d.h5 e.h5 --x X.T --y 'a b' --bias --optimizer adam --lr 0.1"
    )
    assert command_for("closedform solve d.h5", "d.h5", options) == "closedform solve d.h5"
    code = "optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, nesterov=True)"
    assert command_for(code, "d.h5", []) == (
        "closedform diagnose d.h5 --optimizer sgd --lr 1e-3 --momentum 0.9 --nesterov"
    )
    assert command_for("X = X - X.mean(0)", "d.h5", []) is None


@pytest.mark.parametrize("command", ["solve", "diagnose", "compare"])
def test_where_output_went_is_said(command: str, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    out = tmp_path / "out.json"
    result = run(command, table, *COMMANDS[command], "--json", out)
    assert f"wrote {out}" in result.stderr
    assert "wrote" not in result.stdout


# Help


@pytest.mark.parametrize("command", [*COMMANDS, "demo", "accuracy", "show-versions", ""])
def test_help_is_short_and_has_a_short_name(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    words = [command] if command else []
    result = run(*words, "-h")
    assert result.exit_code == 0
    assert result.output == run(*words, "--help").output
    assert "9223372036854775808" not in result.output
    if command:
        assert "--json" in result.output


def test_a_seed_out_of_range_is_one_line(table: Path) -> None:
    for seed in (2**64, -(2**63) - 1):
        result = run("diagnose", table, "--seed", seed)
        assert (result.exit_code, len(result.stderr.splitlines())) == (2, 1)
        assert "torch.manual_seed" in result.stderr
    assert run("diagnose", table, "--lr", "0.1", "--steps", 5, "--seed", 2**64 - 1).exit_code == 0


def test_help_and_version_load_no_torch_and_end_without_looking_for_garbage() -> None:
    code = (
        "import gc, sys\n"
        "sys.argv = ['closedform', *sys.argv[1:]]\n"
        "from closedform.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'numpy', 'scipy', 'h5py', 'pandas', 'pyarrow'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "assert gc.get_freeze_count() > 0\n"
    )
    for option in ("--help", "--version"):
        done = subprocess.run([sys.executable, "-c", code, option], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert "closedform" in done.stdout.lower()


def test_completion_is_offered() -> None:
    environment = {
        **os.environ,
        "_CLOSEDFORM_COMPLETE": "complete_bash",
        "COMP_WORDS": "closedform so",
        "COMP_CWORD": "1",
    }
    code = "import sys; sys.argv[0] = 'closedform'; from closedform.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert done.stdout.split() == ["solve"], done.stderr


def test_show_versions() -> None:
    result = run("show-versions", "--json", "-")
    assert result.exit_code == 0, result.output
    data = json.loads(result.stdout)
    assert {"python", "closedform", "torch", "numpy", "h5py"} <= data["versions"].keys()
    assert {"compiled", "threads", "torch BLAS", "numpy BLAS", "memory", "rates from", "rate gram64"} <= data[
        "machine"
    ].keys()
    lines = run("show-versions").stdout.splitlines()
    assert len(lines) == len(data["versions"]) + len(data["machine"])


def test_show_versions_names_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it prints is pasted into public reports."""
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("LOCALAPPDATA", raising=False)
    monkeypatch.setattr(platform, "node", lambda: "host-of-ada")
    rates._cache_file.cache_clear()
    for home in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(home, str(Path("/home/ada")))
    text = run("show-versions", "--json", "-").stdout
    rates._cache_file.cache_clear()
    assert "ada" not in text
    assert json.loads(text)["machine"]["rates file"].startswith(str(Path("~/.cache/closedform/rates-*-cpu-")))


# Files that are written


def test_an_existing_output_keeps_its_permissions(table: Path, tmp_path: Path) -> None:
    out, fresh = tmp_path / "secret.json", tmp_path / "fresh.json"
    out.write_text("old")
    out.chmod(0o600)
    assert run("solve", table, "--json", out).exit_code == 0
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert json.loads(out.read_text())["command"] == "solve"
    mask = os.umask(0o027)
    try:
        assert run("solve", table, "--json", fresh).exit_code == 0
    finally:
        os.umask(mask)
    assert stat.S_IMODE(fresh.stat().st_mode) == 0o640


def test_links_to_an_output_stay(table: Path, tmp_path: Path) -> None:
    out, hard, soft = tmp_path / "out.json", tmp_path / "hard.json", tmp_path / "soft.json"
    out.write_text("old" * 10_000)
    os.link(out, hard)
    soft.symlink_to(out)
    for name in (out, hard, soft):
        assert run("solve", table, "--json", name, "--bias").exit_code == 0
        assert out.samefile(hard)
        assert soft.is_symlink()
        assert json.loads(hard.read_text())["command"] == "solve"
        out.write_text("old" * 10_000)


def test_no_link_waits_where_a_temporary_file_will_be(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / f".closedform.{os.getpid()}.part").symlink_to(victim)
    seen: set[str] = set()
    replace = os.replace

    def spy(source: str, target: object) -> None:
        seen.add(source)
        replace(source, target)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "replace", spy)
        for _ in range(2):
            OutputFile(str(tmp_path / "out.json"), "--json").write(b"data")
    assert victim.read_text() == "mine"
    assert len(seen) == 2
    assert (tmp_path / "out.json").read_bytes() == b"data"


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out.json"
    out.write_text("kept")
    output = OutputFile(str(out), "--json")

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match="No space left"):
        output.write(b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["out.json"]
    assert out.read_text() == "kept"


# The terminal


def test_what_files_are_called_does_not_reach_the_terminal(tmp_path: Path) -> None:
    path = tmp_path / "a\x1b]0;owned\x07.h5"
    with h5py.File(path, "w") as file:
        file["X\x1b[31m"], file["y\x9b"] = np.eye(3), np.arange(3.0)
    for options in ((), ("--x", "X\x1b[31m", "--y", "y\x9b"), ("--y", "z\x1b[2J")):
        result = run("solve", path, *options)
        assert "\\x1b" in result.output
        assert not {"\x1b", "\x9b", "\x07"} & set(result.output)


def test_line_breaks_in_names_of_columns(tmp_path: Path) -> None:
    path = tmp_path / "sheet.csv"
    path.write_text('"height\n(cm)","weight, kg","say ""y""",y\n1,2,3,3\n2,1,5,4\n5,5,1,9\n1,0,0,1\n')
    result = run("solve", path)
    assert result.exit_code == 0, result.output
    assert "Traceback" not in result.output
    result = run("solve", path, "--x", '"height\n(cm)","weight, kg"')
    assert result.exit_code == 0, result.output


def test_a_screen_gives_the_standard_output_to_json() -> None:
    assert Screen.of(False, StandardOutput()).json
    assert not Screen.of(True, None).json


# Interrupts and memory


def test_an_interrupt_while_importing_is_one_line(table: Path, tmp_path: Path) -> None:
    # A module in the place of torch that says when it is being imported, and then takes its time.
    slow = tmp_path / "slow"
    slow.mkdir()
    started = tmp_path / "started"
    (slow / "torch.py").write_text(f"import pathlib, time\npathlib.Path({str(started)!r}).touch()\ntime.sleep(60)\n")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(slow), *filter(None, sys.path)])}
    process = subprocess.Popen(
        [*PROGRAM, "solve", str(table)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
    while not started.exists() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    out, error = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert error.strip().splitlines()[-1] == "interrupted"
    assert "Traceback" not in error


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes")])
def test_memory_that_runs_out_is_one_line(error: Exception, table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from closedform.files import discovery

    def run_out(*args: object, **options: object) -> None:
        raise error

    monkeypatch.setattr(discovery, "discover", run_out)
    result = run("solve", table)
    assert (result.exit_code, len(result.stderr.splitlines())) == (2, 1)
    assert "GB are left" in result.stderr


def test_several_files_are_one_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((36, 3)), rng.standard_normal(36)
    for i in range(12):
        np.save(f"emb_{i}.npy", X[3 * i : 3 * i + 3])
    np.save("y.npy", y)
    expected = np.linalg.lstsq(X, y, rcond=None)[1][0] / 36
    names = sorted(path.name for path in Path().glob("emb_*.npy"))
    for files in (["emb_*.npy"], names):
        result = run("solve", *files, "--y", "y.npy", "--json", "-")
        assert result.exit_code == 0, result.output
        data = json.loads(result.stdout)
        np.testing.assert_allclose(data["certificate"]["loss"], expected, rtol=1e-12)
        assert "12 files, read in this order: emb_0.npy, emb_1.npy, ..., emb_11.npy" in " ".join(data["notes"])
    result = run("solve", "emb_*.npy", "--y", "y.npy", "--json", "emb_3.npy")
    assert "is the file that is read" in result.stderr
