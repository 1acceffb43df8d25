"""The report: whole, offline, escaped, and saying what the data say."""

from __future__ import annotations

import json
import math
import re
import sys
from dataclasses import replace
from functools import partial
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from typer.testing import CliRunner, Result

import fresh
from clocks import Ticking
from closedform.cli.app import app
from closedform.comparison import entry
from closedform.comparison.entry import compare
from closedform.explain.charts import MARKS, share_chart, singular_value_chart
from closedform.explain.diagnosis import Diagnosis
from closedform.explain.entry import diagnose
from closedform.explain.layout import diagnosis_page
from closedform.explain.records import DiagnosisRecord
from closedform.report import page as rendering
from closedform.report.charts import Scale
from closedform.report.notebook import render_cell
from closedform.report.page import render_page
from closedform.words.errors import MissingExtraError

EVIL = "<script>alert(1)</script>"
EVIL_AS_TEXT = "&lt;script&gt;alert(1)&lt;/script&gt;"


def problem(rows: int = 60, columns: int = 5, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    X = torch.randn(rows, columns, dtype=torch.float64, generator=generator)
    X = X * torch.logspace(0, -2, columns, dtype=torch.float64)
    return X, X @ torch.ones(columns, 1, dtype=torch.float64) + 0.1


def diagnosis(**options: Any) -> Diagnosis:
    X, Y = problem()
    model = nn.Linear(5, 1, dtype=torch.float64)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.5)
    return diagnose(X, Y, model=model, optimizer=optimizer, steps=200, **options)


def html(record: DiagnosisRecord) -> str:
    return render_page(diagnosis_page(record))


def framed(cell: str) -> str:
    """The page that a notebook's cell shows in its frame."""
    (match,) = re.findall(r'srcdoc="([^"]*)"', cell)
    return unescape(match)


class Reader(HTMLParser):
    """Collects the visible text, the tags that stay open, and every address a browser might fetch."""

    VOID = frozenset({"meta", "link", "input", "br", "line", "rect", "circle", "path", "hr"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.text, self.open, self.addresses, self.ids = "", list[str](), list[str](), list[str]()
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "xlink:href", "srcset", "action", "data") and value is not None:
                self.addresses.append(value)
            if name == "id" and value is not None:
                self.ids.append(value)
            assert not name.startswith("on"), f"{tag} has an inline handler {name}"

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"script", "style"} & set(self.open):
            self.text += f" {data}"


def embedded(page: str) -> dict[str, Any]:
    match = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)
    assert match is not None
    return json.loads(match[1])


def test_a_page_is_whole_well_formed_and_offline() -> None:
    page = html(diagnosis().record)
    reader = Reader(page)
    assert page.startswith("<!DOCTYPE html>")
    assert reader.open == []
    assert len(reader.ids) == len(set(reader.ids))
    local = [address for address in reader.addresses if address.startswith(("#", "data:"))]
    assert reader.addresses == local
    assert {address[1:] for address in local if address.startswith("#")} <= set(reader.ids)
    assert "://" not in page
    assert "@import" not in page
    assert "default-src 'none'" in page


def test_a_page_says_everything_and_holds_its_data() -> None:
    found = diagnosis(history=None)
    d, page = found.to_dict(), html(found.record)
    text = " ".join(Reader(page).text.split())
    sentences = [d["verdict"]["title"], d["verdict"]["sentence"], d["problem"]["text"], *d["notes"]]
    sentences += [finding[key] for finding in d["findings"] for key in ("title", "consequence", "remedy")]
    sentences += [entry[key] for entry in d["folklore"] for key in ("advice", "effect", "sentence")]
    sentences += [entry["name"] for entry in (*d["forecasts"], *d["limits"], *d["conditions"])]
    # A source tree that was not installed has no version.
    sentences += [d["code"], *(str(value) for value in d["environment"].values() if value is not None)]
    assert d["findings"]
    assert d["folklore"]
    for sentence in sentences:
        assert " ".join(sentence.split()) in text
    assert embedded(page)["diagnosis"] == json.loads(json.dumps(d))


def test_findings_keep_their_order_and_severity() -> None:
    d = diagnosis()
    names = re.findall(r'<article class="finding (\w+)" data-name="(\w+)">', html(d.record))
    assert names == [(finding.severity.value, finding.name) for finding in d.findings]


