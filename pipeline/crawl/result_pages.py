"""Result pages of a search engine over HTTP: at its pace, and with three outcomes.

An answer; a refusal for now, which is waited out, tried again, and then put off to another run; a
refusal for good, after which this engine is not asked any more.
"""

import asyncio
import math
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote_plus, urlencode

from kd3_pipeline.console import printable
from kd3_pipeline.crawl.daily_budget import DAY, DailyBudget
from kd3_pipeline.crawl.engines.engine import (
    Engine,
    NoMore,
    NotNow,
    Query,
    Refused,
    ResultPage,
    Unreadable,
)
from kd3_pipeline.crawl.guard import Forbidden
from kd3_pipeline.crawl.http import (
    BUSY,
    WITH_PAUSE,
    Client,
    Page,
    Unanswered,
    first_line,
    retry_after,
)
from kd3_pipeline.crawl.wording import clock, duration
from kd3_pipeline.errors import ExternalError

PAGE_TIMEOUT = 15.0  # seconds without a byte
PAGE_TIME = 60.0  # seconds for a whole page
PAGE_BYTES = 8 * 2**20  # a larger page is no page of results
TRIES = 3  # of a page, where no pause is named
RETRY_PAUSE = 2.0  # seconds before the second try
GROWTH = 5  # times as long before the third,
OF_A_LIMIT = 30  # and where it asked for fewer requests: most limits are those of a minute
MINUTE = 60.0  # seconds until an engine that counts requests a minute has forgotten them
MOST_PAUSES = 5  # that one page may name in a row
DOWN_AFTER = 3  # queries in a row that were put off: the engine is left alone in this run
AGAIN_GAPS = 2  # pauses between pages to wait before a page is asked for once more
TELL_EVERY = 5.0  # seconds of a pause between two words to who waits

Tell = Callable[[str], object]


class PutOff(Exception):
    """There is no answer in this run.

    Attributes:
        again_at: when the engine may be asked again (seconds since 1970), None if it did not say.
        everything: it is not only this query that has to wait.
    """

    def __init__(self, reason: str, again_at: float | None = None, everything: bool = False):
        super().__init__(reason)
        self.again_at, self.everything = again_at, everything


