"""Reporting certificates that cannot be read any more, or will expire."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from twisted.application.service import Service
from twisted.logger import (
    ILogObserver,
    LogEvent,
    Logger,
    LogLevel,
    formatEvent,
    globalLogPublisher,
)
from zope.interface import implementer

from tristunnel.errors import TunnelError
from tristunnel.hooks.delivery import Hooks
from tristunnel.tls.pem import loadCertificates
from tristunnel.util.repeating import RepeatingCall
from tristunnel.util.words import age

__all__ = ["CertificateWatch"]

SOON = 14 * 86400.0
"""Seconds before its end from which a certificate is reported: Let's Encrypt's should
have been renewed two weeks before that."""

INTERVAL = 86400.0
"""Seconds between two looks."""

_ROOMS = ("tristunnel.tls", "tristunnel.acme")


@implementer(ILogObserver)
class CertificateWatch(Service):
    """
    Looks at certificates once a day, and listens to what is logged of them.

    @param reactor: Tells time.
    @param hooks: Who is told.
    @param paths: PEM files.
    """

    _log = Logger(namespace="tristunnel.hooks")

    def __init__(self, reactor: Any, hooks: Hooks, paths: Sequence[str]) -> None:
        self._hooks = hooks
        self._paths = paths
        self._looking = RepeatingCall(reactor, self._look)

    def startService(self) -> None:
        super().startService()
        globalLogPublisher.addObserver(self)
        self._looking.start(INTERVAL)

    def stopService(self) -> None:
        super().stopService()
        self._looking.stop()
        globalLogPublisher.removeObserver(self)

    def __call__(self, event: LogEvent) -> None:
        level, room = event.get("log_level"), str(event.get("log_namespace", ""))
        if level is not None and level >= LogLevel.warn and room.startswith(_ROOMS):
            self._hooks.tell("certificate-trouble", formatEvent(event))

    def _look(self) -> None:
        for path in self._paths:
            try:
                left = loadCertificates(path)[0].not_valid_after_utc.timestamp()
            except TunnelError:
                # Whoever uses it reports that.
                continue
            left -= time.time()
            if left < SOON:
                text = (
                    f"The certificate {path} expires in {age(left)}"
                    if left > 0
                    else f"The certificate {path} has expired"
                )
                self._log.warn("{text}", text=text)
                self._hooks.tell(
                    "certificate-trouble", text, path=path, seconds_left=round(left)
                )
