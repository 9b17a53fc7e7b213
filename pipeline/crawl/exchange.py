"""One request of a download, for an image or a file such as robots.txt, and what it means."""

import asyncio
import socket
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from ssl import SSLError
from sys import intern
from typing import Any

import aiohttp
from yarl import URL

from kd3_pipeline.console import printable
from kd3_pipeline.crawl.disk import refuse_if_out_of_files
from kd3_pipeline.crawl.encodings import Packed, Swollen, Unpacker, is_text
from kd3_pipeline.crawl.guard import Forbidden, ForbiddenAnswer
from kd3_pipeline.crawl.http import (
    BUSY,
    CONNECT_TIMEOUT,
    READ_TIMEOUT,
    WITH_PAUSE,
    Client,
    TooSlow,
    first_line,
    leads_to,
    receive,
    retry_after,
)
from kd3_pipeline.crawl.incoming import Incoming
from kd3_pipeline.crawl.optouts.headers import heard
from kd3_pipeline.crawl.optouts.origin import Answer, Question, Said
from kd3_pipeline.crawl.proxy import ProxyError
from kd3_pipeline.crawl.scheduler import Job
from kd3_pipeline.errors import PipelineError
from kd3_pipeline.formats import accepted
from kd3_pipeline.manifest import FORBIDDEN_DNS, Fetched
from kd3_pipeline.params import Crawl

DEMO = ".demo.test"  # names of the demo's hosts end so, and no other's
PATIENCE = 5.0  # seconds for 5 KiB of a body
TRIES = 3
TRIES_AFTER_TIMEOUT = 2  # a host that was silent once is rarely worth a third wait
TRIES_OF_A_NAME = 2
TRIES_OF_TLS = 2
SLOW_DOWN = {429, 503}
# of what begins with 5: the method, the protocol, and the certificate behind Cloudflare
FOR_GOOD = {501, 505, 526}
NO_BODY = {204, 205}
UNREADABLE = "malformed"  # outcome of an answer that is no HTTP
LONGEST_ENCODING = 100  # letters of a header
REASON_BYTES = 4096  # of the body of a refusal
REASON_PATIENCE = 2.0  # seconds for them
NO_SUCH_NAME = {socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)}
# what unpacks may be a bomb; who packs all the same is unpacked within the limit of an image
IMAGE_HEADERS = {"Accept": accepted(), "Accept-Encoding": "identity"}
QUESTION_HEADERS = {"Accept": "*/*", "Accept-Encoding": "identity"}


