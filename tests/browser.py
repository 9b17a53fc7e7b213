"""A page in Debian's Chromium: whether it loads whole, stays within its width and runs nothing."""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

CHROMIUM, DRIVER = Path("/usr/bin/chromium"), Path("/usr/bin/chromedriver")
FLAGS = """--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run
--disable-background-networking --disable-component-update --disable-sync"""
PROBLEMS = """
const problems = [];
document.querySelectorAll('details').forEach(d => d.open = true);
for (const image of document.images)
  if (!image.complete || image.naturalWidth === 0) problems.push('broken image: ' + image.alt);
for (const svg of document.querySelectorAll('svg')) {
  if (!svg.checkVisibility()) continue;  // a column that narrow screens leave out
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


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
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


def assert_sound(browser: Any, page: Path, width: int, scheme: str) -> None:
    """Opens the page as wide as told, light or dark, and looks for whatever may be wrong."""
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600},
    )
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    browser.get_log("browser")
    browser.get(page.as_uri())
    time.sleep(0.2)
    assert browser.execute_script(PROBLEMS) == []
    assert browser.execute_script("return innerWidth") == width
    assert browser.get_log("browser") == []
    colour = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    red = int(colour.removeprefix("rgb(").split(",")[0])
    assert (red > 128) == (scheme == "light")
