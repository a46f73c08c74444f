"""
What a client remembers of its tunnels, also over a restart.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import IO

from twisted.logger import Logger

__all__ = ["ClientLease"]

_MAX_FILE = 1024 * 1024


class ClientLease:
    """
    The lease of a client's session, and which tunnel was for which forward.

    It is kept in a file that only its user can read. Two clients that are
    alike share no lease: the second finds the file locked and keeps its own
    in memory.

    @ivar id: The lease's name, or empty.
    @ivar secret: What proves that it is ours.
    @ivar uris: The tunnel of each forward, by the forward's text.
    @ivar ports: The port it had.
    """

    _log = Logger()

    def __init__(self, path: Path | None = None) -> None:
        self.id = ""
        self.secret = ""
        self.uris: dict[str, str] = {}
        self.ports: dict[str, int] = {}
        self._path = path
        self._lock: IO[bytes] | None = None

    @classmethod
    def forClient(
        cls, directory: Path, where: str, forwards: Iterable[str]
    ) -> ClientLease:
        """
        Take up what the last client of this kind has left.

        @param directory: Where clients keep their state.
        @param where: The server.
        @param forwards: The forwards' texts.
        """
        what = "\0".join([where, *forwards]).encode()
        lease = cls(directory / f"lease-{sha256(what).hexdigest()[:16]}.json")
        lease._open()
        return lease

    def asOffer(self) -> dict[str, object]:
        """
        What the handshake says of it.
        """
        return {"id": self.id, "secret": self.secret} if self.id else {}

    def granted(self, lease: dict[str, object], tunnels: list[str]) -> None:
        """
        Take the server's answer: the old lease goes on, or a new one begins.

        @param tunnels: URIs that the lease has kept open.
        """
        identifier, secret = lease.get("id"), lease.get("secret")
        if isinstance(identifier, str) and isinstance(secret, str):
            self.id, self.secret = identifier, secret
        self.uris = {
            spec: uri for spec, uri in self.uris.items() if uri in set(tunnels)
        }
        self.save()

    def opened(self, spec: str, uri: str, port: int) -> None:
        """
        Remember the tunnel of a forward.
        """
        self.uris[spec] = uri
        self.ports[spec] = port
        self.save()

    def specOf(self, uri: str) -> str | None:
        """
        Find the forward that a tunnel is for.
        """
        for spec, known in self.uris.items():
            if known == uri:
                return spec
        return None

    def _open(self) -> None:
        """
        Lock the file and read it.
        """
        path = self._path
        if path is None:
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            self._lock = os.fdopen(descriptor, "r+b")
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._log.info(
                "Another client like this one runs; this one's tunnels are its own"
            )
            self.close()
            self._path = None
            return
        except OSError as error:
            self._log.warn(
                "{path} cannot be used ({error}): after a restart this client may"
                " get other ports; give it a writable --state-dir",
                path=str(path),
                error=error.strerror,
            )
            self.close()
            self._path = None
            return
        self._read(self._lock.read(_MAX_FILE))

    def _read(self, content: bytes) -> None:
        """
        Take over what the file says, if it makes sense.
        """
        try:
            state = json.loads(content or b"{}")
            identifier, secret = str(state.get("id", "")), str(state.get("secret", ""))
            uris = {str(k): str(v) for k, v in state.get("uris", {}).items()}
            ports = {str(k): int(v) for k, v in state.get("ports", {}).items()}
            if not all(0 <= port < 65536 for port in ports.values()):
                raise ValueError("no port")
            self.id, self.secret = identifier, secret
            self.uris, self.ports = uris, ports
        except (ArithmeticError, AttributeError, RecursionError, TypeError, ValueError):
            self._log.warn("{path} is damaged and is not used", path=str(self._path))

    def save(self) -> None:
        """
        Write the file; a lease is worth less than a running client, so a
        failure is only told.
        """
        if self._lock is None:
            return
        state = {
            "id": self.id,
            "secret": self.secret,
            "uris": self.uris,
            "ports": self.ports,
        }
        try:
            # In place, since the lock is on this very file.
            self._lock.seek(0)
            self._lock.write(json.dumps(state).encode())
            self._lock.truncate()
            self._lock.flush()
        except OSError as error:
            self._log.warn(
                "{path} was not written: {error}",
                path=str(self._path),
                error=error.strerror,
            )

    def close(self) -> None:
        """
        Let go of the file.
        """
        if self._lock is not None:
            # What could not be written was told by L{save}.
            with suppress(OSError):
                self._lock.close()
            self._lock = None
