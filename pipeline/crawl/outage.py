"""Outage of the network, told from hosts that do not answer."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from functools import cached_property
from itertools import islice

from yarl import URL

from kd3_pipeline.console import printable
from kd3_pipeline.crawl.blocklist import NOTHING_BLOCKED, Blocklist
from kd3_pipeline.crawl.guard import Forbidden, check_url
from kd3_pipeline.crawl.http import Client
from kd3_pipeline.crawl.journal import Journal
from kd3_pipeline.crawl.wording import counted
from kd3_pipeline.errors import ExternalError
from kd3_pipeline.manifest import FORBIDDEN_DNS, NOT_NOW, Candidate, Fetched

NO_ANSWER = {"unknown_host", FORBIDDEN_DNS}  # failures for good that an outage explains as well
# not an outage, but a network may answer in place of the host, as in trains and hotels
NO_TRUST = {"certificate", "tls"}
FAILURES = 30  # in a row without any answer
HOSTS = 10  # from so many hosts; of a crawl with fewer, from all,
FAILURES_OF_FEW = 3  # and then so many will do
ASKED = 3  # hosts that answered before
OTHERS = 64  # hosts that were not asked yet; of a list that is mostly rot, some answer
LOOKED_AT = 1000  # candidates, to find these


class Outage:
    """Writes records to the journal, but holds back what may be the network's fault.

    That is every failure without an answer that can be trusted. It is written once any host has
    answered since, unless it is one for now, which is never written. An outage is suspected from
    those without any answer.
    """

    def __init__(
        self,
        journal: Journal,
        candidates: Sequence[Candidate],
        blocklist: Blocklist = NOTHING_BLOCKED,
    ) -> None:
        self.journal, self.candidates, self.blocklist = journal, candidates, blocklist
        self._answered: dict[str, None] = {}  # origins, the latest last
        self._held: list[Fetched] = []  # since the last answer
        self._unanswered: list[Fetched] = []  # of these, since the last sign of life
        self._silent: set[str] = set()  # hosts of these
        self._checking = False

    def note(self, record: Fetched, *, silent: bool = False) -> None:
        """Takes the record of a URL that was asked for, or need not be; `silent`: no answer."""
        if silent or record.outcome in NO_ANSWER:
            self._unanswered.append(record)
            asked = _asked(record.url)
            self._silent.add(asked.raw_host or "" if asked else "")
        elif record.outcome not in NO_TRUST and record.outcome != NOT_NOW:
            self.journal.add(record)
            return
        self._held.append(record)

    def heard(self, origin: str) -> None:
        """A host answered, so the network is up."""
        self._answered.pop(origin, None)
        self._answered[origin] = None
        self.met()
        self._write()

    def met(self) -> None:
        """Somebody is there, if not who was asked for: that is no outage."""
        self._unanswered.clear()
        self._silent.clear()

    def finish(self) -> None:
        """The crawl is over: what is held back is the hosts' fault if any host answered."""
        if self._answered:
            self._write()

    @property
    def suspected(self) -> bool:
        """One dead host never looks like this, unless it is the only one of the crawl."""
        failures = len(self._unanswered)
        if failures < FAILURES_OF_FEW:
            return False
        needed = FAILURES if self._hosts == HOSTS else FAILURES_OF_FEW
        return failures >= needed and len(self._silent) >= self._hosts

    async def check(self, client: Client) -> None:
        """Asks hosts that answered before, and others, where an outage is suspected.

        Raises:
            ExternalError: none of them answers now.
        """
        if not self.suspected or self._checking:  # one worker asks for all
            return
        self._checking = True
        others = 0
        for origins in (self._answered_before, self._others):
            asked = origins() if self.suspected else []
            others = len(asked)
            answers = [client.answers(f"{origin}/robots.txt") for origin in asked]
            for origin, answered in zip(asked, await asyncio.gather(*answers), strict=True):
                if answered:
                    self.heard(origin)
        self._checking = False
        if self.suspected:
            raise self._error(others)

    def _answered_before(self) -> list[str]:
        """Origins to ask whether the network is up, since the last hosts may all be dead ones."""
        records = reversed(self.journal.records.values())
        urls = (record.url for record in records if record.status is not None)
        asked = filter(None, map(_asked, islice(urls, 100)))
        earlier = (str(url.origin()) for url in asked)
        return list(islice(dict.fromkeys([*reversed(self._answered), *earlier]), ASKED))

    def _others(self) -> list[str]:
        """Origins that were not asked yet, from all of the crawl: a list may begin with rot."""
        found: dict[str, str] = {}  # by host
        step = max(1, len(self.candidates) // LOOKED_AT)
        for candidate in self.candidates[::step]:
            with suppress(Forbidden, ValueError):
                url = check_url(candidate.url)
                host, blocked = url.raw_host or "", self.blocklist.host(candidate.url)
                if not blocked and host not in self._silent:
                    found.setdefault(host, str(url.origin()))
        origins = list(found.values())
        count = min(OTHERS, len(origins))
        return [origins[place * len(origins) // count] for place in range(count)]

    def _error(self, others: int) -> ExternalError:
        """The error when none of those answers; `others` were asked besides."""
        last, failures = self._unanswered[-1], len(self._unanswered)
        hosts = counted(len(self._silent), "host")
        more = f", nor did {counted(others, 'other host')}" if others else ""
        if all(record.outcome == FORBIDDEN_DNS for record in self._unanswered):
            return ExternalError(
                f"names lead to no public address: {failures} addresses of {hosts} in a row,"
                f" the last one: {printable(last.url)[:100]}: {last.detail}",
                "a captive portal, a DNS filter or a proxy may answer in place of DNS (a proxy:"
                " crawl.proxy); the images so far are kept, and the same command goes on",
            )
        return ExternalError(
            f"the network seems to be down: {failures} addresses of {hosts} in a row gave no"
            f" answer{more}, the last one: {printable(_told(last))}",
            "the images so far are kept, and the same command goes on",
        )

    def _write(self) -> None:
        for record in self._held:
            if record.outcome not in (NOT_NOW, FORBIDDEN_DNS):
                self.journal.add(record)
        self._held.clear()

    @cached_property
    def _hosts(self) -> int:
        """Hosts of the crawl, those that are done with included; 10 if there are more."""
        names: set[str] = set()
        for candidate in self.candidates:
            with suppress(Forbidden, ValueError):
                names.add(check_url(candidate.url).raw_host or "")
            if len(names) == HOSTS:
                break
        return len(names)


def _asked(url: str) -> URL | None:
    """An address of a record as it is asked for: as it is written it may have spaces around it."""
    with suppress(Forbidden):
        return check_url(url)
    return None


def _told(record: Fetched) -> str:
    return record.detail if record.outcome == NOT_NOW else f"{record.outcome} {record.detail}"
