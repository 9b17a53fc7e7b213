"""The page in a browser: nothing fails to load, overflows or runs."""

import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

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


# the map, by mouse and by keyboard

CARD = """
const point = document.querySelectorAll('.point')[arguments[0]];
const [image, text] = ['::before', '::after'].map(part => getComputedStyle(point, part));
return {shown: image.display !== 'none' && text.display !== 'none', told: text.content,
        picture: image.backgroundImage.startsWith('url("data:image/webp'),
        at: image.backgroundPosition};
"""
INSIDE = """
const outside = [], plane = document.querySelector('.plane').getBoundingClientRect();
const region = document.querySelector('#map .scroll');
if (region.scrollHeight > region.clientHeight) outside.push('the map scrolls upwards');
for (const point of document.querySelectorAll('.point')) {
  const box = point.getBoundingClientRect(), card = getComputedStyle(point, '::after');
  const wide = parseFloat(card.width), high = 5 * 16 + 11.2 + 5 * 16.2 + 2;  // of five lines
  const left = point.classList.contains('w') ? box.right - 14 - wide : box.left + 14;
  const top = point.classList.contains('n') ? box.bottom - 14 - high : box.top + 14;
  if (left < plane.left || left + wide > plane.right) outside.push(point.ariaLabel);
  if (top < plane.top || top + high > plane.bottom) outside.push(point.ariaLabel);
}
return outside;
"""


def resized(browser, width: int, scheme: str = "light") -> None:
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600},
    )
    features = [
        {"name": "prefers-color-scheme", "value": scheme},
        {"name": "prefers-reduced-motion", "value": "reduce"},
    ]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def test_a_dot_of_the_map_shows_its_picture_under_the_mouse(browser, pages) -> None:
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.by import By

    resized(browser, 1440)
    browser.get(pages["small"].as_uri())
    points = browser.find_elements(By.CLASS_NAME, "point")
    assert len(points) == 51
    before = browser.execute_script(CARD, 20)
    assert not before["shown"]
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", points[20])
    ActionChains(browser).move_to_element(points[20]).perform()
    shown = [at for at in range(51) if browser.execute_script(CARD, at)["shown"]]
    assert len(shown) == 1  # it, or one that lies on it
    card = browser.execute_script(CARD, shown[0])
    assert card["picture"] and "; seen as " in card["told"]


def test_the_keyboard_goes_through_the_map_dot_by_dot(browser, pages) -> None:
    from selenium.webdriver.common.keys import Keys

    browser.get(pages["small"].as_uri())
    browser.execute_script("document.querySelector('#map .scroll').focus()")
    active = lambda: browser.switch_to.active_element  # noqa: E731
    active().send_keys(Keys.TAB)
    first = active().get_attribute("aria-label")
    assert active().get_attribute("class").startswith("point") and "; seen as " in first
    seen = set()
    for _ in range(3):
        active().send_keys(Keys.ARROW_RIGHT)
        (at,) = [at for at in range(51) if browser.execute_script(CARD, at)["shown"]]
        card = browser.execute_script(CARD, at)
        assert card["picture"] and active().get_attribute("aria-label") in card["told"]
        seen.add((at, card["at"]))
    assert len(seen) == 3
    active().send_keys(Keys.TAB)  # one stop for all of them
    assert not active().get_attribute("class").startswith("point")
    assert not any(browser.execute_script(CARD, at)["shown"] for at in range(51))


@pytest.mark.parametrize("width", [390, 1440])
def test_the_cards_of_the_map_stay_on_it(browser, pages, width: int) -> None:
    resized(browser, width)
    browser.get(pages["small"].as_uri())
    assert browser.execute_script(INSIDE) == []


# tables that scroll say so

COLUMNS = """
const found = [];
for (const box of document.querySelectorAll('.scroll')) {
  const hidden = box.scrollWidth - box.clientWidth;
  if (!box.checkVisibility() || hidden < 2) continue;
  found.push(box.ariaLabel);
}
return found;
"""


def edges(browser, label: str, scrolled: bool) -> tuple[int, int]:
    """How far the outermost pixels of a region are from the page's colour, left and right."""
    box = browser.execute_script(
        "const box = document.querySelector(`.scroll[aria-label='${arguments[0]}']`);"
        "box.scrollIntoView({block: 'center'}); box.scrollLeft = arguments[1] ? 1e5 : 0;"
        "const r = box.getBoundingClientRect(); return [r.x + scrollX, r.y + scrollY, r.width, 40]",
        label,
        scrolled,
    )
    # once it is painted as it is scrolled
    browser.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")
    clip = dict(zip(("x", "y", "width", "height"), box, strict=True)) | {"scale": 1}
    shot = browser.execute_cdp_cmd(
        "Page.captureScreenshot", {"clip": clip, "captureBeyondViewport": True}
    )
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(shot["data"]))).convert("RGB"))
    paper = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    colour = np.array([int(part) for part in re.findall(r"\d+", paper)])
    apart = np.abs(pixels.astype(int) - colour).max(axis=2)
    return int(np.median(apart[:, 1])), int(np.median(apart[:, -2]))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_table_that_is_cut_shows_on_which_side_there_is_more(browser, pages, scheme: str) -> None:
    resized(browser, 390, scheme)
    browser.get(pages["small"].as_uri())
    cut = browser.execute_script(COLUMNS)
    assert {"Images by class", "Latency"} <= set(cut)
    for label in ("Images by class", "Latency"):
        left, right = edges(browser, label, scrolled=False)
        assert left < 6 and right > 20, (label, left, right)
        left, right = edges(browser, label, scrolled=True)
        assert right < 6, (label, right)
    resized(browser, 1440, scheme)
    assert "Images by class" not in browser.execute_script(COLUMNS)
    assert edges(browser, "Images by class", scrolled=False)[1] < 6


# the confusion matrix on a dark page

CELLS = """
return [...document.querySelectorAll('.matrix tbody td')].map(cell => {
  const style = getComputedStyle(cell);
  return [cell.innerText.trim(), style.backgroundColor, style.color, style.boxShadow];
});
"""


def luminance(colour: list[float]) -> float:
    parts = [one / 255 for one in colour[:3]]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return sum(w * p for w, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one: list[float], other: list[float]) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def over(text: str, paper: list[float]) -> list[float]:
    """A colour as it looks on the page."""
    red, green, blue, *alpha = (float(part) for part in re.findall(r"[\d.]+", text))
    share = alpha[0] if alpha else 1.0
    return [share * a + (1 - share) * b for a, b in zip((red, green, blue), paper, strict=True)]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["small", "twenty"])
def test_no_cell_of_the_confusions_vanishes_or_hides_its_number(
    browser, pages, name: str, scheme: str
) -> None:
    resized(browser, 1440, scheme)
    browser.get(pages[name].as_uri())
    body = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    paper = [float(part) for part in re.findall(r"[\d.]+", body)][:3]
    cells = browser.execute_script(CELLS)
    assert len(cells) in (9, 400)
    for text, background, colour, edge in cells:
        shown = over(background, paper)
        if text != "·":
            assert contrast(shown, paper) > 1.15, (text, background)
            assert contrast(shown, over(colour, paper)) >= 4.5, (text, background, colour)
        else:
            assert contrast(shown, paper) == 1 or edge != "none"
