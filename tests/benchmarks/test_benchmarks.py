"""The benchmark's own claims: its truths are exact, its judge is right, its workers measure. No time is asserted."""

from __future__ import annotations

import doctest
import json
import math
import sys
from collections.abc import Iterator
from fractions import Fraction
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("threadpoolctl", reason="threadpoolctl is not installed; scikit-learn brings it")
BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import measure as measuring  # noqa: E402
import peers as contenders  # noqa: E402
import record as records  # noqa: E402
import show  # noqa: E402
from bars import bars, exponent  # noqa: E402
from judge import Judge  # noqa: E402
from machine import MEASURES, Speed, floor  # noqa: E402
from measure import Settings, measure  # noqa: E402
from page import write_page  # noqa: E402
from peers import PEERS, Peer  # noqa: E402
from problems import FULL, QUICK, SWEEPS, SWEEPS_QUICK, Data, Problem  # noqa: E402
from worker import Failure, Run, Table, Worker  # noqa: E402

import fresh  # noqa: E402
from oracle import minimise  # noqa: E402

F32 = torch.float32
SMALL = [
    Problem(60, 4, 2),
    Problem(60, 4, 2, 1e6),
    Problem(400, 20, 1, dtype=F32),
    Problem(400, 20, 1, 1e6, dtype=F32),
    Problem(12, 12, 2, kind="square"),
    Problem(12, 12, 1, 1e9, kind="kernel"),
    Problem(6, 20, 2, kind="wide"),
    Problem(40, 6, 2, kind="deficient"),
]
BY_NAME = {problem.name: problem for problem in SMALL}


def exact(values: torch.Tensor) -> Any:
    return np.array([[Fraction(v) for v in row] for row in values.double().tolist()], dtype=object)


@pytest.mark.parametrize("name", BY_NAME)
def test_the_truth_is_the_minimiser_in_exact_arithmetic(name: str) -> None:
    data = BY_NAME[name].make()
    X, Y, W = exact(data.X), exact(data.Y), exact(data.truth)
    assert not (X.T @ (Y - X @ W)).any()
    assert data.X.dtype == data.Y.dtype == BY_NAME[name].dtype
    assert bool((data.truth != 0).any(0).all())


@pytest.mark.parametrize("problem", [p for p in SMALL if p.kind in ("wide", "deficient")], ids=lambda p: p.kind)
def test_where_there_are_many_minimisers_the_truth_is_the_one_of_least_norm(problem: Problem) -> None:
    data = problem.make()
    found = minimise(data.X, data.Y)
    assert found.rank == problem.rank
    np.testing.assert_array_equal(found.weight.T, data.truth.numpy())


@pytest.mark.parametrize("dtype", [torch.float64, F32], ids=str)
def test_tall_problems_have_noise_and_the_condition_number_they_say(dtype: torch.dtype) -> None:
    data = Problem(2000, 100, 1, 1e6, dtype=dtype).make()
    values = torch.linalg.svdvals(data.X.double())
    assert float(values[0] / values[-1]) == pytest.approx(1e6, rel=0.5)
    residual = data.Y.double() - data.X.double() @ data.truth
    assert float(residual.norm() / data.Y.double().norm()) == pytest.approx(0.1, rel=0.1)


def test_data_are_seeded_and_shapes_that_do_not_fit_are_refused() -> None:
    problem = Problem(60, 4, 2)
    assert torch.equal(problem.make().X, problem.make().X)
    assert not torch.equal(problem.make().X, problem.make(seed=1).X)
    for rows in (61, 6):
        with pytest.raises(ValueError, match="come twice"):
            Problem(rows, 4, 1).make()


def test_every_problem_of_the_tables_can_be_made_smaller_and_names_are_unique() -> None:
    for table in (FULL, QUICK):
        assert len({problem.name for problem in table}) == len(table)
        for problem in table:
            Problem.make(problem.smaller(64 if problem.kind in ("wide", "deficient") else 256))
    for sweep in (*SWEEPS, *SWEEPS_QUICK):
        assert sweep.sizes == sorted(sweep.sizes)
        assert len(sweep.sizes) >= 5


def smallest_change(X: torch.Tensor, y: torch.Tensor, x: torch.Tensor) -> float:
    """The exact backward error of Walden, Karlson and Sun (1995), X and y weighted alike, relative."""
    norm, theta = float(X.norm()), float(X.norm() / y.norm())
    r = y - X @ x
    alpha = theta**2 / (1 + theta**2 * float(x @ x))
    phi = math.sqrt(alpha) * float(r.norm())
    projector = torch.eye(len(r), dtype=torch.float64) - torch.outer(r, r) / float(r @ r)
    return min(phi, float(torch.linalg.svdvals(torch.cat([X, phi * projector], 1))[-1])) / norm