class EnginePages:
    """An engine that is asked for one page after the other.

    Attributes:
        client: of the event loop that is running.
        stopped: why it is not asked any more in this run, None while it is.
        asked: requests so far.
        unreached: the last one had no answer at all.
        kept: where the last answer is that was none of results.
    """

    client: Client

    def __init__(self, engine: Engine, folder: Path, patience: float, tell: Tell) -> None:
        self.engine, self.folder, self.patience, self.tell = engine, folder, patience, tell
        self.stopped: PutOff | Refused | None = None
        self.kept: Path | None = None
        self.asked = 0
        self.unreached = False
        self._body: bytes | None = None  # of the last page of results
        self._limited = False  # the last refusal was one of too many requests
        self._day = DailyBudget(folder, engine.name, engine.budget.per_day)
        self._next_page = 0.0  # when it may be asked for (monotonic seconds)
        self._in_a_row = 0  # queries that were put off

    async def read(self, query: Query, start: int) -> ResultPage:
        """The page of a query that begins at `start`.

        Raises:
            NoMore: the query ends before.
            PutOff, Refused: there is no answer now, or for good.
            UserError: the engine cannot filter by this licence.
        """
        if self.stopped is not None:
            raise self.stopped
        try:
            page = await self._patiently(query, start)
        except NoMore:
            self._in_a_row = 0
            raise
        except Refused as error:
            self.stopped = error
            raise
        except PutOff as error:
            self._in_a_row += 1
            if error.everything or self._in_a_row == DOWN_AFTER:
                self.stopped = error
            raise
        self._in_a_row = 0
        return page

    async def pause(self) -> None:
        """Waits before a page is asked for once more."""
        await asyncio.sleep(AGAIN_GAPS * self.engine.page_gap)

    def keep(self) -> None:
        """Keeps the last page: it is one of results, and yet wrong."""
        if self._body is not None:
            self.kept = keep_page(self.engine, self._body, self.folder)

    def alarm(self, what: str) -> ExternalError:
        """An error of this engine that says where its answer is kept."""
        kept = f"; the whole answer is kept as {self.kept}" if self.kept is not None else ""
        network = "check the network; " if self.unreached else ""
        return ExternalError(f"{self.engine.name}: {what}{kept}", network + advice(self.engine))

    async def _patiently(self, query: Query, start: int) -> ResultPage:
        """One page, after `TRIES` tries and `patience` seconds of pauses that are named at most."""
        tries = unread = pauses = 0
        waited = 0.0
        while True:
            try:
                return await self._once(query, start)
            except Unreadable as error:
                # once more: an answer may be cut off, or a page of another kind come in between
                unread += 1
                if unread > 1:
                    raise PutOff(f"no page of results: {error}") from None
                await self._wait(RETRY_PAUSE, f"no page of results: {error}")
            except NotNow as error:
                named = _seconds(error.pause)
                if named is None:
                    tries += 1
                    if tries == TRIES:
                        raise PutOff(str(error)) from None
                    growth = OF_A_LIMIT if self._limited else GROWTH
                    await self._wait(RETRY_PAUSE * growth ** (tries - 1), str(error))
                    continue
                pauses += 1
                waited += named
                if waited > self.patience or pauses > MOST_PAUSES:
                    asks = f"{error}, and asks for a pause of {duration(named)}"
                    raise PutOff(asks, time.time() + named, everything=True) from None
                # who names no time at all is not asked at once, again and again
                await self._wait(max(named, RETRY_PAUSE), str(error))

    async def _once(self, query: Query, start: int) -> ResultPage:
        engine = self.engine
        address = engine.address(query, start)
        self._limited = False
        self._count()
        await asyncio.sleep(max(0.0, self._next_page - time.monotonic()))
        try:
            answer = await ask(engine, address, self.client)
        except Unanswered as error:
            self.unreached = True
            if error.transient:
                raise NotNow(str(error)) from None
            raise PutOff(str(error)) from None
        finally:
            self._next_page = time.monotonic() + engine.page_gap
        self.unreached = False
        if answer.status != 200:
            raise self._refusal(answer, start)
        if not answer.body.strip():
            raise NotNow("its answer is empty", retry_after(answer.headers))
        self._body = answer.body
        try:
            return engine.read(answer.body, query, start)
        except (Unreadable, NotNow, Refused) as error:
            self.keep()
            error.args = (hidden(engine, printable(str(error))),)
            if isinstance(error, NotNow) and error.pause is None:
                error.pause = retry_after(answer.headers)  # MediaWiki's with its maxlag, say
            raise

    def _count(self) -> None:
        """Counts a request; raises PutOff where the engine's day has no more of them."""
        if (again_at := self._day.full_until()) is not None:
            most = self._day.most
            raise PutOff(f"its {most:,} requests of a day are used up", again_at, everything=True)
        self._day.add()
        self.asked += 1

    def _refusal(self, answer: Page, start: int) -> NotNow | Refused | NoMore:
        """What an answer that is not 200 means: by what the engine knows of it, else by HTTP."""
        engine, status = self.engine, answer.status
        self.kept = keep_page(engine, answer.body, self.folder, f"{engine.name}-{status}.html")
        found = engine.refusal(status, answer.body)
        if found is None and status == 404 and start != engine.first:
            return NoMore("it has no further page (404)")
        said = (
            str(found)
            if found is not None
            else first_line(answer.body, answer.headers.get("Content-Type", ""))
        )
        reason = f"it answered {status}" + (f": {printable(said)}" if said else "")
        reason = hidden(engine, reason)
        if isinstance(found, NoMore | Refused):
            said = hidden(engine, printable(str(found)))
            return type(found)(said if isinstance(found, NoMore) else reason)
        named = retry_after(answer.headers)
        if found is None and not passing(answer):
            return Refused(reason)
        pause = found.pause if found is not None and found.pause is not None else named
        self._limited = status == 429
        if pause is None and self._limited and engine.budget.per_minute:
            pause = MINUTE
        return NotNow(reason, pause)

    async def _wait(self, seconds: float, reason: str) -> None:
        """Waits, and says so now and then."""
        end, until = time.monotonic() + seconds, clock(time.time() + seconds, seconds < 120)
        while (left := end - time.monotonic()) > 0:
            self.tell(f"{self.engine.name}: {reason}; asked again at {until}")
            await asyncio.sleep(min(left, TELL_EVERY))


async def ask(engine: Engine, address: str, client: Client) -> Page:
    """Asks for one page, once.

    Raises:
        Unanswered: there is no whole answer; the engine's secrets are not in the reason.
    """
    if engine.secrets:
        address += ("&" if "?" in address else "?") + urlencode(engine.secrets)
    try:
        return await client.page(
            address, PAGE_BYTES, headers=engine.headers, silence=PAGE_TIMEOUT, seconds=PAGE_TIME
        )
    except Forbidden as error:
        raise Unanswered(hidden(engine, str(error))) from None
    except Unanswered as error:
        raise Unanswered(hidden(engine, str(error)), error.transient) from None


def passing(answer: Page) -> bool:
    """Whether HTTP means an answer other than 200 for the moment: it is a refusal for now."""
    status = answer.status
    if status in BUSY or status >= 500 or 200 < status < 300:
        return True
    return status in WITH_PAUSE and retry_after(answer.headers) is not None


def hidden(engine: Engine, text: str) -> str:
    """`text` without the engine's secrets: what a service says may repeat what it was sent."""
    sent = [value for name, value in engine.headers.items() if name.lower() == "authorization"]
    tokens = [value.rpartition(" ")[2] for value in sent]  # the kind of token stands before it
    for secret in filter(None, [*engine.secrets.values(), *tokens]):
        text = text.replace(secret, "***").replace(quote_plus(secret), "***")
    return text


def keep_page(engine: Engine, page: bytes, folder: Path, name: str = "unreadable.html") -> Path:
    """Keeps an answer that is none of results, for a person to look at, and says where."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_bytes(hidden(engine, page.decode("latin-1")).encode("latin-1"))
    return path


def advice(engine: Engine) -> str:
    """Hint for an engine that does not answer as it should."""
    return (
        f"`pipeline doctor --engine {engine.name}` shows what it answers; or take another engine"
        " (crawl.engine)"
    )


def _seconds(pause: float | None) -> float | None:
    """A pause as it may be waited for; of a service's nonsense, none."""
    return None if pause is None or math.isnan(pause) or pause < 0 else min(pause, DAY)
