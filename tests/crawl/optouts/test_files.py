"""Conformance: RSL licences and tdmrep.json, and what is nearly that."""

import pytest

from kd3_pipeline.crawl.optouts.robots_lines import MOST_LICENCES
from tests.crawl.optouts.judging import judged


def rsl_file(*contents):
    return (
        '<?xml version="1.0"?><rsl xmlns="https://rslstandard.org/rsl">'
        + "".join(contents)
        + "</rsl>"
    )


def content(inner, url="/"):
    return f'<content url="{url}"><license>{inner}</license></content>'


NO = '<prohibits type="usage">ai-train</prohibits>'
YES = '<permits type="usage">ai-train</permits>'
LICENCES = [  # licence, refused, whether it decides so that tdmrep.json is not asked for
    (rsl_file(content(NO)), True, True),
    (rsl_file(content(f"<permits type='usage'>search</permits>{NO}")), True, True),
    (rsl_file(content('<prohibits type="usage">search, ai-all</prohibits>')), True, True),
    (rsl_file(content('<prohibits type="usage">ALL</prohibits>')), True, True),
    (rsl_file(content("<prohibits> ai-input ai-train </prohibits>")), True, True),
    (rsl_file(content(NO, "/*")), True, True),
    (rsl_file(content(NO, "http://0.test/")), True, True),
    (rsl_file(content(NO, "http://0.test")), True, True),
    (rsl_file(content(NO, "/img/")), True, False),
    (rsl_file(content(NO, "*.jpg$")), True, False),
    (rsl_file(content(NO), content(YES, "/img/")), True, True),  # no prohibition is overruled
    (rsl_file(content(YES) + content(YES + '<payment type="purchase"/>', "/img/")), True, True),
    (rsl_file(content(YES + '<payment type="training"><amount>1</amount></payment>')), True, True),
    ("<rsl>" + content(NO) + "</rsl>", True, True),
    ("\ufeff" + rsl_file(content(NO)), True, True),
    ('<rss xmlns:r="https://rslstandard.org/rsl"><channel><r:content url="/"><r:license>'
     "<r:prohibits type='usage'>ai-train</r:prohibits></r:license></r:content></channel></rss>",
     True, True),
    (rsl_file(content(YES)), False, True),
    (rsl_file(content('<permits type="usage">all</permits><payment type="free"/>')), False, True),
    (rsl_file(content(YES + '<payment type="attribution"/>')), False, True),
    (rsl_file(content('<permits type="usage">search</permits>')), False, False),
    (rsl_file(content('<prohibits type="usage">ai-input</prohibits>')), False, False),
    (rsl_file(content('<prohibits type="user">ai-train</prohibits>')), False, False),
    (rsl_file(content('<prohibits type="geo">all</prohibits>')), False, False),
    (rsl_file(content('<prohibits type="usage">ai-training</prohibits>')), False, False),
    (rsl_file(content(NO, "/other/")), False, False),
    (rsl_file(content(NO, "http://1.test/")), False, False),
    (rsl_file(content(NO, "https://0.test/")), False, False),
    (rsl_file(content(NO, "")), False, False),
    (rsl_file(f"<!-- {content(NO)} -->"), False, False),
    (rsl_file("<content url='/'/>"), False, False),
    (content(NO).replace("<content", "<content xmlns='https://example.com/x'"), False, False),
    ("<rsl><content url='/'><license>", False, False),
    ("", False, False),
    (b"\xff\xfe\x00", False, False),
    ('<!DOCTYPE rsl [<!ENTITY u "ai-train">]>' + rsl_file(content("<prohibits>&u;</prohibits>")),
     False, False),
    ('<!DOCTYPE rsl [<!ENTITY f SYSTEM "file:///etc/hostname">]>'
     + rsl_file(content("<prohibits>&f;</prohibits>")), False, False),
    (rsl_file(content(NO), " " * 300_000), False, False),
]  # fmt: skip


@pytest.mark.parametrize(("text", "refused", "decides"), LICENCES)
@pytest.mark.parametrize(
    "named", ["License: http://0.test/l.xml", "license:/l.xml # ours", "header"]
)
def test_licences_are_read_for_training(text, refused, decides, named):
    files = {"http://0.test/l.xml": text}
    if named == "header":
        link = '</x>; rel="next", </l.xml>; rel="license"; type="application/rsl+xml"'
        found, asked = judged("", headers={"Link": link}, licences=files)
        assert asked == ["robots", "tdmrep", "licence"]
    else:
        found, asked = judged(f"User-agent: other\nDisallow: /\n{named}\n", licences=files)
        assert asked == ["robots", "licence", *([] if decides else ["tdmrep"])]
    assert found.refusal.startswith("rsl: http://0.test/l.xml: ") is refused
    assert bool(found.refusal) is refused
    assert "rsl" in {one.kind for one in found.signals}


