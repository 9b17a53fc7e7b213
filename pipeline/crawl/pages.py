"""An engine's pages over HTTP: one after the other, at its pace, with patience for trouble."""

import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.parse import quote_plus

import requests

from pipeline.crawl.engines.engine import Engine
from pipeline.crawl.session import TooLarge, read
from pipeline.errors import ExternalError

PAGE_TIMEOUT = 15.0  # seconds without a byte
PAGE_TIME = 60.0  # seconds for a whole page
PAGE_BYTES = 8 * 2**20  # a larger page is no page of results
TRIES = 3
RETRY_PAUSE = 1.0  # seconds before the second try, twice as many before the third
LONGEST_PAUSE = 30.0  # seconds that an engine may ask to wait (Retry-After, RFC 9110 10.2.3)


class PageError(Exception):
    """A page could not be had. `transient` trouble may pass."""

    def __init__(self, reason: str, transient: bool = False, pause: float | None = None) -> None:
        super().__init__(reason)
        self.transient, self.pause = transient, pause


@dataclass(frozen=True)
class Page:
    """What an engine answered. `pause` is its Retry-After (seconds), None without."""

    status: int
    body: bytes
    pause: float | None = None


class EnginePages:
    """An engine that is asked for one page after the other, at its own pace."""

    def __init__(self, engine: Engine, session: requests.Session, folder: Path) -> None:
        self.engine, self.session, self.folder = engine, session, folder
        self.body: bytes | None = None  # of the last page
        self.next_page = 0.0  # when it may be asked for (monotonic seconds)

    def page(self, address: str) -> Page:
        """Raises PageError unless the answer is a page (200), or there is none there (404)."""
        for attempt in range(1, TRIES + 1):
            time.sleep(max(0.0, self.next_page - time.monotonic()))
            try:
                page = ask(self.engine, address, self.session)
                if page.status not in (200, 404):
                    transient = page.status == 429 or page.status >= 500
                    raise PageError(f"it answered {page.status}", transient, page.pause)
                self.body = page.body
                return page
            except PageError as error:
                pause = RETRY_PAUSE * attempt if error.pause is None else error.pause
                if not error.transient or attempt == TRIES:
                    raise
                if pause > LONGEST_PAUSE:
                    raise PageError(f"{error} and wants a pause of {pause:,.0f} s") from None
                time.sleep(pause)
            finally:
                self.next_page = time.monotonic() + self.engine.page_gap
        raise AssertionError("the last try returns or raises")

    def alarm(self, what: str) -> ExternalError:
        """An error that keeps the last page and says where."""
        kept = ""
        if self.body is not None:
            kept = f"; its page is kept as {keep_page(self.engine, self.body, self.folder)}"
        return ExternalError(f"{self.engine.name}: {what}{kept}", advice(self.engine))


def ask(engine: Engine, address: str, session: requests.Session) -> Page:
    """Asks for one page, once.

    Raises:
        PageError: there is no whole answer.
    """
    try:
        response = session.get(
            address,
            params=engine.secrets,
            headers=engine.headers,
            timeout=PAGE_TIMEOUT,
            stream=True,
        )
        body = read(response, PAGE_BYTES, PAGE_TIME)
    except requests.RequestException as error:
        reason, transient = _network_reason(error)
        raise PageError(hidden(engine, reason), transient) from None
    return Page(response.status_code, body, _pause(response.headers.get("Retry-After")))


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
    """What to do when an engine does not answer as it should."""
    return (
        f"`pipeline doctor --engine {engine.name}` shows what it answers; or take another engine"
        " (crawl.engine)"
    )


def _pause(header: str | None) -> float | None:
    """Seconds that a Retry-After asks for: a number, or a date (RFC 9110 10.2.3)."""
    if header is None:
        return None
    if header.strip().isascii() and header.strip().isdigit():
        return float(header)
    try:
        return max(0.0, parsedate_to_datetime(header).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None


def _network_reason(error: requests.RequestException) -> tuple[str, bool]:
    """Why there was no answer, and whether that may pass."""
    if isinstance(error, TooLarge):
        return f"its page has {error}", False
    if isinstance(error, (requests.ConnectTimeout, requests.ReadTimeout)):
        return f"no answer in {PAGE_TIMEOUT:g} s", True
    if isinstance(error, requests.Timeout):
        return f"its page took {error}", True
    text = str(error)
    if "NameResolution" in text:
        return "its name cannot be resolved", False
    if "refused" in text:
        return "connection refused", False
    broken = isinstance(error, requests.exceptions.ChunkedEncodingError)
    if broken or any(word in text for word in ("reset", "aborted", "IncompleteRead")):
        return "the connection broke off", True
    # urllib3 writes the whole address first
    return " ".join(text.rpartition("Caused by ")[2].split())[:160], False
