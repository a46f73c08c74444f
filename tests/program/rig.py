"""A server and a service for programs that expose one."""

from __future__ import annotations

import os
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

import tristunnel
from tristunnel.program.local import localServer
from tristunnel.program.tunnel import Tunnel


class _Page(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = b"a page"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def serviceOfHere() -> Iterator[int]:
    """Run a service of this machine; what it yields is its port."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Page)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _get(url: str, body: bytes | None = None) -> bytes:
    with urllib.request.urlopen(url, body, timeout=30) as answer:
        data: bytes = answer.read()
        return data


class ExposeTestCase(SynchronousTestCase):
    """With a server, and a service."""

    def setUp(self) -> None:
        stack = ExitStack()
        self.addCleanup(stack.close)
        home = os.path.abspath(self.mktemp())
        os.makedirs(home)
        variables = {"XDG_CONFIG_HOME": home}
        stack.enter_context(mock.patch.dict(os.environ, variables))
        for name in ("SERVER", "PIN", "TOKEN"):
            os.environ.pop(f"TRISTUNNEL_{name}", None)
        self.server = stack.enter_context(localServer())
        self.port = stack.enter_context(serviceOfHere())

    def expose(self, *target: Any, **options: Any) -> Tunnel:
        tunnel = tristunnel.expose(*target, **{"server": self.server, **options})
        self.addCleanup(tunnel.close)
        return tunnel
