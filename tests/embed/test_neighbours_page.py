"""The contact sheet: it is whole, needs nothing else, and obeys no text from the web."""

import re
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from kd3_pipeline.demo.domains import original_images
from kd3_pipeline.report.neighbours.page import build_neighbours_page
from kd3_pipeline.report.thumbnails import Thumbnail, encode_thumbnail
from tests.browser import assert_sound

SCRIPT = "<script>alert(1)</script>"
BREAKS_OUT = '"><img src=x onerror=alert(1)>'
TURNS = "\u202egnp.cod\x00"
ROW = {
    "cosine": 0.91234,
    "class": "cat",
    "predicted": "cat",
    "title": "A cat",
    "url": "https://img.example/cat.jpg?a=1&b=2",
    "page_url": "https://page.example/cat",
    "licence": "CC BY 4.0",
    "licence_url": "https://licence.example/by/4.0",
}
HOSTILE = {
    "class": SCRIPT,
    "predicted": "{{ 7 * 7 }}",
    "title": BREAKS_OUT + TURNS,
    "url": "javascript:alert(1)",
    "page_url": "data:text/html,<script>alert(1)</script>",
    "licence": "a" * 300,
    "licence_url": 'https://x.example/" onclick="alert(1)',
}


def picture(index: int) -> Thumbnail | None:
    pixels, _ = original_images("train", 14, 64, 0)
    out = BytesIO()
    Image.fromarray(pixels[index]).save(out, "PNG")
    return encode_thumbnail(out.getvalue())


def page() -> str:
    """Eleven good neighbours and a hostile one whose image is broken; another has no origin."""
    rows = [ROW | {"id": f"{at:064x}", "cosine": 0.99 - at / 50} for at in range(12)]
    rows[2] |= HOSTILE
    rows[4] |= {"class": "dog", "title": "", "licence": "", "licence_url": ""}
    rows[6] |= {name: "" for name in ROW if name not in ("cosine", "predicted")}
    rows[8] |= {"title": "Donaudampfschifffahrtsgesellschaftskapitän" * 3, "class": "a " * 80}
    thumbnails = {row["id"]: picture(at) for at, row in enumerate(rows) if at != 2}
    thumbnails |= {rows[2]["id"]: encode_thumbnail(b"broken"), "query": picture(12)}
    return build_neighbours_page(f"{SCRIPT}.jpg", "frog", rows, thumbnails)


class Elements(HTMLParser):
    """All elements with their attributes, and all text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, Any]]] = []
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_needs_nothing_else_and_obeys_no_text():
    elements = Elements(page())
    tags = [tag for tag, _ in elements.found]
    assert "script" not in tags
    assert tags.count("img") == 12
    for tag, attributes in elements.found:
        assert not [name for name in attributes if name.startswith("on")]
        if tag in ("img", "link"):
            assert attributes.get("src", attributes.get("href")).startswith("data:")
        if tag == "a":
            assert re.match(r"https://(img|page|licence)\.example/", attributes["href"])
            assert {"noopener", "noreferrer"} <= set(attributes["rel"].split())
    policies = [one.get("content", "") for _, one in elements.found if "http-equiv" in one]
    assert policies[0].startswith("default-src 'none'")
    for text in (SCRIPT, BREAKS_OUT, "{{ 7 * 7 }}", f"{SCRIPT}.jpg"):
        assert text in elements.text
    assert "\u202e" not in elements.text and "\x00" not in elements.text


def test_the_page_says_class_prediction_similarity_address_and_licence():
    text = " ".join(Elements(page()).text.split())
    assert "The teacher sees frog" in text and "the 12 images" in text
    assert text.count("CC BY 4.0") == 9
    assert text.count("licence not stated") == 2
    for shown in (
        "similarity 0.990",
        "seen as cat",
        "no address",
        "no class",
        "page on page.example",
    ):
        assert shown in text
    similarities = [float(one) for one in re.findall(r"similarity (0\.\d+)", text)]
    assert np.all(np.diff(similarities) < 0) and len(similarities) == 12


@pytest.fixture(scope="module")
def sheet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sheet") / "sheet.html"
    path.write_text(page(), encoding="utf-8")
    return path


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
def test_the_page_is_sound_in_a_browser(browser, sheet: Path, width: int, scheme: str):
    assert_sound(browser, sheet, width, scheme)