@pytest.mark.parametrize("size", [1e-2, 1e-6, 1e-9])
@pytest.mark.parametrize("problem", [p for p in SMALL if p.dtype == torch.float64], ids=lambda p: p.name)
def test_the_judge_measures_the_backward_error(problem: Problem, size: float) -> None:
    data = problem.make()
    generator = torch.Generator().manual_seed(3)
    change = size * torch.randn(data.truth.shape, dtype=torch.float64, generator=generator)
    verdict = Judge(problem, data)(data.truth + change)
    expected = max(
        smallest_change(data.X, data.Y[:, j], (data.truth + change)[:, j]) for j in range(data.truth.shape[1])
    )
    if expected > 1e-13:  # below, the dense formula itself is rounding
        assert verdict.backward_error == pytest.approx(expected, rel=0.5)
    assert verdict.weight_error == pytest.approx(float((change.norm(dim=0) / data.truth.norm(dim=0)).max()), rel=1e-6)


@pytest.mark.parametrize("name", BY_NAME)
def test_the_judge_accepts_the_truth_and_a_good_solver_and_nothing_else(name: str) -> None:
    problem = BY_NAME[name]
    data = problem.make()
    judge = Judge(problem, data)
    assert (judge(data.truth).word, judge(data.truth).backward_error, judge(data.truth).weight_error) == ("ok", 0, 0)
    solved = np.linalg.lstsq(data.X.double().numpy(), data.Y.double().numpy(), rcond=1e-13)[0]
    assert judge(solved).word == "ok"
    assert judge(data.truth * 1.001).word == "wrong"
    assert judge(data.truth * math.nan).word == "wrong"


@pytest.mark.parametrize("problem", [p for p in SMALL if p.kind in ("wide", "deficient")], ids=lambda p: p.kind)
def test_another_minimiser_is_called_so(problem: Problem) -> None:
    data = problem.make()
    null = torch.linalg.svd(data.X, full_matrices=True)[2][-1:].T
    assert Judge(problem, data)(data.truth + null * data.truth.norm()).word == "another minimiser"


def test_the_floor_is_the_larger_of_reading_and_computing() -> None:
    fast_memory, slow_memory = Speed(1e-3, 1e11, 2e11), Speed(10.0, 1e11, 2e11)
    tall = Problem(100_000, 200, 1)
    assert floor(tall, slow_memory).seconds == 10.0
    assert floor(tall, fast_memory).seconds == pytest.approx(100_000 * 200**2 / 2e11 + 4 * 100_000 * 200 / 1e11)
    ill = floor(Problem(100_000, 200, 1, 1e6), fast_memory)
    assert ill.seconds == pytest.approx(100_000 * 200**2 / 1e11 + 4 * 100_000 * 200 / 1e11)
    assert "double" in ill.factor
    assert floor(Problem(900, 900, 1, kind="square"), fast_memory).factor == "elimination in single precision"


def test_exponents_are_fitted_to_the_larger_half() -> None:
    sizes = [10.0, 20.0, 40.0, 80.0, 160.0]
    assert exponent(sizes, [5.0, 5.0, *(3 * size**1.7 for size in sizes[2:])]) == pytest.approx(1.7)
    with pytest.raises(ValueError, match="at least three"):
        exponent([1.0, 2.0], [1.0, 2.0])


@pytest.fixture
def table(tmp_path: Path) -> tuple[Table, Data]:
    data = Problem(20_000, 20, 1).make()
    return Table.write(data, str(tmp_path)), data


@pytest.fixture
def worker(table: tuple[Table, Data]) -> Iterator[Worker]:
    started = Worker({"all": table[0]}, threads=1)
    yield started
    started.close()


def test_a_table_is_what_was_written_and_writing_into_it_reaches_nobody(table: tuple[Table, Data]) -> None:
    written, data = table
    X, Y = written.open()
    assert torch.equal(X, data.X)
    assert torch.equal(Y, data.Y)
    X.zero_()
    assert torch.equal(written.open()[0], data.X)


