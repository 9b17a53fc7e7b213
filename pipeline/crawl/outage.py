"""Outage of the network, told from hosts that do not answer."""

from collections.abc import Sequence
from contextlib import suppress
from functools import cached_property
from itertools import islice

from yarl import URL

from pipeline.console import printable
from pipeline.crawl.guard import Forbidden, check_url
from pipeline.crawl.http import Client
from pipeline.crawl.journal import Journal
from pipeline.crawl.wording import counted
from pipeline.errors import ExternalError
from pipeline.manifest import FORBIDDEN_DNS, NOT_NOW, Candidate, Fetched

NO_ANSWER = {
    "certificate",
    "unknown_host",
    FORBIDDEN_DNS,
}  # failures for good that an outage explains as well
FAILURES = 30  # in a row without any answer
HOSTS = 10  # from so many hosts; of a crawl with fewer, from all,
FAILURES_OF_FEW = 3  # and then so many will do
ASKED = 3  # hosts that answered before


class Outage:
    """Writes records to the journal, but holds back what may be the network's fault.

    That is every failure without an answer. It is written once any host has answered since, unless
    it is one for now, which is never written.
    """

    def __init__(self, journal: Journal, candidates: Sequence[Candidate]) -> None:
        self.journal, self.candidates = journal, candidates
        self._answered: dict[str, None] = {}  # origins, the latest last
        self._held: list[Fetched] = []  # since the last answer
        self._silent: set[str] = set()  # hosts of these
        self._checking = False

    def note(self, record: Fetched, *, silent: bool = False) -> None:
        """Takes the record of a URL that was asked for, or need not be; `silent`: no answer."""
        if silent or record.outcome in NO_ANSWER:
            self._held.append(record)
            self._silent.add(URL(record.url).raw_host or "")
        elif record.outcome != NOT_NOW:
            self.journal.add(record)

    def heard(self, address: URL) -> None:
        """A host answered, so the network is up."""
        origin = str(address.origin())
        self._answered.pop(origin, None)
        self._answered[origin] = None
        self._write()

    def finish(self) -> None:
        """The crawl is over: what is held back is the hosts' fault if any host answered."""
        if self._answered:
            self._write()

    @property
    def suspected(self) -> bool:
        """One dead host never looks like this, unless it is the only one of the crawl."""
        if len(self._held) < FAILURES_OF_FEW:
            return False
        needed = FAILURES if self._hosts == HOSTS else FAILURES_OF_FEW
        return len(self._held) >= needed and len(self._silent) >= self._hosts

    async def check(self, client: Client) -> None:
        """Asks hosts that answered before, where an outage is suspected.

        Raises:
            ExternalError: none of them answers now.
        """
        if not self.suspected or self._checking:  # one worker asks for all
            return
        self._checking = True
        for origin in self._answered_before():
            if await client.answers(f"{origin}/robots.txt"):
                self.heard(URL(origin))
                break
        self._checking = False
        if self.suspected:
            raise self._error()

    def _answered_before(self) -> list[str]:
        """Origins to ask whether the network is up, since the last hosts may all be dead ones."""
        records = reversed(self.journal.records.values())
        urls = (record.url for record in records if record.status is not None)
        earlier = (str(URL(url).origin()) for url in islice(urls, 100))
        return list(islice(dict.fromkeys([*reversed(self._answered), *earlier]), ASKED))

    def _error(self) -> ExternalError:
        """The error when none of those answers."""
        last = self._held[-1]
        if all(record.outcome == FORBIDDEN_DNS for record in self._held):
            return ExternalError(
                f"names lead to no public address: {len(self._held)} addresses of"
                f" {counted(len(self._silent), 'host')} in a row, the last one:"
                f" {printable(last.url)[:100]}: {last.detail}",
                "a captive portal, a DNS filter or a proxy may answer in place of DNS (a proxy:"
                " crawl.proxy); the images so far are kept, and the same command goes on",
            )
        return ExternalError(
            f"the network seems to be down: {len(self._held)} addresses of"
            f" {counted(len(self._silent), 'host')} in a row gave no answer, the last one:"
            f" {_told(last)}",
            "the images so far are kept, and the same command goes on",
        )

    def _write(self) -> None:
        for record in self._held:
            if record.outcome not in (NOT_NOW, FORBIDDEN_DNS):
                self.journal.add(record)
        self._held.clear()
        self._silent.clear()

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


def _told(record: Fetched) -> str:
    return record.detail if record.outcome == NOT_NOW else f"{record.outcome} {record.detail}"
