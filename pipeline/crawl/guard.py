"""Guard of addresses: public http(s) ones may be fetched; and the names that robots go by.

A URL from a search result is hostile. The address that was checked is the address that is
connected to, so a name cannot change its meaning between the two.
"""

import ipaddress
import re
import socket
from collections.abc import Iterable, Mapping
from functools import lru_cache

from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver
from yarl import URL

from kd3_pipeline.crawl.addresses import as_asked

NAT64 = ipaddress.ip_network("64:ff9b::/96")  # RFC 6052: an IPv4 address follows
# RFC 2544 gives it to benchmarks; proxies make up an address of it for each name
FAKE = ipaddress.ip_network("198.18.0.0/15")
# the only block that IANA has given out for global use; mapped, NAT64 (RFC 6052), unique-local,
# link-local and site-local addresses all lie outside
GLOBAL_IPV6 = ipaddress.ip_network("2000::/3")
# is_global of some Python versions says yes to these: they reach private machines through a
# translation, lead nowhere, or are a cloud's own (IANA special-purpose registries, RFC 6890)
NEVER = [
    ipaddress.ip_network(network)
    for network in (
        "0.0.0.0/8",
        "100.64.0.0/10",  # carrier NAT, RFC 6598; 100.100.100.200 is a metadata service
        "168.63.129.16/32",  # Azure's hosts
        "192.0.0.0/24",  # 192.0.0.192 is a metadata service
        "192.0.2.0/24",
        "192.88.99.0/24",
        str(FAKE),
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/3",
        "2001::/23",  # Teredo, benchmarking, ORCHID
        "2001:db8::/32",
        "2002::/16",  # 6to4
        "3fff::/20",
    )
]
ISATAP = {0x00005EFE, 0x02005EFE}  # RFC 5214: an IPv4 address follows
# RFC 6761, 6762 (with the names of its appendix G), 7686, 8375, and ICANN's `internal`
PRIVATE_NAMES = re.compile(
    r"(.*\.)?(localhost|localdomain|local|internal|intranet|private|corp|home|lan|home\.arpa|onion)"
)
HOST_NAME = re.compile(r"(?=.{1,253}$)([a-z0-9_-]{1,63}\.)+[a-z][a-z0-9-]{0,62}")
# other services that may be tricked by a web request: WHATWG Fetch, "Port blocking"; under 1024
# the web has two ports of its own
PORTS_BELOW_1024 = {80, 443}
OTHER_SERVICES = {1719, 1720, 1723, 2049, 3659, 4045, 4190, 5060, 5061, 6000, 6566}
OTHER_SERVICES |= {6665, 6666, 6667, 6668, 6669, 6679, 6697, 10080}

PRODUCT = "kd3-pipeline"  # by which robots.txt and X-Robots-Tag know this crawler
OPT_OUTS = {"noai", "noimageai", "noindex", "noimageindex", "noml", "none"}
# words of X-Robots-Tag that have a colon and are no user agent
WITH_VALUE = {"unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"}

HostTable = Mapping[str, tuple[str, int]]  # name -> (ip, port), for the demo and tests only


class Forbidden(Exception):
    """This address must not be fetched."""


class ForbiddenAnswer(Forbidden):
    """DNS says an address that must not be connected to; of the name that is no judgement."""


def check_url(url: str) -> URL:
    """`url` as it is asked for: what is checked here is what the client connects to.

    Raises:
        Forbidden: it is malformed, not http(s), has credentials, leads to a port that is not the
            web's, or its host is forbidden.
    """
    try:
        address = as_asked(url)
        host, port = address.raw_host or "", address.port or 0
    except Exception as error:  # yarl raises IndexError too, on some
        raise Forbidden(f"malformed address: {error}"[:200]) from None
    if address.scheme not in ("http", "https"):
        raise Forbidden(f"scheme '{address.scheme[:20]}' is not http or https")
    if not host or address.user is not None or address.password is not None:
        raise Forbidden("no host, or credentials in the address")
    if (port < 1024 and port not in PORTS_BELOW_1024) or port in OTHER_SERVICES:
        raise Forbidden(f"port {port} is not one of the web")
    check_host(host)
    return address


