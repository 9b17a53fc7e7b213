"""What the headers of an answer say of its use."""

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin

from kd3_pipeline.crawl.optouts.forms import Form, forms
from kd3_pipeline.crawl.optouts.signals import Signal, strictest

RSL_TYPE = "application/rsl+xml"
RESERVATION = "tdm-reservation"
# RFC 8288: addresses with parameters; nothing here goes back
LINK = re.compile(
    r"<([^<>]*+)>((?:\s*+;\s*+[\w!#$&+\-.^`|~*]++\s*+(?:=\s*+(?:\"[^\"]*+\"|[^\s\",;]*+))?+)*+)"
)
PARAMETER = re.compile(r";\s*+([\w!#$&+\-.^`|~*]++)\s*+=\s*+(?:\"([^\"]*+)\"|([^\s\",;]*+))")
FORMS = forms("header")


@dataclass(frozen=True, slots=True)
class Heard:
    """Signals in the headers of an answer, and addresses of licences that they name."""

    signals: tuple[Signal, ...] = ()
    licences: tuple[str, ...] = ()

    @property
    def reserves(self) -> bool:
        """True if it says whether mining is reserved: then no file is needed."""
        return any(one.kind == RESERVATION and one.allows is not None for one in self.signals)

    def __add__(self, more: "Heard") -> "Heard":
        licences = dict.fromkeys([*self.licences, *more.licences])
        return Heard((*self.signals, *more.signals), tuple(licences))


def heard(headers: Mapping[str, str], address: str) -> Heard:
    """Reads the headers that answered `address`. A mapping with `getall` may repeat headers."""
    signals: list[Signal] = []
    licences: list[str] = []
    for form in FORMS.values():
        values = _all(headers, form.name)
        if not values:
            continue
        if form.name == "Link":
            licences += _licences(values, address)
        elif form.name == "X-Robots-Tag":
            # a name in front binds up to the end of its own header
            signals += [_signal(form, [value]) for value in values]
        else:
            signals.append(_signal(form, values))
    return Heard(tuple(signals), tuple(dict.fromkeys(licences)))


def _signal(form: Form, values: list[str]) -> Signal:
    if form.kind == RESERVATION:
        allows = strictest(map(form.read, values))
    else:
        # a structured field may come in several lines
        allows = form.read(", ".join(values))
    return Signal(form.kind, f"header {form.name}", ", ".join(values), allows)


def _licences(values: Iterable[str], address: str) -> Iterator[str]:
    for value in values:
        for target, parameters in LINK.findall(value):
            found = {
                name.lower(): quoted or plain
                for name, quoted, plain in PARAMETER.findall(parameters)
            }
            yield from licence_named(found, target, address)


def licence_named(link: Mapping[str, str], target: str, address: str) -> Iterator[str]:
    """The address of a licence, if a link (its `rel` and `type`) on `address` leads to one."""
    kind = link.get("type", "").partition(";")[0].strip().lower()
    if "license" in link.get("rel", "").lower().split() and kind == RSL_TYPE:
        with suppress(ValueError):  # what is no address is none of a licence
            yield urljoin(address, target.strip())


def _all(headers: Any, name: str) -> list[str]:
    if hasattr(headers, "getall"):
        return list(headers.getall(name, []))
    value = headers.get(name)
    return [] if value is None else [value]
