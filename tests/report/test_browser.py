"""The page in a browser: nothing fails to load, overflows or runs."""

from pathlib import Path

import pytest

from kd3_pipeline.report.page import build_live, build_report
from tests.browser import assert_sound, missing
from tests.report.test_dropped import page_of
from tests.report.world import HOSTILE_CLASS, HOSTILE_TITLE, World

pytestmark = pytest.mark.browser

BUILT = Path(__file__).parents[2] / "reports" / "index.html"


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    worlds = {
        "small": World(pictures={0: b"broken"}),
        "many": World(class_names=["a" * 70, *(f"class {i}" for i in range(24))], test_images=500),
        "twenty": World(class_names=[f"a long class name {i}" for i in range(20)]),
        "contaminated": World(contaminated=2, leaked=0, robustness=False, mistakes=0),
    }
    pages = {"built": BUILT}
    sheets = {}
    for name, world in worlds.items():
        root = tmp_path_factory.mktemp(name)
        pages[name] = root / "index.html"
        sheets[name] = world.write(root)
        pages[name].write_text(build_report(sheets[name]), encoding="utf-8")
    small = pages["small"]
    pages["dropped"] = small.with_name("dropped.html")
    pages["dropped"].write_text(page_of(sheets["small"]), encoding="utf-8")
    pages["live"] = pages["small"].with_name("live.html")
    curves = pages["small"].parent / "reports" / "distill.csv"
    pages["live"].write_text(build_live(curves, 600), encoding="utf-8")
    return pages


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
@pytest.mark.parametrize(
    "name", ["small", "many", "twenty", "contaminated", "live", "dropped", "built"]
)
def test_page_is_sound(browser, pages: dict[str, Path], name: str, width: int, scheme: str) -> None:
    if not pages[name].exists():
        missing(f"{BUILT} is not built: run `make demo`")
    assert_sound(browser, pages[name], width, scheme)


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
    assert targets == [True] * 14


SHOWN = """
return [...document.querySelectorAll(`#${arguments[0]} li`)].filter(e => e.offsetHeight).map(
  e => [e.querySelector('.asked').innerText, e.querySelector('.seen').innerText]);
"""


def shown(browser, key: str) -> list[list[str]]:
    """Of each image that a gallery shows: the class asked for, and what it was seen as."""
    return browser.execute_script(SHOWN, key)


def test_filters_by_mouse(browser, pages: dict[str, Path]) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import Select

    # the driver clicks while a smooth scroll is still under way
    features = [{"name": "prefers-reduced-motion", "value": "reduce"}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    browser.get(pages["small"].as_uri())
    kept = browser.find_element(By.ID, "kept")
    assert len(shown(browser, "kept")) == 24
    kept.find_element(By.CLASS_NAME, "all").click()
    everything = shown(browser, "kept")
    assert len(everything) == 51
    kept.find_element(By.CLASS_NAME, "all").click()
    assert len(shown(browser, "kept")) == 24

    by_class = Select(kept.find_element(By.TAG_NAME, "select"))
    by_class.select_by_visible_text(HOSTILE_CLASS)
    of_class = [one for one in everything if one[0] == HOSTILE_CLASS]
    assert shown(browser, "kept") == of_class
    assert 3 < len(of_class) < 51
    (differs,) = (
        label
        for label in kept.find_elements(By.CSS_SELECTOR, ".chips label")
        if label.text.strip() == "seen as another class"
    )
    differs.click()
    both = [one for one in of_class if not one[1].startswith("as asked")]
    assert shown(browser, "kept") == both
    assert 0 < len(both) < len(of_class)
    by_class.select_by_visible_text("all")
    every = [one for one in everything if not one[1].startswith("as asked")]
    assert shown(browser, "kept") == every
    assert len(shown(browser, "disagreements")) > 0  # the other galleries are as they were
    assert len(shown(browser, "often")) == 24


def test_filters_by_keyboard(browser, pages: dict[str, Path]) -> None:
    from selenium.webdriver.common.keys import Keys

    browser.get(pages["small"].as_uri())
    everything = len(shown(browser, "mistakes"))
    browser.execute_script("document.querySelector('#mistakes select').focus()")
    active = lambda: browser.switch_to.active_element  # noqa: E731
    active().send_keys("star")
    names = {asked for asked, _ in shown(browser, "mistakes")}
    assert names == {"star"}
    active().send_keys(Keys.HOME)
    assert len(shown(browser, "mistakes")) == everything == 24
    active().send_keys(Keys.TAB)
    assert active().get_attribute("type") == "radio"
    active().send_keys(Keys.ARROW_RIGHT)
    right = len(shown(browser, "mistakes"))
    active().send_keys(Keys.ARROW_RIGHT)
    assert right + len(shown(browser, "mistakes")) == 30
    active().send_keys(Keys.ARROW_RIGHT)
    active().send_keys(Keys.TAB)
    active().send_keys(Keys.SPACE)
    assert len(shown(browser, "mistakes")) == 30


def test_a_broken_run_of_the_check_is_told_in_red(browser, pages: dict[str, Path]) -> None:
    browser.get(pages["contaminated"].as_uri())
    colour, text = browser.execute_script(
        "const banner = document.querySelector('.banner');"
        "return [getComputedStyle(banner).backgroundColor, banner.innerText]"
    )
    red, green, blue = map(int, colour.removeprefix("rgb(").removesuffix(")").split(","))
    assert red > 3 * max(green, blue)
    assert text.startswith("Do not quote these figures. 2 test images")
