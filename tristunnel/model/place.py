"""Where a tunnel is: how its two ends are reached, and what it is called."""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Protocol

from tristunnel.dataplane.glimpse import Speech
from tristunnel.util.hosts import hostAndPort, webAddress, webKind

__all__ = ["IListener", "MeetingPlace", "isGuessable"]


def isGuessable(uri: str) -> bool:
    """Whether a URI has nothing in it but a port, see L{MeetingPlace.isGuessable}."""
    return uri.startswith(("tcp:", "tls:"))


class IListener(Protocol):
    """A tunnel's public side, open until it is closed."""

    @property
    def address(self) -> tuple[str, str, int]:
        """The scheme, the interface (empty for all) and the port."""

    def close(self) -> Awaitable[object]:
        """Let nobody in any more."""


@dataclass(eq=False, slots=True, kw_only=True)
class MeetingPlace:
    """
    Where a tunnel's visitors and its client meet.

    @ivar uri: Where the client's end connects.
    @ivar hostname: The name that the caller knows this server by.
    @ivar name: The name that its owner gave it, or empty.
    @ivar web: How this server's WebSockets are reached: C{ws://HOST:PORT}.
    @ivar listener: Where visitors come in.
    @ivar clientListener: Where raw connections of the client come in.
    @ivar secretHash: SHA-256 of the URI's secret, where it has one.
    @ivar protocol: What visitors speak: C{"tcp"}, for bytes, or C{"udp"}, for
        datagrams.
    @ivar scheme: C{"http"} or C{"https"}, if the owner says that it is a web site.
    @ivar target: The service, if the owner tells.
    @ivar speech: What the service speaks; C{None} where nobody wants to know.
    """

    uri: str = ""
    hostname: str = ""
    name: str = ""
    web: str = ""
    listener: IListener | None = None
    clientListener: IListener | None = None
    secretHash: bytes = b""
    protocol: str = "tcp"
    scheme: str = ""
    target: str = ""
    speech: Speech | None = None

    @property
    def publicURI(self) -> str:
        """The URI without its secret: for logs and lists."""
        return self.uri.partition("#")[0]

    @property
    def isGuessable(self) -> bool:
        """
        Whether its URI has nothing in it but a port, so that knowing it proves nothing.
        """
        return isGuessable(self.uri)

    @property
    def address(self) -> str:
        """Where visitors connect, as a URI; empty without a listener."""
        if self.listener is None:
            return ""
        whole = getattr(self.listener, "uri", "")
        if whole:
            return str(whole)
        path = getattr(self.listener, "path", "")
        if path:
            return f"{self.web}{path}"
        scheme, _, port = self.listener.address
        return f"{scheme}://{hostAndPort(self.hostname, port)}"

    @property
    def called(self) -> str:
        """What its owner, or its visitors, call it; empty if it has no name."""
        return self.name or getattr(self.listener, "called", "")

    @property
    def page(self) -> str:
        """
        What to open in a browser, if this is a web site: because its answers are
        HTTP, or its owner has said so; else empty.
        """
        kind = "" if self.speech is None else self.speech.kind
        if not kind and self.protocol == "tcp":
            kind = self.scheme or webKind(self.target, self.name)
        return webAddress(self.address, kind)
