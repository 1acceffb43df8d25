"""The command line: exit status, one line per error, files whole or not at all."""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner, Result

import fresh
from closedform.cli.app import app
from closedform.comparison.entry import OPTIMIZERS, compare
from closedform.files.example import kernel_example
from closedform.report.terminal import print_document

runner = CliRunner()


def run(*args: object) -> Result:
    return runner.invoke(app, [str(arg) for arg in args])


@pytest.fixture
def table(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((40, 3))
    path = tmp_path / "data.npz"
    weight = np.array([1.0, -2.0, 0.5])
    np.savez(path, X_train=X[:30], y_train=X[:30] @ weight + 4, X_test=X[30:], y_test=X[30:] @ weight + 4)
    return path


def test_compare_finds_keys_prints_and_writes(table: Path, tmp_path: Path) -> None:
    out, plot, html = tmp_path / "out.json", tmp_path / "loss.png", tmp_path / "page.html"
    options = ["--bias", "--budget", "0.6", "--json", out, "--plot", plot, "--html", html]
    result = run("compare", table, *options)
    assert result.exit_code == 0, result.output
    assert "X_train" in result.stderr
    assert result.stdout.lstrip().startswith("Condition ")
    data = json.loads(out.read_text())
    assert {"condition", "rank", "learning_rate_limit", "methods"} <= data.keys()
    rows = {row["name"]: row for row in data["methods"]}
    assert set(rows) >= {"closed form", *OPTIMIZERS}
    assert rows["closed form"]["test_mae"] < 1e-13
    assert all(name in result.stdout for name in rows)
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert "<svg" in html.read_text()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data.npz", "loss.png", "out.json", "page.html"]


@pytest.mark.parametrize("width", ["80", "120"])
def test_compare_fits_the_screen(table: Path, width: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", width)
    result = run("compare", table, "--budget", "0.3")
    assert result.exit_code == 0
    assert max(map(len, result.stdout.splitlines())) <= int(width)
    assert "…" not in result.stdout
    assert "\x1b" not in result.stdout


def test_compare_takes_names_keys_and_seed(table: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    result = run(
        *("compare", f"{table}::X_train", "--y", f"{table}::y_train", "--seed", 3, "--budget", 0.2),
        *("--optimizers", "sgd, lbfgs strong wolfe", "--json", out),
    )
    assert result.exit_code == 0, result.output
    names = [row["name"] for row in json.loads(out.read_text())["methods"]]
    assert names[:3] == ["closed form", "sgd", "lbfgs strong wolfe"]


@pytest.mark.parametrize("bias", [True, False])
def test_solve_writes_a_layer(table: Path, tmp_path: Path, bias: bool) -> None:
    safetensors = pytest.importorskip("safetensors.torch")
    out, info = tmp_path / "layer.safetensors", tmp_path / "info.json"
    result = run("solve", table, "--out", out, "--json", info, "--bias" if bias else "--no-bias")
    assert result.exit_code == 0, result.output
    assert "certified" in result.stdout
    layer = torch.nn.Linear(3, 1, bias=bias, dtype=torch.float64)
    layer.load_state_dict(safetensors.load_file(out))
    if bias:
        torch.testing.assert_close(layer.weight.detach(), torch.tensor([[1.0, -2.0, 0.5]], dtype=torch.float64))
        torch.testing.assert_close(layer.bias.detach(), torch.tensor([4.0], dtype=torch.float64))
    assert {"outcome", "certificate", "plan", "attempts"} <= json.loads(info.read_text()).keys()


def test_solve_ridge_agrees_with_the_normal_equations(table: Path, tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.torch")
    out = tmp_path / "layer.safetensors"
    assert run("solve", table, "--out", out, "--l2", 2.5).exit_code == 0
    with np.load(table) as data:
        X, y = data["X_train"], data["y_train"]
    expected = np.linalg.solve(X.T @ X + 2.5 * np.eye(3), X.T @ y)
    np.testing.assert_allclose(safetensors.load_file(out)["weight"][0].numpy(), expected, rtol=1e-12)


@pytest.fixture(scope="module")
def kernel_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A kernel between 40 points, one from 10 others to them, and targets."""
    points = np.random.default_rng(3).uniform(-1, 1, (50, 2))
    K = np.exp(-((points[:, None] - points[None]) ** 2).sum(2) / 0.1)
    y = np.sin(3 * points[:, 0])
    file = tmp_path_factory.mktemp("kernel") / "kernel.npz"
    np.savez(file, X_train=K[:40, :40], y_train=y[:40], X_test=K[40:, :40], y_test=y[40:])
    return file


def test_solve_kernel_is_kernel_ridge(kernel_file: Path, tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.torch")
    kernel_ridge = pytest.importorskip("sklearn.kernel_ridge")
    out, info = tmp_path / "layer.safetensors", tmp_path / "info.json"
    result = run("solve", kernel_file, "--kernel", "--l2", 0.1, "--out", out, "--json", info)
    assert result.exit_code == 0, result.output
    with np.load(kernel_file) as data:
        peer = kernel_ridge.KernelRidge(alpha=0.1, kernel="precomputed").fit(data["X_train"], data["y_train"])
        error = float(np.mean((peer.predict(data["X_test"]) - data["y_test"]) ** 2))
    np.testing.assert_allclose(safetensors.load_file(out)["weight"][0].numpy(), peer.dual_coef_, rtol=1e-9)
    written = json.loads(info.read_text())
    assert written["options"]["kernel"] is True
    assert written["test"]["mse"] == pytest.approx(error, rel=1e-9)


def test_what_to_do_is_said_in_options(kernel_file: Path, tmp_path: Path) -> None:
    said = " ".join(run("solve", kernel_file, "--l2", 0.1).stdout.split())
    assert "kernel ridge, with the penalty l2 * a'Ka, is --kernel" in said
    refused = run("solve", kernel_file, "--kernel", "--bias")
    assert refused.exit_code == 2
    assert refused.stderr.splitlines()[-1].startswith("error: --kernel has no bias")

    rng = np.random.default_rng(0)
    X = rng.standard_normal((60, 2))
    np.savez(tmp_path / "offset.npz", X=X, y=X @ [1.0, 2.0] + 100)
    assert "(--bias)" in run("solve", tmp_path / "offset.npz").stdout
    np.savez(tmp_path / "labels.npz", X=X, y=rng.integers(0, 3, 60))
    assert "--criterion cross-entropy" in run("solve", tmp_path / "labels.npz").stdout
    for name in ("offset", "labels"):
        assert "=True" not in run("solve", tmp_path / f"{name}.npz").stdout


def errors(tmp_path: Path, table: Path) -> dict[str, tuple[list[object], str]]:
    folder = tmp_path / "folder.json"
    folder.mkdir()
    nan = tmp_path / "nan.npz"
    np.savez(nan, X=np.array([[1.0, 2.0], [3.0, np.nan], [0.0, 1.0]]), y=np.ones(3))
    pickle = tmp_path / "pickle.npy"
    np.save(pickle, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    broken = tmp_path / "broken.h5"
    broken.write_bytes(b"\x89HDF\r\n\x1a\n truncated")
    out = tmp_path / "never.safetensors"
    compare = ["compare", table, "--budget", 0.1]
    return {
        "missing file": (["compare", tmp_path / "no.h5"], "no.h5"),
        "directory": (["compare", tmp_path], str(tmp_path)),
        "truncated": (["compare", broken], "broken.h5"),
        "pickle": (["compare", f"{table}::X_train", "--y", pickle], "pickle"),
        "wrong key": ([*compare, "--y", "nope"], "nope"),
        "two features": (["compare", f"{table}::X_train", "--x", "X_train"], "twice"),
        "nan": (["compare", nan], "nan"),
        "unknown optimizer": ([*compare, "--optimizers", "sdg"], "unknown optimizer 'sdg'"),
        "budget": (["compare", table, "--budget", -1], "budget is -1.0"),
        "no number": (["compare", table, "--budget", "soon"], "--budget"),
        "no such option": ([*compare, "--fast"], "--fast"),
        "no such command": (["compute"], "compute"),
        "no file": (["compare"], "FILE"),
        "no folder": ([*compare, "--json", tmp_path / "no" / "out.json"], "there is no folder"),
        "output is a folder": ([*compare, "--json", folder], "this is a folder"),
        "suffix": ([*compare, "--plot", tmp_path / "loss.gif"], "use .png, .svg, .pdf"),
        "html suffix": ([*compare, "--html", tmp_path / "loss.txt"], "use .html"),
        "device": ([*compare, "--json", os.devnull], "not a regular file"),
        "solve suffix": (["solve", table, "--out", tmp_path / "layer.pt"], "use .safetensors"),
        "negative l2": (["solve", table, "--out", out, "--l2", -1], "l2"),
        "solve missing file": (["solve", tmp_path / "no.h5", "--out", out], "no.h5"),
        "criterion": (["solve", table, "--criterion", "l3"], "error: --criterion l3 is not known; use one of"),
        "quantile": (["diagnose", table, "--criterion", "quantile:2"], "--criterion quantile:2: a quantile is a"),
        "digits": (["solve", table, "--digits", 99], "error: --digits 99: a whole number from 1 to 15"),
        "digits of l1": (
            ["solve", table, "--digits", 3, "--criterion", "l1"],
            "error: --digits is for squared error; leave it out with --criterion.",
        ),
        "no memory": (["solve", table, "--memory", "0"], "0 is no size of memory"),
    }


@pytest.mark.parametrize(
    "case",
    [
        *("missing file", "directory", "truncated", "pickle", "wrong key", "two features", "nan"),
        *("unknown optimizer", "budget", "no number", "no such option", "no such command", "no file", "no folder"),
        *("output is a folder", "suffix", "html suffix", "device", "solve suffix"),
        *("negative l2", "solve missing file", "criterion", "quantile", "digits", "digits of l1", "no memory"),
    ],
)
def test_an_error_is_one_line_and_status_two(case: str, tmp_path: Path, table: Path) -> None:
    args, message = errors(tmp_path, table)[case]
    before = sorted(tmp_path.iterdir())
    result = run(*args)
    assert result.exit_code == 2, result.output
    lines = result.stderr.strip().splitlines()
    assert lines[-1].startswith("error: ")
    assert sum(line.startswith("error: ") for line in lines) == 1
    assert message in lines[-1]
    assert "Traceback" not in result.output
    assert not result.stdout
    assert sorted(tmp_path.iterdir()) == before


def test_an_existing_output_survives_an_error(table: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    out.write_text("kept")
    assert run("compare", table, "--y", "nope", "--json", out).exit_code == 2
    assert out.read_text() == "kept"


def test_features_that_are_a_single_column_are_told_as_options(table: Path) -> None:
    swapped = run("solve", table, "--x", "y_train", "--y", "X_train")
    assert swapped.exit_code == 2
    assert "exchange --x and --y if they were mixed up" in swapped.stderr
    alone = run("solve", table, "--x", "y_train", "--y", "y_train")
    assert "save a single one as a column, of shape (30, 1)" in alone.stderr
    assert "reshape" not in swapped.stderr + alone.stderr
    same = run("diagnose", table, "--x", "X_train", "--y", "X_train")
    assert "The targets are the features themselves" in same.stderr


def test_not_certified_is_status_one(table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    from closedform.comparison import direct
    from closedform.fit.orchestrator import solve, solve_rows
    from closedform.words.outcome import Outcome

    def refuse(*args: object, **options: object) -> object:
        return replace(solve(*args, **options), outcome=Outcome.NOT_CERTIFIED)  # type: ignore[arg-type]

    def refuse_rows(*args: object, **options: object) -> object:
        return replace(solve_rows(*args, **options), outcome=Outcome.NOT_CERTIFIED)  # type: ignore[arg-type]

    monkeypatch.setattr(direct, "solve_rows", refuse_rows)
    monkeypatch.setattr(sys.modules["closedform.fit.orchestrator"], "solve", refuse)
    result = run("compare", table, "--optimizers", "sgd", "--budget", 0.1)
    assert result.exit_code == 1
    assert "not certified" in result.stdout
    assert run("solve", table, "--out", tmp_path / "layer.safetensors").exit_code == 1


def test_an_interrupt_prints_the_table_and_exits_130(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from closedform.words.progress import Progress

    def press(self: Progress, label: str, part: float) -> None:
        if label == "momentum":
            raise KeyboardInterrupt

    monkeypatch.setattr(Progress, "__call__", press)
    result = run("compare", table, "--budget", 0.6)
    assert result.exit_code == 130
    assert "interrupted; lr" in result.stdout
    assert "nesterov" not in result.stdout
    assert "interrupted" in result.stderr


def test_an_interrupt_before_there_is_anything_exits_130(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from closedform.files import discovery

    def press(*args: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(discovery, "discover", press)
    result = run("compare", table)
    assert result.exit_code == 130
    assert result.stderr.strip() == "interrupted"


def test_a_missing_extra_is_named(table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    found = importlib.util.find_spec
    gone = ("matplotlib", "sklearn", "jinja2")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name in gone else found(name, *rest))
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    for option, name in (("--plot", "loss.png"), ("--html", "page.html")):
        result = run("compare", table, "--budget", 0.1, option, tmp_path / name)
        assert (result.exit_code, result.stderr.count("closedform[report]")) == (2, 1)
        assert not result.stdout
    result = run("demo", "--budget", 0.1)
    assert (result.exit_code, result.stderr.count("closedform[sklearn]")) == (2, 1)
    result = run("compare", table, "--budget", 0.1, "--optimizers", "sgd")
    assert result.exit_code == 0
    assert "sklearn" not in result.stdout


def test_demo_tells_the_story() -> None:
    pytest.importorskip("sklearn")
    result = run("demo", "--budget", 1.5)
    assert result.exit_code == 0, result.output
    assert "Of the 7 optimizers only rls came that close." in " ".join(result.stdout.split())
    assert "import closedform as cf" in result.stdout
    example = kernel_example()
    assert 1e6 < float(torch.linalg.cond(example.X)) < 1e9
    assert torch.equal(example.X, kernel_example().X)


def test_version_and_help() -> None:
    result = run("--version")
    assert result.exit_code == 0
    assert result.stdout.startswith("closedform ")
    assert run("--help").exit_code == 0
    text = " ".join(run("compare", "--help").output.replace("│", " ").split())
    assert f"Out of {', '.join(OPTIMIZERS)}, separated by commas" in text
    nothing = run()
    assert nothing.exit_code == 2
    assert "compare" in nothing.output


def test_as_a_process_importing_closedform_loads_nothing_heavy(table: Path) -> None:
    code = (
        "import sys, closedform.comparison.entry\n"
        "heavy = {'typer', 'rich', 'matplotlib', 'sklearn', 'h5py', 'pandas'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "from closedform.cli import main\n"
        "main()"
    )
    done = fresh.run(code, "compare", table, "--budget", "0.2", "--optimizers", "sgd")
    assert done.returncode == 0, done.stderr
    assert "closed form" in done.stdout
    failed = fresh.run(code, "compare", "nowhere.h5")
    assert failed.returncode == 2
    assert failed.stderr.startswith("error: ")
    assert "Traceback" not in failed.stderr


def test_an_input_is_never_overwritten(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    path = tmp_path / "xy.safetensors"
    save_file({"X": torch.randn(20, 3), "y": torch.randn(20)}, path)
    before = path.read_bytes()
    result = run("solve", str(path), "--out", str(path))
    assert result.exit_code == 2
    assert "is the file that is read" in result.output
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["solve", "xy.safetensors", "--out", "sub/../xy.safetensors"], "is the file that is read"),
        (["solve", "xy.safetensors", "--out", "link.safetensors"], "is the file that is read"),
        (
            ["solve", "xy.safetensors::X", "--out", "w.safetensors", "--json", "xy.safetensors"],
            "is the file that is read",
        ),
        (
            ["solve", "xy.safetensors", "--y", "y.npy", "--out", "w.safetensors", "--json", "y.npy"],
            "is the file that is",
        ),
        (["solve", "xy.safetensors", "--out", "s.safetensors", "--json", "s.safetensors"], "is the file of --out"),
        (["compare", "xy.safetensors", "--json", "xy.safetensors"], "is the file that is read"),
        (["compare", "xy.safetensors", "--plot", "p.png", "--json", "p.png"], "is the file of --plot"),
        (["diagnose", "xy.safetensors", "--json", "xy.safetensors"], "is the file that is read"),
    ],
)
def test_two_files_of_a_command_are_never_one(
    args: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_file = pytest.importorskip("safetensors.torch").save_file
    monkeypatch.chdir(tmp_path)
    save_file({"X": torch.randn(20, 3), "y": torch.randn(20)}, "xy.safetensors")
    np.save("y.npy", np.ones(20))
    Path("sub").mkdir()
    Path("link.safetensors").symlink_to("xy.safetensors")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    result = run(*args)
    assert (result.exit_code, len(result.stderr.splitlines())) == (2, 1)
    assert message in result.stderr
    assert not result.stdout
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["solve", "data.npz", "--out", "loop.safetensors"], "--out loop.safetensors: this path cannot be used"),
        (["solve", "data.npz", "--out", "a" * 300 + ".safetensors"], "File name too long"),
        (["solve", "a" * 300 + ".npz", "--out", "w.safetensors"], "File name too long"),
        (["solve", "loop.safetensors", "--out", "w.safetensors"], "symbolic links"),
        (["solve", "pipe.npy", "--out", "w.safetensors"], "not a regular file"),
        (["compare", "data.npz", "--optimizers", ""], "--optimizers names none; choose from: sgd"),
        (["compare", "data.npz", "--optimizers", " , "], "--optimizers names none"),
        (["compare", "data.npz", "--seed", "99999999999999999999999"], "--seed"),
    ],
)
def test_odd_paths_and_values_fail_in_one_line(
    args: list[str], message: str, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(table.parent)
    Path("loop.safetensors").symlink_to("back.safetensors")
    Path("back.safetensors").symlink_to("loop.safetensors")
    os.mkfifo("pipe.npy")
    result = run(*args)
    assert (result.exit_code, len(result.stderr.splitlines())) == (2, 1)
    assert message in result.stderr
    assert not result.stdout


@pytest.mark.parametrize(
    "args", [["solve", "--out"], ["compare", "--optimizers", "sgd", "--budget", "0.1", "--json"], ["--help"]]
)
def test_a_full_disk_behind_stdout_is_one_line(args: list[str], table: Path) -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("needs /dev/full")
    if args != ["--help"]:
        args = [args[0], str(table), *args[1:], str(table.parent / "w.safetensors")]
    done = fresh.run("from closedform.cli import main; main()", *args, stdout="/dev/full")
    assert done.returncode == 2
    # Torch before 2.7 warns of a folder of its own at the end.
    said = [line for line in done.stderr.splitlines() if "ResourceWarning" not in line]
    assert said[-1] == "error: writing to the standard output failed (No space left on device)."
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


@pytest.mark.parametrize(("stream", "status"), [("stdin", 0), ("stdout", 2), ("stderr", 0)])
def test_a_standard_stream_that_is_closed(stream: str, status: int) -> None:
    number = ("stdin", "stdout", "stderr").index(stream)
    code = f"import os, sys; os.close({number}); sys.{stream} = None; from closedform.cli import main; main()"
    done = fresh.run(code, "--version")
    assert done.returncode == status
    if status:
        assert done.stderr == "error: writing to the standard output failed (Bad file descriptor).\n"
    else:
        assert done.stdout.startswith("closedform ")


def test_numbers_are_whole_at_any_width_and_no_line_ends_in_blanks(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands = (
        ("compare", table, "--budget", "0.1", "--optimizers", "adam,lbfgs strong wolfe"),
        ("solve", table, "--out", tmp_path / "w.safetensors", "--bias"),
    )
    for width in (30, 40, 60, 79, 100, 130):
        monkeypatch.setenv("COLUMNS", str(width))
        for command in commands:
            result = run(*command)
            assert result.exit_code == 0
            assert "…" not in result.stdout
            lines = result.stdout.splitlines()
            assert max(map(len, lines)) <= width
            assert lines == [line.rstrip() for line in lines]
            assert result.stderr.splitlines() == [line.rstrip() for line in result.stderr.splitlines()]


@pytest.mark.parametrize("width", range(60, 84, 3))
def test_no_number_is_cut_where_names_of_two_words_just_fit(width: int) -> None:
    X = torch.randn(30, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    comparison = compare(X, X.sum(1), optimizers=("sgd", "lbfgs strong wolfe"), budget=0.1)
    text = io.StringIO()
    print_document(comparison.summary(), Console(file=text, width=width))
    assert "…" not in text.getvalue()


def test_a_narrow_screen_shows_every_number(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    lines = run("compare", table, "--budget", "0.1", "--optimizers", "sgd").stdout.splitlines()
    titles = [line.split("  ")[1] for line in lines[lines.index("sgd") + 1 : lines.index("sgd") + 7]]
    assert [title.strip() for title in titles] == ["seconds", "steps", "MSE", "excess", "weights", "test MAE"]


def test_solve_without_out_says_that_nothing_was_written(table: Path) -> None:
    result = run("solve", table)
    assert result.exit_code == 0
    assert "The weights were not written" in result.output
    assert "(" in run("solve", table, "--digits", 6).output
