"""The demo web over HTTP on loopback: a search engine and several image hosts."""

import hashlib
import io
import re
import threading
from collections import Counter
from collections.abc import Callable
from http import HTTPStatus
from typing import Self
from urllib.parse import parse_qs, urlsplit

from PIL import Image

from kd3_pipeline.demo import markup, world
from kd3_pipeline.demo.shapes import CLASS_NAMES
from kd3_pipeline.demo.transport import Answer, Server
from kd3_pipeline.errors import UserError

PAGE_SIZE = 20  # results on a page
SLOW_SECONDS = 1.0  # delay of a "slow" image
RETRY_AFTER = "0"  # seconds, of a "busy" image's first answer
THUMBNAIL_SIDE = 64  # pixels
ADDRESS = "127.0.0.1"
# of what is drawn and where it is found: whoever kept pages and images of another web, under the
# same addresses, would take them for this one's; tests/demo fails when it has to change
VERSION = "80cbd2bc"

_IMAGE_PATH = re.compile(r"/([itp])/(\d{1,2})/(\d{1,6})[-.][^/]*")


NOT_FOUND = Answer(b"<h1>Not found</h1>", status=HTTPStatus.NOT_FOUND)


class DemoWeb:
    """A search engine and `hosts` image hosts on loopback, running while the context is open.

    Attributes:
        search_url: the engine's address for crawlers; takes ?q=QUERY&first=OFFSET.
        search_name: the engine's host name.
        addresses: (IP address, port) of the engine and then of each host.
        names: name of the engine and of each image host -> its address. The engine's results use
            these names, so that the same seed gives the same URLs whatever the ports; none of
            them resolves.
        requests: how often each path was asked for, all servers together.

    Args:
        per_query: results of each class's query.
        seed: of the whole web.
        hosts: number of image hosts.
        port: of the engine, the hosts taking those after it; 0 lets the system choose all.
        named: results use names (for the crawl); otherwise addresses (for a browser).

    Entering raises UserError when a port is taken.
    """

    search_url: str
    search_name: str
    addresses: tuple[tuple[str, int], ...]
    names: dict[str, tuple[str, int]]

    def __init__(
        self, per_query: int, seed: int = 0, hosts: int = 4, port: int = 0, *, named: bool = True
    ) -> None:
        if per_query < 0 or hosts < 1:
            raise ValueError(f"per_query {per_query} must be >= 0 and hosts {hosts} >= 1")
        self.per_query, self.seed, self.hosts, self.port = per_query, seed, hosts, port
        self.named = named
        # whoever keeps the pages of a web must not take them for those of a longer one
        self.search_name = self._name(f"search{per_query}")
        self.requests: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._turned_away: set[str] = set()  # paths of busy images that were asked for once
        self._closing = threading.Event()
        self._servers: list[Server] = []

    def __enter__(self) -> Self:
        self._closing.clear()
        try:
            for number in range(1 + self.hosts):
                self._servers.append(self._start(number))
        except BaseException:
            self._stop()
            raise
        self.addresses = tuple(server.address for server in self._servers)
        hosts = [self._name(f"host{number}") for number in range(self.hosts)]
        self.names = dict(zip([self.search_name, *hosts], self.addresses, strict=True))
        self.search_url = f"{self._origin(0)}/images/async"
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop()

    def results(self, query: str, first: int, count: int) -> list[markup.Result]:
        """Results `first` to `first + count - 1` of a query; none past the end."""
        label = _asked_class(query)
        if label is None:
            return []
        return [self._result(image) for image in self._plan(label)[first : first + count]]

    def _start(self, number: int) -> Server:
        port = self.port and self.port + number
        answer = self._counted(self._search if number == 0 else self._host(number - 1))
        try:
            server = Server((ADDRESS, port), answer)
        except (OSError, OverflowError) as error:
            raise UserError(
                f"cannot serve on {ADDRESS}:{port}: {error}", "choose another port, or 0 for any"
            ) from error
        server.start()
        return server

    def _stop(self) -> None:
        self._closing.set()
        for server in self._servers:
            server.stop()
        self._servers = []

    def _origin(self, number: int) -> str:
        return "http://{}:{}".format(*self._servers[number].address)

    def _name(self, server: str) -> str:
        """A server's name: another seed, or another way of drawing, is another web."""
        return f"{server}.seed{self.seed}.{VERSION}.demo.test"

    def _plan(self, label: int) -> tuple[world.WebImage, ...]:
        return world.plan(label, self.per_query, self.seed)

    def _result(self, image: world.WebImage) -> markup.Result:
        number = image.host % self.hosts
        origin = self._origin(1 + number)
        if self.named:
            origin = f"http://{self._name(f'host{number}')}"
        body, _ = world.render(image)
        return markup.Result(
            murl=origin + image.path,
            purl=origin + _sibling(image, "p", "html"),
            turl=origin + _sibling(image, "t", "jpg"),
            t=image.title,
            md5=hashlib.md5(body, usedforsecurity=False).hexdigest(),
            lic=image.licence,
        )

    def _counted(self, answer: Callable[[str], Answer]) -> Callable[[str], Answer]:
        def counted(target: str) -> Answer:
            with self._lock:
                self.requests[urlsplit(target).path] += 1
            return answer(target)

        return counted

    def _search(self, target: str) -> Answer:
        url = urlsplit(target)
        fields = parse_qs(url.query)
        query, first = fields.get("q", [""])[0], fields.get("first", ["0"])[0]
        if url.path == "/":
            return Answer(markup.home_page().encode())
        if url.path == "/search":
            results = self.results(query, 0, self.per_query)
            return Answer(markup.search_page(query, results).encode())
        if url.path != "/images/async":
            return NOT_FOUND
        if not re.fullmatch(r"[0-9]{1,9}", first):
            return Answer(b"first must be a number from 0", status=HTTPStatus.BAD_REQUEST)
        results = self.results(query, int(first), PAGE_SIZE)
        return Answer(markup.async_page(results).encode())

    def _host(self, number: int) -> Callable[[str], Answer]:
        def answer(target: str) -> Answer:
            path = urlsplit(target).path
            image = self._image(path)
            if image is None or image.host % self.hosts != number:
                return NOT_FOUND
            if path == image.path:
                return self._image_answer(image)
            if path == _sibling(image, "p", "html"):
                return Answer(markup.image_page(image.title, image.path, image.licence).encode())
            if path == _sibling(image, "t", "jpg"):
                return _thumbnail(image)
            return NOT_FOUND

        return answer

    def _image(self, path: str) -> world.WebImage | None:
        """The planned image that a path of any host speaks of."""
        match = _IMAGE_PATH.fullmatch(path)
        if match is None or int(match[2]) >= len(CLASS_NAMES):
            return None
        images = self._plan(int(match[2]))
        rank = int(match[3])
        return images[rank] if rank < len(images) else None

    def _image_answer(self, image: world.WebImage) -> Answer:
        body, content_type = world.render(image)
        if image.kind == "not-found":
            return Answer(body, content_type, HTTPStatus.NOT_FOUND)
        if image.kind == "slow":
            self._closing.wait(SLOW_SECONDS)
        if image.kind == "busy":
            with self._lock:
                first = image.path not in self._turned_away
                self._turned_away.add(image.path)
            if first:
                status = HTTPStatus.SERVICE_UNAVAILABLE
                return Answer(b"<h1>Busy</h1>", status=status, retry_after=RETRY_AFTER)
        return Answer(body, content_type)


def _asked_class(query: str) -> int | None:
    """The first class named as a word in a query."""
    words = re.findall(r"\w+", query.lower())
    return next((CLASS_NAMES.index(word) for word in words if word in CLASS_NAMES), None)


def _sibling(image: world.WebImage, folder: str, extension: str) -> str:
    """Path of an image's page or thumbnail: /p/3/7-a-star.html beside /i/3/7-a-star.png."""
    stem = image.path.removeprefix("/i/").rpartition(".")[0]
    return f"/{folder}/{stem}.{extension}"


def _thumbnail(image: world.WebImage) -> Answer:
    if image.kind in world.BROKEN_KINDS:
        return NOT_FOUND
    body = io.BytesIO()
    with Image.open(io.BytesIO(world.render(image)[0])) as picture:
        small = picture.convert("RGB")
    small.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    small.save(body, "JPEG", quality=75)
    return Answer(body.getvalue(), "image/jpeg")
