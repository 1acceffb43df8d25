"""The report in a real browser: headless Chromium, from a file, without a network."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from closedform.comparison.entry import compare
from closedform.explain.diagnosis import Diagnosis
from closedform.explain.entry import diagnose
from closedform.explain.layout import diagnosis_page
from closedform.report.page import render_page
from covering import parametrize_covering

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None or DRIVER is None, reason="no chromium or chromedriver on the PATH (Debian: chromium-driver)"
)

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # Two tests may run at once, in containers with little shared memory.
    "--disable-dev-shm-usage",
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def found() -> Diagnosis:
    """A fit of condition 1e3 with a bias and two targets, from a layer's own start."""
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(80, 6, dtype=torch.float64, generator=generator)
    X = X * torch.logspace(0, -3, 6, dtype=torch.float64)
    Y = torch.randn(80, 2, dtype=torch.float64, generator=generator)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Linear(6, 2, dtype=torch.float64)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.5)
    return diagnose(X, Y, model=model, optimizer=optimizer, steps=500)


@pytest.fixture(scope="module")
def page(found: Diagnosis, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "diagnosis.html"
    found.to_html(path)
    return path


@pytest.fixture(scope="module")
def comparison_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    generator = torch.Generator().manual_seed(1)
    X = torch.randn(60, 4, dtype=torch.float64, generator=generator)
    Y = torch.randn(60, 1, dtype=torch.float64, generator=generator)
    comparison = compare(X, Y, optimizers=("sgd", "lbfgs strong wolfe"), budget=0.2)
    path = tmp_path_factory.mktemp("page") / "comparison.html"
    comparison.to_html(path)
    return path


def show(
    browser: Any, path: Path, width: int = 1200, *, scheme: str = "light", media: str = "", script: bool = True
) -> None:
    """Open the page fresh in a window of this width."""
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500},
    )
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media, "features": features})
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": not script})
    for log in ("browser", "performance"):
        browser.get_log(log)
    browser.get(path.as_uri())


def set_number(browser: Any, key: str, value: float | str) -> None:
    browser.execute_script(
        "const input = document.getElementById(arguments[0]); input.value = arguments[1];"
        "input.dispatchEvent(new Event('input'));",
        key,
        str(value),
    )


def state(browser: Any) -> dict[str, Any]:
    """What the page shows, after the frame in which it is drawn."""
    return browser.execute_async_script(
        "const done = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(() => done({...closedform, "
        "stepsToGoal: String(closedform.goal), "
        "d: document.querySelector('#forecast > svg path.live').getAttribute('d')})));"
    )


def assert_forecast(found: Diagnosis, shown: dict[str, Any]) -> None:
    """The numbers of the page against Python's, at every point of its curve."""
    curve = shown["curve"]
    settings = {key: shown[key] for key in ("lr", "momentum", "nesterov", "weight_decay", "dampening")}
    expected = found.forecast("sgd", **settings, steps=curve["steps"])
    assert len(curve["steps"]) > 30
    compared = 0
    for python, javascript in zip(expected.excess.tolist(), curve["excess"], strict=True):
        # Selenium hands infinities over as None; below 1e-290 float64 loses digits of its own.
        if not math.isfinite(python) or python > 1e300:
            assert javascript is None or javascript > 1e299
        elif python > 1e-290:
            assert javascript == pytest.approx(python, rel=1e-6)
            compared += 1
    assert compared > 5
    at_steps = found.forecast("sgd", **settings, steps=[shown["steps"]])
    if float(at_steps.excess) < 1e300:
        assert shown["excess"] == pytest.approx(float(at_steps.excess), rel=1e-6, abs=1e-290)
        assert shown["loss"] == pytest.approx(float(at_steps.loss), rel=1e-6)
    assert shown["limit"] == pytest.approx(at_steps.limit, rel=1e-12)


@pytest.mark.parametrize("name", ["page", "comparison_page"])
def test_it_opens_from_a_file_without_errors_and_without_a_network(
    browser: Any, name: str, request: pytest.FixtureRequest
) -> None:
    path = request.getfixturevalue(name)
    show(browser, path)
    shown = state(browser)
    assert shown["d"].startswith("M")
    assert browser.get_log("browser") == []
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    assert [url for url in asked if not url.startswith("data:")] == [path.as_uri()]


