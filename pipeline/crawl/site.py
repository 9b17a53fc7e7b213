"""Images found on the pages of one site, by following its links."""

import asyncio
import time
from collections import Counter, deque

from yarl import URL

from kd3_pipeline.console import Advance, printable
from kd3_pipeline.crawl.blocklist import NOTHING_BLOCKED, Blocklist
from kd3_pipeline.crawl.guard import OPT_OUTS, Forbidden, check_url, product_name, robots_words
from kd3_pipeline.crawl.http import (
    MAX_REDIRECTS,
    Client,
    Headers,
    Page,
    Unanswered,
    Web,
    retry_after,
)
from kd3_pipeline.crawl.links import ends_as_image, link_kind, names_page
from kd3_pipeline.crawl.markup import IMAGE_TYPE, FoundImage, page_address
from kd3_pipeline.crawl.optouts.headers import heard
from kd3_pipeline.crawl.optouts.origin import Answer, Question, Said
from kd3_pipeline.crawl.optouts.signals import ALL_KINDS
from kd3_pipeline.crawl.pagereader import PageReader, Unread
from kd3_pipeline.errors import ExternalError, UserError
from kd3_pipeline.manifest import Candidate

MOST_PAGES = 500  # asked for, whatever comes back
MOST_IMAGES = 100_000
MOST_TRIED = 50  # links asked for, to see whether those of their kind are pages
TRIES = 3  # of each kind
MOST_TOLD = 4  # reasons
PAGE_BYTES = 5 * 2**20
LONGEST_WAIT = 30.0  # seconds; a server that asks for more is not asked again
BUSY = {429, 503}
HTML = {"text/html", "application/xhtml+xml"}


def check_start(start: str) -> str:
    """The address of the page that a crawl of a site begins with, as it is asked for.

    Raises:
        UserError: it is no public web address.
    """
    try:
        return page_address(start)
    except Forbidden as error:
        raise UserError(f"crawl.source: {error}", "give the address of a page") from None


def site_candidates(
    start: str,
    depth: int,
    gap: float,
    web: Web,
    advance: Advance,
    blocklist: Blocklist = NOTHING_BLOCKED,
    lines: list[str] | None = None,
) -> list[Candidate]:
    """Images of the pages that are at most `depth` links from `start`, nearest pages first.

    Reads the pages of one host (that of `start`, or where it redirects to), 500 at most, `gap`
    seconds apart or as far as its Crawl-delay asks; the images may be elsewhere. Obeys
    robots.txt, robots meta tags, every opt-out of docs/opt-outs.md, and rel=nofollow. No page of a
    host in `blocklist` is asked for. Why pages could not be read is added to `lines`.

    Raises:
        UserError: `start` is no public web address.
        ExternalError: `start` cannot be read, or no page has an image.
    """
    start = check_start(start)

    async def run() -> list[Candidate]:
        async with Client(web) as client, PageReader() as pages:
            reader = _Reader(client, pages, web.user_agent, gap, blocklist)
            return await _walk(start, depth, reader, advance, unread)

    unread = Counter[str]()
    found = asyncio.run(run())
    if lines is not None and unread:
        told = ", ".join(f"{count:,} ({why})" for why, count in unread.most_common(MOST_TOLD))
        more = ", …" if len(unread) > MOST_TOLD else ""
        lines.append(f"{unread.total():,} pages could not be read: {told}{more}")
    return found


async def _walk(
    start: str, depth: int, reader: "_Reader", advance: Advance, unread: Counter[str]
) -> list[Candidate]:
    found: dict[str, Candidate] = {}
    seen, waiting = {start}, deque([(start, 0)])
    while waiting and len(found) < MOST_IMAGES:
        address, links = waiting.popleft()
        try:
            address, images, nexts = await reader.page(address)
        except (Unread, Forbidden, Unanswered) as error:
            reason = printable((str(error) or type(error).__name__).splitlines()[0])[:160]
            if not reader.host:
                raise ExternalError(f"{start} cannot be read: {reason}") from None
            unread[reason] += 1
            advance(1, f"{address[:80]}: {reason}")
            continue
        seen.add(address)
        for url, title, _ in images:
            if url not in found:
                found[url] = Candidate(-1, "", "site", "", len(found), url, address, title)
        for link in nexts if links < depth else []:
            # no more are asked for, and so no more are kept
            if link not in seen and len(seen) < MOST_PAGES:
                seen.add(link)
                waiting.append((link, links + 1))
        advance(1, f"{len(found)} images")
    if not found:
        raise ExternalError(
            f"no image found on {reader.host}, from {start}",
            "raise crawl.depth; pages that opt out of such use, by robots.txt, header or meta tag,"
            " are left out",
        )
    return list(found.values())


