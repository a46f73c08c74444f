"""
chisel's dialect at the client: a session with a chisel server.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tristunnel.dataplane.flows import TableFlow
from tristunnel.dialects.chisel.flows import ChannelFlows
from tristunnel.dialects.conch.channel import Channel
from tristunnel.dialects.conch.client import Credentials
from tristunnel.dialects.conch.client_session import SSHClientSession
from tristunnel.dialects.conch.connection import Connection
from tristunnel.dialects.conch.hostkey import fingerprintOf
from tristunnel.errors import TunnelError
from tristunnel.forwards.forward import Forward
from tristunnel.forwards.udp import UDPConnector
from tristunnel.model.observer import ClientObserver
from tristunnel.util.hosts import parsePlace
from tristunnel.wire.chisel import (
    CHANNEL,
    CLIENT_VERSION,
    CONFIG,
    PING,
    VERSION,
    Remote,
    packConfig,
)
from tristunnel.wire.ssh import Fields

__all__ = ["ChiselClientSession"]


class ChiselClientSession(SSHClientSession):
    """
    A session with a chisel server.

    @param fingerprint: Of the server's key, as C{ssh-keygen -l} shows it; empty for
        any.
    """

    speaks = "chisel"
    ping = PING

    def __init__(
        self,
        reactor: Any,
        credentials: Credentials,
        forwards: Sequence[Forward],
        observer: ClientObserver,
        host: str,
        fingerprint: str = "",
    ) -> None:
        super().__init__(reactor, credentials, forwards, observer, host)
        self.link.ourVersionString = CLIENT_VERSION
        self.link.versions = (VERSION, *self.link.versions)
        self._fingerprint = fingerprint
        self._datagrams = UDPConnector(observer)
        self._remotes = {_remoteFor(each): each for each in forwards}

    def judge(self, key: bytes) -> None:
        shown = fingerprintOf(key)
        if self._fingerprint not in ("", shown):
            raise TunnelError(
                "bad-pin",
                f"the server's key is {shown}, and not that of --host-key: it is"
                " another server, or has a new key",
            )

    def begin(self, connection: Connection) -> None:
        asked = connection.ask(CONFIG, packConfig(self._remotes))
        asked.addCallbacks(self._answered, self._refused)

    def _answered(self, said: bytes) -> None:
        if said:
            # chisel's programs take any text as a refusal.
            self._tellRefused(said[:500].decode("utf-8", "replace"))
            return
        for forward in self._forwards:
            self.ready(forward)

    def _refused(self, failure: Any) -> None:
        if self.lost is None:
            self._tellRefused(getattr(failure.value, "message", ""))

    def _tellRefused(self, why: str) -> None:
        reason = TunnelError("port-taken", f"the server refused: {why}")
        for forward in self._forwards:
            self._observer.tunnelFailed(forward.wanted, reason)
        self.fail(reason)

    def datagramsCome(self, channel: Channel, forward: Forward) -> None:
        service: Any = forward.endpoint

        def arrived(flow: TableFlow) -> None:
            self._datagrams.connect(flow, forward.target, service, lambda flow: None)

        channel.accept()
        ChannelFlows(self.link.reactor, channel, arrived)

    def forwardOf(self, kind: str, fields: Fields) -> Forward:
        name = fields.rest().decode("utf-8", "replace")
        for remote, forward in self._remotes.items():
            if kind == CHANNEL and remote.target == name:
                return forward
        raise TunnelError("unknown-tunnel", "that service is not offered")


def _remoteFor(forward: Forward) -> Remote:
    """Make the remote for a forward, whose service gets a name of its own."""
    try:
        host, port = parsePlace(forward.target.removeprefix("udp:"))
    except ValueError:
        host, port = "service", forward.port
    return Remote("0.0.0.0", forward.port, host, port, forward.isUDP)
