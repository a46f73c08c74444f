"""
The log beside a screen: twistd must not write it over the picture, and what is
wrong must be seen all the same.
"""

from __future__ import annotations

from collections import deque

from twisted.application.service import MultiService, Service
from twisted.logger import (
    ILogObserver,
    LogEvent,
    LogLevel,
    formatEvent,
    globalLogPublisher,
)
from twisted.python.components import Componentized
from zope.interface import implementer

from tristunnel.client.events import RecentEvents
from tristunnel.client.log import LoggingClientObserver
from tristunnel.text.words import printable

__all__ = ["ScreenLog", "Silenced"]

_LEVELS = {LogLevel.warn: "warn", LogLevel.error: "error", LogLevel.critical: "error"}

_TRACEBACKS = 5


@implementer(ILogObserver)
class ScreenLog:
    """
    Makes warnings of the log events of the screen, but for those that are there
    already.

    @param events: Where they go.

    @ivar tracebacks: Of the last failures, for which the screen has no room.
    @ivar fatal: What was said last of what ends the program.
    """

    def __init__(self, events: RecentEvents) -> None:
        self.tracebacks: deque[str] = deque(maxlen=_TRACEBACKS)
        self.fatal: deque[str] = deque(maxlen=_TRACEBACKS)
        self._events = events

    def start(self) -> None:
        """
        Listen to the log.
        """
        globalLogPublisher.addObserver(self)

    def stop(self) -> None:
        """
        Listen no more.
        """
        globalLogPublisher.removeObserver(self)

    def __call__(self, event: LogEvent) -> None:
        """
        Something was logged.
        """
        level = _LEVELS.get(event.get("log_level", LogLevel.info))
        source = event.get("log_source")
        if level is None or isinstance(source, LoggingClientObserver):
            return
        text = formatEvent(event)
        failure = event.get("log_failure")
        if failure is not None:
            text = f"{text}: {failure.getErrorMessage()}" if text else str(failure)
            self.tracebacks.append(failure.getTraceback())
        elif event.get("log_level") is LogLevel.critical:
            self.fatal.append(printable(text))
        first = text.strip().partition("\n")[0]
        if first:
            self._events.add("log", printable(first), level)


class Silenced(MultiService):
    """
    A service whose log C{twistd} keeps from the terminal: C{twistd} looks for
    an observer among the components of the application that the service becomes
    a part of.

    @param service: The service itself.
    """

    def __init__(self, service: Service) -> None:
        super().__init__()
        service.setServiceParent(self)

    def setServiceParent(self, parent: object) -> None:
        """
        Become part of an application, and have it use the observer.
        """
        if isinstance(parent, Componentized):
            parent.setComponent(ILogObserver, _nowhere)
        super().setServiceParent(parent)


@implementer(ILogObserver)
class _Nowhere:
    """
    Drops events.
    """

    def __call__(self, event: LogEvent) -> None:
        """
        Drop one.
        """


_nowhere = _Nowhere()
