"""
What the client writes: the tunnels' addresses to its output, the rest to its
log.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import IO

from twisted.internet.interfaces import IAddress
from twisted.logger import Logger

from tristunnel.dialects.table import labelOf
from tristunnel.errors import TunnelError, printable
from tristunnel.model.observer import ClientObserver
from tristunnel.util.hosts import addressText
from tristunnel.util.log_limiter import BoundedLog, LogRateLimiter
from tristunnel.util.output import Output

__all__ = ["LoggingClientObserver"]

VISITS = 50
"""Visitors in an interval that get a line of their own."""

VISITS_INTERVAL = 10.0
"""Seconds of that interval."""


class LoggingClientObserver(ClientObserver):
    """
    Writes to the log. What visitors, the server and retries can cause to be written is
    bounded.

    @param output: Where the address of each tunnel and of each port for visitors
        goes, alone on a line; C{None} for nowhere.
    @param seconds: The clock.
    @param callLater: Has summaries of what happens too often written in time.
    """

    _log = Logger(namespace="tristunnel.client")

    def __init__(
        self,
        output: IO[str] | Output | None = None,
        seconds: Callable[[], float] = time.monotonic,
        callLater: Callable[..., object] | None = None,
    ) -> None:
        self._output = output
        self._visits = LogRateLimiter(seconds, callLater, VISITS_INTERVAL)
        self._bounded = BoundedLog(seconds, callLater)

    def connected(self, peer: IAddress) -> None:
        self._bounded(self._log.debug, "Connected to {peer}", peer=addressText(peer))

    def acknowledged(self, dialect: str) -> None:
        spoken = labelOf(dialect)
        if not spoken:
            self._bounded(self._log.info, "The server has admitted this client")
        else:
            self._bounded(
                self._log.info,
                "The server has admitted this client; it speaks {dialect}",
                dialect=spoken,
            )

    def tunnelReady(self, address: str, target: str) -> None:
        self._bounded(
            self._log.info,
            "Visitors of {address} reach {target}",
            address=address,
            target=target,
        )
        self._write(address)

    def knockLinkMade(self, address: str, link: str) -> None:
        self._bounded(
            self._log.info,
            "Visitors of {address} have to knock at {link}",
            address=address,
            link=link,
        )

    def portReady(self, address: str, what: str) -> None:
        self._write(address)

    def _write(self, address: str) -> None:
        if self._output is not None:
            try:
                # Scripts read it, so one address is one line.
                self._output.write(f"{printable(address)}\n")
                self._output.flush()
            except (OSError, ValueError):
                # Nobody reads it; the log has it too.
                self._output = None

    def tunnelFailed(self, wanted: str, reason: TunnelError) -> None:
        self._bounded(
            self._log.error,
            "No tunnel for {wanted}: {reason}",
            reason.code.name,
            wanted=wanted,
            reason=reason,
        )

    def disconnected(self, reason: TunnelError) -> None:
        if reason.final:
            return
        self._bounded(
            self._log.warn, "Not connected: {reason}", reason.code.name, reason=reason
        )

    def reconnectQueued(self, delay: float) -> None:
        self._bounded(self._log.info, "Trying again in {delay:.1f} s", delay=delay)

    def openingQueued(self, delay: float) -> None:
        self._bounded(self._log.info, "Asking again in {delay:.1f} s", delay=delay)

    def gaveUp(self, reason: TunnelError) -> None:
        self._log.critical("Giving up: {reason}", reason=reason)

    def serviceMissing(self, target: str) -> None:
        self._bounded(
            self._log.warn,
            "Nothing listens at {target} yet; start the service",
            target,
            target=target,
        )

    def serviceFound(self, target: str) -> None:
        self._bounded(self._log.info, "{target} listens now", target=target)

    def serviceHealth(self, target: str, isWell: bool, reason: str) -> None:
        if isWell:
            self._bounded(self._log.info, "{target} is well", target, target=target)
        else:
            self._bounded(
                self._log.warn,
                "{target} is not well, and gets no visitors: {reason}",
                target,
                target=target,
                reason=reason,
            )

    def serviceOnDemand(self, target: str, state: str, said: str) -> None:
        log = self._log.warn if state == "failed" else self._log.info
        self._bounded(log, "{target} {said}", target, target=target, said=said)

    def serviceFailed(self, target: str, reason: TunnelError) -> None:
        self._bounded(
            self._log.warn,
            "A visitor was turned away: {reason}",
            target,
            reason.code.name,
            reason=reason,
        )

    def serviceGone(
        self, target: str, received: int, sent: int, reason: TunnelError | None
    ) -> None:
        def event() -> None:
            self._log.debug(
                "A visitor of {target} left: {received} bytes from the service,"
                " {sent} to it{why}",
                target=target,
                received=received,
                sent=sent,
                why=f": {reason}" if reason else "",
            )

        self._visits.log(("visits",), event, self._crowd, VISITS)

    def _crowd(self, count: int, seconds: float) -> None:
        """Write how many more have left; a line for each would cost too much."""
        self._log.debug(
            "{count} more visitors left in {seconds:.0f} s",
            count=count,
            seconds=seconds,
        )
