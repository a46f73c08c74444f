"""
The log beside a screen, which is not written over the picture: what is wrong must
be seen all the same.
"""

from __future__ import annotations

from collections import deque

from twisted.logger import (
    ILogObserver,
    LogEvent,
    LogLevel,
    formatEvent,
    globalLogPublisher,
)
from zope.interface import implementer

from tristunnel.client.log import LoggingClientObserver
from tristunnel.util.events import RecentEvents
from tristunnel.util.words import printable

__all__ = ["ScreenLog"]

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
            text = printable(first)
            self._events.add("log", text, level, same=text)
