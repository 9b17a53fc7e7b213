"""What an HTML page says of the images on it."""

from collections.abc import Iterator
from itertools import islice

from lxml import html

from kd3_pipeline.crawl.optouts.forms import forms
from kd3_pipeline.crawl.optouts.headers import Heard, licence_named
from kd3_pipeline.crawl.optouts.signals import Signal

MOST = 1000  # elements that are looked at
RESERVATION_FORM = next(form for form in forms("header").values() if form.kind == "tdm-reservation")


def page_words(tree: html.HtmlElement, robot: str) -> set[str]:
    """The words of a page's robots meta tags that bind `robot`, in small letters."""
    words: set[str] = set()
    for name, content in _metas(tree):
        if name in ("robots", robot):
            words |= {word.strip() for word in content.lower().split(",")}
    return words


def page_heard(tree: html.HtmlElement, address: str) -> Heard:
    """What a page's elements say, beside the headers that came with it."""
    signals, licences = list[Signal](), list[str]()
    for name, content in _metas(tree):
        if name == RESERVATION_FORM.kind:
            allows = RESERVATION_FORM.read(content)
            signals.append(Signal(RESERVATION_FORM.kind, "page meta", content, allows))
    for link in islice(tree.iter("link"), MOST):
        licences += licence_named(link.attrib, link.get("href", ""), address)
    return Heard(tuple(signals), tuple(dict.fromkeys(licences)))


def _metas(tree: html.HtmlElement) -> Iterator[tuple[str, str]]:
    for meta in islice(tree.iter("meta"), MOST):
        yield meta.get("name", "").strip().lower(), meta.get("content", "")
