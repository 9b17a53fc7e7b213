"""The signals of addresses as they are now: asked by HEAD, without the bytes."""

import asyncio
from collections import defaultdict
from dataclasses import dataclass, field

import aiohttp

from kd3_pipeline.crawl.guard import Forbidden, check_url
from kd3_pipeline.crawl.http import (
    BUSY,
    CONNECT_TIMEOUT,
    MAX_REDIRECTS,
    READ_TIMEOUT,
    Client,
    Unanswered,
    leads_to,
)
from kd3_pipeline.crawl.optouts.headers import heard
from kd3_pipeline.crawl.optouts.origin import Answer, Question, Said
from kd3_pipeline.crawl.optouts.rsl import Licence
from kd3_pipeline.crawl.optouts.signals import Verdict, obeyed_kinds, refusal_in
from kd3_pipeline.formats import accepted
from kd3_pipeline.params import Crawl

GONE = {404, 410}


@dataclass(frozen=True, slots=True)
class Now:
    """What one address says now.

    Attributes:
        refusal: why its image must not be used any more; "" if nothing says so.
        signals: all that was said, one a line, as the manifest has it.
        status: of the answer; None where the address was not asked, or gave none.
        problem: why it is not known; "" if it is. A host that is ill closes nothing.
    """

    refusal: str = ""
    signals: str = ""
    status: int | None = None
    problem: str = ""

    @property
    def gone(self) -> bool:
        """The address has nothing any more."""
        return self.status in GONE


@dataclass(slots=True)
class Turn:
    """The pace of one host."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    next_start: float = 0.0
    gap: float = 0.0


class CurrentSignals:
    """Asks addresses for their signals, by the rules of a crawl with `params`.

    Many may be asked at once; requests to a host start `crawl.host_gap`, or its own Crawl-delay,
    apart. Files such as robots.txt are asked for once an origin.
    """

    def __init__(self, client: Client, params: Crawl) -> None:
        self.client, self.params = client, params
        self._turns: defaultdict[str, Turn] = defaultdict(lambda: Turn(gap=params.host_gap))
        self._origins: dict[str, Said] = {}
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._problems: dict[str, str] = {}  # of origins whose robots.txt cannot be read
        self._licences: dict[str, Licence] = {}
        self._timeout = aiohttp.ClientTimeout(
            total=params.timeout, sock_connect=CONNECT_TIMEOUT, sock_read=READ_TIMEOUT
        )

    async def address(self, url: str, recorded: str = "") -> Now:
        """The signals of an address and of where it leads; `recorded` are those of its image."""
        kept = refusal_in(recorded, obeyed_kinds(self.params) & {"data-mining", "c2pa"})
        if kept:
            return Now(kept, recorded)
        try:
            return await self._address(url)
        except (Forbidden, ValueError) as error:
            return Now(problem=f"forbidden address: {error}"[:200])
        except (Unanswered, OSError, aiohttp.ClientError) as error:  # TimeoutError is an OSError
            return Now(problem=f"{type(error).__name__} {error}".rstrip()[:200])

    async def _address(self, url: str) -> Now:
        for _ in range(MAX_REDIRECTS + 1):
            asked = check_url(url)
            url, origin = str(asked), str(asked.origin())
            said = await self._said(origin)
            if origin in self._problems:
                return Now(problem=self._problems[origin])
            before = said.before(url)
            if not said.may_ask(url):
                return Now(f"robots: {origin}/robots.txt disallows it", before.text)
            if before.refusal:
                return Now(before.refusal, before.text)
            status, target, verdict = await self._head(url, said)
            if target is None:
                return Now(verdict.refusal, verdict.text, status, _problem(status))
            url = target
        return Now(problem=f"more than {MAX_REDIRECTS} redirects")

    async def _head(self, url: str, said: Said) -> tuple[int, str | None, Verdict]:
        """Status, target of a redirect, and verdict of the headers."""
        await self._turn(url)
        options = {"headers": {"Accept": accepted()}, "timeout": self._timeout}
        async with self.client.get(url, method="HEAD", **options) as answer:
            target = leads_to(url, answer.status, answer.headers)
            signals = heard(answer.headers, url) if target is None else None
        if signals is None:
            return answer.status, target, Verdict()
        if said.unread(signals):
            await self._said(said.origin)
        return answer.status, None, said.verdict(url, signals)

    async def _said(self, origin: str) -> Said:
        """What an origin says, asked for as far as it is not known."""
        async with self._locks[origin]:
            said = self._origins.setdefault(origin, Said.of(origin, self.params))
            while origin not in self._problems and (question := said.question) is not None:
                known = await self._known(question)
                if known is None:
                    self._problems[origin] = f"{question.address} cannot be read"
                    break
                said.hear(question, known)
                if question.kind == "robots" and said.rules is not None and self.params.robots:
                    turn = self._turns[check_url(origin).raw_host or ""]
                    turn.gap = max(turn.gap, said.rules.delay)
            return said

    async def _known(self, question: Question) -> Answer | None:
        """As `_answer`, a licence that several origins name once for all."""
        async with self._locks[question.address]:
            known: Answer | None = self._licences.get(question.address)
            if known is None:
                known = await self._answer(question)
            if isinstance(known, Licence):
                self._licences[question.address] = known
            return known

    async def _answer(self, question: Question) -> Answer | None:
        """Answer to a question; None for a robots.txt out of reach, which allows nothing."""
        try:
            await self._turn(question.address)
            page = await self.client.page(question.address, question.most + 1, cut=True)
        except (Forbidden, Unanswered, ValueError, OSError, aiohttp.ClientError) as error:
            problem = str(error) or type(error).__name__
        else:
            if page.status == 200:
                return await asyncio.to_thread(question.answer, page.body)
            problem = f"HTTP {page.status}"
            if page.status < 500 and page.status not in BUSY:
                return question.nothing(problem)
        needed = question.kind == "robots" and self.params.robots
        return None if needed else question.nothing(problem)

    async def _turn(self, url: str) -> None:
        turn, loop = self._turns[check_url(url).raw_host or ""], asyncio.get_running_loop()
        async with turn.lock:
            await asyncio.sleep(max(0.0, turn.next_start - loop.time()))
            turn.next_start = loop.time() + turn.gap


def _problem(status: int) -> str:
    """Why a status says nothing of an address; that it is gone is an answer."""
    return "" if status == 200 or status in GONE else f"HTTP {status}"
