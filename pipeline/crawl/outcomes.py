"""Outcomes of candidates that brought no image: what helps, and which may be tried again."""

import re
from collections.abc import Iterable

from kd3_pipeline.errors import UserError
from kd3_pipeline.manifest import (
    BLOCKED,
    DUPLICATE,
    FORBIDDEN_DNS,
    FORGOTTEN,
    NOT_NEEDED,
    NOT_NOW,
    OPTED_OUT,
    PLACEHOLDER,
    STORED,
)

AGAIN = "try them again with `pipeline crawl --retry-failed {outcome}`"
OTHER_SOURCE = "take another source"
# what helps; `{outcome}` stands for the word
REMEDIES = {
    BLOCKED: "crawl.blocklist refuses them; what an earlier crawl has of them is dropped by"
    " `pipeline forget --blocklist`",
    FORGOTTEN: f"`pipeline forget` dropped them: {OTHER_SOURCE}",
    OPTED_OUT: f"their owners say no (docs/opt-outs.md): {OTHER_SOURCE}",
    "robots": f"robots.txt of their hosts says no: {OTHER_SOURCE}",
    FORBIDDEN_DNS: "their names lead to no public address here, as behind a captive portal or with"
    " a DNS filter or a proxy (crawl.proxy); the same command asks again",
    "forbidden_address": "only public http and https addresses are asked for",
    PLACEHOLDER: "many addresses gave the same picture, such as one for what is gone:"
    " crawl.referer: true sends the page that shows an image, without which some hosts answer so;"
    f" crawl.placeholder_urls says from how many on; or {OTHER_SOURCE}",
    DUPLICATE: f"they gave images that the crawl has: {OTHER_SOURCE}",
    NOT_NEEDED: "raise crawl.per_class",
    NOT_NOW: "run the same command again",
    "http_error": "their hosts say no: see `detail` in data/crawl/manifest.parquet; where that is"
    f" 403, crawl.contact says who asks, and crawl.referer from which page; then {AGAIN}",
    "certificate": "their certificates are not trusted here: see this machine's clock and"
    f" authorities, and whether a network answers in place of the hosts; then {AGAIN}",
    "tls": f"their hosts have no TLS in common with this machine: {OTHER_SOURCE}",
    "unknown_host": f"no such hosts: see the DNS of this network; then {AGAIN}",
    "malformed": f"their hosts answer, but not in HTTP: {OTHER_SOURCE}, or {AGAIN}",
    "malformed_address": "give addresses that begin with http:// or https://",
    "too_many_redirects": f"their hosts redirect without end: {OTHER_SOURCE}",
    "encoded": "their hosts pack images in a way that they were not asked for:"
    f" {OTHER_SOURCE}, or {AGAIN}",
    "truncated": f"the images have no end: {AGAIN}",
    "damaged": "crawl.damaged: keep keeps them",
    "not_an_image": "they are no images that are read here; for addresses of pages take"
    " crawl.engine: site",
    "unsupported": "they are images of a kind that is not read here: convert them, or"
    f" {OTHER_SOURCE}",
    "too_small": "a lower crawl.min_side keeps them",
    "too_large": "a higher crawl.max_bytes keeps them",
    "too_many_pixels": f"they are larger than is read here: {OTHER_SOURCE}",
    "too_many_scans": f"they are made to hold up who reads them: {OTHER_SOURCE}",
}
ELSE = f"see the network and crawl.* in params.yaml, then {AGAIN}"
# what no request brings, whatever is asked for again
NEVER_ASKED = (BLOCKED, DUPLICATE, NOT_NEEDED, PLACEHOLDER)
STATUS = re.compile(r"[1-9](\d\d|xx)")


def remedy(outcome: str) -> str:
    """What helps where most candidates end so."""
    return REMEDIES.get(outcome, ELSE).format(outcome=outcome)


def retried(words: str) -> frozenset[str]:
    """The outcomes and statuses that are to be tried again, of a text with commas.

    Raises:
        UserError: one is no outcome, or asking again does not help.
    """
    named = frozenset(filter(None, (word.strip() for word in words.split(","))))
    known = REMEDIES.keys() - {*NEVER_ASKED, STORED}
    if words and not named:
        raise UserError(f"--retry-failed {words[:40]}: it names no outcome", _choice(known))
    for word in sorted(named):
        if word in NEVER_ASKED:
            raise UserError(f"--retry-failed {word}: asking again does not help", remedy(word))
        if word not in known and not STATUS.fullmatch(word):
            raise UserError(f"--retry-failed: '{word[:40]}' is no outcome", _choice(known))
    return named


def _choice(known: Iterable[str]) -> str:
    return f"a status such as 404 or 5xx, or one of {', '.join(sorted(known))}"
