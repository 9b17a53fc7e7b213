"""The page of a search: what it says, that it is whole, and that it needs nothing else."""

import re
from html.parser import HTMLParser
from typing import Any

import pytest

from pipeline.report.tuning.page import build_tuning_page, scatter

VOID = {"meta", "link", "br", "img"}
CHOICES = {"lr": None, "crop": ("pad", "<none>"), "flip": (True, False)}
COMMANDS = ["pipeline distill --set distill.lr=0.4", "dvc exp run -S distill.lr=0.4"]


def row(trial: int, agreement: float, lr: float, crop: str, flip: bool, failed: str = "") -> dict:
    values = {"lr": lr, "crop": crop, "flip": flip}
    return {"trial": trial, "agreement": agreement, **values, "failed": failed}


ROWS = [
    row(2, 0.713, 0.4, "pad", True),
    row(1, 0.64, 0.1, "<none>", False),
    row(4, 0.64, 2.0, "pad", False),
    row(3, 0.0, 1.5, "pad", True, "the loss is not finite & that is <why>"),
]


class Whole(HTMLParser):
    """Fails where an element is not closed in order; collects elements and text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.found: list[tuple[str, dict[str, Any]]] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, Any]]:
        return [attributes for name, attributes in self.found if name == tag]


def page(rows: list[dict] = ROWS) -> str:
    return build_tuning_page(rows, CHOICES, COMMANDS, 250)


def test_the_page_is_whole_and_needs_nothing_else() -> None:
    html = page()
    whole = Whole(html)
    sources = {"src", "href", "srcset", "data", "action", "poster", "xlink:href"}
    for _, attributes in whole.found:
        assert all(str(attributes[name]).startswith("data:") for name in sources & set(attributes))
    assert not re.search(r"https?:|url\(|@import|<script|\son\w+=", html)
    assert any(
        meta.get("content", "").startswith("default-src 'none'") for meta in whole.all("meta")
    )
    assert "prefers-color-scheme: dark" in html


def test_the_page_says_the_best_trial_and_how_to_use_it() -> None:
    text = Whole(page()).text
    assert "Trial 2 agrees with the teacher on 71.3% of the held-out web images." in text
    assert "worth 0.4 points" in text
    assert all(command in text for command in COMMANDS)


def test_every_trial_is_a_row_and_a_dot_of_each_drawing() -> None:
    whole = Whole(page())
    assert len(whole.all("tr")) == 1 + len(ROWS)
    assert len(whole.all("svg")) == len(CHOICES)
    assert len(whole.all("circle")) == len(CHOICES) * len(ROWS)
    assert "the loss is not finite & that is <why>" in whole.text
    assert "<none>" in whole.text


def test_a_drawing_says_in_words_what_it_shows() -> None:
    svg = scatter("lr", ROWS, None)
    assert 'role="img"><title>agreement of 4 trials by lr; the best, 71.3%, has 0.4</title>' in svg
    assert "trial 4: 64.0%, lr 2.0" in svg


def test_a_range_is_drawn_by_its_logarithm() -> None:
    circles = Whole(scatter("lr", ROWS, None)).all("circle")
    at = {float(r["lr"]): float(c["cx"]) for r, c in zip(reversed(ROWS), circles, strict=True)}
    left, right = at[0.1], at[2.0]
    # 0.4 is two of the 4.32 doublings from 0.1 to 2
    assert (at[0.4] - left) / (right - left) == pytest.approx(2 / 4.3219, abs=0.01)


def test_values_have_a_column_each() -> None:
    circles = Whole(scatter("crop", ROWS, CHOICES["crop"])).all("circle")
    at = [(r["crop"], float(c["cx"])) for r, c in zip(reversed(ROWS), circles, strict=True)]
    assert max(x for crop, x in at if crop == "pad") < min(x for crop, x in at if crop != "pad")
    assert len(set(at)) == len(ROWS), "dots of one column stand side by side"


def test_failures_are_hollow_and_do_not_stretch_the_axis() -> None:
    svg = scatter("lr", ROWS, None)
    assert svg.count('class="failed"') == 1
    assert ">64%</text>" in svg
    assert ">0%</text>" not in svg


@pytest.mark.parametrize("rows", [ROWS[:1], [ROWS[3]], [ROWS[3], ROWS[3]]])
def test_few_or_failed_trials_make_a_page(rows: list[dict]) -> None:
    text = Whole(page(rows)).text
    assert ("No trial could be trained" in text) == bool(rows[0]["failed"])
