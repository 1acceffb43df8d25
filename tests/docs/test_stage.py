"""The stage of the site in Chromium: its numbers are those of the forecasts, and of runs of torch."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import closedform as cf

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None or DRIVER is None, reason="no chromium or chromedriver on the PATH (Debian: chromium-driver)"
)

ROOT = Path(__file__).parents[2]
STAGE = ROOT / "docs" / "_stage"
FORMULAS = ROOT / "src" / "closedform" / "report" / "static" / "recurrence.js"
START = torch.tensor([[-1.9, 1.1]], dtype=torch.float64)
STEPS = 100


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The stage alone on a page, from a file."""
    folder = tmp_path_factory.mktemp("stage")
    shutil.copytree(STAGE, folder / "_static")
    shutil.copy(FORMULAS, folder / "_static")
    page = folder / "page.html"
    page.write_text("<!doctype html><title>stage</title><meta charset=utf-8>" + (STAGE / "stage.html").read_text())
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage"):
        options.add_argument(flag)
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('chromium')}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    driver.get(page.as_uri())
    yield driver
    driver.quit()


def rows(browser: Any, condition: float) -> tuple[Tensor, Tensor]:
    table = browser.execute_script("return window.stage.table(arguments[0])", condition)
    return torch.tensor(table["X"], dtype=torch.float64), torch.tensor(table["Y"], dtype=torch.float64)


def numbers(browser: Any, **settings: float) -> dict[str, Any]:
    script = "return JSON.parse(JSON.stringify(window.stage.numbers(arguments[0])))"
    return browser.execute_script(script, {"seed": 1, **settings})


@pytest.mark.parametrize(
    ("condition", "lr", "momentum"),
    [(1, 0.5, 0), (10, 0.9, 0), (100, 0.3, 0.9), (30, 1.05, 0), (7, 0.02, 0.99), (1e6, 1.1, 0)],
)
def test_full_batches_are_the_forecast(browser: Any, condition: float, lr: float, momentum: float) -> None:
    X, Y = rows(browser, condition)
    diagnosis = cf.diagnose(X, Y)
    assert diagnosis.condition == pytest.approx(condition, rel=1e-9 if condition < 1e5 else 1e-6)
    forecast = diagnosis.forecast("sgd", lr=lr, momentum=momentum, steps=STEPS, start=START)
    shown = numbers(browser, condition=condition, lr=lr, momentum=momentum, batch=40)
    assert shown["limit"] == pytest.approx(forecast.limit, rel=1e-9)
    # Losses that are rounding beside those of the start are not compared by their digits.
    floor = 1e-12 * float(forecast.excess[0])
    assert shown["forecast"] == pytest.approx(forecast.excess.tolist(), rel=1e-6, abs=floor)
    assert shown["run"] == pytest.approx(forecast.excess.tolist(), rel=1e-6, abs=floor)
    needed = forecast.steps_to(1e-6 * float(forecast.excess[0]))
    assert shown["needed"] == (None if math.isinf(needed) else needed)

    layer = nn.Linear(2, 1, bias=False, dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(START)
    optimizer = torch.optim.SGD(layer.parameters(), lr=lr, momentum=momentum)
    for _ in range(STEPS):
        optimizer.zero_grad()
        nn.functional.mse_loss(layer(X)[:, 0], Y).backward()
        optimizer.step()
    assert shown["path"][STEPS] == pytest.approx(layer.weight[0].tolist(), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize(
    ("condition", "batch", "momentum"), [(3, 1, 0.0), (1, 2, 0.9), (100, 5, 0.5), (1e6, 1, 0.0), (1e6, 20, 0.99)]
)
def test_limits_and_floors_of_batches_are_those_of_the_diagnosis(
    browser: Any, condition: float, batch: int, momentum: float
) -> None:
    X, Y = rows(browser, condition)
    lr = 0.1 * (1 - momentum)
    shown = numbers(browser, condition=condition, lr=lr, momentum=momentum, batch=batch)
    run = nn.Linear(2, 1, bias=False, dtype=torch.float64)
    optimizer = torch.optim.SGD(run.parameters(), lr=lr, momentum=momentum)
    found = cf.diagnose(X, Y[:, None], model=run, optimizer=optimizer, batch_size=batch, steps=10**15).findings
    noise = next(finding for finding in found if finding.name == "mini_batch_noise")
    assert shown["limit"] == pytest.approx(noise.evidence["lr_limit"], rel=1e-3)
    assert shown["floor"] == pytest.approx(noise.evidence["noise_floor"], rel=1e-3)
    above = numbers(browser, condition=condition, lr=1.01 * shown["limit"], momentum=momentum, batch=batch)
    assert above["floor"] is None


@pytest.mark.parametrize(("batch", "momentum"), [(1, 0.0), (5, 0.5)])
def test_batches_are_forecast_in_expectation(browser: Any, batch: int, momentum: float) -> None:
    X, Y = rows(browser, 3)
    shown = numbers(browser, condition=3, lr=0.05, momentum=momentum, batch=batch)
    # A thousand real runs at once, each with batches of its own.
    generator = torch.Generator().manual_seed(0)
    w, v = START.expand(1000, 2), torch.zeros(1000, 2, dtype=torch.float64)
    least = ((X @ torch.zeros(2, dtype=torch.float64) - Y) ** 2).mean()
    for _ in range(STEPS):
        taken = torch.rand(1000, 40, generator=generator).argsort(1)[:, :batch]
        x, y = X[taken], Y[taken]
        residual = (x * w[:, None]).sum(2) - y
        v = momentum * v + 2 * (residual[:, :, None] * x).mean(1)
        w = w - 0.05 * v
    losses = ((w @ X.T - Y) ** 2).mean(1) - least
    spread = float(losses.std()) / 1000**0.5
    assert shown["forecast"][STEPS] == pytest.approx(float(losses.mean()), abs=5 * spread)


def test_sliders_and_buttons_work_by_keyboard(browser: Any) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    before = browser.find_element(By.ID, "stage-forecast").text
    slider = browser.find_element(By.ID, "stage-lr")
    slider.send_keys(*[Keys.ARROW_LEFT] * 20)
    assert browser.find_element(By.ID, "stage-lr-says").text == "0.501"
    assert browser.find_element(By.ID, "stage-forecast").text != before
    play = browser.find_element(By.ID, "stage-play")
    play.send_keys(Keys.ENTER)
    assert play.text == "Stop"
    play.send_keys(Keys.SPACE)
    assert play.text == "Play"
    assert [line for line in browser.get_log("browser") if "favicon" not in line["message"]] == []
