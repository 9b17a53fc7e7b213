"""Proxy of the user's, through which everything is asked where there is one."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from yarl import URL

from kd3_pipeline.crawl.guard import Forbidden
from kd3_pipeline.errors import ExternalError, UserError

LOGIN = "CRAWL_PROXY_LOGIN"  # environment variable: NAME:PASSWORD
USUAL = ("http_proxy", "https_proxy", "all_proxy")  # of other programs, in small letters or large
OUT_OF_REACH = {502, 503, 504}  # so a proxy says that it cannot reach a host
WANTS_LOGIN = 407
CONNECT_TIMEOUT = 5.0  # seconds


class ProxyError(aiohttp.ClientError):
    """The proxy does not do its work; that says nothing of the host that was to be asked."""


class Proxy:
    """An HTTP proxy. It gets plain requests as they are, and makes a tunnel for https.

    The address that the client has of it may hold a password: it is in no message.
    """

    def __init__(self, address: str) -> None:
        """Raises UserError if `address`, `crawl.proxy`, or the login is none."""
        if "@" in address:
            raise UserError(
                "crawl.proxy has a name or a password, which do not belong in a file",
                f"put them into the environment variable {LOGIN} as NAME:PASSWORD",
            )
        try:
            url = URL(address)
            self.name = f"{url.host_subcomponent}:{url.port}"
            plain = not url.raw_host or url.path != "/" or url.query_string or url.fragment
        except (ValueError, IndexError):
            raise _unusable("it is no address") from None
        if url.scheme != "http" or plain:
            raise _unusable(f"'{address[:100]}' is none")
        self.host = (url.raw_host or "").rstrip(".")
        self._url = _with_login(url)

    async def reach(self) -> None:
        """Raises ExternalError if nothing listens there: then no host can be asked."""
        url = self._url
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                _, writer = await asyncio.open_connection(url.raw_host, url.port)
        except OSError as error:  # TimeoutError is one
            raise ExternalError(
                f"crawl.proxy: {self.name} cannot be reached: {_reason(error)}",
                "start the proxy, or set crawl.proxy to '' for none",
            ) from None
        writer.close()

    @asynccontextmanager
    async def ask(
        self, session: aiohttp.ClientSession, method: str, url: URL, **options: Any
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """One request through the proxy.

        Raises:
            Forbidden: `url` is the proxy's own: what it tells of itself is nobody's picture.
            ProxyError: it cannot be reached, or refuses.
            aiohttp.ClientError, OSError: there is no answer.
        """
        if (url.raw_host or "").rstrip(".") == self.host:
            raise Forbidden(f"{self.host} is the proxy itself")
        try:
            answer = await session.request(method, url, proxy=self._url, **options)
        except aiohttp.ClientHttpProxyError as error:  # its own text has the login
            said = f"the proxy answered {error.status} {error.message}"
            if error.status in OUT_OF_REACH:
                raise aiohttp.ClientConnectionError(said) from None
            raise ProxyError(self._told(error.status, said)) from None
        except aiohttp.ClientResponseError as error:
            if error.request_info.method != "CONNECT":
                raise
            # of the tunnel: the host behind it has said nothing
            what = " ".join(error.message.split())
            raise ProxyError(f"the proxy's answer is no HTTP: {what}") from None
        except (aiohttp.ClientProxyConnectionError, aiohttp.ClientConnectorDNSError) as error:
            reason = _reason(error.os_error)
            raise ProxyError(f"{self.name} cannot be reached: {reason}") from None
        async with answer:
            if answer.status == WANTS_LOGIN:
                raise ProxyError(self._told(WANTS_LOGIN, f"the proxy answered {WANTS_LOGIN}"))
            yield answer

    def _told(self, status: int, said: str) -> str:
        return f"{said}: see {LOGIN}" if status == WANTS_LOGIN else said


def unused_proxies() -> list[str]:
    """Environment variables that name a proxy for other programs."""
    names = (one for name in USUAL for one in (name, name.upper()))
    return [name for name in names if os.environ.get(name, "").strip()]


def _reason(error: OSError) -> str:
    number = error.errno or 0
    if number > 0:  # the event loop has a text of its own, with the address
        return os.strerror(number)
    return error.strerror or "no answer in time"


def _with_login(url: URL) -> URL:
    login = os.environ.get(LOGIN, "")
    if not login:
        return url
    name, colon, password = login.partition(":")
    try:
        login.encode("latin-1")  # as the client sends it
    except UnicodeEncodeError:
        colon = ""
    if not name or not colon:
        raise UserError(f"{LOGIN} is no NAME:PASSWORD in Latin-1")
    return url.with_user(name).with_password(password)


def _unusable(why: str) -> UserError:
    return UserError(
        f"crawl.proxy: {why}",
        "give http://HOST:PORT; proxies of other kinds (https, SOCKS) need one of this kind before"
        " them",
    )