def test_a_worker_times_a_method_and_measures_its_memory(worker: Worker, table: tuple[Table, Data]) -> None:
    data = table[1]
    run = worker.run("numpy lstsq", "all", 100.0)
    assert isinstance(run, Run)
    assert Judge(Problem(20_000, 20, 1), data)(run.answer).word == "ok"
    assert run.seconds > 0
    if sys.platform.startswith("linux"):
        # LAPACK overwrites its matrix, so NumPy hands it a copy; and there is no need for ten.
        assert run.memory is not None
        size = data.X.numel() * 8
        assert 0.9 * size < run.memory < 10 * size + 50e6
    assert all(pool["num_threads"] == 1 for pool in worker.pools())


def test_a_worker_reports_failures_and_is_stopped_when_it_takes_too_long(worker: Worker) -> None:
    unknown = worker.run("no such method", "all", 100.0)
    assert isinstance(unknown, Failure)
    assert "no such method" in unknown.reason
    assert worker.run("numpy lstsq", "all", 0.0) == Failure("stopped after 0 s")
    assert isinstance(worker.run("numpy lstsq", "all", 1.0), Failure)


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
@pytest.mark.parametrize("targets", [1, 3])
def test_every_peer_that_is_installed_solves_an_easy_problem(peer: Peer, targets: int) -> None:
    if not peer.installed:
        pytest.skip(f"{peer.install} is not installed")
    if peer.package == "lineax":
        pytest.skip("JAX's threads do not stand the forks of later tests; it has a test of its own")
    problem = Problem(200, 5, targets)
    data = problem.make()
    answer = peer.bind(data.X, data.Y)()
    error = Judge(problem, data)(answer).weight_error
    assert error < (1e-2 if "lsqr" in peer.name else 1e-10)  # lsqr stops at its own tolerance of 1e-4


@pytest.mark.skipif(find_spec("lineax") is None, reason="lineax is not installed")
def test_lineax_solves_in_a_process_of_its_own(worker: Worker, table: tuple[Table, Data]) -> None:
    run = worker.run("lineax QR", "all", 100.0)
    assert isinstance(run, Run)
    assert Judge(Problem(20_000, 20, 1), table[1])(run.answer).weight_error < 1e-12


@pytest.fixture(scope="module")
def record() -> dict[str, Any]:
    names = ("closedform", "numpy lstsq", "torch gels", "torch gelsy")
    return measure(Problem(200, 6, 2, bars=(4.0, 2.0)), Settings(threads=1, repeats=2, pause=0.0, only=names))


def test_a_measurement_holds_every_peer_and_is_plain_json(record: dict[str, Any]) -> None:
    assert [row["peer"] for row in record["results"]] == ["closedform", "numpy lstsq", "torch gels", "torch gelsy"]
    assert all(row["verdict"] == "ok" and len(row["runs"]) == 2 for row in record["results"])
    assert record["results"][0]["ratio"] == 1
    assert record["closedform"]["certificate"]["accepted"]
    assert json.loads(json.dumps(record))["floor"]["seconds"] > 0
    assert set(record["machine"]) == {"read_seconds", "dgemm", "sgemm"}
    assert len(MEASURES) == 6


