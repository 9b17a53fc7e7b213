"""robots.txt (RFC 9309): what a host lets this crawler fetch, and how slowly."""

from dataclasses import dataclass, field

from protego import Protego

from kd3_pipeline.crawl.guard import PRODUCT
from kd3_pipeline.crawl.optouts.robots_lines import AGENT_LINE, Declared, declared

MAX_BYTES = 512 * 1024  # section 2.5: at least 500 KiB
LONGEST_DELAY = 30.0  # seconds


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules of one origin for this crawler, and what else its robots.txt says."""

    parsed: Protego
    declared: Declared = field(default_factory=Declared)

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
    written = text.decode("utf-8-sig", "replace").splitlines()
    for line in written:
        line = line.strip()
        if match := AGENT_LINE.match(line):
            # the parser keeps the rules once for every name: thousands of names of others would
            # fill the memory. And it takes a part of our name for ours.
            name = match[1].lower()
            line = f"User-agent: {name if name in ('*', PRODUCT) else 'other'}"
        lines.append(line)
    return Rules(Protego.parse("\n".join(lines)), declared(written))
