"""Web of `share_saved`: its addresses, what they answer byte by byte, and the server of them all.

It looks at the name and the target that are asked for, exactly as they are spelt, and closes the
connection after an answer.
"""

import asyncio
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

MISSING = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
LONGEST_HEAD = 512 * 1024  # bytes of a request
Routes = dict[tuple[str, str], bytes]  # name and target as they are asked for -> answer


@dataclass
class Case:
    """One address, and what it is.

    Attributes:
        kind: the row of the table.
        name: within its kind.
        url: as it is listed.
        refused: the rule by which a crawl leaves it, though a browser shows it; "" if none.
        routes: what its hosts answer.
        files: bytes that a client may store of it; the picture as it is meant comes first.
    """

    kind: str
    name: str
    url: str
    refused: str = ""
    routes: Routes = field(default_factory=dict)
    files: list[bytes] = field(default_factory=list)


def answer(body: bytes, *headers: str, status: str = "200 OK", length: bool = True) -> bytes:
    """An answer as it goes over the wire; headers are Latin-1."""
    lines = [f"HTTP/1.1 {status}", *headers]
    if length:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def led(location: str | bytes, status: str = "302 Found") -> bytes:
    """An answer that leads on."""
    where = location if isinstance(location, bytes) else location.encode("latin-1")
    head = b"HTTP/1.1 " + status.encode() + b"\r\nLocation: " + where
    return head + b"\r\nContent-Length: 0\r\n\r\n"


class Server:
    """All hosts, on one port of loopback."""

    def __init__(self, routes: Routes) -> None:
        self.routes = routes
        self.asked: list[tuple[str, str]] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, and one answer."""
        with suppress(asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            first, *lines = head.split("\r\n")
            target = first.split(" ")[1]
            hosts = [
                line.partition(":")[2].strip() for line in lines if line[:5].lower() == "host:"
            ]
            name = hosts[0].rpartition(":")[0] or hosts[0] if hosts else ""
            self.asked.append((name, target))
            writer.write(self.routes.get((name.lower(), target), MISSING))
            await writer.drain()
        writer.close()


@contextmanager
def serving(listed: Sequence[Case]) -> Iterator[tuple[Server, int]]:
    """Runs the server in a thread of its own: itself and its port."""
    server = Server({place: sent for case in listed for place, sent in case.routes.items()})
    listening = socket.create_server(("127.0.0.1", 0), backlog=512)
    loop = asyncio.new_event_loop()

    async def run() -> None:
        await asyncio.start_server(server.serve, sock=listening, limit=LONGEST_HEAD)

    loop.run_until_complete(run())
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield server, listening.getsockname()[1]
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def hosts_of(listed: Sequence[Case]) -> list[str]:
    """All names, as they are looked up."""
    return sorted({name for case in listed for name, _ in case.routes})
