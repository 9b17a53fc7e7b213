"""Links: those that end as the name of an image does, and spellings of one address."""

import re
from urllib.parse import unquote, urlsplit

from kd3_pipeline.formats import suffixes

IMAGE_PATH = re.compile(rf"\.{suffixes()}$", re.IGNORECASE)
# MediaWiki's File:X.jpg, Datei:X.jpg or Файл:X.jpg: a name space is words, and no time of day
NAME_SPACE = re.compile(r"[^\W\d_]{2,}(?:[ _][^\W\d_]+)*:[^:]", re.IGNORECASE)

# parameters that tell a site where its visitors come from, and nothing of what is asked for
TRACKING = re.compile(
    r"utm_\w*|fbclid|gclid|gclsrc|dclid|gbraid|wbraid|msclkid|yclid|twclid|ttclid|igshid|igsh"
    r"|mc_[ce]id|_ga|_gl|_hsenc|_hsmi|mkt_tok|vero_id|oly_(?:anon|enc)_id|li_fat_id|s_cid",
    re.IGNORECASE,
)


def ends_as_image(address: str) -> bool:
    """Whether its path ends as the name of an image does; its query and fragment do not count."""
    try:
        return IMAGE_PATH.search(urlsplit(address).path) is not None
    except ValueError:
        return False


def names_page(address: str) -> bool:
    """Whether it ends so and yet is a page by its pattern, as a wiki's /wiki/File:X.jpg."""
    if not ends_as_image(address):
        return False
    name = unquote(urlsplit(address).path).rpartition("/")[2]
    return NAME_SPACE.match(name) is not None


def link_kind(address: str) -> str:
    """What such links of one kind have in common: host, folder but for numbers, and ending."""
    parts = urlsplit(address)
    folder, _, name = parts.path.rpartition("/")
    return f"{parts.netloc}{re.sub('[0-9]+', '0', folder)}/.{name.rpartition('.')[2]}".lower()


def without_tracking(address: str) -> str:
    """What spellings of one address have in common: all but fragment and tracking parameters."""
    address = address.partition("#")[0]
    path, mark, query = address.partition("?")
    if not mark:
        return address
    parts = query.split("&")
    kept = [part for part in parts if not TRACKING.fullmatch(part.partition("=")[0])]
    if len(kept) == len(parts):
        return address
    return f"{path}?{'&'.join(kept)}" if kept else path