def test_it_opens_on_the_users_own_run(browser: Any, page: Path, found: Diagnosis) -> None:
    show(browser, page)
    shown = state(browser)
    assert (shown["lr"], shown["momentum"], shown["nesterov"], shown["steps"]) == (0.2, 0.5, False, 500)
    assert_forecast(found, shown)
    assert browser.find_element("id", "live-excess").get_attribute("data-value") == str(shown["excess"])


@parametrize_covering(
    2, share=[1e-3, 0.5, 0.9, 0.999, 1.001, 1.7], momentum=[0.0, 0.3, 0.9, 0.999], nesterov=[False, True]
)
def test_the_settings_change_the_curve_to_what_python_forecasts(
    browser: Any, page: Path, found: Diagnosis, share: float, momentum: float, nesterov: bool
) -> None:
    show(browser, page)
    before = state(browser)
    limit = found.forecast("sgd", lr=1.0, momentum=momentum, nesterov=nesterov, steps=[0]).limit
    if nesterov:
        browser.find_element("id", "nesterov").click()
    set_number(browser, "momentum", momentum)
    set_number(browser, "lr", share * limit)
    set_number(browser, "steps", 1234)
    shown = state(browser)
    assert shown["d"] != before["d"]
    assert (shown["steps"], shown["momentum"], shown["nesterov"]) == (1234, momentum, nesterov)
    assert_forecast(found, shown)
    assert_steps_to_goal(found, shown)


@pytest.fixture(scope="module")
def decayed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Diagnosis, Path]:
    """The same fit under weight decay and dampening, with targets far from zero and a run that has gone some way."""
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(80, 6, dtype=torch.float64, generator=generator) * torch.logspace(0, -3, 6, dtype=torch.float64)
    Y = torch.randn(80, 2, dtype=torch.float64, generator=generator) + 3
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Linear(6, 2, dtype=torch.float64)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.5, weight_decay=0.01, dampening=0.3)
    d = diagnose(X, Y, model=model, optimizer=optimizer, criterion=nn.MSELoss(), steps=500)
    path = tmp_path_factory.mktemp("page") / "decayed.html"
    d.to_html(path)
    return d, path


def test_a_run_with_weight_decay_opens_on_its_own_forecast(browser: Any, decayed: tuple[Diagnosis, Path]) -> None:
    d, path = decayed
    show(browser, path)
    shown = state(browser)
    assert {key: shown[key] for key in ("lr", "momentum", "weight_decay", "dampening", "steps")} == {
        "lr": 0.2,
        "momentum": 0.5,
        "weight_decay": 0.01,
        "dampening": 0.3,
        "steps": 500,
    }
    assert_forecast(d, shown)
    own = d.to_dict()["forecasts"][0]
    assert shown["excess"] == pytest.approx(own["excess"][-1], rel=1e-6)
    # A forecast's own row puts its settings back after the reader moved them.
    set_number(browser, "weight_decay", 0)
    assert state(browser)["excess"] != pytest.approx(own["excess"][-1], rel=1e-3)
    browser.execute_script("document.querySelector('button.preset').click()")
    assert state(browser)["excess"] == pytest.approx(own["excess"][-1], rel=1e-6)


@parametrize_covering(
    2,
    allowed=lambda weight_decay, momentum, nesterov, dampening, share: momentum > 0 or not nesterov,
    weight_decay=[0.0, 1e-9, 1e-4, 0.02, 5.0],
    momentum=[0.0, 0.3, 0.9],
    nesterov=[False, True],
    dampening=[0.0, 0.3, 0.5, 0.9],
    share=[0.01, 0.9],
)
def test_weight_decay_and_dampening_move_the_curve_to_what_python_forecasts(
    browser: Any,
    decayed: tuple[Diagnosis, Path],
    weight_decay: float,
    momentum: float,
    nesterov: bool,
    dampening: float,
    share: float,
) -> None:
    d, path = decayed
    show(browser, path)
    if nesterov:
        browser.find_element("id", "nesterov").click()
    limit = d.forecast("sgd", lr=1.0, momentum=momentum, weight_decay=weight_decay, steps=[0]).limit
    values = {"momentum": momentum, "lr": share * limit / 2, "weight_decay": weight_decay, "dampening": dampening}
    for key, value in values.items():
        set_number(browser, key, value)
    shown = state(browser)
    # torch.optim.SGD has no dampening with Nesterov's momentum.
    assert (shown["weight_decay"], shown["dampening"]) == (weight_decay, 0.0 if nesterov else dampening)
    assert_forecast(d, shown)
    assert_steps_to_goal(d, shown)


