"""The conformance table: every form of an opt-out, and what is nearly one."""

import time

import pytest
from multidict import CIMultiDict
from yarl import URL

from pipeline.crawl.optouts.fields import dictionary, signal_says, usage_says
from pipeline.crawl.optouts.forms import FORMS
from pipeline.crawl.optouts.headers import heard
from pipeline.crawl.optouts.lines import MOST_LICENCES, declared
from pipeline.crawl.optouts.origin import Said
from pipeline.crawl.optouts.pictures import image_signals
from pipeline.crawl.optouts.rsl import licence
from pipeline.crawl.optouts.signals import ALL_KINDS
from pipeline.crawl.optouts.tdmrep import reservations
from pipeline.crawl.robots import MAX_BYTES, rules_of
from pipeline.params import Crawl
from tests.crawl.optouts import marked

ORIGIN = "http://0.test"
IMAGE = f"{ORIGIN}/img/a.jpg"
OURS = "User-agent: kd3-pipeline\n"
ALL = "User-agent: *\n"


def judged(robots="", tdmrep=None, headers=None, licences=None, address=IMAGE, **changes):
    """The verdict on an image, and the kinds of files that it took."""
    said, asked = Said.of(ORIGIN, Crawl().model_copy(update=changes)), []
    answered = heard(CIMultiDict(headers or {}), address)
    while True:
        question = said.question
        if question is None:
            if said.unread(answered):
                continue
            break
        asked.append(question.kind)
        files = {
            "robots": robots,
            "tdmrep": tdmrep,
            "licence": (licences or {}).get(question.address),
        }
        data = files[question.kind]
        said.hear(
            question, question.nothing("404") if data is None else question.answer(_raw(data))
        )
    return said.verdict(address, answered), asked


def _raw(data):
    return data if isinstance(data, bytes) else data.encode()


REFUSED = [  # robots.txt
    (ALL + "Content-Signal: ai-train=no", "content-signal"),
    (ALL + "Content-Signal: search=yes,ai-train=no,use=reference\nAllow: /", "content-signal"),
    (ALL + "Content-signal: search=yes; AI-Train = NO", "content-signal"),
    (ALL + "  content-signal :\tsearch=yes , ai-train=no # all of it", "content-signal"),
    (ALL + "Content-Signal: /img/ ai-train=no", "content-signal"),
    (ALL + "Content-Signal: *.jpg$ ai-train=no", "content-signal"),
    (ALL + "Content-Signal: ai-train=yes\nContent-Signal: /img/ ai-train=no", "content-signal"),
    (ALL + "Content-Signal: ai-train=yes\nContent-Signal: ai-train=no", "content-signal"),
    ("\ufeff" + ALL + "Content-Signal: ai-train=no\r\n", "content-signal"),
    (
        OURS + "Content-Signal: ai-train=no\n" + ALL + "Content-Signal: ai-train=yes",
        "content-signal",
    ),
    ("User-agent: x\n" + ALL + "Content-Signal: ai-train=no", "content-signal"),
    (
        "User-agent: x\nAllow: /\n\n" + ALL + "\n# us too\nContent-Signal: ai-train=no",
        "content-signal",
    ),
    (ALL + "Allow: /\nSitemap: http://0.test/s.xml\nContent-Signal: ai-train=no", "content-signal"),
    ("Content-Signal: ai-train=no", "content-signal"),  # before any user agent
    ("User-agent: KD3-Pipeline/2.0\nContent-Signal: ai-train=no", "content-signal"),
    (ALL + "Content-Usage: train-ai=n", "content-usage"),
    (ALL + "CONTENT-USAGE:train-ai=n", "content-usage"),
    (
        ALL + 'Content-Usage: search=y, train-ai=n;x=1, other=(a b), s="t, train-ai=y"',
        "content-usage",
    ),
    (ALL + "Content-Usage: /img/ train-ai=n", "content-usage"),
    (ALL + "Content-Usage: /img\ttrain-ai=n", "content-usage"),
    (ALL + "Content-Usage: /*.jpg$ train-ai=n", "content-usage"),
    (ALL + "Content-Usage: train-ai=y\nContent-Usage: /img/ train-ai=n", "content-usage"),
    (ALL + "Content-Usage: /img/ train-ai=n\nContent-Usage: /img/ train-ai=y", "content-usage"),
    (ALL + "Content-Usage: /%69mg/ train-ai=n", "content-usage"),
    (ALL + "Content-Usage: train-ai=y, train-ai=n", "content-usage"),  # the last one counts
    (OURS + "Content-Usage: train-ai=n\n\n" + ALL + "Content-Usage: train-ai=y", "content-usage"),
]


