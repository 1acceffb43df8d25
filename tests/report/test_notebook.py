"""The page within a notebook's cell, in Chromium: the host's style stays out, light and dark come in."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from closedform.explain.diagnosis import Diagnosis
from closedform.explain.entry import diagnose

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None or DRIVER is None, reason="no chromium or chromedriver on the PATH (Debian: chromium-driver)"
)

#: Rules as JupyterLab and the classic notebook have them for what stands in a cell.
HOSTS = {
    "lab": ".jp-RenderedHTMLCommon dt { float: left; width: 20%; } .jp-RenderedHTMLCommon dd { float: left; width: 80%;"
    " } .jp-RenderedHTMLCommon table { margin-left: auto; font-size: 12px; } .jp-RenderedHTMLCommon td, "
    ".jp-RenderedHTMLCommon th { text-align: right !important; } .jp-RenderedHTMLCommon svg { width: 33px; }",
    "classic": ".badge { display: inline-block; min-width: 100px; background: #777 !important; color: #fff; } "
    "table { color: red; } td { text-align: right !important; } .rendered_html * + p { margin-top: 90px; } "
    "dl { display: table !important; } section { display: inline-block !important; }",
}


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    folder = tmp_path_factory.mktemp("chromium")
    for flag in ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", f"--user-data-dir={folder}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def found() -> Diagnosis:
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(40, 4, dtype=torch.float64, generator=generator) * torch.logspace(0, -3, 4, dtype=torch.float64)
    model = nn.Linear(4, 1, dtype=torch.float64)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.5)
    return diagnose(X, X.sum(1, keepdim=True), model=model, optimizer=optimizer, steps=100)


def look(browser: Any, path: Path, style: str, background: str, cell: str) -> dict[str, Any]:
    """Open a notebook with this cell in it twice, and return what its first frame looks like."""
    path.write_text(
        f"<!DOCTYPE html><meta charset='utf-8'><style>{style} body {{ margin: 7px; background: {background}; }}</style>"
        f"<body><p id='before'>a</p><div class='jp-RenderedHTMLCommon rendered_html' id='cell'></div>"
        f"<div id='other'></div><table><tr><td>x</table>",
        encoding="utf-8",
    )
    browser.get_log("browser")
    browser.get(path.as_uri())
    # A notebook sets the HTML of its cells into the page, which runs no script of theirs.
    browser.execute_script(
        "for (const id of ['cell', 'other']) document.getElementById(id).innerHTML = arguments[0]", cell
    )
    browser.switch_to.frame(browser.find_element("css selector", "#cell iframe"))
    browser.set_script_timeout(60)
    seen: dict[str, Any] = browser.execute_async_script(
        """
        const done = arguments[0];
        const css = (selector, name) => getComputedStyle(document.querySelector(selector))[name];
        const tell = () => done({
          theme: document.documentElement.dataset.theme, background: css('body', 'backgroundColor'),
          facts: css('.facts', 'display'), dd: css('.facts dd', 'float'), badge: css('.badge', 'backgroundColor'),
          cell: css('table td.words', 'textAlign'), section: css('section', 'display'),
          live: window.closedform && window.closedform.lr,
        });
        const wait = () => window.closedform ? setTimeout(tell, 600) : setTimeout(wait, 50);
        wait();
        """
    )
    return seen


@pytest.mark.parametrize("host", list(HOSTS))
def test_a_cell_looks_the_same_in_every_notebook(browser: Any, found: Diagnosis, tmp_path: Path, host: str) -> None:
    """E18: lists were scrambled and right-aligned by the host, a white slab stood in dark themes, badges collided."""
    cell = found._repr_html_()
    plain = look(browser, tmp_path / "plain.html", "", "#fff", cell)
    browser.switch_to.default_content()
    light = look(browser, tmp_path / "light.html", HOSTS[host], "#fff", cell)
    browser.switch_to.default_content()
    assert light == plain
    assert (light["theme"], light["facts"], light["dd"], light["live"]) == ("light", "flex", "none", 0.1)

    dark = look(browser, tmp_path / "dark.html", HOSTS[host], "#111", cell)
    assert (dark["theme"], dark["background"]) == ("dark", "rgb(22, 24, 28)")
    # The sliders are alive in the frame.
    shown = browser.execute_async_script(
        """
        const done = arguments[0], before = closedform.curve.excess.at(-1);
        const slider = document.getElementById('lr-slider');
        slider.value = Number(slider.value) - 1;
        slider.dispatchEvent(new Event('input'));
        setTimeout(() => done([before, closedform.curve.excess.at(-1), closedform.lr]), 500);
        """
    )
    assert shown[0] != shown[1]
    assert shown[2] == pytest.approx(0.01, rel=1e-3)
    browser.switch_to.default_content()
    assert browser.execute_script("return getComputedStyle(document.body).margin") == "7px"
    assert browser.find_element("css selector", "#cell iframe").size["height"] <= 640
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []


def test_a_cell_follows_its_notebook_from_light_to_dark(browser: Any, found: Diagnosis, tmp_path: Path) -> None:
    assert look(browser, tmp_path / "page.html", "", "#fff", found._repr_html_())["theme"] == "light"
    browser.switch_to.default_content()
    browser.execute_script("document.body.style.background = '#111'; document.body.dataset.jpThemeLight = 'false'")
    browser.switch_to.frame(browser.find_element("css selector", "#cell iframe"))
    theme = browser.execute_async_script(
        "const done = arguments[0]; setTimeout(() => done(document.documentElement.dataset.theme), 800)"
    )
    assert theme == "dark"
