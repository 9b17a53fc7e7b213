"""Result pages of a search engine over HTTP: at its pace, with patience for trouble."""

import asyncio
import time
from pathlib import Path
from urllib.parse import quote_plus, urlencode

from pipeline.crawl.engines.engine import Engine
from pipeline.crawl.guard import Forbidden
from pipeline.crawl.http import Client, Page, Unanswered, retry_after
from pipeline.errors import ExternalError

PAGE_TIMEOUT = 15.0  # seconds without a byte
PAGE_TIME = 60.0  # seconds for a whole page
PAGE_BYTES = 8 * 2**20  # a larger page is no page of results
TRIES = 3
RETRY_PAUSE = 1.0  # seconds before the second try, twice as many before the third
LONGEST_PAUSE = 30.0  # seconds that an engine may ask to wait


class EnginePages:
    """An engine that is asked for one page after the other, at its own pace."""

    def __init__(self, engine: Engine, client: Client, folder: Path) -> None:
        self.engine, self.client, self.folder = engine, client, folder
        self.body: bytes | None = None  # of the last page
        self.next_page = 0.0  # when it may be asked for (monotonic seconds)

    async def page(self, address: str) -> Page:
        """Raises Unanswered unless the answer is a page (200), or there is none there (404)."""
        for attempt in range(1, TRIES + 1):
            await asyncio.sleep(max(0.0, self.next_page - time.monotonic()))
            pause = None
            try:
                page = await ask(self.engine, address, self.client)
                if page.status in (200, 404):
                    self.body = page.body
                    return page
                transient = page.status == 429 or page.status >= 500
                pause = retry_after(page.headers)
                raise Unanswered(f"it answered {page.status}", transient)
            except Unanswered as error:
                if not error.transient or attempt == TRIES:
                    raise
                if pause is not None and pause > LONGEST_PAUSE:
                    raise Unanswered(f"{error} and wants a pause of {pause:,.0f} s") from None
                await asyncio.sleep(RETRY_PAUSE * attempt if pause is None else pause)
            finally:
                self.next_page = time.monotonic() + self.engine.page_gap
        raise AssertionError("the last try returns or raises")

    def alarm(self, what: str) -> ExternalError:
        """An error that keeps the last page and says where."""
        kept = ""
        if self.body is not None:
            kept = f"; its page is kept as {keep_page(self.engine, self.body, self.folder)}"
        return ExternalError(f"{self.engine.name}: {what}{kept}", advice(self.engine))


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


def hidden(engine: Engine, text: str) -> str:
    """`text` without the engine's secrets."""
    for secret in engine.secrets.values():
        text = text.replace(secret, "***").replace(quote_plus(secret), "***")
    return text


def keep_page(engine: Engine, page: bytes, folder: Path) -> Path:
    """Keeps a page that could not be read, for a person to look at, and says where."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "unreadable.html"
    path.write_bytes(hidden(engine, page.decode("latin-1")).encode("latin-1"))
    return path


def advice(engine: Engine) -> str:
    """Hint for an engine that does not answer as it should."""
    return (
        f"`pipeline doctor --engine {engine.name}` shows what it answers; or take another engine"
        " (crawl.engine)"
    )
