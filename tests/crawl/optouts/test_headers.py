"""Conformance: what headers say, and what is nearly that."""

import time

import pytest
from multidict import CIMultiDict

from kd3_pipeline.crawl.optouts.headers import heard
from kd3_pipeline.crawl.optouts.signals import kind_of
from tests.crawl.optouts.judging import IMAGE, judged


def repeated(*headers):
    return CIMultiDict(headers)


HEADERS = [
    ({"X-Robots-Tag": "noai"}, "x-robots-tag"),
    ({"X-Robots-Tag": "NoImageAI, nofollow"}, "x-robots-tag"),
    ({"X-Robots-Tag": "all,NOML"}, "x-robots-tag"),
    ({"X-Robots-Tag": " noimageindex "}, "x-robots-tag"),
    ({"X-Robots-Tag": "none"}, "x-robots-tag"),
    ({"X-Robots-Tag": "kd3-pipeline: noindex"}, "x-robots-tag"),
    ({"X-Robots-Tag": "KD3-Pipeline: nofollow, noai"}, "x-robots-tag"),
    ({"X-Robots-Tag": "kd3-pipeline/1.0: noai"}, "x-robots-tag"),
    ({"X-Robots-Tag": "*: noai"}, "x-robots-tag"),
    ({"X-Robots-Tag": "otherbot: noindex, kd3-pipeline: noai"}, "x-robots-tag"),
    ({"X-Robots-Tag": "noai, otherbot: nofollow"}, "x-robots-tag"),
    ({"X-Robots-Tag": "max-snippet: 20, noindex"}, "x-robots-tag"),
    ({"X-Robots-Tag": "unavailable_after: Fri, 25 Jun 2010 15:00:00 PST, noindex"}, "x-robots-tag"),
    (repeated(("X-Robots-Tag", "otherbot: noai"), ("x-robots-tag", "noai")), "x-robots-tag"),
    (repeated(("X-Robots-Tag", "nofollow"), ("X-Robots-Tag", "noimageindex")), "x-robots-tag"),
    ({"TDM-Reservation": "1"}, "tdm-reservation"),
    ({"TDM-Reservation": " 1 "}, "tdm-reservation"),
    (repeated(("tdm-reservation", "0"), ("TDM-Reservation", "1")), "tdm-reservation"),
    ({"Content-Usage": "train-ai=n"}, "content-usage"),
    ({"content-usage": "search=y,\ttrain-ai=n;x"}, "content-usage"),
    (repeated(("Content-Usage", "search=y"), ("Content-Usage", "train-ai=n")), "content-usage"),
    ({"Content-Signal": "ai-train=no, search=yes"}, "content-signal"),
    ({"X-Robots-Tag": "all, nofollow, noarchive"}, ""),
    ({"X-Robots-Tag": "otherbot: noai"}, ""),
    ({"X-Robots-Tag": "otherbot: nofollow, noai"}, ""),
    ({"X-Robots-Tag": "kd3: noai"}, ""),
    ({"X-Robots-Tag": "kd3-pipeline: nofollow, otherbot: noai"}, ""),
    ({"X-Robots-Tag": "noaim"}, ""),
    ({"X-Robots-Tag": ""}, ""),
    ({"X-Robots-Tag": ":,:"}, ""),
    (repeated(("X-Robots-Tag", "otherbot: noai"), ("X-Robots-Tag", "all")), ""),
    ({"TDM-Reservation": "0"}, ""),
    ({"TDM-Policy": "https://example.com/policy.json"}, ""),
    ({"Content-Usage": "train-ai=y"}, ""),
    ({"Content-Usage": "train-ai=n broken"}, ""),
    ({"Content-Usage": "/img/ train-ai=n"}, ""),  # a path is robots.txt's
    (repeated(("Content-Usage", "train-ai=n"), ("Content-Usage", "train-ai=y")), ""),
    ({"Content-Signal": "ai-input=no"}, ""),
    ({"Link": '</l.xml>; rel="license"'}, ""),  # any licence, of any form
    ({"Link": '</l.xml>; rel="next"; type="application/rsl+xml"'}, ""),
    ({"Link": '<l.xml; rel="license"; type="application/rsl+xml"'}, ""),
]  # fmt: skip


@pytest.mark.parametrize(("headers", "kind"), HEADERS, ids=str)
def test_headers_forbid_or_not(headers, kind):
    found, asked = judged("", headers=headers)
    assert kind_of(found.refusal) == kind
    assert asked == ["robots", "tdmrep"]


@pytest.mark.parametrize(
    "value",
    [
        '<' * 60_000,
        "<a>;" * 15_000,
        "<a>" + "; a" * 20_000,
        '<a>; rel="' + "x" * 60_000,
        "a=" * 30_000,
        'a="' + "\\" * 60_000,
        "(" * 60_000,
        "a=(" + "b " * 30_000,
        "kd3-pipeline:" * 5_000,
    ],
)  # fmt: skip
def test_headers_of_any_content_take_no_time(value):
    start = time.process_time()
    for name in ("Link", "Content-Usage", "Content-Signal", "X-Robots-Tag", "TDM-Reservation"):
        heard({name: value}, IMAGE)
    assert time.process_time() - start < 0.5
