"""What a client remembers of its tunnels, even over a restart."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from hashlib import sha256
from pathlib import Path
from secrets import token_bytes
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from tristunnel.util.locked_file import LockedFile
from tristunnel.util.repeating import stopTimer

__all__ = ["MANY", "TRY_AGAIN", "ClientLease"]

MANY = 100
"""With at least so many tunnels, a client does not write each of them down at once."""

TRY_AGAIN = 30.0
"""Seconds after which a file that could not be written is tried again."""

_MAX_FILE = 16 * 1024 * 1024


class ClientLease:
    """
    The lease of a client's session, and which tunnel was for which forward.

    It is kept in a file that only its user can read. Two clients that are alike do not
    share a lease: the second one finds the file locked, and keeps its lease in memory.

    @param path: The file; C{None} to keep everything in memory.
    @param reactor: Tells when to try again to write it.

    @ivar id: The lease's name, or empty.
    @ivar secret: What proves that it is ours.
    @ivar fence: Its fence, as the server has told last; 0 if it has not.
    @ivar uris: The tunnel of each forward, by the forward's text.
    @ivar ports: The port it had.
    @ivar names: The host that it had, if the server had chosen it.
    @ivar salt: The salt for hashes of passwords, so that these stay the same.
    """

    _log = Logger()

    def __init__(
        self, path: Path | None = None, reactor: IReactorTime | None = None
    ) -> None:
        self.id = ""
        self.secret = ""
        self.fence = 0
        self.uris: dict[str, str] = {}
        self.ports: dict[str, int] = {}
        self.names: dict[str, str] = {}
        self.salt = token_bytes(16)
        self._file = None if path is None else LockedFile(path)
        self._reactor = reactor
        self._trouble = ""
        self._trying: IDelayedCall | None = None
        self._closed = False
        self._rested = 0.0

    @classmethod
    def forClient(
        cls,
        directory: Path,
        where: str,
        forwards: Iterable[str],
        reactor: IReactorTime | None = None,
    ) -> ClientLease:
        """
        Take up the lease of the last client of this kind.

        @param directory: Where clients keep their state.
        @param where: The server.
        @param forwards: The forwards' texts.
        @param reactor: Tells when to try again to write the file; without it,
            that is when there is something else to write.
        """
        lease = cls(cls._pathFor(directory, where, forwards), reactor)
        lease._open()
        return lease

    @staticmethod
    def _pathFor(directory: Path, where: str, forwards: Iterable[str]) -> Path:
        """Name the file of a client."""
        what = "\0".join([where, *forwards]).encode()
        return directory / f"lease-{sha256(what).hexdigest()[:16]}.json"

    def moveTo(self, directory: Path, where: str, forwards: Iterable[str]) -> None:
        """
        Become the lease of a client that has other forwards now.

        @param directory: As for L{forClient}, like the rest.
        """
        path = self._pathFor(directory, where, forwards)
        old = self._file
        if old is None or path == old.path:
            return
        self._file = LockedFile(path)
        self.save()
        old.remove()

    @property
    def isKept(self) -> bool:
        """Whether it is in a file for the next client of this kind."""
        return self._file is not None

    def asOffer(self) -> dict[str, object]:
        """What the handshake says of it."""
        said = {"id": self.id, "secret": self.secret, "fence": self.fence}
        return {key: value for key, value in said.items() if value and self.id}

    def granted(self, lease: dict[str, object], tunnels: list[str]) -> None:
        """
        Take the server's answer: the old lease goes on, or a new one begins.

        @param tunnels: URIs that the lease has kept open.
        """
        identifier, secret = lease.get("id"), lease.get("secret")
        if isinstance(identifier, str) and isinstance(secret, str):
            self.id, self.secret = identifier, secret
        self.fence = _fenceIn(lease)
        kept = set(tunnels)
        self.uris = {spec: uri for spec, uri in self.uris.items() if uri in kept}
        self.save()

    def opened(self, spec: str, uri: str, port: int, name: str = "") -> None:
        """Remember the tunnel of a forward."""
        self.uris[spec] = uri
        self.ports[spec] = port
        if name:
            self.names[spec] = name
        self._saveSoon()

    def renamed(self, spec: str, other: str) -> None:
        """Note that the text of a forward has changed, and not its tunnel."""
        for table in (self.uris, self.ports, self.names):
            known: dict[str, Any] = table
            if spec in known:
                known[other] = known.pop(spec)

    def specOf(self, uri: str) -> str | None:
        """Find the forward that a tunnel is for."""
        for spec, known in self.uris.items():
            if known == uri:
                return spec
        return None

    def _open(self) -> None:
        """Lock the file and read it."""
        file = self._file
        if file is None:
            return
        try:
            content = file.take().read(_MAX_FILE)
        except BlockingIOError:
            self._taken()
        except OSError as error:
            self._failed(file, "cannot be used", error)
        else:
            self._read(file, content)

    def _taken(self) -> None:
        """Remember in memory, as another client has the file."""
        self._log.info(
            "Another client like this one runs; this one gets tunnels of its own"
        )
        self._letGo()

    def _read(self, file: LockedFile, content: bytes) -> None:
        """Take over what the file says, if it makes sense."""
        try:
            state = json.loads(content or b"{}")
            identifier, secret = str(state.get("id", "")), str(state.get("secret", ""))
            uris = {str(k): str(v) for k, v in state.get("uris", {}).items()}
            ports = {str(k): int(v) for k, v in state.get("ports", {}).items()}
            names = {str(k): str(v) for k, v in state.get("names", {}).items()}
            if not all(0 <= port < 65536 for port in ports.values()):
                raise ValueError("no port")
            self.id, self.secret, self.fence = identifier, secret, _fenceIn(state)
            self.uris, self.ports, self.names = uris, ports, names
            if salt := bytes.fromhex(state.get("salt", "")):
                self.salt = salt
        except (ArithmeticError, AttributeError, RecursionError, TypeError, ValueError):
            self._log.warn("{path} is damaged and was ignored", path=str(file.path))

    def _saveSoon(self) -> None:
        """
        Write the file; with many tunnels, which open one after another, not for each of
        them: writing takes at most a twentieth of the time.
        """
        reactor, few = self._reactor, len(self.uris) < MANY
        if few or reactor is None or self._trouble or reactor.seconds() >= self._rested:
            self.save()
        elif self._trying is None or not self._trying.active():
            wait = self._rested - reactor.seconds()
            self._trying = reactor.callLater(wait, self.save)

    def save(self) -> None:
        """
        Write the file; a lease is worth less than a running client, so a failure is
        only logged, once, and writing is tried again.
        """
        file = self._file
        if file is None:
            return
        began = 0.0 if self._reactor is None else self._reactor.seconds()
        try:
            file.replace(self._written())
        except BlockingIOError:
            self._taken()
            return
        except OSError as error:
            self._failed(file, "was not written", error)
            return
        if self._trouble:
            self._trouble = ""
            self._log.info("{path} can be written again", path=str(file.path))
        stopTimer(self._trying)
        if self._reactor is not None:
            now = self._reactor.seconds()
            self._rested = now + 19 * (now - began)

    def _written(self) -> bytes:
        """What the file is to say."""
        state = {
            "id": self.id,
            "secret": self.secret,
            "fence": self.fence,
            "uris": self.uris,
            "ports": self.ports,
            "names": self.names,
            "salt": self.salt.hex(),
        }
        return json.dumps(state).encode()

    def _failed(self, file: LockedFile, what: str, error: OSError) -> None:
        """Say what is wrong, once, and try again."""
        trouble = str(error.strerror)
        if trouble != self._trouble:
            self._trouble = trouble
            self._log.warn(
                "{path} {what} ({error}): after a restart this client may get other"
                " ports; make room, or give it a writable --state-dir",
                path=str(file.path),
                what=what,
                error=trouble,
            )
        stopTimer(self._trying)
        if self._reactor is not None and not self._closed:
            self._trying = self._reactor.callLater(TRY_AGAIN, self.save)

    def close(self) -> None:
        """Let go of the file."""
        self._closed = True
        if self._trouble or (self._trying is not None and self._trying.active()):
            self.save()
        self._letGo()

    def _letGo(self) -> None:
        stopTimer(self._trying)
        file, self._file = self._file, None
        if file is not None:
            file.close()


def _fenceIn(lease: Mapping[str, object]) -> int:
    fence = lease.get("fence")
    return fence if type(fence) is int else 0
