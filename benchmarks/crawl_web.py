"""Image hosts and a search engine on loopback, in a process of their own, for `crawl_speed`.

Every host answers over HTTP and HTTPS: /i/NUMBER.jpg is another JPEG for every number, /big an
answer of 300 MB without a length, /bomb.png a picture of 400 megapixels in few bytes, and
/images/async the result pages of the search engine. /control/ is for the benchmark itself. The
clock of the rates is here: from the first request for an image to the last image sent.
"""

import asyncio
import http.client
import io
import json
import ssl
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import certifi
import numpy as np
from PIL import Image

from kd3_pipeline.demo.markup import Result, async_page

HOSTS = 8
PICTURES = 64  # that are drawn; the rest differ from them by a comment
PAGE_RESULTS = 20
BIG = 300 * 2**20  # bytes
BOMB_SIDE = 20_000  # pixels
SEARCH = "http://search.bench.test/images/async"
COMMENT_AT = 20  # bytes: after the marks that tell a JPEG


@cache
def picture(seed: int, number: int) -> bytes:
    """A JPEG of about 25 to 75 KB: noise over a gradient."""
    draws = np.random.default_rng([seed, number])
    width, height = draws.integers(320, 513, 2)
    y, x = np.mgrid[:height, :width]
    slopes = draws.uniform(0, 128, (3, 2))
    pixels = np.stack([x / width * across + y / height * down for across, down in slopes], -1)
    pixels += draws.normal(0, draws.uniform(5, 13), (height, width, 1))
    out = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(out, "JPEG", quality=85)
    return out.getvalue()


def image(seed: int, number: int) -> bytes:
    """The bytes of /i/NUMBER.jpg."""
    data = picture(seed, number % PICTURES)
    comment = str(number).encode()
    segment = b"\xff\xfe" + struct.pack(">H", len(comment) + 2) + comment
    return data[:COMMENT_AT] + segment + data[COMMENT_AT:]


