"""
vtunnel over SSH at the client.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from twisted.conch.ssh.keys import Key

from tristunnel.dialects.base.client_session import ASK_AGAIN
from tristunnel.dialects.conch.client import Credentials
from tristunnel.dialects.conch.client_session import SSHClientSession
from tristunnel.dialects.conch.connection import Connection
from tristunnel.errors import TunnelError
from tristunnel.forwards.forward import Forward
from tristunnel.model.observer import ClientObserver
from tristunnel.wire.ssh import Fields
from tristunnel.wire.vtunnel_ssh import (
    CHANNEL,
    LISTEN,
    USER,
    Listen,
    hostSeedFor,
    keyBlob,
    portIn,
)

__all__ = ["VTunnelSSHClientSession"]


class VTunnelSSHClientSession(SSHClientSession):
    """
    A session with a vtunnel server from version 0.1.0 on.

    @param seed: The client's private key; C{None} for none. With one, nobody but a
        server that knows its public key will do.
    """

    speaks = "vtunnel-ssh"

    def __init__(
        self,
        reactor: Any,
        seed: bytes | None,
        forwards: Sequence[Forward],
        observer: ClientObserver,
        host: str,
    ) -> None:
        key = expected = None
        if seed is not None:
            private = Ed25519PrivateKey.from_private_bytes(seed)
            key = Key(private)
            public = private.public_key().public_bytes_raw()
            theirs = Ed25519PrivateKey.from_private_bytes(hostSeedFor(public))
            expected = keyBlob(theirs.public_key().public_bytes_raw())
        super().__init__(reactor, Credentials(USER, key=key), forwards, observer, host)
        self._expected = expected
        self._byPort = {each.port: each for each in forwards if each.port}

    def judge(self, key: bytes) -> None:
        if self._expected not in (None, key):
            raise TunnelError(
                "bad-pin",
                "the server does not know this client's key: its host key would be"
                " made of that; give the server the public key, or another key here",
            )

    def begin(self, connection: Connection) -> None:
        self._connection = connection
        for forward in self._forwards:
            self._ask(forward)

    def _ask(self, forward: Forward) -> None:
        def ready(answer: bytes) -> None:
            if forward.hasHost:
                self._byPort[portIn(answer)] = forward
            self.ready(forward, f"http://{forward.name}" if forward.hasHost else "")

        def refused(failure: Any) -> None:
            reason = failure.value
            if self.lost is None and isinstance(reason, TunnelError):
                self.later(ASK_AGAIN, self._ask, forward)
                self._observer.tunnelFailed(forward.wanted, reason)

        asked = Listen(
            forward.port, forward.target, forward.name, forward.options.request
        )
        self._connection.ask(LISTEN, asked.pack()).addCallbacks(ready, refused)

    def forwardOf(self, kind: str, fields: Fields) -> Forward:
        forward = self._byPort.get(portIn(fields.rest()) if kind == CHANNEL else 0)
        if forward is None:
            raise TunnelError("unknown-tunnel", "that port was not requested")
        return forward
