"""robots.txt (RFC 9309): what a host lets this crawler fetch, and how slowly."""

import re
from dataclasses import dataclass

from protego import Protego

PRODUCT = "kd3-pipeline"  # the product token of section 2.2.1, as in the user agent
MAX_BYTES = 512 * 1024  # section 2.5: at least 500 KiB
LONGEST_DELAY = 30.0  # seconds
AGENT_LINE = re.compile(r"user[- ]?agent\b[\s:]*(\*|[a-z0-9_-]*)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules of one origin for this crawler."""

    parsed: Protego

    def allow(self, url: str) -> bool:
        """True if `url`, of the origin of these rules, may be fetched."""
        return self.parsed.can_fetch(url, PRODUCT)

    @property
    def delay(self) -> float:
        """Seconds between two requests that Crawl-delay asks for; 0 without one, 30 at most."""
        return min(self.parsed.crawl_delay(PRODUCT) or 0.0, LONGEST_DELAY)


def rules_of(text: bytes) -> Rules:
    """Reads a robots.txt of any content; what is beyond 512 KiB is left out."""
    if len(text) > MAX_BYTES:
        text = text[:MAX_BYTES].rpartition(b"\n")[0]  # half a line may forbid too much
    lines = []
    for line in text.decode("utf-8-sig", "replace").splitlines():
        line = line.strip()
        if match := AGENT_LINE.match(line):
            # the parser keeps the rules once for every name: thousands of names of others would
            # fill the memory. And it takes a part of our name for ours.
            name = match[1].lower()
            line = f"User-agent: {name if name in ('*', PRODUCT) else 'other'}"
        lines.append(line)
    return Rules(Protego.parse("\n".join(lines)))