class _Reader:
    """Reads pages of one host, politely. `host` is empty until the first has been read."""

    def __init__(
        self, client: Client, pages: PageReader, user_agent: str, gap: float, blocklist: Blocklist
    ) -> None:
        self.client, self.pages = client, pages
        self.user_agent, self.gap, self.blocklist = user_agent, gap, blocklist
        self.host = ""
        self._origins: dict[str, Said] = {}
        self._closed: set[str] = set()  # origins whose robots.txt is out of reach
        self._pages: dict[str, bool] = {}  # kind of link → whether it leads to pages
        self._tried: Counter[str] = Counter()  # links asked for, to find that out
        self._next_start = 0.0

    async def page(self, address: str) -> tuple[str, list[FoundImage], list[str]]:
        """Its address after redirects, its images and its links.

        Links that end as images do and are pages, such as a wiki's /wiki/File:X.jpg, are among the
        links; one that was taken for a page and is an image is its only image.

        Raises:
            Unread: it may not be read, or is no page of this host.
            Forbidden: a redirect leads to a forbidden address.
            Unanswered: it cannot be read.
        """
        for _ in range(MAX_REDIRECTS + 1):
            url = check_url(address)
            if rule := self.blocklist.host(address):
                raise Forbidden(f"in the blocklist: {rule}")
            if self.host and url.raw_host != self.host:
                raise Unread(f"leads to {url.raw_host}")
            said = await self._said(url.origin())
            if said is None:
                raise Unread("its robots.txt cannot be read")
            if not said.may_ask(str(url)):
                raise Unread("robots.txt disallows it")
            page = await self._ask(address)
            if page.leads_to is not None:
                address = page_address(page.leads_to)
                continue
            if self.host and ends_as_image(address) and _is_image(page.status, page.headers):
                return address, [(address, "", False)], []
            images, links = await self._content(page, said)
            self.host = url.raw_host or ""
            shown = {link for link, _, only_linked in images if not only_linked}
            images = [one for one in images if one[0] in shown or not await self._is_page(one[0])]
            links = [link for link in links if URL(link).raw_host == self.host]
            return address, images, [link for link in links if self._may_be_page(link)]
        raise Unread(f"more than {MAX_REDIRECTS} redirects")

    async def _is_page(self, link: str) -> bool:
        """Whether a link that ends as an image does is a page: by its pattern, else by asking once.

        Of each kind of link on this host one is asked for; what cannot be had, and what is
        elsewhere, counts as an image.
        """
        if names_page(link):
            return True
        kind = link_kind(link)
        if kind in self._pages or self._tried[kind] >= TRIES:
            return self._pages.get(kind, False)
        try:
            url = check_url(link)
            if url.raw_host != self.host or self._tried.total() >= MOST_TRIED:
                return False
            said = await self._said(url.origin())
            # as it is asked for: a backslash, say, is a slash to the server
            if said is None or not said.may_ask(str(url)):
                return False
            self._tried[kind] += 1
            page = await self._ask(link)
        except (Forbidden, Unanswered):
            return False
        if page.status == 200:
            self._pages[kind] = _is_html(page.status, page.headers)
        return self._pages.get(kind, False)

    def _may_be_page(self, link: str) -> bool:
        if not ends_as_image(link) or names_page(link):
            return True
        return self._pages.get(link_kind(link), False)

    async def _content(self, page: Page, said: Said) -> tuple[list[FoundImage], list[str]]:
        if page.status != 200:
            raise Unread(f"it answered {page.status}")
        if _kind(page.headers) not in HTML:
            raise Unread(f"it is no HTML page but '{_kind(page.headers)[:40]}'")
        kind, robot = page.headers["Content-Type"], product_name(self.user_agent)
        found = await self.pages.read(page.body, kind, page.address, robot)
        words = found.words | robots_words(page.headers.getall("X-Robots-Tag", []), self.user_agent)
        signals = heard(page.headers, page.address) + found.said
        if said.unread(signals):
            await self._said(URL(said.origin))
        closed = words & OPT_OUTS or said.verdict(page.address, signals).refusal
        return [] if closed else found.images, [] if words & {"nofollow", "none"} else found.links

    async def _said(self, origin: URL) -> Said | None:
        """What an origin says of its files, asked for as far as it is not known.

        None when robots.txt is unreachable, which disallows all (RFC 9309, 2.3.1.4).
        """
        key = str(origin)
        said = self._origins.setdefault(key, Said(key, frozenset(ALL_KINDS)))
        while key not in self._closed and (question := said.question) is not None:
            answer = await self._answer(question)
            if answer is None:
                self._closed.add(key)
            else:
                said.hear(question, answer)
            delay = said.rules.delay if said.rules else 0.0
            self._next_start += max(0.0, delay - self.gap)
            self.gap = max(self.gap, delay)
        return None if key in self._closed else said

    async def _answer(self, question: Question) -> Answer | None:
        """The answer; None for a robots.txt that is out of reach."""
        try:
            page = await self._ask(question.address, question.most)
            if page.leads_to is None and question.reads(page.status):
                return question.answer(page.body)
            problem, missing = f"HTTP {page.status}", question.lacks(page.status)
        except (Unanswered, Forbidden) as error:
            problem, missing = str(error), False
        return question.nothing(problem) if missing or question.kind != "robots" else None

    async def _ask(self, address: str, most: int | None = None) -> Page:
        """One request in its turn, or two where the server asks to come back soon.

        For a page, or for what no page is: up to `most` bytes of it.
        """
        for again in (True, False):
            await asyncio.sleep(max(0.0, self._next_start - time.monotonic()))
            self._next_start = time.monotonic() + self.gap
            if most is not None:
                page = await self.client.page(address, most + 1, cut=True)
            else:
                page = await self.client.page(address, PAGE_BYTES, follow=False, wanted=_is_html)
            wait = retry_after(page.headers)
            wait = 1.0 if wait is None else wait
            if not again or page.status not in BUSY or wait > LONGEST_WAIT:
                break
            self._next_start = max(self._next_start, time.monotonic() + wait)
        return page


def _is_html(status: int, headers: Headers) -> bool:
    return status == 200 and _kind(headers) in HTML


def _is_image(status: int, headers: Headers) -> bool:
    return status == 200 and IMAGE_TYPE.fullmatch(_kind(headers)) is not None


def _kind(headers: Headers) -> str:
    return headers.get("Content-Type", "").partition(";")[0].strip().lower()