def assert_steps_to_goal(found: Diagnosis, shown: dict[str, Any]) -> None:
    settings = {key: shown[key] for key in ("lr", "momentum", "nesterov", "weight_decay", "dampening")}
    needed = found.forecast("sgd", **settings, steps=[0]).steps_to(found.facts.goal_excess)
    if math.isinf(needed):
        assert shown["stepsToGoal"] == "Infinity"
    else:
        # Exact on both sides where the curve is short, and on both from the envelope where it is long.
        assert float(shown["stepsToGoal"]) == pytest.approx(needed, rel=1e-6, abs=1)


def test_sliders_move_with_the_keyboard(browser: Any, page: Path, found: Diagnosis) -> None:
    from selenium.webdriver.common.keys import Keys

    show(browser, page)
    for key in ("lr", "momentum", "weight_decay", "steps"):
        before = state(browser)
        browser.find_element("id", f"{key}-slider").send_keys(Keys.ARROW_RIGHT * 3)
        after = state(browser)
        assert after[key] > before[key]
        assert float(browser.find_element("id", key).get_attribute("value")) == after[key]
        assert_forecast(found, after)
    browser.find_element("css selector", "#controls button[type=reset]").click()
    shown = state(browser)
    assert (shown["lr"], shown["momentum"], shown["steps"]) == (0.2, 0.5, 500)
    assert browser.get_log("browser") == []


def test_a_preset_is_shown(browser: Any, page: Path, found: Diagnosis) -> None:
    show(browser, page)
    best = next(limit for limit in found.to_dict()["limits"] if limit["name"] == "nesterov")
    browser.execute_script(
        "[...document.querySelectorAll('button.preset')].find(b => b.ariaLabel.includes('Show nesterov in')).click()"
    )
    shown = state(browser)
    assert (shown["lr"], shown["momentum"], shown["nesterov"]) == (best["lr"], best["momentum"], True)
    assert_forecast(found, shown)


def test_nonsense_in_a_field_breaks_nothing(browser: Any, page: Path) -> None:
    show(browser, page)
    for key, value in (
        ("weight_decay", "-2"),
        ("weight_decay", ""),
        ("lr", ""),
        ("lr", "-1"),
        ("momentum", "7"),
        ("steps", "-3"),
        ("steps", "1e300"),
    ):
        set_number(browser, key, value)
        shown = state(browser)
        assert shown["lr"] >= 0
        assert 0 <= shown["momentum"] < 1
        assert shown["weight_decay"] == 0
        assert 0 <= shown["steps"] <= 1e18
    assert browser.get_log("browser") == []


def test_dark_follows_the_system_and_the_toggle(browser: Any, page: Path) -> None:
    def brightness() -> float:
        colour = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
        return sum(map(float, colour.removeprefix("rgb(").removesuffix(")").split(","))) / 765

    for scheme, is_dark in (("light", False), ("dark", True)):
        show(browser, page, scheme=scheme)
        toggle = browser.find_element("id", "theme")
        assert (brightness() < 0.2) == is_dark
        assert toggle.text == ("light" if is_dark else "dark")
        toggle.click()
        assert (brightness() < 0.2) != is_dark
        assert toggle.text == ("dark" if is_dark else "light")


