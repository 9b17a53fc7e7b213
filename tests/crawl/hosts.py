"""Real image hosts on loopback that misbehave as told, and count what they are asked."""

import datetime
import io
import ssl
import struct
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from PIL import Image

from kd3_pipeline.crawl.backlog import Backlog
from kd3_pipeline.crawl.blocklist import NOTHING_BLOCKED, Blocklist
from kd3_pipeline.crawl.fetch import fetch
from kd3_pipeline.crawl.guard import HostTable
from kd3_pipeline.crawl.http import Web
from kd3_pipeline.crawl.journal import Journal
from kd3_pipeline.demo.transport import Answer, Server
from kd3_pipeline.manifest import Candidate, Fetched
from kd3_pipeline.params import Crawl

Route = Callable[["Request"], None]
AGENT = "Mozilla/5.0 (compatible; kd3-pipeline/1; +https://example.com)"
DECLARATIONS = ("/robots.txt", "/.well-known/tdmrep.json")
LIMITS = Crawl(
    per_class=1000,
    min_side=16,
    max_bytes=200_000,
    connections_per_host=8,
    host_gap=0.0,
    timeout=0.7,
    patience=2.0,
)


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
            host.heads[path] += self.command == "HEAD"
            host.requests[path] += 1
            host.targets.append(self.path)
            host.headers.append(dict(self.headers))
            host.starts.append(time.monotonic())
            host.at_once += 1
            host.most_at_once = max(host.most_at_once, host.at_once)
        self.counted = True
        try:
            host.routes.get(path, host.otherwise)(self)
        finally:
            self.end()

    do_HEAD = do_GET

    def end(self) -> None:
        """Counts this request no more; a client goes on at its last byte."""
        if self.counted:
            self.counted = False
            with self.server.lock:
                self.server.at_once -= 1

    def reply(
        self, body: bytes = b"", status: int = 200, headers: dict[str, str] | None = None
    ) -> None:
        """Sends an answer whose Content-Length is right unless `headers` gives another."""
        wanted = {"Content-Type": "image/jpeg", "Content-Length": str(len(body))}
        self.send_response(status)
        for name, value in (wanted | (headers or {})).items():
            self.send_header(name, value.encode().decode("latin-1"))
        self.end()
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def asked(self) -> int:
        """How often this path was asked for, this time included."""
        return self.server.requests[urlsplit(self.path).path]

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


class Host(Server):
    """A server whose `routes` answer by path; `otherwise` answers the rest (404)."""

    def __init__(
        self, routes: dict[str, Route] | None = None, tls: ssl.SSLContext | None = None
    ) -> None:
        super().__init__(("127.0.0.1", 0), lambda target: Answer(b""))
        if tls is not None:
            self.socket = tls.wrap_socket(
                self.socket, server_side=True, do_handshake_on_connect=False
            )
        self.RequestHandlerClass = Request
        self.routes = routes or {}
        self.otherwise: Route = lambda request: request.reply(b"", 404)
        self.lock = threading.Lock()
        self.requests: Counter[str] = Counter()
        self.heads: Counter[str] = Counter()  # of these, without a body
        self.sent: Counter[str] = Counter()  # bytes, as far as a route counts them
        self.targets: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.starts: list[float] = []
        self.at_once = self.most_at_once = 0

    def images_asked(self) -> int:
        """Requests for anything but robots.txt and tdmrep.json."""
        return sum(self.requests.values()) - sum(self.requests[path] for path in DECLARATIONS)


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


def once(status: int, index: int = 0, **headers: str) -> Route:
    """A route that is busy the first time."""

    def route(request: Request) -> None:
        if request.asked() == 1:
            reply(b"busy", status, **headers)(request)
        else:
            request.reply(picture(index))

    return route


def raw(data: bytes) -> Route:
    """A route that sends these bytes and hangs up."""

    def route(request: Request) -> None:
        request.wfile.write(data)
        request.wfile.flush()
        request.close_connection = True

    return route


def silent(seconds: float) -> Route:
    """A route that says nothing for so long, and hangs up."""

    def route(request: Request) -> None:
        time.sleep(seconds)
        request.close_connection = True

    return route


def chunks(chunk: bytes, pause: float = 0.0, most: int = 2000) -> Route:
    """A route whose body comes in many chunks, of no known length."""

    def route(request: Request) -> None:
        request.send_response(200)
        request.send_header("Transfer-Encoding", "chunked")
        request.end_headers()
        for _ in range(most):
            request.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
            request.wfile.flush()
            request.server.sent[request.path] += len(chunk)
            time.sleep(pause)
        request.wfile.write(b"0\r\n\r\n")

    return route


def certificates(
    folder: Path, *names: str, days: int = 1, between: bool = False
) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """What a server with these names needs, and a client that trusts its authority alone.

    Args:
        days: until its certificate expires; that may be over.
        between: an authority between the two signs it, and the server does not send that one's.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    def made(subject: str, issuer: str, signed_by: Any, key: Any, days: int) -> Any:
        by, of = (
            x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, one)])
            for one in (issuer, subject)
        )
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder(by, of, key.public_key(), x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=9))
            .not_valid_after(now + datetime.timedelta(days=days))
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(one) for one in names]), False)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
            .sign(signed_by, hashes.SHA256())
        )

    top, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    authority = "authority of the tests"
    root = made(authority, authority, top, top, 1)
    if between:
        leaf = made("host", "an authority between", ec.generate_private_key(ec.SECP256R1()), key, 1)
    else:
        leaf = made("host", authority, top, key, days)
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    (folder / "both.pem").write_bytes(private + leaf.public_bytes(serialization.Encoding.PEM))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(folder / "both.pem")
    trusted = root.public_bytes(serialization.Encoding.PEM).decode()
    return server, ssl.create_default_context(cadata=trusted)


def candidates_of(urls: Sequence[str], label: int = 0) -> list[Candidate]:
    """Candidates of one class, in this order."""
    return [
        Candidate(label, f"class {label}", "test", "query", rank, url)
        for rank, url in enumerate(urls)
    ]


def crawl(
    folder: Path,
    candidates: Sequence[Candidate],
    hosts: HostTable,
    *,
    reports: list[tuple[int, str]] | None = None,
    refused: frozenset[str] = frozenset(),
    retry: frozenset[str] = frozenset(),
    tls: ssl.SSLContext | None = None,
    notes: list[str] | None = None,
    backlog: Backlog | None = None,
    blocklist: Blocklist = NOTHING_BLOCKED,
    **changes: Any,
) -> dict[Candidate, Fetched]:
    """Fetches with `LIMITS` and these changes; `folder` is the journal's."""
    params = LIMITS.model_copy(update=changes)
    said = [] if reports is None else reports
    with Journal(folder) as journal:
        return fetch(
            candidates,
            params,
            journal,
            Web(AGENT, hosts, tls),
            lambda label, outcome: said.append((label, outcome)),
            refused=refused,
            retry=retry,
            note=(notes if notes is not None else []).append,
            backlog=backlog,
            blocklist=blocklist,
        )


def outcomes(found: dict[Candidate, Fetched]) -> dict[str, str]:
    """What each address gave."""
    return {candidate.url: record.outcome for candidate, record in found.items()}
