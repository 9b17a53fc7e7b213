"""Blocklist of the user's: hosts and images of which nothing is stored.

A file of one rule a line: a host name, the SHA-256 of an image (64 hex digits), or the `phash` of
one (16). A host stands for all below it. `phash` is that of Zauner in the variant of imagehash; an
image is refused if it, its mirror image, or it turned by 90°, 180° or 270° is within RADIUS bits.
"""

import hashlib
import ipaddress
import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from kd3_pipeline.crawl.addresses import as_asked
from kd3_pipeline.errors import UserError
from kd3_pipeline.images import decode
from kd3_pipeline.manifest import BLOCKED, FORGOTTEN, Fetched

# bits of 64; recompressing and scaling move a few. Were bits independent, 4 in 10^11 pairs of
# unrelated pictures would be so near in one of eight turns
RADIUS = 6
SIDE = 32  # pixels that `phash` looks at
TURNS = (
    *(Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.FLIP_TOP_BOTTOM),
    *(Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_180, Image.Transpose.ROTATE_270),
    *(Image.Transpose.TRANSPOSE, Image.Transpose.TRANSVERSE),
)
DIGITS = re.compile(r"[0-9a-fA-F]+")
LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?")
KINDS = {32: "an MD5", 40: "a SHA-1", 96: "a SHA-384", 128: "a SHA-512"}  # by hex digits
NO_HASHES = np.zeros(0, np.uint64)


@dataclass(frozen=True)
class Blocklist:
    """What is refused; an empty one refuses nothing and costs nothing.

    Attributes:
        hosts: names in lower case, as they go over the wire (IDNA).
        ids: SHA-256 of images, in hex.
        hashes: `phash` of images, uint64 [N].
        forgotten: ids of images that were dropped on request, wherever they come from now.
    """

    hosts: frozenset[str] = frozenset()
    ids: frozenset[str] = frozenset()
    hashes: np.ndarray = field(default_factory=lambda: NO_HASHES)
    forgotten: frozenset[str] = frozenset()

    def host(self, address: str) -> str:
        """The rule that refuses an address for its host, "" if none does."""
        if not self.hosts:
            return ""
        name = wire_host(address)
        while name:
            if name in self.hosts:
                return f"host {name}"
            name = name.partition(".")[2]
        return ""

    def id(self, id: str) -> tuple[str, str] | None:
        """Outcome and detail for an image with this SHA-256; None if it may be stored."""
        if id in self.ids:
            return BLOCKED, f"SHA-256 {id}"
        if id in self.forgotten:
            return FORGOTTEN, f"the same image was forgotten: SHA-256 {id}"
        return None

    def image(self, data: bytes) -> tuple[str, str] | None:
        """The same for an encoded image that can be decoded."""
        if self.ids or self.forgotten:
            found = self.id(hashlib.sha256(data).hexdigest())
            if found is not None:
                return found
        if len(self.hashes) and (rule := self.alike(picture_hashes(decode(data)))):
            return BLOCKED, rule
        return None

    def alike(self, hashes: np.ndarray) -> str:
        """The rule that refuses a picture with these `phash`es of its turns, "" if none does."""
        for one in hashes:
            away = np.bitwise_count(self.hashes ^ one)
            if len(away) and (bits := int(away.min())) <= RADIUS:
                return f"phash {int(one):016x}, {bits} bits away"
        return ""

    def holds_still(self, record: Fetched) -> bool:
        """Whether a `blocked` record of an earlier crawl would be one by this list."""
        kind, _, rest = record.detail.partition(" ")
        rule = rest.partition(",")[0]
        if kind == "phash" and DIGITS.fullmatch(rule) and len(rule) == 16:
            return bool(self.alike(np.array([int(rule, 16)], np.uint64)))
        return rule in {"host": self.hosts, "SHA-256": self.ids}.get(kind, ())


NOTHING_BLOCKED = Blocklist()


def read_blocklist(path: Path) -> Blocklist:
    """Reads a file of rules; `#` begins a comment.

    Raises:
        UserError: no such file, or a line that is no rule.
    """
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(
            f"crawl.blocklist: cannot read {path}: {reason}",
            "name a text file, or set it to '' for none",
        ) from None
    hosts, ids, hashes = set(), set(), []
    for number, line in enumerate(text.splitlines(), start=1):
        rule = re.split(r"(?:^|\s)#", line, maxsplit=1)[0].strip().lower()
        if not rule:
            continue
        if DIGITS.fullmatch(rule) and len(rule) == 64:
            ids.add(rule)
        elif DIGITS.fullmatch(rule) and len(rule) == 16:
            hashes.append(int(rule, 16))
        else:
            try:
                hosts.add(_host(rule))
            except ValueError as error:
                raise UserError(
                    f"{path}, line {number}: {error}: {line.strip()[:100]!r}",
                    "a line is a host name, 64 hex digits (SHA-256) or 16 (phash)",
                ) from None
    return Blocklist(frozenset(hosts), frozenset(ids), np.array(sorted(set(hashes)), np.uint64))


def _host(rule: str) -> str:
    """A host as it goes over the wire; raises ValueError, saying what it is instead."""
    if DIGITS.fullmatch(rule):
        kind = KINDS.get(len(rule), f"a number of {len(rule)} hex digits")
        raise ValueError(f"{kind}, which no image is compared with")
    if set(rule) & set("/ \t*?#@\\"):  # an address, or a mail's: its end may be another's host
        raise ValueError("no host name")
    if ":" in rule or rule.replace(".", "").isdigit():
        return str(ipaddress.ip_address(rule.strip("[]")))
    name = wire_host(f"https://{rule}")
    labels = name.split(".")
    if len(labels) < 2 or len(name) > 253 or not all(map(LABEL.fullmatch, labels)):
        raise ValueError("no host name")
    return name


def wire_host(address: str) -> str:
    """The host of an address as it goes over the wire, "" where there is none."""
    try:
        return (as_asked(address).raw_host or "").lower().rstrip(".")
    except Exception:  # the name of a file, or what is no address: yarl raises IndexError too
        return ""


def picture_hashes(image: Image.Image) -> np.ndarray:
    """The `phash` of a picture, its mirror images and turns, uint64 [8]."""
    from imagehash import phash  # takes a second

    # of a picture that has this size already, the library takes the pixels as they are
    small = image.convert("L").resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    turned = [small, *(small.transpose(turn) for turn in TURNS)]
    return np.array([int(str(phash(one)), 16) for one in turned], np.uint64)
