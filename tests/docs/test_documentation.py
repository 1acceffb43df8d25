"""What the documentation shows works: its examples run, its links lead somewhere."""

from __future__ import annotations

import ast
import json
import re
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import benchmark
import links
import records
import snippets
from closedform.files import example
from package import FILES, tree_of

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def as_a_reader(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Examples warn as they would; their plots are not shown, and what they seed does not reach other tests."""
    monkeypatch.setattr(example, "_N_TRAIN", 60)  # of the 600 images that the site shows
    state = torch.get_rng_state()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import matplotlib.pyplot as plt

        plt.switch_backend("agg")
        yield
        plt.close("all")
    torch.set_rng_state(state)


PAGES = [page for page in snippets.pages() if page.name != "causes.md"]  # which has a test of its own


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_examples_of_a_page_run(page: Path) -> None:
    snippets.run_page(page, page.read_text(encoding="utf-8"), brief=True)


def test_each_cause_is_found_by_the_diagnosis() -> None:
    page = ROOT / "docs" / "causes.md"
    printed: list[str] = []
    text = page.read_text(encoding="utf-8")
    snippets.run_page(page, text, brief=True, after=lambda _, said: printed.append(said))
    found = [set(re.findall(r"^\[(\w+)\]", said, re.MULTILINE)) for said in printed if said]
    expected = [
        *("target_broadcast", "history_differs", "lr_above_limit", "lr_starved", "unscaled_columns"),
        *("uncentred_features", "collinear_columns", "mini_batch_noise", "precision_floor", "scheduler_starves"),
        *("weight_decay_is_ridge", "frozen_parameters"),
    ]
    assert len(found) == len(expected) + 1  # and the gap at the end
    assert [name for name, names in zip(expected, found, strict=False) if name not in names] == []


def test_pictures_of_the_gallery_leave_room_for_their_labels() -> None:
    scripts = sorted((ROOT / "examples" / "gallery").glob("plot_*.py"))
    assert len(scripts) >= 12
    for script in scripts:
        for call in ast.walk(ast.parse(script.read_text(encoding="utf-8"))):
            if isinstance(call, ast.Call) and getattr(call.func, "attr", "") == "subplots":
                assert "layout" in {keyword.arg for keyword in call.keywords}, script.name


def test_each_finding_is_explained() -> None:
    made = {
        keyword.value.value
        for module in FILES
        if module.startswith("closedform.explain.findings.")
        for call in ast.walk(tree_of(module))
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "Finding"
        for keyword in call.keywords
        if keyword.arg == "name" and isinstance(keyword.value, ast.Constant)
    }
    assert len(made) > 30
    page = (ROOT / "docs" / "forecasts.md").read_text(encoding="utf-8")
    assert {name for name in made if f"`{name}`" not in page} == set()


def test_an_example_that_fails_is_named() -> None:
    text = "# Title\n\n```python\nfine = 1\n```\n\n```python\n1 / 0\n```\n"
    with pytest.raises(RuntimeError, match=r"page\.md, line 7 fails: ZeroDivisionError"):
        snippets.run_page(Path("page.md"), text, brief=True)
    with pytest.raises(RuntimeError, match="ends with 2"):
        snippets.run_page(Path("page.md"), "```\nclosedform solve nowhere.h5  # not there\n```\n", brief=True)


def test_links_between_pages_lead_somewhere() -> None:
    assert links.faults_of_markdown() == []


def test_broken_links_and_foreign_files_of_a_site_are_seen(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text(
        '<p id="here"><a href="b.html#there">b</a><a href="#here">a</a><a href="https://example.org">away</a>'
        '<a href="c.html">c</a><a href="#nowhere">n</a><img src="b.html"><script src="https://example.org/x.js"></script>'
    )
    (tmp_path / "b.html").write_text('<h1 id="there">b</h1>')
    (tmp_path / "s.css").write_text("@import url(https://example.org/font.css);")
    assert links.faults_of_site(tmp_path) == [
        "a.html: https://example.org/x.js is loaded from elsewhere",
        "a.html: the picture b.html says nothing in words",
        "a.html: c.html is not there",
        "a.html: #nowhere is a page without that place",
        "s.css: loads something from elsewhere",
    ]


def test_the_benchmark_is_read_from_its_record(tmp_path: Path) -> None:
    measured = [
        {"peer": "closedform", "seconds": 0.002, "verdict": "ok"},
        {"peer": "fast", "seconds": 0.001, "verdict": "wrong"},
        {"peer": "right", "seconds": 0.006, "verdict": "ok"},
        {"peer": "absent", "failed": "not installed"},
    ]
    record = {
        "date": "2026-01-02T03:04:05",
        "processor": "a processor",
        "threads": 2,
        "bars": [{"bar": "a bar", "problem": "all", "needed": "2", "measured": "3", "met": True}],
        "results": [{"problem": "9x3, 1", "dtype": "float64", "floor": {"seconds": 0.001}, "results": measured}],
        "sweeps": [{"along": "rows", "exponents": {"closedform": 0.9}}],
    }
    file = tmp_path / "bench.json"
    file.write_text(json.dumps(record))
    told = benchmark.tables(file)
    assert "Measured on 2026-01-02, a processor, 2 threads: 1 of 1 bars are met." in told
    assert "| 9x3, 1, float64 | 2 ms | 2 | right | 6 ms | 3 |" in told
    assert "| a bar | all | 2 | 3 | yes |" in told
    assert "| closedform | 0.90 |" in told
    assert "make bench" in benchmark.tables(tmp_path / "none.json")


def test_each_record_is_laid_out_with_its_command(tmp_path: Path) -> None:
    rows = {
        "optimizers": [
            {"optimizer": "rls", "condition": 10.0, "batch": 1000, "seconds": 0.0012},
            {"optimizer": "sgd", "condition": 10.0, "batch": 1000, "seconds": None},
        ],
        "digits": {
            "crlin": [
                {
                    "rows": 9,
                    "columns": 3,
                    "closedform_seconds": 0.5,
                    "crlin_seconds": 2.0,
                    "closedform_width": 1e-16,
                    "crlin_width": 2e-16,
                }
            ],
            "plain": [
                {
                    "rows": 9,
                    "columns": 3,
                    "condition": 1e6,
                    "plain_seconds": 0.1,
                    "digits_seconds": 0.25,
                    "ratio": 2.5,
                }
            ],
        },
        "forecasts": [
            {
                "method": "gradient descent",
                "runs": 50,
                "lowest_condition": 4.91,
                "highest_condition": 4.6e6,
                "median": 6e-15,
                "worst": 2e-12,
            }
        ],
        "fairness": [{"method": "numpy lstsq", "spent": [{"within": 0.01, "seconds": 0.004}]}],
        "truth": [{"claim": "reaches the goal", "true": 3}, {"claim": "no slip", "true": 1, "silent": 2}],
        "scale": [{"what": "2 ranks", "seconds": 2.0, "beside": "one process", "ratio": 0.5, "error": 1e-16}],
        "path": [{"name": "a sweep", "seconds": 0.1, "peer": 3.0, "ratio": 30.0, "bar": 20.0, "memory": 1.5}],
        "criteria": [
            {
                "problem": "binary",
                "seconds": 0.1,
                "relative_gap": 1e-12,
                "peers": [{"name": "lbfgs", "seconds": 0.2, "ratio": 2.0, "above": 1e-4}],
            }
        ],
    }
    told = {
        "optimizers": ["Batches of 1000 rows", "| optimizer | condition 1e+01 |", "| rls | 1.2 ms |", "| sgd | - |"],
        "digits": ["| 9 x 3 | 500 ms | 2 s | 1e-16 | 2e-16 |", "| 9 x 3 | 1e+06 | 100 ms | 250 ms | 2.5 |"],
        "fairness": ["| method | in 10 ms |", "| numpy lstsq | 4 ms |"],
        "truth": ["| reaches the goal | 3 | 0 | 0 |", "| no slip | 1 | 0 | 2 |", "| all | 4 | 0 | 2 |"],
        "forecasts": ["| gradient descent | 50 | 4.9 to 4.6e+06 | 6e-15 | 2e-12 |"],
        "scale": ["| 2 ranks | 2 s | 0.50 of one process | 1e-16 |  |"],
        "path": ["| a sweep | 100 ms | 3 s | 30.0 | 20 | 1.5 |"],
        "criteria": ["| binary | closedform | 100 ms |  | proven 1e-12 |", "|  | lbfgs | 200 ms | 2.0 | 1e-04 |"],
    }
    how = {
        "command": "python benchmarks/x.py",
        "date": "2026-01-02T03:04:05",
        "processor": "P",
        "cores": 2,
        "threads": 1,
    }
    for name, parts in told.items():
        shown = getattr(records, name)
        assert f"--json docs/_data/{name}.json` makes one" in shown(tmp_path)

        (tmp_path / f"{name}.json").write_text(json.dumps({**how, "rows": rows[name]}))
        text = shown(tmp_path)
        assert "Measured on 2026-01-02, P, 2 cores, 1 threads, by `python benchmarks/x.py`:" in text
        for part in parts:
            assert part in text


def test_records_name_no_folder_of_the_machine_that_made_them() -> None:
    kept = list((ROOT / "docs" / "_data").glob("*.json"))
    assert kept
    for record in kept:
        assert not re.findall(r'"(?:/|[A-Z]:\\)[^"]*"', record.read_text(encoding="utf-8")), record.name