@pytest.mark.parametrize(("text", "kind"), REFUSED)
def test_robots_txt_forbids(text, kind):
    found, _ = judged(text)
    assert found.refusal.startswith(f"{kind}: robots.txt: ")
    assert found.refusal.endswith(" (prohibits)")
    assert judged(text, opt_outs=[one for one in ALL_KINDS if one != kind])[0].refusal == ""


@pytest.mark.parametrize(
    "text",
    [
        "",
        ALL + "Content-Signal: ai-train=yes",
        ALL + "Content-Signal: search=no, ai-input=no",
        ALL + "Content-Signal: use=reference",
        ALL + "Content-Signal: ai-train=",
        ALL + "Content-Signal: ai-training=no, not-ai-train=no",
        ALL + "Content-Signal: /other/ ai-train=no",
        ALL + "Content-Signal: ai-train=no\nContent-Signal: /img/ ai-train=yes",
        ALL + "# Content-Signal: ai-train=no",
        ALL + "Content-Signal # : ai-train=no",
        ALL + "Content-Signals: ai-train=no",
        "User-agent: other\nContent-Signal: ai-train=no",
        "User-agent: kd3\nContent-Signal: ai-train=no",
        "User-agent: other\nContent-Signal: ai-train=no\n" + ALL + "Allow: /",
        OURS + "Content-Signal: ai-train=yes\n" + ALL + "Content-Signal: ai-train=no",
        OURS + "Allow: /\n" + ALL + "Content-Signal: ai-train=no",
        ALL + "Content-Usage: train-ai=y",
        ALL + "Content-Usage: search=n, train-genai=n",
        ALL + "Content-Usage: ai-train=no",
        ALL + "Content-Usage: train-ai=no",
        ALL + "Content-Usage: train-ai",
        ALL + 'Content-Usage: train-ai="n"',
        ALL + "Content-Usage: train-ai=?0",
        ALL + "Content-Usage: train-ai=N",
        ALL + "Content-Usage: train-ai = n",  # no structured field
        ALL + "Content-Usage: Train-AI=n",
        ALL + "Content-Usage: train-ai=n,",
        ALL + "Content-Usage: train-ai=n, train-ai=y",
        ALL + 'Content-Usage: x="train-ai=n"',
        ALL + "Content-Usage: /IMG/ train-ai=n",
        ALL + "Content-Usage: /img/$ train-ai=n",
        ALL + "Content-Usage: /*.jpeg train-ai=n",
        ALL + "Content-Usage: train-ai=n\nContent-Usage: /img/a train-ai=y",
        ALL + "Content-Usage: train-ai=n\nContent-Usage: /img/ search=y",  # the longest alone
        "User-agent: other\nContent-Usage: train-ai=n",
        "<html><body>Content-Signal: ai-train=no</body></html>",
        "Licence: http://0.test/l.xml\nUser-agent: GPTBot\nDisallow: /",
    ],
)
def test_robots_txt_that_only_looks_like_it_forbids_nothing(text):
    assert judged(text)[0].refusal == ""


AGENTS = [
    ("User-agent: GPTBot\nDisallow: /", True),
    ("User-agent: gptbot/1.0\nDisallow: /img", True),
    ("User-agent: x\nUser-agent: CCBot\nUser-agent: y\nDisallow: /*.jpg$", True),
    ("User-agent: CCBot\nDisallow: /\n\nUser-agent: GPTBot\nAllow: /", True),
    ("User-agent: img2dataset\nAllow: /\nDisallow: /img/", True),
    ("User-agent: GPTBot\nAllow: /x\n\nUser-agent: GPTBot\nDisallow: /img/", True),
    ("User-agent: GPTBot\nDisallow: /other/", False),
    ("User-agent: GPTBot\nDisallow:", False),
    ("User-agent: GPTBot\nDisallow: /\nAllow: /img/", False),
    ("User-agent: Googlebot\nDisallow: /", False),
    ("User-agent: ChatGPT-User\nDisallow: /", False),  # fetches for a person, trains nothing
    ("User-agent: GPTBots\nDisallow: /", False),
    ("# User-agent: GPTBot\n# Disallow: /", False),
    ("User-agent: GPTBot\nContent-Signal: ai-train=no", False),
]


