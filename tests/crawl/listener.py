"""A host at any loopback address that counts connections, those without a request included."""

import socket

from tests.crawl.hosts import Host, Route


class Listener(Host):
    """`connections` counts what reached the port at `ip`, whatever it was."""

    def __init__(
        self, routes: dict[str, Route] | None = None, ip: str = "127.0.0.1", port: int = 0
    ) -> None:
        super().__init__(routes)
        self.connections = 0
        self.server_close()
        self.address_family = socket.AF_INET6 if ":" in ip else socket.AF_INET
        self.socket = socket.socket(self.address_family, self.socket_type)
        self.server_address = (ip, port)
        self.server_bind()
        self.server_activate()

    def get_request(self) -> tuple[socket.socket, tuple[str, int]]:
        self.connections += 1
        return super().get_request()
