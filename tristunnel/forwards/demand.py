"""How a service is started for its visitors."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tristunnel.errors import badOption, printable
from tristunnel.util.command_line import programWords
from tristunnel.util.hosts import addressOf, parsePlace

__all__ = ["STREAM_WINDOW", "DemandPlan", "MagicPacket", "planOf"]

STREAM_WINDOW = 64 * 1024
"""Bytes that a visitor may send to a client that starts services, before any are taken.
What all visitors who wait have sent has to fit into the session."""

IDLE = 900.0
"""Seconds without a visitor after which a service is stopped, by default."""

WAIT = 60.0
"""Seconds in which a service must have started, by default."""

_MAC = re.compile(r"([0-9A-Fa-f]{2})([:-]?)(?:[0-9A-Fa-f]{2}\2){4}[0-9A-Fa-f]{2}")


@dataclass(frozen=True)
class MagicPacket:
    """
    The packet that wakes a machine.

    @ivar mac: Its network interface, six bytes.
    @ivar host: The IP address that the packet goes to.
    @ivar port: The UDP port there.
    """

    mac: bytes
    host: str = "255.255.255.255"
    port: int = 9

    @property
    def payload(self) -> bytes:
        """The bytes: six of 255, and the interface sixteen times."""
        return b"\xff" * 6 + self.mac * 16

    @classmethod
    def parse(cls, text: str) -> MagicPacket:
        """
        Read C{MAC[@ADDRESS[:PORT]]}.

        @raise TunnelError: C{bad-option}.
        """
        mac, at, where = text.partition("@")
        wrong = f"wake {printable(text, 60)!r}"
        if not _MAC.fullmatch(mac):
            raise badOption(
                f"{wrong}: write the interface's address, such as 00:11:22:aa:bb:cc"
            )
        octets = bytes.fromhex(re.sub("[:-]", "", mac))
        if not at:
            return cls(octets)
        try:
            host, port = parsePlace(where if ":" in where else f"{where}:9")
        except ValueError as error:
            raise badOption(f"{wrong}: {error}") from None
        if addressOf(host) is None:
            raise badOption(
                f"{wrong}: what follows @ is an IP address, such as the network's"
                " broadcast address 192.168.1.255"
            )
        return cls(octets, host, port)


@dataclass(frozen=True)
class DemandPlan:
    """
    How a service is started, and stopped.

    @ivar start: The command that starts it, in words; empty for none.
    @ivar stop: The command that stops it; empty to end what C{start} has started.
    @ivar wake: What wakes its machine, or C{None}.
    @ivar idle: Seconds without a visitor after which it is stopped; 0 for never.
    @ivar wait: Seconds in which it must have started.
    """

    start: tuple[str, ...] = ()
    stop: tuple[str, ...] = ()
    wake: MagicPacket | None = None
    idle: float = IDLE
    wait: float = WAIT


def planOf(
    start: str, stop: str, wake: str, idle: float = IDLE, wait: float = WAIT
) -> DemandPlan | None:
    """
    Read how a service is started.

    @param start: The command that starts it, as in a shell but without its variables
        and pipes; or empty.
    @param stop: The command that stops it, or empty.
    @param wake: C{MAC[@ADDRESS[:PORT]]}, or empty.
    @return: The plan; C{None} if nothing starts the service.
    @raise TunnelError: C{bad-option}.
    """
    if not (start or wake):
        if stop:
            raise badOption("stop goes with start or wake")
        return None
    return DemandPlan(
        programWords("start", start) if start else (),
        programWords("stop", stop) if stop else (),
        MagicPacket.parse(wake) if wake else None,
        idle,
        wait,
    )
