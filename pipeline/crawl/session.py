"""Plain HTTP for pages: searches and sites, under the same guard as the images.

Page addresses come from the web as well, by redirects and links.
"""

import io
import socket
import time
from http.cookiejar import DefaultCookiePolicy
from typing import Any
from urllib.parse import urljoin

import requests
from requests.adapters import HTTPAdapter
from urllib3 import HTTPResponse
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import HTTPError, NameResolutionError, NewConnectionError, ReadTimeoutError

from pipeline.crawl.guard import Forbidden, HostTable, check_address, check_host, check_url

MAX_REDIRECTS = 5
MOST_SECONDS = 60.0  # for the body of one page


class ForbiddenAddress(requests.RequestException, Forbidden):
    """`Forbidden`, for those who await the errors of requests."""


class TooLarge(requests.RequestException):
    """A body is larger than the caller takes."""


def guarded_session(user_agent: str, hosts: HostTable) -> requests.Session:
    """A session that connects to public addresses only, keeps no cookies and uses no proxy.

    Every request needs a `timeout` and raises `requests.RequestException` when it fails. Names
    in `hosts` lead to their addresses unchecked; it is for the demo and for tests.
    """
    session = requests.Session()
    session.trust_env = False  # a proxy would resolve names behind the guard's back
    session.max_redirects = MAX_REDIRECTS
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    session.headers["User-Agent"] = user_agent
    session.mount("http://", _GuardedAdapter(hosts))
    session.mount("https://", _GuardedAdapter(hosts))
    return session


def read(
    response: requests.Response, most: int, seconds: float = MOST_SECONDS, cut: bool = False
) -> bytes:
    """The body of a response that was asked for with `stream=True`, decompressed.

    Raises:
        TooLarge: it has more than `most` bytes; with `cut` it ends there instead.
        requests.RequestException: it ends early, or takes longer than `seconds`.
    """
    body = bytearray()
    deadline = time.monotonic() + seconds
    try:
        with response:
            # read1 returns what is there, so that a body that drips cannot outstay the deadline
            while part := response.raw.read1(64 * 1024, decode_content=True):
                body += part
                if len(body) > most and cut:
                    break
                if len(body) > most:
                    raise TooLarge(f"more than {most:,} bytes", response=response)
                if time.monotonic() > deadline:
                    raise requests.Timeout(f"more than {seconds:g} s", response=response)
    except ReadTimeoutError as error:
        raise requests.ReadTimeout(error, response=response) from None
    except HTTPError as error:
        raise requests.ConnectionError(error, response=response) from None
    return bytes(body[:most])


class _GuardedAdapter(HTTPAdapter):
    def __init__(self, hosts: HostTable) -> None:
        self.hosts = hosts
        super().__init__()

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(*args, **options)
        table = {"hosts": self.hosts}
        http = type("Connection", (_Checked, HTTPConnection), table)
        https = type("Connection", (_Checked, HTTPSConnection), table)
        self.poolmanager.pool_classes_by_scheme = {
            "http": type("Pool", (HTTPConnectionPool,), {"ConnectionCls": http}),
            "https": type("Pool", (HTTPSConnectionPool,), {"ConnectionCls": https}),
        }

    def send(
        self, request: requests.PreparedRequest, *args: Any, **options: Any
    ) -> requests.Response:
        if options.get("timeout") is None:
            raise ValueError("a request needs a timeout")
        # what a redirect sets would be sent to where it leads
        request.headers.pop("Cookie", None)
        try:
            check_url(request.url or "")
            response = super().send(request, *args, **(options | {"proxies": None}))
        except Forbidden as error:
            raise ForbiddenAddress(str(error), request=request) from None
        if response.is_redirect:
            # requests reads the body of a redirect, however long
            response.close()
            response.raw = HTTPResponse(io.BytesIO(), preload_content=False)
            try:
                urljoin(request.url or "", response.headers["Location"].encode("latin-1").decode())
            except ValueError as error:
                raise requests.exceptions.InvalidURL(f"redirect: {error}"[:200]) from None
        return response


class _Checked:
    """Resolves the name once, and connects to an address that was checked."""

    hosts: HostTable
    host: str
    port: int

    def _new_conn(self) -> socket.socket:
        name, port = self.host, self.port
        failure: HTTPError | None = None
        try:
            for address in self._addresses(name.strip("[]"), port):
                self.host, self.port = address
                try:
                    return super()._new_conn()  # type: ignore[misc]
                except NewConnectionError as error:
                    failure = error
        finally:
            self.host, self.port = name, port  # TLS asks for the name
        raise failure or NameResolutionError(name, self, socket.gaierror("no address"))

    def _addresses(self, name: str, port: int) -> list[tuple[str, int]]:
        if name in self.hosts:
            return [self.hosts[name]]
        check_host(name)
        try:
            found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise NameResolutionError(name, self, socket.gaierror(str(error))) from None
        addresses = [(str(info[4][0]), port) for info in found]
        for address, _ in addresses:
            check_address(address)
        return addresses
