"""Sending changes to open pages, once a second."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.server import Request
from zope.interface import implementer

from tristunnel.dashboard.view import Board
from tristunnel.errors import TunnelError
from tristunnel.util.repeating import RepeatingCall

if TYPE_CHECKING:
    from tristunnel.service.caller import Caller

__all__ = ["LISTENERS", "PER_CALLER", "Broadcast"]

EVERY = 1.0
"""Seconds between two snapshots."""

LISTENERS = 64
"""The most pages that may be open at once."""

PER_CALLER = 8
"""The most pages that one caller may have open, to leave room for others."""

ALIVE = 15
"""Snapshots after which a listener is sent something, even if nothing has changed:
proxies close connections on which nothing passes."""


@implementer(IPushProducer)
class _Listener:
    """
    A page that is open.

    @ivar caller: Who views it.
    @ivar tunnel: The tunnel that it is about; empty for all of them.
    @ivar span: The span of its graph.
    @ivar sent: The snapshot that it was sent last.
    @ivar quiet: Snapshots since it was sent something.
    """

    def __init__(
        self, request: Request, caller: Caller, tunnel: str, span: str
    ) -> None:
        self.caller = caller
        self.tunnel, self.span = tunnel, span
        self.sent = b""
        self.quiet = 0
        self._request = request
        self._ready = True
        request.registerProducer(self, True)

    def send(self, snapshot: bytes) -> None:
        """Send a snapshot, if it has anything new and the last one has left."""
        if not self._ready:
            return
        if snapshot != self.sent:
            self.sent = snapshot
            self.quiet = 0
            self._request.write(b"data: " + snapshot + b"\n\n")
        else:
            self.quiet += 1
            if self.quiet >= ALIVE:
                self.quiet = 0
                self._request.write(b":\n\n")

    def end(self) -> None:
        self._request.unregisterProducer()
        self._request.finish()

    # IPushProducer

    def pauseProducing(self) -> None:
        self._ready = False

    def resumeProducing(self) -> None:
        self._ready = True

    def stopProducing(self) -> None:
        self._ready = False


class Broadcast:
    """
    Takes one snapshot a second for each kind of viewer, as long as there are viewers.

    @param board: What is shown.
    """

    _log = Logger()

    def __init__(self, board: Board) -> None:
        self._board = board
        self._listeners: dict[Request, _Listener] = {}
        self._looping = RepeatingCall(board.service.reactor, self._tick)

    def __len__(self) -> int:
        return len(self._listeners)

    def join(self, request: Request, caller: Caller, tunnel: str, span: str) -> None:
        """
        Send snapshots as the answer to a request.

        @param tunnel: The tunnel that the page is about; empty for all of them.
        @param span: The span of its graph.
        @raise TunnelError: C{limit-reached}.
        """
        same = sum(
            each.caller.countedAs == caller.countedAs
            for each in self._listeners.values()
        )
        if len(self._listeners) >= LISTENERS or same >= PER_CALLER:
            raise TunnelError(
                "limit-reached", "too many dashboards are open; close one", 30.0
            )
        request.setHeader(b"Content-Type", b"text/event-stream; charset=utf-8")
        request.setHeader(b"Cache-Control", b"no-store")
        # For nginx, which would hold events back.
        request.setHeader(b"X-Accel-Buffering", b"no")
        # Browsers come back after so many milliseconds.
        request.write(b"retry: 3000\n\n")
        self._listeners[request] = _Listener(request, caller, tunnel, span)
        request.notifyFinish().addBoth(self._left, request)
        if not self._looping.running:
            self._looping.start(EVERY).addErrback(self._failed)

    def _left(self, reason: Failure | None, request: Request) -> None:
        self._listeners.pop(request, None)
        if not self._listeners and self._looping.running:
            self._looping.stop()

    def _failed(self, reason: Failure) -> None:
        self._log.failure("The dashboard could not be updated", failure=reason)
        for listener in list(self._listeners.values()):
            listener.end()

    def _tick(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._send())

    async def _send(self) -> None:
        snapshots: dict[Any, bytes] = {}
        for request, listener in list(self._listeners.items()):
            grant = listener.caller.identity.grant
            try:
                if grant is not None:
                    grant.check()
            except TunnelError:
                listener.end()
                continue
            viewer = self._board.viewer(listener.caller), listener.tunnel, listener.span
            if viewer not in snapshots:
                view = await self._view(listener)
                snapshots[viewer] = json.dumps(view, separators=(",", ":")).encode()
            if request in self._listeners:
                listener.send(snapshots[viewer])

    async def _view(self, listener: _Listener) -> object:
        """Take the view of a page; C{None} if its tunnel is gone."""
        caller, span = listener.caller, listener.span
        if listener.tunnel:
            return await self._board.tunnelView(caller, listener.tunnel, span)
        return await self._board.view(caller, span)