@pytest.fixture
def measured_briefly(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine is measured in one way where there are two."""
    monkeypatch.setattr(measuring, "MEASURES", [name for name in MEASURES if name.endswith(("sum", ": torch"))])


@pytest.mark.usefixtures("measured_briefly")
def test_peers_without_an_answer_are_named_with_the_reason() -> None:
    deficient = Problem(40, 6, 1, kind="deficient")
    found = measure(deficient, Settings(threads=1, repeats=1, pause=0.0, only=("closedform", "torch gels")))
    assert found["results"][1] == {
        "peer": "torch gels",
        "version": version("torch"),
        "not_run": "assumes independent columns",
    }


@pytest.mark.usefixtures("measured_briefly")
def test_peers_that_would_take_too_long_are_named_with_the_prediction(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "_PREDICT_FROM", 1.0)
    settings = Settings(threads=1, repeats=1, pause=0.0, only=("closedform", "numpy lstsq"), patience=20.0)
    monkeypatch.setattr(measuring, "_predict", lambda peer, *_: 400.0 if peer.name == "numpy lstsq" else 1e-4)
    found = measure(Problem(200, 6, 1), settings)
    assert found["results"][1]["not_run"] == "predicted to take 400 s"
    assert found["results"][1]["predicted_seconds"] == 400.0


def test_peers_that_are_not_installed_are_named_with_how_to_install_them(monkeypatch: pytest.MonkeyPatch) -> None:
    peer = Peer("nobody", "no_such_package", "no-such-package", PEERS[0].bind)
    monkeypatch.setattr(contenders, "PEERS", (*PEERS, peer))
    assert {"peer": "nobody", "install": "pip install 'no-such-package'"} in measuring.missing()


def test_bars_compare_with_right_answers_only(record: dict[str, Any]) -> None:
    changed = json.loads(json.dumps(record))
    rows = {row["peer"]: row for row in changed["results"]}
    rows["torch gels"] |= {"ratio": 0.1, "verdict": "wrong"}
    rows["torch gelsy"]["ratio"] = 2.5
    found = {bar["bar"]: bar for bar in bars([changed], [])}
    assert found["torch's best driver"]["met"] is True
    assert found["torch's best driver"]["measured"] == "2.5x (torch gelsy)"
    assert found["scikit-learn LinearRegression"]["met"] is None
    assert found["certified, and right by the exact answer"]["met"] is True
    rows["closedform"]["verdict"] = "wrong"
    rows["torch gelsy"]["ratio"] = 1.9
    found = {bar["bar"]: bar for bar in bars([changed], [])}
    assert found["torch's best driver"]["met"] is False
    assert found["certified, and right by the exact answer"]["met"] is False


def test_a_record_names_every_processor_it_was_measured_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "record.json"
    for processor in ("one", "another", "one"):
        monkeypatch.setattr(records, "processor_name", lambda processor=processor: processor)
        records.write(file, [], 2, resumed=True)
    assert json.loads(file.read_text(encoding="utf-8"))["processor"] == "one, some rows another"


def test_the_numbers_of_the_tables() -> None:
    results = doctest.testmod(show)
    assert results.attempted == 3
    assert results.failed == 0


def test_the_page_holds_every_peer_problem_and_what_is_missing(record: dict[str, Any], tmp_path: Path) -> None:
    pytest.importorskip("jinja2")
    sweep = {
        "along": "rows",
        "title": "6 columns, 1 target",
        "sizes": [100, 1000, 10_000],
        "seconds": {"closedform": [1e-3, 1e-2, 1e-1], "torch gels": [1e-3, 2e-2, None]},
        "floor": [1e-5, 1e-4, 1e-3],
        "exponents": {"closedform": 1.0, "machine's floor": 1.0},
    }
    whole = {
        "date": "2020-01-01",
        "processor": "<fast>",
        "threads": 1,
        "quick": True,
        "pause": 0.0,
        "one_process": False,
        "seconds": 1.0,
        "missing": [{"peer": "nobody", "install": "pip install 'nothing'"}],
        "left_out": ["a large one"],
        "results": [record],
        "sweeps": [sweep],
        "bars": bars([record], [sweep]),
    }
    write_page(tmp_path / "page.html", whole)
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    for text in ("torch gelsy", record["problem"], "nobody", "a large one", "rows^1.00", "&lt;fast&gt;", "not met"):
        assert text in page
    assert "<fast>" not in page
    assert "src=" not in page
    shown = page.split('id="data">')[1].split("</script>")[0]
    assert json.loads(shown) == json.loads(json.dumps(whole))


#: The benchmark as a command.
SPEED = f"import sys; sys.path.insert(0, {str(BENCHMARKS)!r}); import speed; speed.main()"


def test_the_command_prints_its_tables_writes_its_files_and_goes_on_from_them(tmp_path: Path) -> None:
    pytest.importorskip("jinja2")
    file, page = tmp_path / "out" / "b.json", tmp_path / "out" / "b.html"
    choice = ["--quick", "--only", "50x5, 1", "--no-sweeps", "--repeats", "1", "--pause", "0", "--json", str(file)]

    def run(*more: str) -> fresh.Run:
        return fresh.run(SPEED, *choice, "--peers", "closedform,numpy lstsq", *more)

    # There is nothing yet to go on from, and then nothing left to do.
    first = run("--threads", "1", "--resume", "--page", str(page))
    assert first.returncode == 0, first.stderr
    for part in ("50x5, 1", "numpy lstsq", "fixed cost"):
        assert part in first.stdout
    before = json.loads(file.read_text(encoding="utf-8"))
    assert [row["peer"] for row in before["results"][0]["results"]] == ["closedform", "numpy lstsq"]
    assert page.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")

    again = run("--threads", "1", "--resume")
    assert again.returncode == 0, again.stderr
    assert json.loads(file.read_text(encoding="utf-8"))["seconds"] > before["seconds"]
    other = run("--threads", "2", "--resume")
    assert other.returncode != 0
    assert "another threads" in other.stderr
    assert json.loads(file.read_text(encoding="utf-8"))["results"] == before["results"]
