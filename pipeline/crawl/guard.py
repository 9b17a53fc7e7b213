"""What may be fetched: public http(s) addresses, whose owners have not opted out.

A URL from a search result is hostile. The address that was checked is the address that is
connected to, so a name cannot change its meaning between the two.
"""

import ipaddress
import re
import socket
from collections.abc import Mapping

from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver
from yarl import URL

# is_global says yes to some of these: they reach private machines through a translation, or are
# a cloud's own
NEVER = [
    ipaddress.ip_network(network)
    for network in (
        "0.0.0.0/8",
        "100.64.0.0/10",
        "192.0.0.0/24",
        "168.63.129.16/32",
        "192.88.99.0/24",
        "224.0.0.0/4",
        "64:ff9b::/96",
        "64:ff9b:1::/48",
        "2001::/32",
        "2002::/16",
        "3fff::/20",
        "fec0::/10",
        "ff00::/8",
    )
]
OPT_OUTS = {"noai", "noimageai", "noindex", "noimageindex", "noml", "none"}

HostTable = Mapping[str, tuple[str, int]]  # name -> (ip, port), for the demo and tests only


class Forbidden(Exception):
    """This address must not be fetched."""


def check_url(url: str) -> URL:
    """`url` as aiohttp reads it, so that what is checked is what is asked.

    Raises:
        Forbidden: it is malformed, not http(s), has credentials, or is a forbidden IP address.
    """
    if any(character.isspace() or ord(character) < 32 for character in url):
        raise Forbidden("malformed address: it has spaces or control characters")
    try:
        address = URL(url)
        host = address.raw_host or ""
    except ValueError as error:
        raise Forbidden(f"malformed address: {error}") from None
    if address.scheme not in ("http", "https"):
        raise Forbidden(f"scheme '{address.scheme[:20]}' is not http or https")
    if not host or address.user is not None or address.password is not None:
        raise Forbidden("no host, or credentials in the address")
    if address.port == 0:
        raise Forbidden("malformed address: port 0")
    try:
        check_address(host.partition("%")[0])
    except ValueError:
        if not re.fullmatch(r"[a-z0-9._-]*[a-z0-9-]\.?", host):
            raise Forbidden(f"'{host[:60]}' is no host name") from None
        if host.rstrip(".").rpartition(".")[2][0].isdigit():
            raise Forbidden(f"'{host[:60]}' is an oddly spelt IP address") from None
    return address


def check_address(address: str) -> None:
    """Raises Forbidden unless the IP address is a public one; ValueError if it is none."""
    ip = ipaddress.ip_address(address)
    ip = getattr(ip, "ipv4_mapped", None) or ip
    public = ip.is_global and not ip.is_multicast and not ip.is_reserved
    if not public or any(ip in network for network in NEVER if network.version == ip.version):
        raise Forbidden(f"{address} is not a public address")


class GuardedResolver(AbstractResolver):
    """Resolves a name and refuses it when any of its addresses is forbidden."""

    def __init__(self, hosts: HostTable) -> None:
        self.hosts = hosts
        self.system = ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        if host in self.hosts:
            address, port = self.hosts[host]
            return [_result(host, address, port)]
        found = await self.system.resolve(host, port, family)
        for result in found:
            check_address(result["host"].split("%")[0])
        return found

    async def close(self) -> None:
        await self.system.close()


def opted_out(headers: Mapping[str, str]) -> str:
    """The response header in which the owner opts out of such use, or an empty string.

    Reads X-Robots-Tag (noai, noimageai, noindex, noimageindex, noml) and TDM-Reservation.
    """
    getall = getattr(headers, "getall", lambda name, default: [headers.get(name, "")])
    for value in getall("X-Robots-Tag", []):
        words = {word.strip().lower() for word in value.replace(":", ",").split(",")}
        if words & OPT_OUTS:
            return f"X-Robots-Tag: {value}"[:200]
    if headers.get("TDM-Reservation", "").strip() == "1":
        return "TDM-Reservation: 1"
    return ""


def _result(host: str, address: str, port: int) -> ResolveResult:
    return ResolveResult(
        hostname=host,
        host=address,
        port=port,
        family=socket.AF_INET,
        proto=socket.IPPROTO_TCP,
        flags=socket.AI_NUMERICHOST,
    )
