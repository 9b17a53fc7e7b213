"""Markup of a page: the images on it, the links of it, and how both are read."""

import re
from collections.abc import Iterator
from itertools import islice
from urllib.parse import urldefrag, urljoin

from lxml import etree, html

from pipeline.crawl.guard import Forbidden, check_url
from pipeline.crawl.links import ends_as_image

PAGE_LINKS, PAGE_IMAGES = 2_000, 10_000  # looked at on one page
MOST_CHARACTERS = 2000  # of an address, which is left out when longer, or of a title, which is cut
CHARSET = re.compile(r"charset\s*=\s*[\"']?([^\s\"';,]+)", re.IGNORECASE)
IMAGE_TYPE = re.compile(r"image/(jpeg|png|webp|gif|bmp)|", re.IGNORECASE)
# an address, and its width or density unless a comma ends it (HTML, "Parsing a srcset attribute");
# nothing here goes back, so that hostile text takes no longer than other
SRCSET = re.compile(r"([^\s,]\S*+)(?:(?<=,)|\s*+(?:([\d.]++)[wx])?+[^,]*+)")

# the address of an image, its title, and whether the page only links to it, and does not show it
FoundImage = tuple[str, str, bool]


# icrawler's GreedyParser knows only absolute addresses with a suffix, takes `in` for "same host",
# and no rule of its owner; and 300,000 tags in 5 MiB are too much for bs4. So this is lxml itself.
def parsed(body: bytes, content_type: str) -> html.HtmlElement | None:
    """A page as a tree; None where it is empty, or nothing but damage."""
    named = CHARSET.search(content_type)
    charset = named[1] if named else None
    try:
        body.decode()
        charset = "utf-8"
    except UnicodeDecodeError:
        pass  # the header's, or what a meta tag names
    try:
        parser = html.HTMLParser(encoding=charset)
    except LookupError:
        parser = html.HTMLParser()
    try:
        return html.document_fromstring(body, parser=parser)
    except (etree.LxmlError, ValueError):
        return None


def images_of(tree: html.HtmlElement, address: str) -> Iterator[FoundImage]:
    """The images that a page shows or links to, in the order in which they stand there."""
    base = _base(tree, address)
    page_title = tree.findtext(".//title") or ""
    for one in tree.iter("a", "img", "link", "meta"):
        title, relations = page_title, one.get("rel", "").lower().split()
        if one.tag == "img":
            link, title = _source(one), one.get("alt") or one.get("title") or ""
        elif one.tag == "meta":
            link = one.get("content", "") if one.get("property", "") == "og:image" else ""
        elif one.tag == "link":
            link = one.get("href", "") if "image_src" in relations else ""
        else:
            link = one.get("href", "")
            if "nofollow" in relations or not ends_as_image(_joined(base, link)):
                continue
            inner = one.find(".//img")
            title = inner.get("alt", "") if inner is not None else one.get("title", "")
        url = _joined(base, link) if link.strip() else ""
        if url.lower().startswith(("http://", "https://")) and len(url) <= MOST_CHARACTERS:
            yield url, " ".join(title.split())[:MOST_CHARACTERS], one.tag == "a"


def _source(image: html.HtmlElement) -> str:
    """The largest picture that an img stands for, its picture element's sources included."""
    places = [image]
    # lxml does not know that a source has no content: the img is somewhere within
    for picture in image.iterancestors("picture"):
        kinds = [(one, one.get("type", "").strip()) for one in picture.iter("source")]
        places += [one for one, kind in kinds if IMAGE_TYPE.fullmatch(kind)]
    best, largest = "", 0.0
    for place in places:
        # pages that load images late keep the addresses under these names
        for text in (place.get("srcset", ""), place.get("data-srcset", "")):
            for url, size in SRCSET.findall(text):
                value = float(size) if size.replace(".", "", 1).isdecimal() else 1.0
                if value > largest and not url.startswith("data:"):
                    best, largest = url.rstrip(","), value
    late, now = image.get("data-src", ""), image.get("src", "")
    return best or late or now


def links_of(tree: html.HtmlElement, address: str) -> Iterator[str]:
    """The addresses that a page lets robots follow, each once."""
    base = _base(tree, address)
    followed = (
        one.get("href", "").strip()
        for one in tree.iter("a", "area")
        if "nofollow" not in one.get("rel", "").lower().split()
    )
    for link in islice(dict.fromkeys(followed), PAGE_LINKS):
        try:
            url = page_address(_joined(base, link))
        except Forbidden:
            continue
        yield url


def _base(tree: html.HtmlElement, address: str) -> str:
    one = tree.find(".//base[@href]")
    return address if one is None else _joined(address, one.get("href", "")) or address


def page_address(address: str) -> str:
    """The one spelling of a page's address. Raises Forbidden as `check_url`."""
    if len(address) > MOST_CHARACTERS:
        raise Forbidden("malformed address: it is too long")
    return str(check_url(address).with_fragment(None))


def _joined(base: str, link: str) -> str:
    """Target of a link, without its fragment, as browsers read it; empty when malformed."""
    link = re.sub(r"[\t\r\n]", "", link.strip()).replace(" ", "%20")
    try:
        return urldefrag(urljoin(base, link)).url
    except ValueError:
        return ""
