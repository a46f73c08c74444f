"""What a client remembers of its tunnels, even over a restart."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from secrets import token_bytes
from typing import IO, Any

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from tristunnel.util.descriptor_calls import MOVABLE, lockFile
from tristunnel.util.platform import NO_FOLLOW, NOT_INHERITED
from tristunnel.util.repeating import stopTimer

__all__ = ["MANY", "TRY_AGAIN", "ClientLease"]

MANY = 100
"""With at least so many tunnels, a client does not write each of them down at once."""

TRY_AGAIN = 30.0
"""Seconds after which a file that could not be written is tried again."""

_MAX_FILE = 16 * 1024 * 1024


def _opened(path: Path) -> IO[bytes]:
    """
    Open a file for locking and reading, but not for writing, so that it can still be
    used on a disk that has become read-only.

    @raise OSError: If there is none, and it cannot be made.
    """
    flags = os.O_RDONLY | os.O_CREAT | NOT_INHERITED
    return os.fdopen(os.open(path, flags, 0o600), "rb")


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
        self._path = path
        self._reactor = reactor
        self._lock: IO[bytes] | None = None
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
        old, lock = self._path, self._lock
        if old is None or path == old:
            return
        self._path, self._lock = path, None
        self.save()
        if lock is not None:
            with suppress(OSError):
                os.unlink(old)
            with suppress(OSError):
                lock.close()

    @property
    def isKept(self) -> bool:
        """Whether it is in a file for the next client of this kind."""
        return self._path is not None

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
        try:
            self._lockFile()
            if self._lock is not None:
                self._read(self._lock.read(_MAX_FILE))
        except OSError as error:
            self._failed("cannot be used", error)

    def _lockFile(self) -> None:
        """
        Lock the file, unless another client has it.

        @raise OSError: If there can be no such file.
        """
        path = self._path
        if path is None:
            return
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        while True:
            lock = _opened(path)
            descriptor = lock.fileno()
            try:
                lockFile(descriptor)
                # Its owner may have replaced it meanwhile.
                current = os.path.samestat(os.fstat(descriptor), os.stat(path))
            except BlockingIOError:
                lock.close()
                self._log.info(
                    "Another client like this one runs; this one gets tunnels of its"
                    " own"
                )
                self._path = None
                return
            except OSError:
                lock.close()
                raise
            if current:
                self._lock = lock
                return
            lock.close()

    def _read(self, content: bytes) -> None:
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
            self._log.warn("{path} is damaged and was ignored", path=str(self._path))

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
        if self._path is None:
            return
        began = 0.0 if self._reactor is None else self._reactor.seconds()
        try:
            if self._lock is None:
                self._lockFile()
            if self._lock is not None and self._path is not None:
                self._lock = self._replaced(self._path, self._lock)
        except OSError as error:
            self._failed("was not written", error)
            return
        if self._trouble:
            self._trouble = ""
            self._log.info("{path} can be written again", path=str(self._path))
        self._stopTrying()
        if self._reactor is not None:
            now = self._reactor.seconds()
            self._rested = now + 19 * (now - began)

    def _replaced(self, path: Path, lock: IO[bytes]) -> IO[bytes]:
        """
        Write another file, and give it the name of the old one, so that whenever this
        program is killed, one of the two is there and complete.

        @param lock: The old file.
        @return: The new one, locked.
        @raise OSError: If there is no room; the old file is as it was.
        """
        state = {
            "id": self.id,
            "secret": self.secret,
            "fence": self.fence,
            "uris": self.uris,
            "ports": self.ports,
            "names": self.names,
            "salt": self.salt.hex(),
        }
        # The name is always the same, so that what a kill leaves is overwritten later.
        temporary = path.with_name(f"{path.name}.new")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | NO_FOLLOW
        descriptor = os.open(temporary, flags, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(json.dumps(state).encode())
                stream.flush()
                os.fsync(descriptor)
            new = _opened(temporary)
            try:
                lockFile(new.fileno())
                if not MOVABLE:
                    # It is locked again in a moment, below.
                    new.close()
                    lock.close()
                os.replace(temporary, path)
                if not MOVABLE:
                    new = _opened(path)
                    lockFile(new.fileno())
            except OSError:
                new.close()
                raise
        except OSError:
            with suppress(OSError):
                os.unlink(temporary)
            raise
        lock.close()
        return new

    def _failed(self, what: str, error: OSError) -> None:
        """Say what is wrong, once, and try again."""
        trouble = str(error.strerror)
        if trouble != self._trouble:
            self._trouble = trouble
            self._log.warn(
                "{path} {what} ({error}): after a restart this client may get other"
                " ports; make room, or give it a writable --state-dir",
                path=str(self._path),
                what=what,
                error=trouble,
            )
        self._stopTrying()
        if self._reactor is not None and not self._closed:
            self._trying = self._reactor.callLater(TRY_AGAIN, self.save)

    def _stopTrying(self) -> None:
        """Stop trying again."""
        stopTimer(self._trying)
        self._trying = None

    def close(self) -> None:
        """Let go of the file."""
        self._closed = True
        if self._trouble or (self._trying is not None and self._trying.active()):
            self.save()
        self._stopTrying()
        if self._lock is not None:
            # L{save} has logged what could not be written.
            with suppress(OSError):
                self._lock.close()
            self._lock = None
        self._path = None


def _fenceIn(lease: Mapping[str, object]) -> int:
    fence = lease.get("fence")
    return fence if type(fence) is int else 0
