"""Titles of the demo web's search results, some of them hostile to a careless page."""

import re

import numpy as np

HOSTILE_SHARE = 0.03

_HOSTILE = (
    '<script>alert("title")</script> {name}',
    '"><img src=x onerror=alert(1)> {name}',
    "{name}'; DROP TABLE images; -- & <b>bold",
    "{{{{ {name} }}}} ${{7*7}} </div></a>",
    '=HYPERLINK("http://127.0.0.1/","{name}") \u202eeman\u202c',
)
_PLAIN = (
    "{name} clip art, free download",
    "How to draw a {name} | step by step",
    "{adjective} {name} icon",
    "{adjective} {name} on a {adjective} background – stock image",
    "The {name}: meaning and history",
    "Geometry worksheet no. {number}: the {name}",
    "{name} vector #{number}",
    "My {adjective} {name} ★ sketchbook",
    "IMG_{number}",
    "Étude de forme ({name}) – nº {number}",
    "Shop: {name} sticker, {number} pcs.",
)
_ADJECTIVES = ("red", "simple", "hand-drawn", "golden", "vintage", "flat", "tiny", "textured")


def title(name: str, rng: np.random.Generator) -> str:
    """A title for a result of the query `name`."""
    templates = _HOSTILE if rng.random() < HOSTILE_SHARE else _PLAIN
    template = templates[rng.integers(len(templates))]
    adjective = _ADJECTIVES[rng.integers(len(_ADJECTIVES))]
    return template.format(name=name, adjective=adjective, number=rng.integers(10, 9999))


def slug(text: str) -> str:
    """The words of a title as part of a URL path: lower-case ASCII letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:40].strip("-")
