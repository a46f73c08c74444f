"""
Web services of every kind, for tests with real programs: a Flask application with
sessions and absolute redirects, server-sent events, WebSockets, large bodies, and git.

Prints C{ready PORT...}: of Flask, of WebSockets, and of git.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from flask import Flask, Response, redirect, request, session, url_for
from twisted.internet import reactor as _reactor
from twisted.web.server import Request, Site
from twisted.web.twcgi import CGIScript
from werkzeug.serving import make_server as makeThreaded

PAGE = """<!DOCTYPE html>
<title>A shop</title>
<body style="font: 2em sans-serif"><h1>A shop</h1>
<p id="who">{who}</p><p id="events"></p><p id="socket"></p>
<script>
let events = new EventSource("/events"), heard = "";
events.onmessage = event => {{
  heard += event.data;
  document.getElementById("events").textContent = "events " + heard;
  if (heard.length == 3) events.close();
}};
let socket = new WebSocket(location.origin.replace("http", "ws") + "/ws");
socket.onopen = () => socket.send("hello");
socket.onmessage = event => {{
  document.getElementById("socket").textContent = "socket " + event.data;
}};
</script>
"""

application = Flask(__name__)
application.secret_key = "not secret"


@application.get("/")
def index() -> str:
    return PAGE.format(who=session.get("who", "nobody"))


@application.get("/login")
def login() -> Any:
    session["who"] = "anna"
    return redirect(url_for("index", _external=True))


@application.get("/told")
def told() -> dict[str, str]:
    return dict(request.headers)


@application.post("/count")
@application.put("/count")
def count() -> str:
    size = 0
    while data := request.stream.read(65536):
        size += len(data)
    return str(size)


@application.get("/zeros/<int:size>")
def zeros(size: int) -> Response:
    def made() -> Iterator[bytes]:
        piece = bytes(1 << 16)
        for start in range(0, size, len(piece)):
            yield piece[: size - start]

    return Response(made(), mimetype="application/octet-stream")


@application.get("/events")
def events() -> Response:
    def made() -> Iterator[str]:
        for number in range(3):
            yield f"data: {number}\n\n"
            time.sleep(0.2)

    return Response(made(), mimetype="text/event-stream")


class Echo(WebSocketServerProtocol):
    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        self.sendMessage(payload, isBinary)


class Git(CGIScript):
    """C{git http-backend}, where a directory of repositories is."""

    def __init__(self, root: str) -> None:
        super().__init__("/usr/lib/git-core/git-http-backend")
        self._root = root

    def render(self, request: Request) -> Any:
        # Which the class itself would join as text.
        self._path, request.postpath = request.path.decode(), []
        return super().render(request)

    def runProcess(
        self, env: dict[str, str], request: Request, qargs: Any = ()
    ) -> None:
        env = {**env, "GIT_PROJECT_ROOT": self._root, "GIT_HTTP_EXPORT_ALL": "1"}
        env["PATH_INFO"] = self._path
        super().runProcess(env, request, qargs)


def main(repositories: str) -> None:
    reactor: Any = _reactor
    web = makeThreaded("127.0.0.1", 0, application, threaded=True)
    threading.Thread(target=web.serve_forever, daemon=True).start()
    factory = WebSocketServerFactory()
    factory.protocol = Echo
    sockets = reactor.listenTCP(0, factory, interface="127.0.0.1")
    git = reactor.listenTCP(0, Site(Git(repositories)), interface="127.0.0.1")
    ports = web.server_port, sockets.getHost().port, git.getHost().port
    print("ready", *ports, flush=True)
    reactor.run()


if __name__ == "__main__":
    main(sys.argv[1])
