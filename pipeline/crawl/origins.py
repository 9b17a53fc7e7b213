"""Origins of downloads: what each says of its files, and the jobs that wait to hear it."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from kd3_pipeline.crawl.optouts.origin import Answer, Question, Said
from kd3_pipeline.crawl.optouts.rsl import Licence
from kd3_pipeline.crawl.scheduler import Job
from kd3_pipeline.manifest import Fetched
from kd3_pipeline.params import Crawl


@dataclass(slots=True, eq=False)
class Origin:
    """A scheme, host and port: what it says of its files, once that has been read."""

    said: Said
    failure: Fetched | None = None  # of its robots.txt
    ready: bool = False  # nothing more has to be read
    waiting: list[Job] = field(default_factory=list)  # until then

    def refusal(self, job: Job) -> Fetched | None:
        """Why a job must not be done; None if it may be."""
        if self.failure is not None:
            return replace(self.failure, url=job.url)
        verdict = self.said.before(job.address)
        if not self.said.may_ask(job.address):
            detail = f"{self.said.origin}/robots.txt disallows it"
            return Fetched(job.url, "robots", detail, signals=verdict.text)
        if verdict.refusal:
            return Fetched(job.url, "opted_out", verdict.refusal, signals=verdict.text)
        return None

    def set_free(self) -> list[Job]:
        """All has been read: the jobs that waited for it, the latest first."""
        self.ready = True
        waiting, self.waiting = self.waiting, []
        return waiting[::-1]


def origin_of(address: str) -> str:
    """Scheme, host and port of an address, as `check_url` spells it."""
    scheme, _, host, *_ = address.split("/", 3)
    return f"{scheme}//{host}"


class Origins:
    """The origins of one round, and their questions that are under way."""

    def __init__(self, params: Crawl) -> None:
        self.params = params
        self._known: dict[str, Origin] = {}
        self._asked: dict[str, list[Origin]] = {}  # by files that are under way
        self._licences: dict[str, Licence] = {}  # several origins may name one

    def of(self, job: Job) -> Origin:
        """The origin of the address that a job asks for."""
        name = origin_of(job.address)
        if name not in self._known:
            said = Said.of(name, self.params)
            self._known[name] = Origin(said, ready=said.question is None)
        return self._known[name]

    def said(self, job: Job) -> Said | None:
        """What the origin of an image has said; a question needs none of it."""
        return None if job.question is not None else self.of(job).said

    def question(self, origin: Origin) -> Question | None:
        """The next file that an origin is judged by, and that is not known; None after the last."""
        while origin.failure is None and (question := origin.said.question) is not None:
            if question.address not in self._licences or question.address in self._asked:
                return question
            origin.said.hear(question, self._licences[question.address])
        return None

    def is_asked(self, question: Question, origin: Origin) -> bool:
        """Whether a file is under way for another origin; then this one waits for it as well."""
        if question.address not in self._asked:
            return False
        self._asked[question.address].append(origin)
        return True

    def ask(self, question: Question, origin: Origin) -> None:
        """Takes note that a file is under way."""
        self._asked[question.address] = [origin]

    def hear(self, question: Question, found: Answer | Fetched) -> Iterator[Origin]:
        """Hands an answer, or why there is none, to the origins that asked, one after the other."""
        if isinstance(found, Licence):
            self._licences[question.address] = found
        for origin in self._asked.pop(question.address):
            if isinstance(found, Fetched):
                origin.failure = found
            else:
                origin.said.hear(question, found)
            yield origin
