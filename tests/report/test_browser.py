"""The page in a browser: nothing fails to load, overflows or runs."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.report.page import build_report

from .conftest import HOSTILE_CLASS, HOSTILE_TITLE, World
from .test_tuning_page import page

pytestmark = pytest.mark.browser

CHROMIUM, DRIVER = Path("/usr/bin/chromium"), Path("/usr/bin/chromedriver")
BUILT = Path(__file__).parents[2] / "reports" / "index.html"
FLAGS = """--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run
--disable-background-networking --disable-component-update --disable-sync"""

PROBLEMS = """
const problems = [];
document.querySelectorAll('details').forEach(d => d.open = true);
for (const image of document.images)
  if (!image.complete || image.naturalWidth === 0) problems.push('broken image: ' + image.alt);
for (const svg of document.querySelectorAll('svg')) {
  const box = svg.getBoundingClientRect();
  if (box.width < 20 || box.height < 8) problems.push('svg without size: ' + svg.textContent);
}
const root = document.documentElement;
if (root.scrollWidth > root.clientWidth)
  problems.push(`overflow: ${root.scrollWidth} > ${root.clientWidth}`);
for (const entry of performance.getEntriesByType('resource'))
  if (!entry.name.startsWith('data:')) problems.push('request: ' + entry.name);
if (document.scripts.length) problems.push('a script element');
return problems;
"""


def missing(what: str) -> None:
    """Skips a person's run; fails CI's, where everything must be there."""
    (pytest.fail if os.environ.get("CI") else pytest.skip)(what)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator:
    if not (CHROMIUM.exists() and DRIVER.exists()):
        missing(f"{CHROMIUM} and {DRIVER} are not installed")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in FLAGS.split():
        options.add_argument(flag)
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('profile')}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(str(DRIVER)))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    worlds = {
        "small": World(pictures={0: b"broken"}),
        "many": World(class_names=["a" * 70, *(f"class {i}" for i in range(24))], test_images=500),
        "twenty": World(class_names=[f"a long class name {i}" for i in range(20)]),
    }
    pages = {"built": BUILT}
    for name, world in worlds.items():
        root = tmp_path_factory.mktemp(name)
        pages[name] = root / "index.html"
        pages[name].write_text(build_report(world.write(root)), encoding="utf-8")
    pages["tuned"] = pages["small"].with_name("tune.html")
    pages["tuned"].write_text(page(), encoding="utf-8")
    return pages


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
@pytest.mark.parametrize("name", ["small", "many", "twenty", "tuned", "built"])
def test_page_is_sound(browser, pages: dict[str, Path], name: str, width: int, scheme: str) -> None:
    if not pages[name].exists():
        missing(f"{BUILT} is not built: run `make demo`")
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600},
    )
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    browser.get_log("browser")
    browser.get(pages[name].as_uri())
    time.sleep(0.2)
    assert browser.execute_script(PROBLEMS) == []
    assert browser.execute_script("return innerWidth") == width
    assert browser.get_log("browser") == []
    colour = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    red = int(colour.removeprefix("rgb(").split(",")[0])
    assert (red > 128) == (scheme == "light")


def test_hostile_text_is_shown_and_nothing_runs(browser, pages: dict[str, Path]) -> None:
    from selenium.common.exceptions import NoAlertPresentException

    browser.get(pages["small"].as_uri())
    with pytest.raises(NoAlertPresentException):
        browser.switch_to.alert  # noqa: B018
    text = browser.execute_script("return document.body.innerText")
    assert HOSTILE_CLASS in text
    assert HOSTILE_TITLE in text
    assert "cannot be" in text
    links = browser.execute_script("return [...document.links].map(link => link.protocol)")
    assert set(links) <= {"file:", "http:", "https:"}


def test_keyboard_reaches_the_sections(browser, pages: dict[str, Path]) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    browser.get(pages["small"].as_uri())
    browser.find_element(By.TAG_NAME, "body").send_keys(Keys.TAB)
    skip = browser.switch_to.active_element
    assert skip.text == "Skip to the summary"
    targets = browser.execute_script(
        "return [...document.querySelectorAll('nav a')].map("
        "a => document.querySelector(a.getAttribute('href')) !== null)"
    )
    assert targets == [True] * 6