@cache
def bomb() -> bytes:
    """A grey PNG of BOMB_SIDE pixels a side, all zero."""
    size, parts = (BOMB_SIDE + 1) * BOMB_SIDE, 20
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    # one part, which nothing before it is needed for, as often as there are parts
    part = packer.compress(bytes(size // parts)) + packer.flush(zlib.Z_FULL_FLUSH)
    pixels = b"\x78\x9c" + part * parts + packer.flush() + struct.pack(">HH", size % 65_521, 1)
    header = struct.pack(">IIBBBBB", BOMB_SIDE, BOMB_SIDE, 8, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", pixels), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


def image_url(number: int, tls: bool = False) -> str:
    """By the host's name, which only a host table knows."""
    return f"http{'s' * tls}://{'s' * tls}{number % HOSTS}.bench.test/i/{number}.jpg"


class Server:
    """All hosts; every answer comes after the latency."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        for number in range(PICTURES):
            picture(seed, number)
        bomb()  # too, or the first arm that asks would wait for it
        self.reset(0.0, 0)

    def reset(self, latency: float, per_class: int) -> None:
        self.latency, self.per_class = latency, per_class
        self.images, self.first, self.last = 0, 0.0, 0.0
        self.cpu = time.process_time()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection. A client may leave when it likes."""
        with suppress(asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
            more = True
            while more:
                request = await reader.readuntil(b"\r\n\r\n")
                target = request.split(b" ", 2)[1].decode("latin-1")
                more = await self.answer(target, writer)
                more = more and b"connection: close" not in request.lower()
        writer.close()

    async def answer(self, target: str, writer: asyncio.StreamWriter) -> bool:
        """Sends one answer; False when its end is the connection's end."""
        url, arrived = urlsplit(target), time.perf_counter()
        if url.path.startswith("/control/"):
            await self.send(writer, self.control(url.path), "application/json")
            return True
        await asyncio.sleep(self.latency)
        if url.path.startswith("/i/"):
            if not self.first:
                self.first = arrived
            await self.send(writer, image(self.seed, int(url.path[3:-4])), "image/jpeg")
            self.images += 1
            self.last = time.perf_counter()
        elif url.path == "/bomb.png":
            await self.send(writer, bomb(), "image/png")
        elif url.path == "/images/async":
            await self.send(writer, self.page(parse_qs(url.query)), "text/html; charset=utf-8")
        elif url.path == "/big":
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\n\r\n\xff\xd8\xff\xe0")
            for _ in range(BIG // 2**20):
                writer.write(bytes(2**20))
                await writer.drain()
            return False
        else:
            await self.send(writer, b"", "text/plain", "404 Not Found")
        return True

    async def send(
        self, writer: asyncio.StreamWriter, body: bytes, kind: str, status: str = "200 OK"
    ) -> None:
        head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        await writer.drain()

    def control(self, path: str) -> bytes:
        _, _, command, *values = path.split("/")
        if command == "reset":
            self.reset(float(values[0]), int(values[1]))
        found = {"images": self.images, "seconds": self.last - self.first}
        return json.dumps(found | {"cpu": time.process_time() - self.cpu}).encode()

    def page(self, query: dict[str, list[str]]) -> bytes:
        """Results of the query `class-LABEL`: `per_class` images, and then none."""
        start = int(query["q"][0].rpartition("-")[2]) * self.per_class
        first = int(query.get("first", ["0"])[0])
        ranks = range(first, min(first + PAGE_RESULTS, self.per_class))
        urls = [image_url(start + rank) for rank in ranks]
        found = async_page([Result(url, url, url, "An image", "", "") for url in urls])
        return f'<div class="dgControl">{found}</div>'.encode()


async def run(seed: int, certificate: str) -> None:
    server = Server(seed)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    ports = []
    for tls in [None] * HOSTS + [context] * HOSTS:
        listening = await asyncio.start_server(server.serve, "127.0.0.1", 0, ssl=tls, backlog=512)
        ports.append(listening.sockets[0].getsockname()[1])
    print(json.dumps(ports), flush=True)
    await asyncio.Event().wait()


@dataclass(frozen=True)
class Web:
    """A running server, as the benchmark and its arms see it."""

    ports: list[int]  # of HTTP, then of HTTPS
    trusted: Path  # certificates: those that everyone trusts, and the server's

    def hosts(self) -> dict[str, tuple[str, int]]:
        names = [f"{tls}{host}.bench.test" for tls in ("", "s") for host in range(HOSTS)]
        names.append(urlsplit(SEARCH).netloc)
        pairs = zip(names, [*self.ports, self.ports[0]], strict=True)
        return {name: ("127.0.0.1", port) for name, port in pairs}

    def address(self, url: str) -> str:
        """The same URL by IP address, for clients without a host table."""
        name = urlsplit(url).netloc
        return url.replace(name, "{}:{}".format(*self.hosts()[name]))

    def reset(self, latency: float, per_class: int = 0) -> None:
        """Sets clock and counters to zero, the latency (seconds), and a search's results."""
        self._ask(f"/control/reset/{latency}/{per_class}")

    def stats(self) -> dict[str, Any]:
        """Images sent, seconds from first to last, and CPU seconds, since the last reset."""
        return self._ask("/control/stats")

    def _ask(self, path: str) -> dict[str, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.ports[0], timeout=30)
        try:
            connection.request("GET", path)
            return json.load(connection.getresponse())
        finally:
            connection.close()


@contextmanager
def serving(seed: int, folder: Path) -> Iterator[Web]:
    """Runs the server, with a certificate of its own that is left in `folder`."""
    certificate, trusted = folder / "server.pem", folder / "trusted.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2"
    names = "subjectAltName=IP:127.0.0.1,DNS:*.bench.test"
    files = ["-keyout", str(certificate), "-out", str(folder / "certificate.pem")]
    options = ["-subj", "/CN=benchmark", "-addext", names, *files]
    subprocess.run([*command.split(), *options], check=True, capture_output=True)
    public = (folder / "certificate.pem").read_text()
    with certificate.open("a") as file:
        file.write(public)
    # with the others, since reading them all is part of what HTTPS costs
    trusted.write_text(Path(certifi.where()).read_text() + public)
    command = [sys.executable, "-m", "benchmarks.crawl_web", str(seed), str(certificate)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            yield Web(json.loads(process.stdout.readline()), trusted)
        finally:
            process.terminate()


if __name__ == "__main__":
    asyncio.run(run(int(sys.argv[1]), sys.argv[2]))
