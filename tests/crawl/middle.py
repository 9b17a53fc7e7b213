"""A real HTTP proxy on loopback, that does as told and notes what it is asked."""

import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from kd3_pipeline.crawl.guard import HostTable


class Middle:
    """A real proxy on loopback, that knows the names of `hosts` and no others.

    `refusals` has statuses with which it answers in place of a host, by name.
    """

    def __init__(self, hosts: HostTable, refusals: Mapping[str, int]) -> None:
        self.hosts, self.refusals = hosts, refusals
        self.asked: list[str] = []  # method and target of each request
        self.heads: list[str] = []
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self.socket.getsockname()[1]}"

    def serve(self) -> None:
        """Until its socket is closed."""
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            threading.Thread(target=self.one, args=(connection,), daemon=True).start()

    def one(self, client: socket.socket) -> None:
        """One connection: a request, or a tunnel."""
        with client:
            head = b""
            while b"\r\n\r\n" not in head:
                part = client.recv(65536)
                if not part:
                    return
                head += part
            method, target, _ = head.split(b"\r\n")[0].decode().split(" ")
            self.asked.append(f"{method} {target}")
            self.heads.append(head.decode())
            name = target.partition("://")[2].partition("/")[0] or target
            name = name.rpartition(":")[0] if ":" in name else name
            status = self.refusals.get(name, 200 if name in self.hosts else 502)
            if status != 200:
                client.sendall(b"HTTP/1.1 %d no\r\nContent-Length: 0\r\n\r\n" % status)
                return
            with socket.create_connection(self.hosts[name]) as host:
                if method == "CONNECT":
                    client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                else:
                    path = "/" + target.partition("://")[2].partition("/")[2]
                    lines = head.replace(target.encode(), path.encode(), 1).split(b"\r\n")
                    kept = [one for one in lines if not one.lower().startswith(b"proxy-")]
                    kept.insert(1, b"Connection: close")
                    host.sendall(b"\r\n".join(kept))
                back = threading.Thread(target=pipe, args=(host, client), daemon=True)
                back.start()
                if method == "CONNECT":
                    pipe(client, host)
                back.join()


def pipe(one: socket.socket, other: socket.socket) -> None:
    """Hands on what comes until it ends."""
    try:
        while part := one.recv(65536):
            other.sendall(part)
        other.shutdown(socket.SHUT_WR)
    except OSError:
        pass


@contextmanager
def proxied(hosts: HostTable, refusals: Mapping[str, int] | None = None) -> Iterator[Middle]:
    """A proxy that is up."""
    middle = Middle(hosts, refusals or {})
    thread = threading.Thread(target=middle.serve, daemon=True)
    thread.start()
    try:
        yield middle
    finally:
        middle.socket.shutdown(socket.SHUT_RDWR)
        middle.socket.close()
        thread.join()
