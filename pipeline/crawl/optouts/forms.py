"""Table of the forms in which owners opt out: all that the crawler reads, and how.

docs/opt-outs.md shows `table()`, and a test compares the two.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from kd3_pipeline.crawl.optouts import values

Place = Literal["robots.txt", "header", "well-known file", "licence file", "image", "page"]
Reader = Callable[[str], bool | None]


def silent(text: str) -> bool | None:
    """What a value says that only names where the answer is."""
    return None


@dataclass(frozen=True, slots=True)
class Form:
    """One form. `read` tells what a value of it says of training."""

    kind: str  # one of `crawl.opt_outs`, or `ai-agents`
    place: Place
    name: str  # of the line, header, file, property or element
    example: str
    read: Reader
    prohibits: str  # which values do
    decided: str  # which one binds an image, where several may
    source: str


CONTENT_SIGNALS = "https://contentsignals.org/"
AIPREF_ATTACH = "https://datatracker.ietf.org/doc/draft-ietf-aipref-attach/"
AIPREF_VOCAB = "https://datatracker.ietf.org/doc/draft-ietf-aipref-vocab/"
RSL = "https://rslstandard.org/rsl"
TDMREP = "https://www.w3.org/community/reports/tdmrep/CG-FINAL-tdmrep-20240202/"
ROBOTS_META = "https://developers.google.com/search/docs/crawling-indexing/robots-meta-tag"
NOAI = "https://github.com/rom1504/img2dataset"
PLUS = "http://ns.useplus.org/LDF/ldf-XMPSpecification"
CAWG = "https://cawg.io/training-and-data-mining/1.1/"
C2PA = "https://c2pa.org/specifications/specifications/1.4/specs/C2PA_Specification.html"
AI_ROBOTS = "https://github.com/ai-robots-txt/ai.robots.txt"

FORMS = (
    Form(
        "content-signal",
        "robots.txt",
        "Content-Signal",
        "Content-Signal: search=yes, ai-train=no",
        values.signal_says,
        "`ai-train=no`",
        "our own user agent group, else `*`; longest path; of one path, `no`",
        CONTENT_SIGNALS,
    ),
    Form(
        "content-signal",
        "header",
        "Content-Signal",
        "Content-Signal: ai-train=no",
        values.signal_says,
        "`ai-train=no`",
        "beside robots.txt: either forbids",
        CONTENT_SIGNALS,
    ),
    Form(
        "content-usage",
        "robots.txt",
        "Content-Usage",
        "Content-Usage: /img/ train-ai=n",
        values.usage_says,
        "`train-ai=n`",
        "our own user agent group, else `*`; longest path; of one path, `n`",
        AIPREF_ATTACH,
    ),
    Form(
        "content-usage",
        "header",
        "Content-Usage",
        "Content-Usage: train-ai=n",
        values.usage_says,
        "`train-ai=n`",
        "beside robots.txt: either forbids",
        AIPREF_VOCAB,
    ),
    Form(
        "rsl",
        "robots.txt",
        "License",
        "License: https://example.com/license.xml",
        silent,
        "as the licence says",
        "whatever group it stands in",
        RSL,
    ),
    Form(
        "rsl",
        "header",
        "Link",
        'Link: <https://example.com/license.xml>; rel="license"; type="application/rsl+xml"',
        silent,
        "as the licence says",
        "beside robots.txt: either forbids",
        RSL,
    ),
    Form(
        "rsl",
        "page",
        "link",
        '<link rel="license" type="application/rsl+xml" href="/license.xml">',
        silent,
        "as the licence says",
        "the images found on that page (`crawl.engine: site`)",
        RSL,
    ),
    Form(
        "rsl",
        "licence file",
        "prohibits",
        '<content url="/"><license><prohibits type="usage">ai-train</prohibits>',
        values.licensed,
        "usage `ai-train`, `ai-all` or `all` prohibited; permitted for a payment only",
        "any `content` whose `url` covers the address prohibits; the longest `url` permits",
        RSL,
    ),
    Form(
        "tdm-reservation",
        "well-known file",
        "/.well-known/tdmrep.json",
        '[{"location": "/img/*.jpg", "tdm-reservation": 1}]',
        values.reservation_says,
        "`1`",
        "first location that matches; a header goes before it, also one that says `0`",
        TDMREP,
    ),
    Form(
        "tdm-reservation",
        "header",
        "TDM-Reservation",
        "TDM-Reservation: 1",
        values.reservation_says,
        "`1`",
        "goes before the file",
        TDMREP,
    ),
    Form(
        "tdm-reservation",
        "page",
        "meta",
        '<meta name="tdm-reservation" content="1">',
        values.reservation_says,
        "`1`",
        "the images found on that page (`crawl.engine: site`)",
        TDMREP,
    ),
    Form(
        "x-robots-tag",
        "header",
        "X-Robots-Tag",
        "X-Robots-Tag: noai, noimageai",
        values.robots_says,
        "`noai`, `noimageai`, `noml`, `noindex`, `noimageindex`, `none`",
        "words for all robots, or after our name",
        NOAI,
    ),
    Form(
        "x-robots-tag",
        "page",
        "meta",
        '<meta name="robots" content="noai">',
        values.robots_says,
        "as in the header",
        "the images found on that page (`crawl.engine: site`)",
        ROBOTS_META,
    ),
    Form(
        "data-mining",
        "image",
        "plus:DataMining",
        "http://ns.useplus.org/ldf/vocab/DMI-PROHIBITED-AIMLTRAINING",
        values.data_mining_says,
        "every `DMI-PROHIBITED…`",
        "of the image itself, not of its ingredients",
        PLUS,
    ),
    Form(
        "c2pa",
        "image",
        "cawg.training-mining",
        '{"entries": {"cawg.ai_training": {"use": "notAllowed"}}}',
        values.use_says,
        "`notAllowed` or `constrained` for ai_training, ai_generative_training, data_mining",
        "the latest manifest that has the assertion",
        CAWG,
    ),
    Form(
        "c2pa",
        "image",
        "c2pa.training-mining",
        '{"entries": {"c2pa.data_mining": {"use": "notAllowed"}}}',
        values.use_says,
        "as above, with `c2pa.` in front",
        "as above",
        C2PA,
    ),
    Form(
        "ai-agents",
        "robots.txt",
        "User-agent",
        "User-agent: GPTBot / Disallow: /",
        silent,
        "a crawler for training that is shut out by name (`crawl.ai_agents: true`)",
        "longest path, as for any crawler; one name is enough",
        AI_ROBOTS,
    ),
)


def forms(place: Place) -> dict[str, Form]:
    """The forms of one place by their name in small letters."""
    return {form.name.lower(): form for form in FORMS if form.place == place}


def table() -> str:
    """The table of docs/opt-outs.md, in Markdown."""
    rows = [
        "| kind | where | form | forbids | which one binds | source |",
        "|---|---|---|---|---|---|",
    ]
    for form in FORMS:
        where = form.place if form.name in form.example else f"{form.place}, `{form.name}`"
        example = form.example.replace("|", "\\|")
        cells = (form.kind, where, f"`{example}`", form.prohibits, form.decided)
        rows.append("| " + " | ".join(cells) + f" | [source]({form.source}) |")
    return "\n".join(rows)