def test_what_a_user_named_is_text() -> None:
    X, Y = problem()
    X = torch.cat([X, X[:, :1] + 1e-9 * X[:, 1:2]], 1)
    record = diagnose(X, Y, feature_names=[EVIL, "b", "c", "d", "e", EVIL]).record
    assert EVIL in json.dumps(record.to_dict())
    first, *others = record.findings
    record = replace(
        record,
        notes=(EVIL,),
        code=EVIL,
        findings=(replace(first, evidence={EVIL: 1.0}), *others),
        forecasts=(replace(record.forecasts[0], name=f'"{EVIL}'), *record.forecasts[1:]),
        folklore=(replace(record.folklore[0], effect=f'"{EVIL}'), *record.folklore[1:]),
        limits=(replace(record.limits[0], name=f'"{EVIL}'), *record.limits[1:]),
    )
    page = html(record)
    assert EVIL not in page
    assert EVIL_AS_TEXT in page
    assert Reader(page).open == []
    assert EVIL in embedded(page)["diagnosis"]["notes"]
    cell = render_cell(diagnosis_page(record))
    assert "<script" not in cell
    assert framed(cell) == page


def test_characters_that_act_are_shown() -> None:
    record = replace(diagnosis().record, notes=("a\x1b[2Jb\u202ec\x00d", "two\nlines"), code="x = 1\n\x07y = 2")
    page = html(record)
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", page)
    assert r"a\x1b[2Jb\u202ec\x00d" in page
    assert "x = 1\n\\x07y = 2" in page


def test_a_cell_needs_no_script_of_the_notebook() -> None:
    d = diagnosis()
    cell = d._repr_html_()
    reader = Reader(cell)
    assert reader.open == []
    assert "<script" not in cell
    assert "<input" not in cell
    assert html(d.record) == framed(cell)
    assert d.verdict.title in Reader(framed(cell)).text
    assert "allow-top-navigation" not in cell


@pytest.mark.parametrize(
    "case", ["zero features", "zero targets", "one column", "one row", "wide", "unit condition", "many targets"]
)
def test_edges_are_rendered(case: str) -> None:
    X, Y = problem()
    X, Y = {
        "zero features": (0 * X, Y),
        "zero targets": (X, 0 * Y),
        "one column": (X[:, :1], Y),
        "one row": (X[:1], Y[:1]),
        "wide": (X[:3], Y[:3]),
        "unit condition": (torch.eye(4, dtype=torch.float64), Y[:4]),
        "many targets": (X, Y.expand(-1, 7).contiguous()),
    }[case]
    record = diagnose(X, Y).record
    page = html(record)
    assert Reader(page).open == []
    assert not re.search(r'(?:d|x1|y1|x|y)="[^"]*(nan|inf)', page)
    assert ('id="controls"' in page) == bool(record.simulation.eigenvalues)


def test_a_huge_spectrum_stays_small() -> None:
    record = diagnosis().record
    n = 20_000
    values = tuple(np.logspace(3, -9, n).tolist())
    shares = tuple((np.random.default_rng(0).random(n) / n).tolist())
    spectrum = replace(record.spectrum, singular_values=values, target_share=shares, remaining_share=shares, rank=n)
    simulation = replace(record.simulation, eigenvalues=values, start_excess=shares)
    page = html(replace(record, spectrum=spectrum, simulation=simulation))
    assert len(page.encode()) < 6e6
    chart = share_chart(spectrum)
    assert len(chart.series[0].x) <= MARKS
    # Marks stand for groups of neighbours and lose none of the share.
    for series in chart.series:
        assert math.isclose(sum(y for y in series.y if y is not None), sum(shares), rel_tol=1e-12)


def test_numbers_that_json_has_not_are_refused() -> None:
    document = replace(diagnosis().page(), data={"condition": math.inf})
    with pytest.raises(ValueError, match="JSON"):
        render_page(document)


def test_jinja_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    d = diagnosis()
    rendering._environment.cache_clear()
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(MissingExtraError, match=r"closedform\[report\]"):
        html(d.record)


def test_the_record_is_left_alone() -> None:
    d = diagnosis()
    before = json.dumps(d.to_dict())
    assert str(d)
    html(d.record)
    d._repr_html_()
    assert json.dumps(d.to_dict()) == before


def test_the_spectrum_is_drawn_where_the_numbers_are() -> None:
    record = diagnosis().record
    chart = singular_value_chart(record.spectrum)
    points = re.findall(r"M([\d.]+) ([\d.]+)h0", chart.path(chart.series[0]))
    assert len(points) == len(record.spectrum.singular_values)
    span = (chart.y.last - chart.y.first) / (chart.y.high - chart.y.low)
    for (_, y), value in zip(points, record.spectrum.singular_values, strict=True):
        assert float(y) == pytest.approx(chart.y.first + span * (math.log10(value) - chart.y.low), abs=0.02)


