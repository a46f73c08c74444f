"""
Where C{tristunnel access} asks: a socket that only its user can open.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.endpoints import UNIXServerEndpoint
from twisted.internet.interfaces import IListeningPort
from twisted.logger import Logger
from twisted.python.failure import Failure

from tristunnel.auth.realm import Authenticator
from tristunnel.client.access import AccessService
from tristunnel.errors import TunnelError
from tristunnel.http.callers import HTTPCallers
from tristunnel.http.resource import JSONRPCResource
from tristunnel.http.site import limitedSite
from tristunnel.http.tree import rootOf
from tristunnel.rpc.jsonrpc import Dispatcher

__all__ = ["AccessControl", "controlDirectory"]


def controlDirectory(stateDirectory: Path) -> Path:
    """
    Where the sockets are.
    """
    return stateDirectory / "access"


class AccessControl(Service):
    """
    Answers C{listSessions} and C{closeSession} by JSON-RPC, as a server does.

    Without it the access works all the same, so a failure is only told.

    @param reactor: Listens and tells time.
    @param access: What it is about.
    @param stateDirectory: Where this user's programs keep what they must
        remember.
    """

    _log = Logger(namespace="tristunnel.service.access")

    def __init__(
        self, reactor: Any, access: AccessService, stateDirectory: Path
    ) -> None:
        self.path = controlDirectory(stateDirectory) / f"{access.id}.sock"
        self._reactor = reactor
        self._access = access
        self._listening: IListeningPort | None = None

    def _methods(self) -> dict[str, Any]:
        def listSessions(caller: object) -> list[dict[str, object]]:
            return self._access.describe()

        def closeSession(caller: object, id: str) -> None:
            if not isinstance(id, str):
                raise TunnelError("bad-option", "id takes a string")
            # The answer goes out first.
            known = {entry["id"] for entry in self._access.describe()}
            if id not in known:
                raise TunnelError("unknown-session")
            self._reactor.callLater(0, self._access.close, id)

        return {"listSessions": listSessions, "closeSession": closeSession}

    def startService(self) -> None:
        super().startService()
        page = JSONRPCResource(
            Dispatcher(self._methods().get), HTTPCallers(Authenticator())
        )
        site = limitedSite(rootOf({b"rpc": page}), reactor=self._reactor)
        site.noisy = False
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            os.chmod(self.path.parent, 0o700)
        except OSError as error:
            self._notOpened(Failure(error))
            return
        endpoint = UNIXServerEndpoint(self._reactor, str(self.path), mode=0o600)
        opening = maybeDeferred(endpoint.listen, site)
        opening.addCallbacks(self._opened, self._notOpened)

    def _opened(self, listening: IListeningPort) -> None:
        self._listening = listening

    def _notOpened(self, failure: Failure) -> None:
        error = getattr(failure.value, "socketError", failure.value)
        self._log.warn(
            "{path} cannot be opened ({why}): 'tristunnel access' will not know of"
            " this access; give it a writable --state-dir with a short name",
            path=str(self.path),
            why=getattr(error, "strerror", None) or str(error),
        )

    def stopService(self) -> Deferred[object]:
        super().stopService()
        listening, self._listening = self._listening, None
        if listening is None:
            return succeed(None)
        return maybeDeferred(listening.stopListening)
