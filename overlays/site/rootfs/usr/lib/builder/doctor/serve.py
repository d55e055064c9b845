"""What a node tells the others: one small JSON document over HTTP, read-only, to whoever the firewall lets in.

Nothing in it is secret, and nothing that is sent here is used beyond seeing that a request has ended.
"""

from __future__ import annotations

import json
import socket
import socketserver
import threading
from collections.abc import Callable

_IP_FREEBIND = 15  # linux/in.h: bind to an address that this machine does not have yet
_REQUEST_LIMIT = 4096
_PATIENCE = 5.0  # seconds for a client to send its request


def start(address: str, port: int, document: Callable[[], dict]) -> socketserver.ThreadingTCPServer:
    """Serve ``document()`` in the background, on one address, from now on. Raises OSError if the port is taken."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.settimeout(_PATIENCE)
            request = b""
            try:
                while b"\r\n\r\n" not in request and len(request) < _REQUEST_LIMIT:
                    more = self.request.recv(1024)
                    if not more:
                        return
                    request += more
                body = json.dumps(document()).encode()
                head = f"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
                self.request.sendall(head.encode() + body)
            except OSError:
                return  # the client went away; it will ask again

    class Server(socketserver.ThreadingTCPServer):
        allow_reuse_address = True
        daemon_threads = True
        request_queue_size = 64

        def server_bind(self) -> None:
            self.socket.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
            super().server_bind()

    server = Server((address, port), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server
