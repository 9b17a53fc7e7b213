"""Real image hosts on loopback that misbehave as told, and count what they are asked."""

import io
import struct
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from PIL import Image

from pipeline.demo.transport import Answer, Server

Route = Callable[["Request"], None]


@cache
def picture(index: int, kind: str = "JPEG", side: int = 32) -> bytes:
    """An encoded picture, another one for every index."""
    pixels = np.random.default_rng(index).integers(0, 256, (side, side, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, kind)
    return out.getvalue()


def png_claiming(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header claims this size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        [chunk(b"IHDR", header), chunk(b"IDAT", pixels), chunk(b"IEND", b"")]
    )


class Request(BaseHTTPRequestHandler):
    """One request; a route answers it with `reply` or writes to `wfile` itself."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: "Host"

    def do_GET(self) -> None:
        host, path = self.server, urlsplit(self.path).path
        with host.lock:
            host.requests[path] += 1
            host.targets.append(self.path)
            host.headers.append(dict(self.headers))
            host.starts.append(time.monotonic())
            host.at_once += 1
            host.most_at_once = max(host.most_at_once, host.at_once)
        try:
            host.routes.get(path, host.otherwise)(self)
        finally:
            with host.lock:
                host.at_once -= 1

    def reply(
        self, body: bytes = b"", status: int = 200, headers: dict[str, str] | None = None
    ) -> None:
        """Sends an answer whose Content-Length is right unless `headers` gives another."""
        wanted = {"Content-Type": "image/jpeg", "Content-Length": str(len(body))}
        self.send_response(status)
        for name, value in (wanted | (headers or {})).items():
            self.send_header(name, value.encode().decode("latin-1"))
        self.end_headers()
        self.wfile.write(body)

    def asked(self) -> int:
        """How often this path was asked for, this time included."""
        return self.server.requests[urlsplit(self.path).path]

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


class Host(Server):
    """A server whose `routes` answer by path; `otherwise` answers the rest (404)."""

    def __init__(self, routes: dict[str, Route] | None = None) -> None:
        super().__init__(("127.0.0.1", 0), lambda target: Answer(b""))
        self.RequestHandlerClass = Request
        self.routes = routes or {}
        self.otherwise: Route = lambda request: request.reply(b"", 404)
        self.lock = threading.Lock()
        self.requests: Counter[str] = Counter()
        self.targets: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.starts: list[float] = []
        self.at_once = self.most_at_once = 0

    def images_asked(self) -> int:
        """Requests for anything but robots.txt."""
        return sum(self.requests.values()) - self.requests["/robots.txt"]


@contextmanager
def serving(*hosts: Host) -> Iterator[dict[str, tuple[str, int]]]:
    """Runs the hosts, and yields a table of their names: 0.test, 1.test …"""
    for host in hosts:
        host.start()
    try:
        yield {f"{index}.test": host.server_address for index, host in enumerate(hosts)}
    finally:
        for host in hosts:
            host.stop()


def image(index: int, kind: str = "JPEG", seconds: float = 0.0) -> Route:
    """A route that answers with a good picture."""

    def route(request: Request) -> None:
        time.sleep(seconds)
        request.reply(picture(index, kind))

    return route


def reply(body: bytes = b"", status: int = 200, **headers: str) -> Route:
    """A route that always answers this; `Retry_After` becomes the header Retry-After."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda request: request.reply(body, status, named)


def redirect(location: str, status: int = 302) -> Route:
    """A route that leads elsewhere."""
    return reply(b"", status, Location=location)
