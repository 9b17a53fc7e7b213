"""Markup of a page: the images on it, the links of it, and how both are read."""

import re
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Iterator, Mapping
from itertools import islice

from lxml import etree, html

from kd3_pipeline.crawl.addresses import as_asked, target_of
from kd3_pipeline.crawl.guard import Forbidden, check_url
from kd3_pipeline.crawl.linkeddata import data_images
from kd3_pipeline.crawl.links import ends_as_image
from kd3_pipeline.formats import suffixes

PAGE_LINKS, PAGE_IMAGES = 2_000, 10_000  # looked at on one page
MOST_CHARACTERS = 2000  # of an address, which is left out when longer, or of a title, which is cut
BYTE_ORDERS = {BOM_UTF16_LE: "utf-16le", BOM_UTF16_BE: "utf-16be"}  # before any header's word
CHARSET = re.compile(r"charset\s*=\s*[\"']?([^\s\"';,]+)", re.IGNORECASE)
IMAGE_TYPE = re.compile(rf"(?:image/{suffixes()})?", re.IGNORECASE)
# an address, and its descriptors unless a comma ends it (HTML, "Parsing a srcset attribute");
# nothing here goes back, so that hostile text takes no longer than other
SRCSET = re.compile(r"([^\s,]\S*+)(?:(?<=,)|([^,]*+))")
SIZE = re.compile(r"(?<!\S)(\d++(?:\.\d*+)?+|\.\d++)[wx](?!\S)", re.ASCII)
# where scripts that load images late keep what an img will show, the larger picture first
SETS = ("srcset", "data-srcset", "data-lazy-srcset", "data-original-set")
LATE = (
    *("data-original", "data-original-src", "data-lazy-src", "data-src", "data-lazy"),
    *("data-lazyload", "data-img-src", "data-echo", "data-flickity-lazyload"),
)
# of a meta element, under `property`, `name` or `itemprop`
META_IMAGES = {
    *("og:image", "og:image:url", "og:image:secure_url", "twitter:image", "twitter:image:src"),
    *("image", "thumbnailurl"),
}
WEB = re.compile(r"https?://", re.IGNORECASE)
DATA_TYPE = "application/ld+json"

# the address of an image, its title, and whether the page only links to it, and does not show it
FoundImage = tuple[str, str, bool]
Largest = tuple[float, str]  # its size, and its address as it stands there
NONE: Largest = (0.0, "")


# icrawler's GreedyParser knows only absolute addresses with a suffix, takes `in` for "same host",
# and no rule of its owner; and 300,000 tags in 5 MiB are too much for bs4. So this is lxml itself.
def parsed(body: bytes, content_type: str) -> html.HtmlElement | None:
    """A page as a tree; None where it is empty, or nothing but damage.

    Raises:
        MemoryError: it takes more than there is.
    """
    named = CHARSET.search(content_type)
    charset = named[1] if named else None
    charset = BYTE_ORDERS.get(body[:2], charset)
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
    except (etree.LxmlError, ValueError) as error:
        if getattr(error, "code", None) == etree.ErrorTypes.ERR_NO_MEMORY:
            raise MemoryError from None
        return None


def images_of(tree: html.HtmlElement, address: str) -> Iterator[FoundImage]:
    """The images that a page shows or links to, in the order in which they stand there."""
    base = _base(tree, address)
    page_title = tree.findtext(".//title") or ""
    pictures = _pictures(tree)
    for one in tree.iter("a", "img", "link", "meta", "script"):
        for link, title in _named(one, page_title, base, pictures):
            url = _joined(base, link) if link.strip() else ""
            if url and len(url) <= MOST_CHARACTERS:
                yield url, " ".join(title.split())[:MOST_CHARACTERS], one.tag == "a"


def _named(
    one: html.HtmlElement, page_title: str, base: str, pictures: Mapping[html.HtmlElement, Largest]
) -> Iterator[tuple[str, str]]:
    """The images that an element names: their addresses, as they stand there, and titles."""
    relations = one.get("rel", "").lower().split()
    if one.tag == "img":
        yield _source(one, pictures), one.get("alt") or one.get("title") or ""
    elif one.tag == "meta":
        names = {one.get(key, "").strip().lower() for key in ("property", "name", "itemprop")}
        if names & META_IMAGES:
            yield one.get("content", ""), page_title
    elif one.tag == "link":
        if "image_src" in relations or one.get("itemprop", "").strip().lower() == "image":
            yield one.get("href", ""), page_title
    elif one.tag == "script":
        if one.get("type", "").partition(";")[0].strip().lower() == DATA_TYPE:
            for link, title in data_images(one.text or ""):
                yield link, title or page_title
    elif "nofollow" not in relations and ends_as_image(_joined(base, one.get("href", ""))):
        inner = next(one.iterdescendants("img"), None) if len(one) else None
        yield one.get("href", ""), one.get("title", "") if inner is None else inner.get("alt", "")


def _pictures(tree: html.HtmlElement) -> dict[html.HtmlElement, Largest]:
    """The largest picture among the sources of each picture element, of the kinds that are read."""
    found: dict[html.HtmlElement, Largest] = {}
    for source in tree.iter("source"):
        # lxml does not know that a source has no content: the next ones are somewhere within
        picture = next(source.iterancestors("picture"), None)
        if picture is not None and IMAGE_TYPE.fullmatch(source.get("type", "").strip()):
            found[picture] = _largest(source, found.get(picture, NONE))
    return found


def _source(image: html.HtmlElement, pictures: Mapping[html.HtmlElement, Largest]) -> str:
    """The largest picture that an img stands for, its picture element's sources included."""
    picture = next(image.iterancestors("picture"), None) if pictures else None
    others = NONE if picture is None else pictures.get(picture, NONE)
    return _largest(image, others)[1] or _late(image) or image.get("src", "")


def _largest(place: html.HtmlElement, known: Largest) -> Largest:
    """`known`, unless a set of images of an element has a larger one."""
    largest = known
    for text in filter(None, map(place.get, SETS)):
        for url, descriptors in SRCSET.findall(text):
            size = SIZE.search(descriptors)
            value = float(size[1]) if size else 1.0
            if value > largest[0] and not url.startswith("data:"):
                largest = value, url.rstrip(",")
    return largest


def _late(image: html.HtmlElement) -> str:
    """What a script shows in place of an img's `src`, which often is a blank; "" if none does."""
    for name in LATE:
        value = image.get(name, "").strip()
        # other scripts keep a yes or a no there, or numbers
        if not value.startswith(("data:", "{", "[")) and re.search(r"/|\.[a-z]", value.lower()):
            return value
    if not (src := image.get("src", "").strip()) or src.startswith("data:"):
        for name, value in image.attrib.items():  # under a name that is not known here
            if name.startswith("data-") and ends_as_image(value.strip()):
                return value
    return ""


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
    """Target of a link as it is asked for; empty when malformed, or of another scheme than http(s).

    What is longer than any address that is kept is not looked at: to join it takes time with the
    square of its length.
    """
    link = re.sub(r"[\t\r\n]", "", link.strip())
    if len(link) > MOST_CHARACTERS:
        return ""
    try:
        target = target_of(base, link)
        return str(as_asked(target)) if WEB.match(target) else ""
    except (ValueError, IndexError):
        return ""
