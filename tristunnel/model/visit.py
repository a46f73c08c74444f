"""
A visitor at a service, as a client sees it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from tristunnel.errors import TunnelError
from tristunnel.model.observer import ClientObserver

__all__ = ["Counted", "Visit"]


class Counted(Protocol):
    """
    An end that counts.
    """

    @property
    def received(self) -> int:
        """
        Bytes read so far.
        """


class Visit:
    """
    Two ends that are joined: tells the observer of the beginning, and of the
    end once both are over.

    @param target: The service, as messages name it.
    @param service: The service's end.
    @param stream: The visitor's.
    @param info: What the server said of the visitor.
    @param observer: Told of it.

    @ivar visitor: The visitor's address, or empty if the server did not say.
    @ivar tunnel: The tunnel's URI, or empty likewise.
    """

    __slots__ = (
        "__weakref__",
        "_observer",
        "_open",
        "_reason",
        "_service",
        "_stream",
        "target",
        "tunnel",
        "visitor",
    )

    def __init__(
        self,
        target: str,
        service: Counted,
        stream: Counted,
        info: Mapping[str, object],
        observer: ClientObserver,
    ) -> None:
        visitor, tunnel = info.get("visitor"), info.get("tunnel")
        self.target = target
        self.visitor = visitor[:200] if isinstance(visitor, str) else ""
        self.tunnel = tunnel if isinstance(tunnel, str) else ""
        self._service = service
        self._stream = stream
        self._observer = observer
        self._reason: TunnelError | None = None
        self._open = 2
        observer.serviceConnected(target)
        observer.visitorConnected(self)

    @property
    def bytesIn(self) -> int:
        """
        Bytes from the visitor.
        """
        return self._stream.received

    @property
    def bytesOut(self) -> int:
        """
        Bytes to the visitor.
        """
        return self._service.received

    def ended(self, reason: TunnelError | None) -> None:
        """
        One end is over.
        """
        self._reason = self._reason or reason
        self._open -= 1
        if not self._open:
            self.over(self._reason)

    def over(self, reason: TunnelError | None) -> None:
        """
        Both ends are.
        """
        self._observer.serviceGone(self.target, self.bytesOut, self.bytesIn, reason)
        self._observer.visitorGone(self, reason)
