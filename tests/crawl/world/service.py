"""The servers of a world: what they were asked, and a place for `kd3_stages.sources.engine_for`."""

import math
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import pytest
from click.testing import Result
from typer.testing import CliRunner

from kd3_pipeline.crawl.engines.engine import Engine
from kd3_pipeline.crawl.guard import HostTable
from kd3_stages import sources
from kd3_stages.cli import app
from tests.crawl.hosts import Host, Request, picture
from tests.crawl.world.rules import Rule
from tests.crawl.world.shape import IMAGES, SERVICE, Answer, Question, Shape

ImageRule = Callable[[str, int, float], Answer | None]  # path, number of the request, seconds


class World:
    """One service and one image host; the first rule that has an answer gives it."""

    def __init__(self, shape: Shape, *rules: Rule, images: ImageRule | None = None) -> None:
        self.shape, self.rules, self.image_rule = shape, rules, images
        self.asked: list[Question] = []
        self.images: list[str] = []  # paths
        self._lock, self._began = threading.Lock(), time.monotonic()
        self._times: Counter[str] = Counter()
        self._number = 0
        self.service, self.host = Host(), Host()
        self.service.otherwise, self.host.otherwise = self._answer, self._image

    def forget(self) -> None:
        """Empties the lists of what was asked; rules count on."""
        self.asked, self.images = [], []

    @property
    def hosts(self) -> HostTable:
        """Where the names of both lead."""
        servers = {SERVICE: self.service, IMAGES: self.host}
        return {name: one.server_address for name, one in servers.items()}

    def queries(self) -> list[str]:
        """The words that were asked for, each once, in order."""
        return list(dict.fromkeys(one.query for one in self.asked))

    def _answer(self, request: Request) -> None:
        parts = urlsplit(request.path)
        if parts.path == "/robots.txt":
            request.reply(b"", 404)
            return
        fields = dict(parse_qsl(parts.query, keep_blank_values=True))
        with self._lock:
            self._times[parts.query] += 1
            self._number += 1
            asked = replace(
                self.shape.question(fields),
                number=self._number,
                times=self._times[parts.query],
                seconds=time.monotonic() - self._began,
                headers=dict(request.headers),
                fields=fields,
            )
            self.asked.append(asked)
            answer = next(
                found for rule in self.rules if (found := rule(self.shape, asked)) is not None
            )
        request.reply(answer.body, answer.status, dict(answer.headers))

    def _image(self, request: Request) -> None:
        path = urlsplit(request.path).path
        if not path.endswith(".jpg"):  # where its owner could say who may have it
            request.reply(b"", 404)
            return
        with self._lock:
            self.images.append(path)
            seconds = time.monotonic() - self._began
            rule = self.image_rule
            answer = rule(path, len(self.images), seconds) if rule else None
        if answer is None:
            answer = Answer(picture(zlib.crc32(path.encode())))
        request.reply(answer.body, answer.status, dict(answer.headers))


def image_limit(requests: int, seconds: float, *, told: bool = True) -> ImageRule:
    """An image host with a limit: so many in so many seconds, from the first request on."""
    window = {"start": -math.inf, "count": 0.0}

    def rule(path: str, number: int, now: float) -> Answer | None:
        if now - window["start"] >= seconds:
            window.update(start=now, count=0)
        window["count"] += 1
        if window["count"] <= requests:
            return None
        left = str(math.ceil(seconds - (now - window["start"])))
        return Answer(b"Too many requests\n", 429, {"Retry-After": left} if told else {})

    return rule


def broken(percent: int) -> ImageRule:
    """An image host at which some images are gone."""

    def rule(path: str, number: int, now: float) -> Answer | None:
        return Answer(b"", 404) if zlib.crc32(path.encode()) % 100 < percent else None

    return rule


@contextmanager
def running(world: World, patch: pytest.MonkeyPatch, folder: Path) -> Iterator[World]:
    """The world runs, commands in `folder` ask it, and its key is set."""

    @contextmanager
    def engine_for(*_: object) -> Iterator[tuple[Engine, HostTable]]:
        yield world.shape.engine(), world.hosts

    patch.setenv("FLICKR_API_KEY", "key")
    patch.delenv("OPENVERSE_TOKEN", raising=False)
    patch.setattr(sources, "engine_for", engine_for)
    patch.chdir(folder)
    for host in (world.service, world.host):
        host.start()
    try:
        yield world
    finally:
        for host in (world.service, world.host):
            host.stop()


def command(*arguments: str) -> Result:
    """A command of `pipeline` in this process."""
    done = CliRunner().invoke(app, arguments)
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done