@given(
    low=st.floats(-300, 290),
    span=st.floats(0.1, 600),
    values=st.lists(st.floats(1e-320, 1e300), min_size=2, max_size=5),
    logarithmic=st.booleans(),
)
def test_a_scale_keeps_order_and_its_ticks(low: float, span: float, values: list[float], logarithmic: bool) -> None:
    scale = Scale(low, low + span, 10.0, 110.0, logarithmic)
    places = [scale.place(value) for value in sorted(values)]
    assert places == sorted(places)
    assert all(5 <= place <= 115 for place in places)
    assert scale.place(0.0) == 5.0 or not logarithmic
    ticks = scale.ticks()
    assert len(ticks) <= 9
    assert all(9.5 <= place <= 110.5 for place, _ in ticks)
    assert len({label for _, label in ticks}) == len(ticks)


def test_a_comparison_sets_measured_runs_on_their_forecast() -> None:
    X, Y = problem()
    comparison = compare(X, Y, bias=True, optimizers=("sgd", "adam"), budget=0.2)
    page = render_page(comparison.page())
    reader = Reader(page)
    assert reader.open == []
    assert "://" not in page
    assert len(reader.ids) == len(set(reader.ids))
    text = " ".join(reader.text.split())
    assert " ".join(comparison.sentence.split()) in text
    for method in comparison.methods:
        assert method.name in text
        assert method.stopped_because in text
    assert "sgd (measured)" in text
    assert embedded(page)["comparison"]["methods"][0]["name"] == "closed form"
    cell = comparison._repr_html_()
    assert "<script" not in cell
    assert Reader(cell).open == []
    assert framed(cell) == page


# ---- the command line --------------------------------------------------------------------------------------------


def run(*args: object) -> Result:
    return CliRunner().invoke(app, [str(arg) for arg in args])


@pytest.fixture
def table(tmp_path: Path) -> Path:
    X, Y = problem()
    path = tmp_path / "data.h5"
    with h5py.File(path, "w") as file:
        file["X"], file["y"] = X.numpy(), Y[:, 0].numpy()
    return path


def test_diagnose_prints_and_writes(table: Path, tmp_path: Path) -> None:
    page, data = tmp_path / "page.html", tmp_path / "data.json"
    result = run("diagnose", table, "--bias", "--lr", 1000, "--steps", 50, "--html", page, "--json", data)
    assert result.exit_code == 0, result.output
    d = json.loads(data.read_text())
    assert " ".join(d["verdict"]["title"].split()) in " ".join(result.stdout.split())
    assert (d["verdict"]["severity"], d["problem"]["bias"], d["problem"]["steps"]) == ("error", True, 50)
    assert d["simulation"]["lr"] == 1000
    shown = embedded(page.read_text(encoding="utf-8"))["diagnosis"]
    assert shown == {key: value for key, value in d.items() if key in shown}
    assert d.keys() - shown.keys() == {
        *("command", "versions", "file", "keys", "options", "data_hash", "commands"),
    }
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data.h5", "data.json", "page.html"]


@pytest.mark.parametrize("optimizer", [["--momentum", "0.9"], ["--optimizer", "adam"]])
def test_runs_are_judged_without_loading_a_compiler(table: Path, tmp_path: Path, optimizer: list[str]) -> None:
    """Making a torch.optim optimizer loads torch._dynamo, which takes as long as torch itself."""
    code = (
        "import sys\n"
        "from closedform.cli.app import app\n"
        "app(sys.argv[1:], standalone_mode=False)\n"
        "print(*sorted({'torch._dynamo', 'plotly', 'matplotlib', 'pandas', 'sklearn'} & set(sys.modules)))"
    )
    options = [*optimizer, "--lr", "0.1", "--steps", "100", "--html", str(tmp_path / "page.html")]
    done = fresh.run(code, "diagnose", table, *options)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == ""
    assert (tmp_path / "page.html").stat().st_size > 50_000