@pytest.mark.parametrize(("text", "closed"), AGENTS)
def test_ai_crawlers_that_are_shut_out_by_name_close_a_site_if_wanted(text, closed):
    found, _ = judged(text, ai_agents=True, opt_outs="none")
    assert found.refusal.startswith("ai-agents: robots.txt: disallows") is closed
    assert judged(text)[0].refusal == ""


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
    assert refusal == "tdm-reservation: header TDM-Reservation: 1 (prohibits)"


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
    assert found.refusal.partition(":")[0] == kind
    assert asked == ["robots", "tdmrep"]


DMI = marked.VOCABULARY + "DMI-"
NO_TRAINING = {"cawg.ai_training": "notAllowed"}
PICTURES = [
    *(
        (marked.with_xmp(form(value)), True)
        for form in (marked.attribute, marked.resource, marked.element)
        for value in (DMI + "PROHIBITED-AIMLTRAINING", "DMI-PROHIBITED", DMI + "PROHIBITED-SEECONSTRAINT")
    ),
    (marked.with_xmp(marked.attribute(DMI + "PROHIBITED-GENAIMLTRAINING")), True),
    (marked.with_xmp(marked.attribute(DMI + "PROHIBITED-EXCEPTSEARCHENGINEINDEXING")), True),
    (marked.with_xmp(marked.attribute(DMI + "PROHIBITED-SEELINKEDRIGHTSEXPR")), True),
    (marked.with_xmp(marked.attribute(DMI + "PROHIBITED")[:-60]), True),  # cut
    (marked.with_xmp(marked.attribute(DMI + "PROHIBITED").replace("plus:", "p:").replace(":plus", ":p")), True),
    (marked.with_extended_xmp(marked.resource(DMI + "PROHIBITED")), True),
    (marked.png_xmp(marked.attribute(DMI + "PROHIBITED")), True),
    (marked.png_xmp(marked.element(DMI + "PROHIBITED"), compressed=True), True),
    (marked.webp(b"XMP ", marked.attribute(DMI + "PROHIBITED").encode()), True),
    (marked.gif(marked.attribute(DMI + "PROHIBITED")), True),
    (marked.with_xmp(marked.attribute(DMI + "ALLOWED")), False),
    (marked.with_xmp(marked.attribute(DMI + "UNSPECIFIED")), False),
    (marked.with_xmp(marked.attribute("")), False),
    (marked.with_xmp(marked.XMP.format("DataMining DMI-PROHIBITED")), False),
    (marked.with_xmp(marked.attribute(DMI + "PROHIBITED").replace("DataMining", "OtherMining")), False),
    (marked.with_xmp(marked.attribute(DMI + "PROHIBITED").replace("ns.useplus.org", "x.test")), False),
    (marked.with_xmp(marked.XMP.format(
        '<rdf:Description rdf:about="" xmlns:m="http://ns.adobe.com/xap/1.0/mm/"><m:Ingredients>'
        f'<rdf:Description {marked.PLUS} plus:DataMining="DMI-PROHIBITED"/>'
        "</m:Ingredients></rdf:Description>")), False),  # of what it was made from
    (marked.jpeg(marked.segment(0xFE, marked.attribute("DMI-PROHIBITED").encode())), False),  # a comment
    (marked.jpeg(marked.segment(0xE1, b"Exif\0\0" + marked.attribute("DMI-PROHIBITED").encode())), False),
    (marked.jpeg() + marked.attribute("DMI-PROHIBITED").encode(), False),  # behind the picture
    (marked.png(marked.chunk(b"iTXt", b"Comment\0\0\0\0\0" + marked.attribute("DMI-PROHIBITED").encode())), False),
    (marked.png(marked.chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0no zlib DataMining")), False),
    *(
        (marked.jpeg_c2pa(marked.store(marked.assertion({entry: use}, label))), refused)
        for label in ("cawg.training-mining", "c2pa.training-mining", "cawg.training-mining__2")
        for entry, use, refused in (
            ("cawg.ai_training", "notAllowed", True),
            ("c2pa.ai_generative_training", "notAllowed", True),
            ("c2pa.data_mining", "notAllowed", True),
            ("cawg.ai_training", "constrained", True),
            ("cawg.ai_training", "allowed", False),
            ("cawg.ai_inference", "notAllowed", False),
            ("cawg.ai_training", "notallowed?", False),
            ("org.example.other", "notAllowed", False),
        )
    ),
    (marked.jpeg_c2pa(marked.store(marked.assertion(NO_TRAINING, "c2pa.training-mining", "json"))), True),
    (marked.png(marked.chunk(b"caBX", marked.store(marked.assertion(NO_TRAINING)))), True),
    (marked.webp(b"C2PA", marked.store(marked.assertion(NO_TRAINING))), True),
    (marked.jpeg_c2pa(marked.store(marked.assertion(NO_TRAINING), b"")), True),  # an earlier manifest's
    (marked.jpeg_c2pa(marked.store(
        marked.assertion(NO_TRAINING), marked.assertion({"cawg.ai_training": "allowed"}))), False),
    (marked.jpeg_c2pa(marked.store(
        marked.assertion({"cawg.ai_training": "allowed"}), marked.assertion(NO_TRAINING))), True),
    (marked.jpeg_c2pa(marked.store(marked.assertion(NO_TRAINING, "org.training-mining"))), False),
    (marked.jpeg_c2pa(marked.store(b"")), False),
    (marked.jpeg_c2pa(marked.store(marked.superbox(
        "cawg.training-mining", marked.box(b"cbor", b"\x9b" + b"\xff" * 8)))), False),
    (marked.jpeg_c2pa(marked.store(marked.superbox(
        "cawg.training-mining", marked.box(b"cbor", b"\x81" * 5000)))), False),
    (b"", False), (b"\xff\xd8", False), (b"\x89PNG", False), (b"RIFF\0\0\0\0WEBP", False),
    (b"\xff\xd8" + b"\xff" * 100_000, False),
    (marked.jpeg(), False),
]  # fmt: skip


@pytest.mark.parametrize(("data", "refused"), PICTURES, ids=range(len(PICTURES)))
def test_marks_inside_of_images_are_read(data, refused):
    found = image_signals(data)
    assert (False in {one.allows for one in found}) is refused
    assert {one.kind for one in found} <= {"data-mining", "c2pa"}


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


@pytest.mark.parametrize(
    "line",
    [
        "User-agent: {n}\nContent-Usage: /{n} train-ai=n\n",
        "Content-Usage: /*a*a*a*{n}b$ train-ai=n\n",
        "Content-Signal: /{n} ai-train=no;;;;;;;,,,,,\n",
        "User-agent: GPTBot\nDisallow: /{n}*a\n",
        "User-agent: GPTBot\nUser-agent: CCBot\nUser-agent: *\nDisallow: /{n}\nContent-Usage: a{n}\n",
        "License: http://0.test/{n}\n",
        "Content-Usage: " + "a;b;c, " * 500 + "\n",
        "Content-Usage: " + '"' * 3000 + "\n",
    ],
)  # fmt: skip
def test_half_a_megabyte_of_lines_takes_no_time(line):
    text = "User-agent: *\n" + "".join(line.format(n=n) for n in range(MAX_BYTES // len(line)))
    start = time.process_time()
    rules = rules_of(text.encode())
    for _ in range(3):
        rules.declared.signals("/" + "a" * 2000 + ".jpg")
    assert time.process_time() - start < 4


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


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xd8" + marked.segment(0xE1, b"x") * 200_000,
        b"\x89PNG\r\n\x1a\n" + marked.chunk(b"iTXt", b"XML:com.adobe.xmp\0") * 50_000,
        b"RIFF\0\0\0\0WEBP" + bytes(2_000_000),
        marked.png_xmp("DataMining" + " " * 50_000_000, compressed=True),
        marked.with_xmp(marked.XMP.format("DataMining" + "<a>" * 15_000)),
        marked.with_xmp('<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">'
                        + "".join(f'<!ENTITY b{n} "{f"&b{n - 1};" * 9 if n else "&a;"}">' for n in range(20))
                        + "]><x>DataMining &b19;</x>"),
        marked.jpeg_c2pa(marked.superbox("c2pa", *[marked.superbox("x.training-mining")] * 20_000)),
        marked.jpeg_c2pa(marked.store(marked.superbox(
            "cawg.training-mining", marked.box(b"cbor", b"\x7f" * 50_000)))),
    ],
    ids=range(8),
)  # fmt: skip
def test_hostile_images_take_no_time(data):
    start = time.process_time()
    assert all(one.allows is None for one in image_signals(data))
    assert time.process_time() - start < 2


def test_an_image_without_metadata_is_looked_at_in_no_time():
    data = marked.jpeg(
        marked.segment(0xE0, b"JFIF\0"), marked.segment(0xE1, b"Exif\0\0" + bytes(9000))
    )
    start = time.process_time()
    for _ in range(1000):
        image_signals(data)
    assert time.process_time() - start < 0.5  # half a millisecond each, on any machine


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