class Failure(Exception):
    """An exchange that gave no image.

    Attributes:
        outcome: one word for counting; the text says more.
        tries: how many in all it deserves.
        refusal: the host refuses now, whatever is asked for.
        pause: seconds for which it wants to be left alone, if it says.
        more: what else `Fetched` has room for.
    """

    def __init__(
        self,
        outcome: str,
        detail: str = "",
        *,
        tries: int = 1,
        refusal: bool = False,
        pause: float | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(detail)
        self.outcome, self.tries, self.refusal, self.pause = outcome, tries, refusal, pause
        self.more = more or {}

    def record(self, url: str) -> Fetched:
        """The record of a URL that ends so."""
        return Fetched(url, self.outcome, str(self)[:200], **self.more)


class Exchange:
    """Asks for what a job wants, by the limits of a crawl."""

    def __init__(self, client: Client, params: Crawl, user_agent: str) -> None:
        self.client, self.params, self.user_agent = client, params, user_agent
        self._timeout = aiohttp.ClientTimeout(
            total=params.timeout, sock_connect=CONNECT_TIMEOUT, sock_read=READ_TIMEOUT
        )

    async def ask(
        self, job: Job, incoming: Incoming, said: Said | None = None
    ) -> str | Answer | Fetched | None:
        """The address that the answer leads to, what a question brought, or the image it has.

        The image's bytes go to `incoming`, unchecked, the answer's status to `job.status`; to
        `job.doubt` what is wrong with the answer, such as its end that did not come, unless the
        bytes are a whole picture. None where the answer's headers name a licence that `said`, its
        origin, has not read yet.

        Raises:
            Failure: there is none of these.
            ExternalError: the disk will not have the bytes.
        """
        job.status = job.doubt = None
        headers = QUESTION_HEADERS if job.question else IMAGE_HEADERS | _referer(job)
        try:
            async with self.client.get(
                job.address, headers=headers, timeout=self._timeout
            ) as answer:
                job.status = answer.status
                target = leads_to(job.address, answer.status, answer.headers)
                if target is not None:
                    return target
                if job.question is not None:
                    if not job.question.reads(answer.status):
                        raise await _failure_of(answer)
                    return await _answered(job.question, answer)
                if not 200 <= answer.status < 300 or answer.status in NO_BODY:
                    raise await _failure_of(answer)
                return await self._image(job, answer, incoming, said)
        except (Failure, PipelineError):
            raise
        except Exception as error:  # a hostile answer may break the client anywhere
            refuse_if_out_of_files(error)
            raise self._failure(job, error) from None

    def _failure(self, job: Job, error: Exception) -> Failure:
        """What an error of the client means."""
        text, more = " ".join(f"{error}".split()), {"status": job.status}
        match error:
            case ProxyError():
                return Failure("proxy", text, tries=TRIES)
            case ForbiddenAnswer():
                return Failure(FORBIDDEN_DNS, text, tries=TRIES_OF_A_NAME)
            case Forbidden():
                return Failure("forbidden_address", text)
            case TooSlow():
                return Failure("too_slow", text, more=more)
            case Packed():
                return Failure("encoded", text, more=more)
            case aiohttp.ClientConnectorCertificateError():
                return Failure("certificate", text)
            case aiohttp.ClientSSLError() | SSLError():
                return Failure("tls", text, tries=TRIES_OF_TLS)
            case aiohttp.ClientOSError() if "[SSL: " in text:  # it refused behind the handshake
                return Failure("tls", text, tries=TRIES_OF_TLS)
            case aiohttp.ClientConnectorDNSError():
                gone = error.os_error.errno in NO_SUCH_NAME
                word, tries = ("unknown_host", TRIES_OF_A_NAME) if gone else ("connection", TRIES)
                return Failure(word, text, tries=tries)
            case aiohttp.ClientResponseError():
                return Failure(UNREADABLE, " ".join(error.message.split()), tries=TRIES)
            case ValueError():  # aiohttp.InvalidURL, and what urljoin makes of a Location
                return Failure("malformed_address", text)
            case TimeoutError():
                return Failure("timeout", f"{self.params.timeout} s", tries=TRIES_AFTER_TIMEOUT)
            case aiohttp.ClientPayloadError():
                return Failure("truncated", text, tries=TRIES)
        return Failure("connection", f"{type(error).__name__}: {text}", tries=TRIES)

    async def _image(
        self, job: Job, answer: aiohttp.ClientResponse, incoming: Incoming, said: Said | None
    ) -> Fetched | None:
        status, most = answer.status, self.params.max_bytes
        said = said or Said.of(str(URL(job.address).origin()), self.params)
        signals = heard(answer.headers, job.address)
        if said.unread(signals):
            return None
        verdict = said.verdict(job.address, signals)
        if verdict.refusal:
            more = {"status": status, "signals": verdict.text}
            raise Failure("opted_out", verdict.refusal, more=more)
        size = answer.content_length or 0
        try:
            if size <= most:
                await self._received(job, answer, incoming)
                size = incoming.size
        except Swollen:
            size = incoming.size
        if size > most:
            more = {"status": status, "size": size, "signals": verdict.text}
            raise Failure("too_large", f"more than {most} bytes", more=more)
        return Fetched(
            job.url,
            "ok",
            status=status,
            # one text where they are equal: of ten million, two are a gigabyte and a half
            final_url=job.url if job.address == job.url else job.address,
            size=size,
            signals=verdict.text,
            fetched_at=intern(_now(job.address)),
        )

    async def _received(self, job: Job, answer: aiohttp.ClientResponse, incoming: Incoming) -> None:
        """Takes the bytes of an image, and in `job.doubt` what is wrong with how they came."""
        most = self.params.max_bytes
        unpacker = Unpacker(_encoding(answer), incoming.write, most)
        try:
            if await receive(answer, most, unpacker.write, PATIENCE) > most:
                raise Swollen
        except (TooSlow, TimeoutError, aiohttp.ClientError) as error:
            if not incoming.size:
                raise
            job.doubt = self._failure(job, error)
        if not unpacker.end() and job.doubt is None:
            job.doubt = Failure("truncated", f"{_encoding(answer)} without its end")
        if unpacker.taken_as_is and job.doubt is None:
            job.doubt = Failure("encoded", _encoding(answer), more={"status": job.status})


def _is_of_demo(address: str) -> bool:
    """Whether a host of the demo's web gives an address."""
    return (URL(address).host or "").endswith(DEMO)


def _now(address: str) -> str:
    """The time in UTC, to the second; none for the demo's web, which is the same at any time."""
    return "" if _is_of_demo(address) else datetime.now(UTC).isoformat(timespec="seconds")


def _referer(job: Job) -> dict[str, str]:
    """The header with the page that shows an image; no page of https is told in the clear."""
    clear = job.page.startswith("https:") and job.address.startswith("http:")
    return {"Referer": job.page} if job.page and not clear else {}


async def _failure_of(answer: aiohttp.ClientResponse) -> Failure:
    """What an answer that is not 200 means; its body says why, as far as it comes soon."""
    status, pause = answer.status, retry_after(answer.headers)
    detail = f"{status}: {await _reason(answer)}".rstrip(": ")
    more = {"status": status}
    busy = (500 <= status < 600 and status not in FOR_GOOD) or status in BUSY
    if busy or (status in WITH_PAUSE and pause is not None):
        refusal = status == 429 or bool(pause)  # `Retry-After: 0` asks for no pause
        return Failure("busy", detail, tries=TRIES, refusal=refusal, pause=pause, more=more)
    return Failure("http_error", detail, more=more)


async def _reason(answer: aiohttp.ClientResponse) -> str:
    body = bytearray()
    if answer.headers.get("Content-Encoding", "identity").strip().lower() in ("", "identity"):
        with suppress(TooSlow, TimeoutError, OSError, aiohttp.ClientError):
            await receive(answer, REASON_BYTES, body.extend, REASON_PATIENCE)
    line = first_line(bytes(body[:REASON_BYTES]), answer.headers.get("Content-Type", ""))
    return line or printable(answer.reason or "")


def _encoding(answer: aiohttp.ClientResponse) -> str:
    return ", ".join(answer.headers.getall("Content-Encoding", []))[:LONGEST_ENCODING]


async def _answered(question: Question, answer: aiohttp.ClientResponse) -> Answer:
    text = bytearray()
    unpacker = Unpacker(_encoding(answer), text.extend, question.most)
    with suppress(Swollen):  # what is beyond is left out
        await receive(answer, question.most, unpacker.write, PATIENCE)
        if not unpacker.end():
            raise Failure("truncated", f"{_encoding(answer)} without its end")
    if unpacker.taken_as_is and not is_text(text):
        raise Failure("encoded", _encoding(answer), more={"status": answer.status})
    return await asyncio.to_thread(question.answer, bytes(text))
