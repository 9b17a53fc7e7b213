"""A small HTTP/1.1 server on its own threads that stops at once, connections and all."""

import socket
import socketserver
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

HTML_TYPE = "text/html; charset=utf-8"


@dataclass(frozen=True)
class Answer:
    """Answer of a server."""

    body: bytes
    content_type: str = HTML_TYPE
    status: HTTPStatus = HTTPStatus.OK
    retry_after: str = ""  # value of the Retry-After header; none when empty


class Server(ThreadingHTTPServer):
    """Answers GET requests with `answer(target)`, target being the path and query asked for.

    Listens from construction on; raises OSError when the address cannot be had.
    """

    daemon_threads = True
    request_queue_size = 512

    def __init__(self, address: tuple[str, int], answer: Callable[[str], Answer]) -> None:
        self.answer = answer
        self._connections: set[socket.socket] = set()
        self._lock = threading.Lock()
        super().__init__(address, _Handler)
        self._thread = threading.Thread(
            target=self.serve_forever, args=(0.02,), name=f"demo-{self.server_port}", daemon=True
        )

    def start(self) -> None:
        """Serve in the background."""
        self._thread.start()

    def stop(self) -> None:
        """Stop serving, and close the port and every open connection. Call after `start`."""
        self.shutdown()
        self._thread.join()
        self.server_close()
        with self._lock:
            for connection in self._connections:
                _hang_up(connection)

    @property
    def address(self) -> tuple[str, int]:
        """IP address and port that it listens at."""
        return self.server_name, self.server_port

    def server_bind(self) -> None:
        # HTTPServer would look the host's name up, which can take seconds.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        # A client that went away is everyday; anything else is a bug, to be seen.
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 1 << 20  # headers and body leave in one send
    server: Server

    def do_GET(self) -> None:
        answer = self.server.answer(self.path)
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Content-Length", str(len(answer.body)))
        if answer.retry_after:
            self.send_header("Retry-After", answer.retry_after)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    do_HEAD = do_GET

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the demo's servers are silent."""


def _hang_up(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # the client was first
