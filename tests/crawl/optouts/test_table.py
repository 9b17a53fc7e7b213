"""The table of forms, and the evidence that is kept."""

import pytest
from yarl import URL

from kd3_pipeline.crawl.optouts.forms import FORMS, table
from kd3_pipeline.crawl.optouts.headers import heard
from kd3_pipeline.crawl.optouts.pictures import image_signals
from kd3_pipeline.crawl.optouts.robots_lines import declared
from kd3_pipeline.crawl.optouts.rsl import licence
from kd3_pipeline.crawl.optouts.signals import ALL_KINDS
from kd3_pipeline.crawl.optouts.tdmrep import reservations
from kd3_pipeline.crawl.optouts.values import dictionary, signal_says, usage_says
from kd3_pipeline.crawl.robots import rules_of
from tests.crawl.optouts import marked
from tests.crawl.optouts.judging import IMAGE, judged
from tests.imports import ROOT

DMI = marked.VOCABULARY + "DMI-"


def test_what_allows_is_seen_too():
    found = image_signals(marked.with_xmp(marked.attribute(DMI + "ALLOWED")))
    assert [one.line for one in found] == [f"data-mining: XMP plus:DataMining: {DMI}ALLOWED"]
    found = image_signals(
        marked.jpeg_c2pa(marked.store(marked.assertion({"cawg.ai_training": "allowed"})))
    )
    assert [one.line for one in found] == [
        "c2pa: C2PA cawg.training-mining: cawg.ai_training=allowed"
    ]
    text = "User-agent: *\nContent-Signal: ai-train=yes\nContent-Usage: search=y"
    found, _ = judged(text, '[{"location": "/", "tdm-reservation": 0}]', {"X-Robots-Tag": "all"})
    assert found.text.splitlines() == [
        "content-signal: robots.txt: ai-train=yes",
        "content-usage: robots.txt: search=y",
        "x-robots-tag: header X-Robots-Tag: all",
        "tdm-reservation: /.well-known/tdmrep.json: / 0",
    ]


def test_evidence_is_short_and_of_one_line_a_signal():
    found, _ = judged(
        "", headers={"Content-Signal": "ai-train=yes, " + "x" * 10_000 + "\x1b[2J\x85"}
    )
    assert len(found.text) < 300
    assert "\x1b" not in found.text


def test_every_kind_of_the_parameter_is_in_the_table():
    assert {form.kind for form in FORMS} == {*ALL_KINDS, "ai-agents"}


@pytest.mark.parametrize("form", FORMS, ids=lambda form: f"{form.kind} {form.place} {form.name}")
def test_the_example_of_every_form_is_one(form):
    rules, text = {"robots.txt": rules_of, "header": heard}, form.example
    if form.place == "robots.txt":
        said = declared(["User-agent: *", *text.split(" / ")])
        kinds = {one.kind for one in said.signals("/img/a.jpg")} | (
            {"rsl"} if said.licences else set()
        )
        assert form.kind in kinds
    elif form.place == "header":
        name, _, value = text.partition(": ")
        found = heard({name: value}, IMAGE)
        assert (
            form.kind in {one.kind for one in found.signals if one.allows is False}
            or found.licences
        )
    elif form.place == "well-known file":
        assert reservations(text.encode()).signals("/img/a.jpg")[0].allows is False
    elif form.place == "licence file":
        data = f'<rsl xmlns="https://rslstandard.org/rsl">{text}</license></content></rsl>'
        assert licence(data.encode(), "x").signals(URL(IMAGE))[0].allows is False
    assert rules


def test_values_are_read_as_their_standards_say():
    assert dictionary("a=1, b=(x y);q=0.5, c, d=:YQ==:, e=@1, f=?1") == dict(
        a="1", b="", c="", d=":YQ==:", e="@1", f="?1"
    )
    assert dictionary("a=(1") is None
    assert usage_says("") is None
    assert signal_says("ai-train=no, ai-train=yes") is False


def test_the_page_of_opt_outs_shows_the_table():
    assert f"\n\n{table()}\n\n" in (ROOT / "docs/opt-outs.md").read_text("utf-8")