def contrast(browser: Any, selector: str, behind: str) -> float:
    """WCAG's contrast ratio of a text's colour on a background."""

    def luminance(colour: str) -> float:
        parts = [float(part) / 255 for part in colour.split("(")[1].rstrip(")").split(",")[:3]]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    colours = browser.execute_script(
        "return [getComputedStyle(document.querySelector(arguments[0])).color,"
        "getComputedStyle(document.querySelector(arguments[1])).backgroundColor]",
        selector,
        behind,
    )
    light, dark = sorted(map(luminance, colours), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast(browser: Any, page: Path, scheme: str) -> None:
    show(browser, page, scheme=scheme)
    pairs = [
        ("body", "body"),
        (".quiet", "body"),
        ("nav a", "body"),
        (".finding .badge", ".finding"),
        ("h1", ".verdict"),
    ]
    for selector, behind in pairs:
        assert contrast(browser, selector, behind) >= 4.5, selector


@pytest.mark.parametrize("name", ["page", "comparison_page"])
def test_a_phone_needs_no_sideways_scrolling(browser: Any, name: str, request: pytest.FixtureRequest) -> None:
    show(browser, request.getfixturevalue(name), 390)
    state(browser)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 390
    wide = browser.execute_script(
        "return [...document.querySelectorAll('main *')].filter(e => !e.closest('svg, pre, thead') &&"
        "e.getBoundingClientRect().right > 391).map(e => e.outerHTML.slice(0, 80))"
    )
    assert wide == []
    # Letters in the drawings keep a size that can be read.
    assert (
        browser.execute_script(
            "const t = document.querySelector('figure > svg text'); return t.getBoundingClientRect().height"
        )
        >= 10
    )


def test_everything_can_be_reached_and_has_a_name(browser: Any, page: Path) -> None:
    show(browser, page)
    nameless = browser.execute_script(
        "return [...document.querySelectorAll('input, button, a, pre[tabindex]')].filter(e => !(e.ariaLabel || "
        "e.textContent.trim() || (e.labels && e.labels.length))).map(e => e.outerHTML)"
    )
    assert nameless == []
    from selenium.webdriver.common.keys import Keys

    reached = set()
    for _ in range(60):
        browser.switch_to.active_element.send_keys(Keys.TAB)
        reached.add(browser.switch_to.active_element.get_attribute("id"))
    assert {"theme", "lr", "lr-slider", "momentum", "momentum-slider", "steps", "steps-slider", "nesterov"} <= reached


def test_a_remedy_can_be_copied(browser: Any, page: Path, found: Diagnosis) -> None:
    show(browser, page)
    browser.execute_cdp_cmd("Browser.grantPermissions", {"permissions": ["clipboardReadWrite"]})
    button = browser.find_element("css selector", ".finding button.copy")
    button.click()
    state(browser)
    assert button.text == "copied"
    copied = browser.execute_async_script("navigator.clipboard.readText().then(arguments[0])")
    assert copied == found.findings[0].remedy.rstrip()


def test_it_prints_on_white_without_controls(browser: Any, page: Path) -> None:
    show(browser, page, scheme="dark", media="print")
    hidden = browser.execute_script(
        "return ['#controls', '#theme', 'nav', 'button.copy', '#save'].filter(s => "
        "getComputedStyle(document.querySelector(s)).display !== 'none')"
    )
    assert hidden == []
    colours = browser.execute_script(
        "const style = getComputedStyle(document.body); return [style.backgroundColor, style.color]"
    )
    assert colours[0] == "rgb(255, 255, 255)"
    assert contrast(browser, "body", "body") > 10
    pdf = browser.execute_cdp_cmd("Page.printToPDF", {"printBackground": False})
    assert len(pdf["data"]) > 20_000


def test_without_a_script_the_charts_are_there_and_the_controls_are_not(browser: Any, page: Path) -> None:
    try:
        show(browser, page, script=False)
        assert not browser.find_element("id", "controls").is_displayed()
        lines = browser.find_elements("css selector", "#forecast > svg path.line[d]")
        assert all(line.get_attribute("d").startswith("M") for line in lines)
        assert len(lines) >= 3
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def test_a_users_name_is_not_run(browser: Any, tmp_path: Path) -> None:
    evil = "<script>document.title = 'run'</script><img src=x onerror=\"document.title='run'\">"
    X = torch.eye(4, dtype=torch.float64)[:, [0, 1, 2, 2]]
    record = diagnose(X, torch.ones(4), feature_names=["a", "b", evil, evil]).record
    path = tmp_path / "page.html"
    path.write_text(render_page(diagnosis_page(replace(record, notes=(evil,)))), encoding="utf-8")
    show(browser, path)
    state(browser)
    assert browser.title != "run"
    assert evil in browser.find_element("class name", "notes").text
    assert browser.get_log("browser") == []
