"""One request of a download, for an image or a file such as robots.txt, and what it means."""

import asyncio
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

import aiohttp
from yarl import URL

from pipeline.console import printable
from pipeline.crawl.guard import Forbidden
from pipeline.crawl.http import (
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
from pipeline.crawl.incoming import Incoming
from pipeline.crawl.optouts.headers import heard
from pipeline.crawl.optouts.origin import Answer, Question, Said
from pipeline.crawl.scheduler import Job
from pipeline.errors import PipelineError
from pipeline.formats import accepted
from pipeline.manifest import Fetched
from pipeline.params import Crawl

PATIENCE = 5.0  # seconds for 5 KiB of a body
TRIES = 3
TRIES_AFTER_TIMEOUT = 2  # a host that was silent once is rarely worth a third wait
TRIES_OF_A_NAME = 2
SLOW_DOWN = {429, 503}
# of what begins with 5: the method, the protocol, and the certificate behind Cloudflare
FOR_GOOD = {501, 505, 526}
REASON_BYTES = 4096  # of the body of a refusal
REASON_PATIENCE = 2.0  # seconds for them
NO_SUCH_NAME = {socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)}
# what unpacks may be a bomb, and the bytes are kept as they come
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

        The image's bytes go to `incoming`, unchecked, the answer's status to `job.status`. None
        where the answer's headers name a licence that `said`, its origin, has not read yet.

        Raises:
            Failure: there is none of these.
            ExternalError: the disk will not have the bytes.
        """
        job.status = None
        headers = QUESTION_HEADERS if job.question else IMAGE_HEADERS
        try:
            async with self.client.get(
                job.address, headers=headers, timeout=self._timeout
            ) as answer:
                job.status = answer.status
                target = leads_to(job.address, answer.status, answer.headers)
                if target is not None:
                    return target
                if answer.status != 200:
                    raise await _failure_of(answer)
                _check_encoding(answer)
                if job.question is not None:
                    return await _answered(job.question, answer)
                return await self._image(job, answer, incoming, said)
        except (Failure, PipelineError):
            raise
        except Forbidden as error:
            raise Failure("forbidden_address", str(error)) from None
        except TooSlow as error:
            raise Failure("too_slow", str(error), more={"status": job.status}) from None
        except aiohttp.ClientConnectorCertificateError as error:
            raise Failure("certificate", str(error)) from None
        except aiohttp.ClientConnectorDNSError as error:
            gone = error.os_error.errno in NO_SUCH_NAME
            word, tries = ("unknown_host", TRIES_OF_A_NAME) if gone else ("connection", TRIES)
            raise Failure(word, str(error), tries=tries) from None
        except aiohttp.ClientResponseError as error:
            raise Failure("malformed", error.message, tries=TRIES) from None
        except ValueError as error:  # aiohttp.InvalidURL, and what urljoin makes of a Location
            raise Failure("malformed_address", str(error)) from None
        except TimeoutError:
            detail = f"{self.params.timeout} s"
            raise Failure("timeout", detail, tries=TRIES_AFTER_TIMEOUT) from None
        except aiohttp.ClientPayloadError as error:
            raise Failure("truncated", str(error), tries=TRIES) from None
        except Exception as error:  # a hostile answer may break the client anywhere
            detail = f"{type(error).__name__}: {error}"
            raise Failure("connection", detail, tries=TRIES) from None

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
        if size <= most:
            size = await receive(answer, most, incoming.write, PATIENCE)
        if size > most:
            more = {"status": status, "size": size, "signals": verdict.text}
            raise Failure("too_large", f"more than {most} bytes", more=more)
        found = Fetched(job.url, "ok", status=status, final_url=job.address, size=size)
        return replace(found, signals=verdict.text)


async def _failure_of(answer: aiohttp.ClientResponse) -> Failure:
    """What an answer that is not 200 means; its body says why, as far as it comes soon."""
    status, pause = answer.status, retry_after(answer.headers)
    detail = f"{status}: {await _reason(answer)}".rstrip(": ")
    more = {"status": status}
    busy = (500 <= status < 600 and status not in FOR_GOOD) or status in BUSY
    if busy or (status in WITH_PAUSE and pause is not None):
        refusal = status == 429 or pause is not None
        return Failure("busy", detail, tries=TRIES, refusal=refusal, pause=pause, more=more)
    return Failure("http_error", detail, more=more)


async def _reason(answer: aiohttp.ClientResponse) -> str:
    body = bytearray()
    if answer.headers.get("Content-Encoding", "identity").strip().lower() in ("", "identity"):
        with suppress(TooSlow, TimeoutError, OSError, aiohttp.ClientError):
            await receive(answer, REASON_BYTES, body.extend, REASON_PATIENCE)
    line = first_line(bytes(body[:REASON_BYTES]), answer.headers.get("Content-Type", ""))
    return line or printable(answer.reason or "")


def _check_encoding(answer: aiohttp.ClientResponse) -> None:
    encoding = answer.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise Failure("encoded", encoding, more={"status": answer.status})


async def _answered(question: Question, answer: aiohttp.ClientResponse) -> Answer:
    text = bytearray()
    await receive(answer, question.most, text.extend, PATIENCE)
    return await asyncio.to_thread(question.answer, bytes(text))
