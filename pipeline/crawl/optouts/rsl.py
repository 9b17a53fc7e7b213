"""Licence files of Really Simple Licensing (RSL)."""

from collections.abc import Iterator
from dataclasses import dataclass

from lxml import etree
from yarl import URL

from kd3_pipeline.crawl.optouts.forms import forms
from kd3_pipeline.crawl.optouts.paths import Pattern, spelt
from kd3_pipeline.crawl.optouts.signals import Signal

MAX_BYTES = 256 * 1024
NAMESPACE = "https://rslstandard.org/rsl"
FREE = {"free", "attribution"}  # payments that nobody has to pay
FORM = forms("licence file")["prohibits"]


@dataclass(frozen=True, slots=True)
class Content:
    """What a licence says of the addresses that one pattern covers."""

    origin: str  # "" stands for whoever names the licence
    pattern: Pattern
    prohibits: str = ""  # usages, as written
    permits: str = ""
    payment: str = ""  # that it takes

    def covers(self, origin: str, path: str) -> bool:
        return self.origin in ("", origin) and self.pattern.matches(path)


@dataclass(frozen=True, slots=True)
class Licence:
    """A licence file, or why there is none."""

    address: str
    contents: tuple[Content, ...] = ()
    problem: str = ""

    def signals(self, url: URL) -> list[Signal]:
        """What it says of an address; always one signal, since it was named for it."""
        origin, path = str(url.origin()), spelt(url.raw_path_qs)
        covering = [one for one in self.contents if one.covers(origin, path)]
        text, allows = self.problem or "nothing of training", None
        # RSL 1.0, section 3.1.1: no prohibition that covers an address is overruled; for the rest
        # the narrowest content counts
        longest = max((len(one.pattern.text) for one in covering), default=0)
        for one in covering:
            if one.prohibits:
                return [self._signal(f"{one.pattern.text} prohibits {one.prohibits}", False)]
            if one.permits and len(one.pattern.text) == longest and allows is None:
                paid = f" for payment: {one.payment}" if one.payment else ""
                text = f"{one.pattern.text} permits {one.permits}{paid}"
                allows = not one.payment
        return [self._signal(text, allows)]

    def decides(self, origin: URL) -> bool:
        """True if it says something of training for all that an origin has."""
        return self.signals(origin / "")[0].allows is not None

    def _signal(self, text: str, allows: bool | None) -> Signal:
        return Signal(FORM.kind, self.address, text, allows)


def licence(data: bytes, address: str) -> Licence:
    """Reads a licence file; hostile XML has no entities, no other files and an end."""
    if len(data) > MAX_BYTES:
        return Licence(address, problem=f"it has more than {MAX_BYTES:,} bytes")
    parser = etree.XMLParser(
        resolve_entities=False, load_dtd=False, no_network=True, remove_comments=True
    )
    try:
        root = etree.fromstring(data, parser)
    except (etree.LxmlError, ValueError) as error:
        return Licence(address, problem=f"it is no XML: {error}"[:120])
    if root.getroottree().docinfo.internalDTD is not None:
        return Licence(address, problem="it has a document type, and no licence needs one")
    contents = [found for one in _named(root, "content") for found in _contents(one)]
    return Licence(address, tuple(contents), "" if contents else "it has no content of RSL")


def _contents(element: etree._Element) -> Iterator[Content]:
    """One content for each of its licences, any of which its owner may point to."""
    origin, path = _covered(element.get("url", "").strip())
    if not path:
        return
    for one in _named(element, "license"):
        prohibits, permits = _usages(one, "prohibits"), _usages(one, "permits")
        payments = [pay.get("type", "").strip().lower() for pay in _named(one, "payment")]
        # of several payments one is chosen
        payment = "" if not payments or FREE & set(payments) else payments[0] or "unnamed"
        if prohibits or permits:
            yield Content(origin, Pattern(path), prohibits, permits, payment if permits else "")


def _usages(element: etree._Element, name: str) -> str:
    """What it prohibits or permits, if training is in it."""
    texts = [
        " ".join("".join(one.itertext()).split())
        for one in _named(element, name)
        if one.get("type", "usage").strip().lower() == "usage"
    ]
    return next((text for text in texts if FORM.read(text)), "")


def _covered(url: str) -> tuple[str, str]:
    """Origin and pattern of the path that a content's url stands for; "" for no path."""
    if url.startswith(("/", "*")):
        return "", url
    scheme, divided, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    try:
        origin = str(URL(f"{scheme}://{host}").origin()) if divided and host else ""
    except Exception:  # yarl raises IndexError too, on some
        return "", ""
    return (origin, slash + path or "/") if origin else ("", "")


def _named(element: etree._Element, name: str) -> Iterator[etree._Element]:
    return element.iter(f"{{{NAMESPACE}}}{name}", name)
