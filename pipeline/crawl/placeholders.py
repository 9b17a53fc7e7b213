"""Placeholders: images that a site answers with in place of what is gone ("not available").

A placeholder comes for unlike things; a popular picture comes from many places as well, but always
as itself. So an image is put aside only if one site gave it at `urls` paths or more that differ,
each linked from a page of its own, and one thing more says that it shows none of them: all of those
addresses led on to one other address, or it came for three classes or more, or it is drawn in a few
flat colours. Copies of a picture at other sites do not count, nor do addresses that differ in
scheme, port, www., the number of a mirror, query, fragment, letter case, or a size in their path.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from urllib.parse import unquote, urlsplit

import numpy as np

from kd3_pipeline.crawl.links import without_tracking
from kd3_pipeline.images import decode_small
from kd3_pipeline.manifest import Candidate, Fetched, host_of
from kd3_pipeline.picturefile import ImageError

MANY = 5  # addresses of a host that give one picture are told
CLASSES = 3  # two classes may be names of one thing
SIDE = 64  # pixels of the picture that is looked at
GROUND, REST = (
    0.5,
    0.95,
)  # shares of a few-coloured picture: its ground, its eight commonest colours

NUMBER = re.compile(r"\d+")
LONGEST = 1000  # letters of a path that are looked at
SEGMENT_OF_SIZE = re.compile(  # of a path: what picks a size or a cut, and no picture
    r"\d+x\d*|x\d+|[whsq][-_=]?\d+|\d+(?:px|w)"
    r"|(?:[a-z]{1,2}_[\w.:-]+|[a-z]+=[\w.:-]+)(?:,(?:[a-z]{1,2}_[\w.:-]+|[a-z]+=[\w.:-]+))*"
    r"|fit-in|thumb(?:s|nails?)?|resized?|cropped|scaled|small|medium|large|big|original|full|preview"
)
PREFIX_OF_SIZE = re.compile(r"^\d+px-")
SUFFIX_OF_SIZE = re.compile(
    r"(?:[-_.]\d+x\d*|[-_.]?@\dx|[-_.](?:thumb|small|medium|large|big|original|scaled|full|\d+px)"
    r"|_[sqtmnzcblhko]|\._[a-z0-9_,]+_)+(?=\.\w+$|$)"
)

Place = tuple[str, str]  # a site, a path


@dataclass(frozen=True)
class Answer:
    """One address that gave an image."""

    label: int
    place: Place
    page: Place
    led_to: Place | None  # where it was redirected to, if to another place


def placeholders(
    found: Mapping[Candidate, Fetched], urls: int, few_colours: Callable[[str], bool]
) -> dict[str, str]:
    """Ids of images that are no picture of their subject → why they are taken for such.

    Args:
        urls: paths of one site that have to give an image; 0 finds none.
        few_colours: whether the image with an id is drawn in a few flat colours.
    """
    if not urls:
        return {}
    given: dict[str, dict[str, list[Candidate]]] = {}
    records: dict[str, Fetched] = {}
    # most images came once: only of the others it is worth the memory to know the addresses
    often = Counter(image.id for image in found.values() if image.id is not None)
    for candidate, image in found.items():
        if image.id is not None and often[image.id] >= urls:
            given.setdefault(image.id, {}).setdefault(image.url, []).append(candidate)
            records[image.url] = image
    reasons = {}
    for name, by_url in given.items():
        if len(by_url) < urls:
            continue
        answers = [
            _answer(candidate, records[url])
            for url, candidates in by_url.items()
            for candidate in candidates
        ]
        if reason := _reason(answers, urls, partial(few_colours, name)):
            reasons[name] = reason
    return reasons


def place_of(url: str) -> Place:
    """The site and the path of an address, without what does not tell two pictures apart."""
    try:
        parts = urlsplit(url.strip())
        host = (parts.hostname or "").rstrip(".")
    except ValueError:
        return "", url
    *mirror, name, top = ["", *host.split(".")] if not host[-1:].isdigit() else ["", host, ""]
    mirror = [NUMBER.sub("", label) for label in mirror]
    site = ".".join(label for label in (*mirror, name, top) if label not in ("", "www", "m"))
    path = unquote(parts.path[:LONGEST]).lower()
    segments = [one for one in path.split("/") if one]
    *folders, name = segments or [""]
    folders = [one for one in folders if not SEGMENT_OF_SIZE.fullmatch(one)]
    name = SUFFIX_OF_SIZE.sub("", PREFIX_OF_SIZE.sub("", name))
    return site, "/".join([*folders, name])


def given_for_many(given: Iterable[tuple[str, str]]) -> dict[str, dict[str, int]]:
    """Ids of images that one host gave for many addresses → that host, and how many.

    That may be a placeholder, for a robot or for all, or one picture that has many addresses.
    Spellings of one address count once.

    Args:
        given: addresses, and the ids of the images that they gave.
    """
    addresses: dict[str, set[str]] = {}
    for url, name in given:
        addresses.setdefault(name, set()).add(without_tracking(url))
    found: dict[str, dict[str, int]] = {}
    for name, some in addresses.items():
        if len(some) < MANY:
            continue
        hosts = Counter(host for host in map(host_of, some) if host)
        if many := {host: count for host, count in hosts.items() if count >= MANY}:
            found[name] = many
    return found


def drawn_in_few_colours(data: bytes) -> bool:
    """Whether an encoded image is mostly one colour, and the rest of it a few more."""
    try:
        pixels = np.asarray(decode_small(data, SIDE)) >> 4
    except ImageError:
        return False
    codes = pixels.reshape(-1, 3).astype(np.int32) @ np.array([256, 16, 1])
    counts = np.sort(np.bincount(codes))[::-1] / len(codes)
    return bool(counts[0] >= GROUND and counts[:8].sum() >= REST)


def _answer(candidate: Candidate, image: Fetched) -> Answer:
    place = place_of(image.url)
    # where no page is known, the address stands for it
    page = place_of(candidate.page_url) if candidate.page_url else place
    led_to = place_of(image.final_url) if image.final_url else place
    return Answer(candidate.label, place, page, led_to if led_to != place else None)


def _reason(answers: Iterable[Answer], urls: int, few_colours: Callable[[], bool]) -> str:
    """Why an image with these answers is a placeholder, or ""."""
    by_target: dict[Place, list[Answer]] = {}
    by_site: dict[str, list[Answer]] = {}
    for answer in answers:
        by_site.setdefault(answer.place[0], []).append(answer)
        if answer.led_to is not None:
            by_target.setdefault(answer.led_to, []).append(answer)
    for (site, path), some in by_target.items():
        if _distinct(some) >= urls:
            return f"{_distinct(some)} addresses led to {site}/{path}"[:200]
    for site, some in by_site.items():
        count = _distinct(some)
        if count < urls:
            continue
        labels = {answer.label for answer in some if answer.label >= 0}
        if len(labels) >= CLASSES:
            return f"at {count} paths of {site}, for {len(labels)} classes"[:200]
        if few_colours():
            return f"at {count} paths of {site}, in a few flat colours"[:200]
    return ""


def _distinct(answers: Iterable[Answer]) -> int:
    """How many things answers are about: by their paths, and by the pages that link to them."""
    answers = list(answers)
    return min(len({one.place for one in answers}), len({one.page for one in answers}))