@lru_cache(maxsize=4096)  # of what may be asked: the text alone decides, and hosts come again
def check_host(host: str) -> None:
    """Raises Forbidden when a host is no public name, nor a public IP address as usually spelt."""
    try:
        check_address(host)
    except ValueError:
        name = host.lower().removesuffix(".")
        # a last label that begins with a letter is no IP address, however oddly spelt; a name
        # without a dot is looked up in the local network
        if not HOST_NAME.fullmatch(name):
            raise Forbidden(f"'{host[:60]}' is no host name or an oddly spelt address") from None
        if PRIVATE_NAMES.fullmatch(name):
            raise Forbidden(f"'{host[:60]}' is a name of local networks") from None


def check_address(address: str) -> None:
    """Raises Forbidden unless the IP address is a public one; ValueError if it is none."""
    ip = ipaddress.ip_address(address)
    public = ip.is_global
    if isinstance(ip, ipaddress.IPv6Address):
        public &= ip in GLOBAL_IPV6 and ip.scope_id is None
        public &= (int(ip) >> 32) & 0xFFFFFFFF not in ISATAP
    if not public or any(ip in network for network in NEVER if network.version == ip.version):
        raise Forbidden(f"{address} is not a public address")


def check_answer(address: str) -> None:
    """Raises ForbiddenAnswer unless an address that DNS gave for a name leads to a public one.

    A network that has no IPv4 gets there by NAT64: the address inside is where such a one leads.
    """
    ip = ipaddress.ip_address(address)
    behind = ip in NAT64 and isinstance(ip, ipaddress.IPv6Address) and ip.scope_id is None
    try:
        check_address(str(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)) if behind else address)
    except Forbidden:
        fake = f", but one that a proxy makes up ({FAKE})" if ip in FAKE else ""
        raise ForbiddenAnswer(f"DNS says {address}, no public address{fake}") from None


class GuardedResolver(AbstractResolver):
    """Resolves a name and refuses it when any of its addresses is forbidden.

    Args:
        proxy: the host of the user's own proxy, which may be anywhere; where there is one, nothing
            else is resolved here.
    """

    def __init__(self, hosts: HostTable, proxy: str | None = None) -> None:
        self.hosts, self.proxy = hosts, proxy
        self.system: AbstractResolver = ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        if host in self.hosts:
            address, port = self.hosts[host]
            return [_result(host, address, port)]
        found = await self.system.resolve(host, port, family)
        for result in found if host.rstrip(".") != self.proxy else ():
            check_answer(result["host"])
        return found

    async def close(self) -> None:
        await self.system.close()


def robots_words(values: Iterable[str], user_agent: str) -> set[str]:
    """The words of X-Robots-Tag headers that bind `user_agent`, in small letters.

    `name: word, word` binds that robot alone, up to the next name or the header's end.
    """
    us = {"*", product_name(user_agent)}
    words: set[str] = set()
    for value in values:
        bound = True
        for part in value.lower().split(","):
            name, colon, rest = (text.strip() for text in part.partition(":"))
            if colon and name not in WITH_VALUE and not re.search(r"\s", name):
                bound = name.partition("/")[0] in us
                name = rest
            if bound:
                words.add(name)
    return words


def product_name(user_agent: str) -> str:
    """The name that robots.txt and X-Robots-Tag call a robot by (RFC 9309), in small letters.

    Of `Mozilla/5.0 (compatible; name/1; +contact)` it is the compatible one's.
    """
    compatible = re.match(r"[^()]*\(\s*compatible\s*;\s*([^\s/;()]+)", user_agent, re.IGNORECASE)
    return (compatible[1] if compatible else re.split(r"[/\s]", user_agent.strip())[0]).lower()


def _result(host: str, address: str, port: int) -> ResolveResult:
    return ResolveResult(
        hostname=host,
        host=address,
        port=port,
        family=socket.AF_INET6 if ":" in address else socket.AF_INET,
        proto=socket.IPPROTO_TCP,
        flags=socket.AI_NUMERICHOST,
    )
