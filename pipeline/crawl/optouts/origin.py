"""What an origin says of the use of its files, and what has to be asked for to know."""

import contextlib
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urljoin

from yarl import URL

from kd3_pipeline.crawl.http import BUSY
from kd3_pipeline.crawl.optouts import rsl, tdmrep
from kd3_pipeline.crawl.optouts.headers import RESERVATION, Heard
from kd3_pipeline.crawl.optouts.paths import spelt
from kd3_pipeline.crawl.optouts.robots_lines import MOST_LICENCES
from kd3_pipeline.crawl.optouts.rsl import Licence, licence
from kd3_pipeline.crawl.optouts.signals import AI_AGENTS, Signal, Verdict, obeyed_kinds, verdict
from kd3_pipeline.crawl.optouts.tdmrep import Reservations, reservations
from kd3_pipeline.crawl.robots import MAX_BYTES, Rules, rules_of
from kd3_pipeline.params import Crawl

IN_ROBOTS = {"content-signal", "content-usage", "rsl", AI_AGENTS}

Answer = Rules | Licence | Reservations


@dataclass(frozen=True, slots=True)
class Question:
    """A file of an origin's that is to be asked for."""

    kind: Literal["robots", "licence", "tdmrep"]
    address: str

    @property
    def most(self) -> int:
        """Bytes of it that are read."""
        sizes = {"robots": MAX_BYTES, "licence": rsl.MAX_BYTES, "tdmrep": tdmrep.MAX_BYTES}
        return sizes[self.kind]

    def reads(self, status: int) -> bool:
        """Whether the body of an answer with this status, no redirect, is the file.

        A robots.txt is meant whatever the answer calls itself, as long as it is no error.
        """
        return 200 <= status < (400 if self.kind == "robots" else 300)

    @staticmethod
    def lacks(status: int) -> bool:
        """Whether an answer with this status says that there is no such file.

        RFC 9309, section 2.3.1: then all is allowed; a host that is ill, or has no time, allows
        nothing. Of other files no standard says so.
        """
        return 400 <= status < 500 and status not in BUSY

    def answer(self, data: bytes) -> Answer:
        """What the file says."""
        if self.kind == "robots":
            return rules_of(data)
        return licence(data, self.address) if self.kind == "licence" else reservations(data)

    def nothing(self, problem: str) -> Answer:
        """What it means that there is no such file: it says nothing."""
        if self.kind == "licence":
            return Licence(self.address, problem=f"it cannot be read: {problem}"[:200])
        return rules_of(b"") if self.kind == "robots" else Reservations()


@dataclass(slots=True, eq=False)
class Said:
    """What one origin (scheme, host and port) has said so far.

    `question` names what to ask for next, `hear` takes the answer; once there is no question left,
    `before` and `verdict` judge addresses of the origin.
    """

    origin: str
    obeyed: frozenset[str]
    robots: bool = True  # Disallow is obeyed
    rules: Rules | None = None
    licences: dict[str, Licence | None] = field(default_factory=dict)  # None: still to be read
    reservations: Reservations | None = None

    @classmethod
    def of(cls, origin: str, params: Crawl) -> "Said":
        """An origin that nothing was asked of yet, in a crawl with these parameters."""
        return cls(origin, obeyed_kinds(params), params.robots)

    @property
    def question(self) -> Question | None:
        """The next file that is needed; None if no more is.

        A licence that speaks of training for all of the origin makes tdmrep.json unnecessary, so
        that mostly one request is added to the one for robots.txt.
        """
        if self.rules is None and (self.robots or self.obeyed & IN_ROBOTS):
            return Question("robots", f"{self.origin}/robots.txt")
        for address, known in self.licences.items():
            if known is None and "rsl" in self.obeyed:
                return Question("licence", address)
        if self.reservations is None and RESERVATION in self.obeyed:
            address = f"{self.origin}{tdmrep.PATH}"
            decided = any(one.decides(URL(self.origin)) for one in self._named())
            if not decided and self.may_ask(address):
                return Question("tdmrep", address)
        return None

    def hear(self, question: Question, answer: Answer) -> None:
        """Takes the answer to a question."""
        if isinstance(answer, Rules):
            self.rules = answer
            for address in self._addresses():
                self.name(address)
        elif isinstance(answer, Licence):
            self.licences[question.address] = answer
        else:
            self.reservations = answer

    def may_ask(self, address: str) -> bool:
        """True unless robots.txt disallows an address of this origin."""
        return not self.robots or self.rules is None or self.rules.allow(str(URL(address)))

    def unread(self, heard: Heard) -> bool:
        """True if an answer's headers name licences that have to be read first."""
        for address in heard.licences:
            self.name(address)
        return "rsl" in self.obeyed and any(
            self.licences.get(address, "") is None for address in heard.licences
        )

    def before(self, address: str) -> Verdict:
        """What forbids an address of the origin before it is asked for.

        The file of TDMRep does not: a header of the answer goes before it.
        """
        if self.rules is None or not self.rules.declared:
            return Verdict()
        return verdict(self._before(URL(address)), self.obeyed)

    def verdict(self, address: str, heard: Heard) -> Verdict:
        """What an address of the origin comes to, with the headers of its answer."""
        declared = self.rules is not None and bool(self.rules.declared)
        if not (declared or heard.signals or heard.licences or self.reservations):
            return Verdict()
        url = URL(address)
        found = [*self._before(url), *heard.signals]
        if self.reservations is not None and not heard.reserves:
            found += self.reservations.signals(spelt(url.raw_path_qs))
        for named in heard.licences:
            known = self.licences.get(named)
            if known is not None:
                found += known.signals(url)
            else:
                more = ", not read: too many" if named not in self.licences else ""
                found.append(Signal("rsl", "header Link", f"{named}{more}"))
        return verdict(found, self.obeyed)

    def name(self, address: str) -> None:
        """Takes note of a licence; beyond a few they are not read."""
        if address in self.licences or len(self.licences) >= 2 * MOST_LICENCES:
            return
        self.licences[address] = None
        try:
            own = str(URL(address).origin()) == self.origin
        except Exception:  # yarl raises IndexError too, on some
            self.licences[address] = Licence(address, problem="it cannot be read: no address")
            return
        if own and not self.may_ask(address):
            self.licences[address] = Licence(address, problem="robots.txt disallows it")

    def _addresses(self) -> list[str]:
        """Of the licences that robots.txt names."""
        found = []
        for one in self.rules.declared.licences if self.rules is not None else ():
            with contextlib.suppress(Exception):  # what is no address is none of a licence
                found.append(urljoin(f"{self.origin}/", one))
        return found

    def _named(self) -> list[Licence]:
        """The licences that robots.txt names, as far as they are read."""
        return [known for one in self._addresses() if (known := self.licences.get(one)) is not None]

    def _before(self, url: URL) -> list[Signal]:
        if self.rules is None:
            return []
        found = self.rules.declared.signals(spelt(url.raw_path_qs))
        for address in self._addresses():
            known = self.licences.get(address)
            found += known.signals(url) if known else [Signal("rsl", "robots.txt", address)]
        return found