def test_licences_that_are_not_to_be_read_are_told_and_not_asked_for():
    files = {"http://0.test/l.xml": rsl_file(content(NO))}
    text = "User-agent: *\nDisallow: /l.xml\nLicense: http://0.test/l.xml"
    found, asked = judged(text, licences=files)
    assert asked == ["robots", "tdmrep"]
    assert [one.line for one in found.signals] == [
        "rsl: http://0.test/l.xml: robots.txt disallows it"
    ]
    found, asked = judged(
        "License: http://0.test/l.xml", licences=files, opt_outs=["content-usage"]
    )
    assert asked == ["robots"]
    assert [one.line for one in found.signals] == ["rsl: robots.txt: http://0.test/l.xml"]
    many = "".join(f"License: http://1.test/{n}\n" for n in range(20))
    found, asked = judged(many + "License: http://[/\n")
    assert asked.count("licence") == MOST_LICENCES
    assert "rsl: robots.txt: 18 more licences, not read" in found.text.splitlines()


TDMREP = [
    ('[{"location": "/", "tdm-reservation": 1}]', True),
    ('[{"location": "/*", "tdm-reservation": 1, "tdm-policy": "https://x.test/p"}]', True),
    ('[{"location": "/img/*.jpg", "tdm-reservation": 1}]', True),
    ('[{"location": "*.jpg$", "tdm-reservation": "1"}]', True),
    ('\ufeff[{"location": "/img/", "tdm-reservation": 1}]', True),
    ('[{"location": "/x", "tdm-reservation": 0}, {"location": "/", "tdm-reservation": 1}]', True),
    ('[1, {}, {"location": 3}, {"location": "/", "tdm-reservation": 1}]', True),
    ('{"location": "/", "tdm-reservation": 1}', True),
    ('[{"location": "/", "tdm-reservation": 1.0}]', True),
    ('[{"location": "/", "tdm-reservation": 0.0}, {"location": "*", "tdm-reservation": 1}]', False),
    ('[{"location": "/", "tdm-reservation": NaN}]', False),
    (
        '[{"location": "/img/a", "tdm-reservation": 0}, {"location": "/", "tdm-reservation": 1}]',
        False,
    ),
    (
        '[{"location": "/", "tdm-reservation": 0}, {"location": "/img/", "tdm-reservation": 1}]',
        False,
    ),
    ('[{"location": "/other/", "tdm-reservation": 1}]', False),
    ('[{"location": "/img/*.png", "tdm-reservation": 1}]', False),
    ('[{"location": "/img/$", "tdm-reservation": 1}]', False),
    ('[{"location": "/IMG/", "tdm-reservation": 1}]', False),
    ('[{"location": "/", "tdm-reservation": 2}]', False),
    ('[{"location": "/", "tdm_reservation": 1}]', False),
    ('[{"tdm-reservation": 1}]', False),
    ("[]", False),
    ("null", False),
    ("<html>", False),
    ("[" * 100_000, False),
    ('[{"location": "/", "tdm-reservation": 1}]'.ljust(300_000), False),
]


@pytest.mark.parametrize(("text", "refused"), TDMREP)
def test_tdmrep_json_is_read_and_a_header_goes_before_it(text, refused):
    found, asked = judged("", tdmrep=text)
    assert asked == ["robots", "tdmrep"]
    assert found.refusal.startswith("tdm-reservation: /.well-known/tdmrep.json: ") is refused
    assert bool(found.refusal) is refused
    assert judged("", tdmrep=text, headers={"TDM-Reservation": "0"})[0].refusal == ""
    assert bool(judged("", tdmrep=text, headers={"TDM-Reservation": "x"})[0].refusal) is refused
    refusal = judged("", tdmrep=text, headers={"tdm-reservation": " 1 "})[0].refusal
    assert refusal == "TDM-Reservation: 1"


def test_a_tdmrep_json_that_is_too_long_is_told():
    found, _ = judged("", tdmrep=TDMREP[0][0].ljust(300_000))
    assert found.text.endswith("/.well-known/tdmrep.json: not read: more than 262,144 bytes")
    assert judged("", tdmrep="<html>".ljust(300_000))[0].text == ""


@pytest.mark.parametrize(
    ("robots", "changes"),
    [
        ("User-agent: *\nDisallow: /.well-known/", {}),
        ("User-agent: *\nDisallow: /\nAllow: /img", {}),
        ("", {"opt_outs": ["content-signal"]}),
        ("", {"opt_outs": "none"}),
    ],
)
def test_tdmrep_json_is_not_asked_for_where_it_is_disallowed_or_not_obeyed(robots, changes):
    found, asked = judged(robots, tdmrep=TDMREP[0][0], **changes)
    assert asked == ["robots"]
    assert found.refusal == ""


def test_robots_txt_is_asked_for_its_signals_alone():
    text = "User-agent: *\nDisallow: /\nContent-Signal: ai-train=no"
    assert judged(text, robots=False)[1] == ["robots", "tdmrep"]
    assert judged(text, robots=False)[0].refusal.startswith("content-signal")
    assert judged(text, robots=False, opt_outs=["tdm-reservation"])[1] == ["tdmrep"]
    assert judged(text, robots=False, opt_outs=["c2pa"])[1] == []
