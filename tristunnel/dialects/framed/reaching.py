"""Beginning a client's session with a server."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError
from twisted.logger import Logger
from twisted.python.failure import Failure

from tristunnel.connect.address import ServerAddress
from tristunnel.connect.greeting import Greeting
from tristunnel.dialects.framed.client import TunnelClientFactory, TunnelClientProtocol
from tristunnel.dialects.framed.session import EXTENSION
from tristunnel.errors import TunnelError

__all__ = ["greetOtherwise", "reached"]

_log = Logger()


async def reached(
    server: ServerAddress, factory: TunnelClientFactory
) -> TunnelClientProtocol:
    """
    Reach a server.

    @param factory: Makes the session.
    @raise TunnelError: C{session-lost}, with why it was not reached.
    """
    try:
        session: Any = await server.endpoint.connect(factory)
    except (CancelledError, TunnelError):
        raise
    except Exception as error:
        raise server.notReached(Failure()) from error
    assert isinstance(session, TunnelClientProtocol)
    return session


def greetOtherwise(greeting: Greeting, where: str) -> None:
    """
    Greet in another way a server that has closed the connection, if it may be one of
    W3P's that looks at all of the credentials.

    @param where: The server, as messages name it.
    """
    if greeting.unanswered():
        _log.info(
            "{where} may be a W3P server whose filter refuses the key"
            " {key!r} among the credentials: trying once without it, as with"
            " --extension never",
            where=where,
            key=EXTENSION,
        )