@pytest.mark.parametrize("columns", [50, 80, 140])
def test_lines_are_as_wide_as_the_terminal(table: Path, columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    lines = run("diagnose", table, "--lr", 1e-3, "--steps", 10).stdout.splitlines()
    prose = lines[: lines.index("What to do:")]
    assert columns - 25 < max(map(len, prose)) <= columns


@pytest.mark.parametrize("scale", [1e200, 1e-200])
def test_compare_writes_its_page_for_data_beyond_the_range(tmp_path: Path, scale: float) -> None:
    X, Y = problem()
    path, page = tmp_path / "data.h5", tmp_path / "page.html"
    with h5py.File(path, "w") as file:
        file["X"], file["y"] = X.numpy() * scale, Y[:, 0].numpy()
    result = run("compare", path, "--bias", "--optimizers", "sgd,momentum", "--budget", 0.2, "--html", page)
    assert result.exit_code == 0, result.output
    assert "out_of_range" in page.read_text(encoding="utf-8")


def test_diagnose_without_an_optimizer_looks_at_the_data(table: Path, tmp_path: Path) -> None:
    data = tmp_path / "data.json"
    result = run("diagnose", table, "--l2", 0.5, "--batch-size", 10, "--json", data)
    assert result.exit_code == 0, result.output
    d = json.loads(data.read_text())
    assert (d["problem"]["l2"], d["problem"]["batch_size"]) == (0.5, 10)
    assert max(map(len, result.stdout.splitlines())) <= 80


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "lbfgs"])
def test_diagnose_judges_a_fresh_layer(table: Path, tmp_path: Path, optimizer: str) -> None:
    state = torch.get_rng_state()
    data = [tmp_path / "1.json", tmp_path / "2.json"]
    for path in data:
        result = run("diagnose", table, "--optimizer", optimizer, "--lr", 0.5, "--steps", 20, "--json", path)
        assert result.exit_code == 0, result.output
    first, second = (json.loads(path.read_text()) for path in data)
    assert first == second
    # A file's one-dimensional targets are not the mistake of a training loop.
    assert "broadcast" not in json.dumps(first["findings"])
    layer_norm = first["loss"]["at_start"]
    assert layer_norm != first["loss"]["at_zero"]
    assert torch.equal(torch.get_rng_state(), state)


def test_the_layer_is_that_of_torch(table: Path, tmp_path: Path) -> None:
    data = tmp_path / "data.json"
    assert run("diagnose", table, "--bias", "--optimizer", "sgd", "--seed", 7, "--json", data).exit_code == 0
    X, Y = problem()
    with torch.random.fork_rng():
        torch.manual_seed(7)
        layer = nn.Linear(5, 1, dtype=torch.float64)
    expected = nn.functional.mse_loss(layer(X), Y).item()
    assert json.loads(data.read_text())["loss"]["at_start"] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--optimizer", "sdg"], "unknown optimizer 'sdg'"),
        (["--optimizer", "adam", "--momentum", 0.9], "belong to sgd"),
        (["--momentum", 1.0], "less than 1"),
        (["--nesterov"], "--momentum above 0"),
        (["--lr", "nan"], "--lr nan"),
        (["--lr", -1], "--lr -1"),
        (["--steps", "many"], "--steps"),
        (["--steps", -5], "steps"),
        (["--batch-size", 0], "--batch-size"),
        (["--l2", -1], "l2"),
        (["--y", "nope"], "nope"),
        (["--html", "page.txt"], "use .html"),
        (["--html", "no/such/page.html"], "there is no folder"),
    ],
)
def test_bad_input_is_one_line_and_status_two(
    table: Path, tmp_path: Path, options: list[object], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = [] if "--html" in options else ["--html", tmp_path / "page.html"]
    result = run("diagnose", table, *options, *data, "--json", tmp_path / "data.json")
    assert result.exit_code == 2, result.output
    lines = result.stderr.strip().splitlines()
    assert lines[-1].startswith("error: ")
    assert sum(line.startswith("error: ") for line in lines) == 1
    assert message in lines[-1]
    assert not result.stdout
    assert [p.name for p in tmp_path.iterdir()] == ["data.h5"]


def test_diagnose_without_jinja_says_so_before_it_computes(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib.util

    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n, *rest: None if n == "jinja2" else found(n, *rest))
    result = run("diagnose", table, "--html", tmp_path / "page.html")
    assert (result.exit_code, result.stderr.count("closedform[report]")) == (2, 1)
    assert not result.stdout


def test_compare_writes_the_same_report(table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entry, "compare_after", partial(entry.compare_after, clock=Ticking()))
    page = tmp_path / "page.html"
    result = run("compare", table, "--optimizers", "momentum,adam", "--budget", 0.3, "--seed", 3, "--html", page)
    assert result.exit_code == 0, result.output
    held = embedded(page.read_text(encoding="utf-8"))
    (forecast,) = held["diagnosis"]["forecasts"]
    (run_,) = [method for method in held["comparison"]["methods"] if method["name"] == forecast["name"]]
    assert forecast["steps"] == run_["curve"]["steps"]
    # What was measured is what was forecast, from the very start, until rounding takes over.
    floor = 1e12 * held["diagnosis"]["loss"]["rounding_floor"] / (1 - forecast["momentum"]) ** 2
    pairs = [p for p in zip(forecast["excess"], run_["curve"]["excess_loss"], strict=True) if p[0] > floor]
    assert len(pairs) > 5
    for predicted, measured in pairs:
        assert measured == pytest.approx(predicted, rel=1e-6)
