"""
The log: as text or as JSON (C{--log-format}), a line for each event, to a file,
the standard output or the system's log.

Twisted's own JSON log is made to be read by Twisted. This one is made for
programs that collect logs: what happened is in C{message}, and what it is made
of has names.

All of it passes L{textLine} or L{jsonLine}, where what is not printable is
replaced: an event may quote anybody. Nothing of it ever waits for a reader.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from twisted.application.service import MultiService, Service
from twisted.logger import ILogObserver, LogEvent, LogLevel, eventAsText, formatEvent
from twisted.python.components import Componentized
from zope.interface import implementer

from tristunnel.errors import TunnelError, printable
from tristunnel.util.log_limiter import LogRateLimiter
from tristunnel.util.output import LogFile, Output, outputOf
from tristunnel.util.words import checkChoice

__all__ = ["FORMATS", "Log", "checkFormat", "jsonLine", "shortLine", "textLine"]

FORMATS = ("text", "json")

LINES = 2000
"""Lines of one kind in a minute. Whatever visitors and peers can cause has a closer
bound where it is logged; this one is for what nobody has thought of."""

FAILURES = 20
"""Tracebacks of one kind in a minute."""

_MORE = "{count} more lines like this one in {seconds:.0f} s: {line}"

_LONGEST = 8000
"""Characters of a message."""

_RETRIES = "twisted.application._client_service.ClientService"
"""Tells of each attempt to have a connection again. Whoever wants that connection says
itself, and not each time, what is wrong with it."""

# What Twisted puts into events for programs from before twisted.logger.
_OLD = frozenset(
    ("format", "isError", "message", "printed", "system", "time", "failure", "why")
)
_OURS = frozenset(("time", "level", "logger", "message", "format", "code", "traceback"))


def checkFormat(name: str) -> None:
    """
    @raise TunnelError: C{bad-option}, if that is no format.
    """
    checkChoice("log-format", name, FORMATS)


def _clean(text: str) -> str:
    return printable(text.strip().replace("\n", " "), _LONGEST)


def _traceback(event: LogEvent) -> list[str]:
    if "log_failure" not in event:
        return []
    lines = event["log_failure"].getTraceback().rstrip().split("\n")
    return [printable(line, _LONGEST) for line in lines]


def textLine(event: LogEvent) -> str | None:
    """
    Write an event in the way of C{twistd}: its lines after the first one, which
    only tracebacks have, begin with a tab.

    @return: Lines with their ends; C{None} for an event that says nothing.
    """
    traceback = _traceback(event)
    if traceback and not formatEvent(event):
        event = {**event, "log_format": "A failure"}
    text = eventAsText(event, includeTraceback=False)
    return "\n\t".join([_clean(text), *traceback]) + "\n" if text else None


def shortLine(event: LogEvent) -> str | None:
    """Write an event for people: the time of day, and what happened."""
    traceback = _traceback(event)
    text = formatEvent(event) or ("A failure" if traceback else "")
    if not text:
        return None
    level = event.get("log_level", LogLevel.info)
    mark = {LogLevel.warn: "warning: ", LogLevel.error: "error: "}.get(level, "")
    at = time.strftime("%H:%M:%S", time.localtime(event.get("log_time") or 0.0))
    return "\n\t".join([f"{at} {mark}{_clean(text)}", *traceback]) + "\n"


def _ofProcess(event: LogEvent, process: str) -> LogEvent:
    """Have an event say which of a server's processes it is of."""
    level = getattr(event.get("log_level"), "name", "info")
    where = event.get("log_system") or f"{event.get('log_namespace', '-')}#{level}"
    return {**event, "process": process, "log_system": f"{where} in process {process}"}


def _plain(value: object) -> object:
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float) and value == value and abs(value) < 1e300:
        return value
    return _clean(str(value))


def jsonLine(event: LogEvent) -> str | None:
    """
    Write an event.

    @return: The line with its end; C{None} for an event that says nothing.
    """
    message, traceback = formatEvent(event), _traceback(event)
    if not message and not traceback:
        return None
    level = event.get("log_level")
    seconds = event.get("log_time") or 0.0
    line: dict[str, object] = {
        "time": datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds"),
        "level": getattr(level, "name", "info"),
        "logger": _clean(str(event.get("log_namespace") or "")),
        "message": _clean(message),
    }
    if "log_format" in event:
        # The same for all events of a kind.
        line["format"] = _clean(str(event["log_format"]))
    for name, value in event.items():
        if name.startswith("log_") or name in _OLD or name in _OURS or callable(value):
            continue
        line[_clean(name)] = _plain(value)
        if isinstance(value, TunnelError):
            line["code"] = value.code.name
    if traceback:
        line["traceback"] = "\n".join(traceback)
    return json.dumps(line, ensure_ascii=False) + "\n"


@implementer(ILogObserver)
class Log:
    """
    Writes the log of a process to where C{twistd}, by its own options, does.

    @param options: Those of the command, within those of C{twistd}; without
        C{twistd} around them, nothing is written.
    @param screen: Whether the terminal is not for lines.
    @param seconds: The clock.
    @param warnings: Whether it has warnings and what is worse alone, where people look
        at it.
    @raise SystemExit: If there is no such place.
    """

    def __init__(
        self,
        options: Any,
        screen: bool = False,
        seconds: Callable[[], float] = time.monotonic,
        warnings: bool = False,
    ) -> None:
        outer: Mapping[str, Any] = getattr(options, "parent", None) or {}
        # Whoever says --logger has an observer of their own.
        self._inside = "nodaemon" in outer and not outer.get("logger")
        isJSON = options.get("log-format") == "json"
        # A program of tristunnel's own, which people look at.
        self._plain = bool(getattr(outer, "program", ""))
        self._least = LogLevel.warn if warnings else LogLevel.info
        self._stream = sys.__stderr__ if self._plain else sys.__stdout__
        self._quiet = LogRateLimiter(seconds)
        membership = getattr(options, "membership", None)
        self._process = None if membership is None else str(membership.index)
        self._line = jsonLine if isJSON else shortLine if self._plain else textLine
        self._file: LogFile | None = None
        self._others: list[LogFile] = []
        self._write: Callable[[str, LogEvent], object] = lambda text, event: None
        if self._inside:
            self._place(outer, screen)

    def _place(self, outer: Mapping[str, Any], screen: bool) -> None:
        name = outer.get("logfile")
        if outer.get("syslog"):
            self._write = _systemLog(outer.get("prefix") or "")
            return
        if name == "-" and not outer["nodaemon"]:
            sys.exit("Daemons cannot log to stdout, exiting!")
        place: LogFile | Output | None
        if name == "-" or (not name and outer["nodaemon"]):
            place = None if screen else outputOf(self._stream)
        else:
            name = name or "twistd.log"
            try:
                place = self._file = LogFile(name)
            except OSError as error:
                sys.exit(f"The log file {name} cannot be written: {error.strerror}")
        if place is not None:
            place.notice = self._dropped
            write = place.write
            self._write = lambda text, event: write(text)

    def __call__(self, event: LogEvent) -> None:
        if self._isNoise(event):
            return
        if self._process is not None:
            event = _ofProcess(event, self._process)
        text = str(event.get("log_format") or "")
        failed = "log_failure" in event

        def write() -> None:
            line = self._line(event)
            if line is not None:
                self._write(line, event)

        def summary(count: int, seconds: float) -> None:
            told = {**event, "log_format": _MORE, "count": count, "seconds": seconds}
            told.pop("log_failure", None)
            self._write(self._line({**told, "line": text}) or "", event)

        kind = (str(event.get("log_namespace")), text, str(failed))
        self._quiet.log(kind, write, summary, FAILURES if failed else LINES)

    def _isNoise(self, event: LogEvent) -> bool:
        """Whether it is a retry; for people also a detail, or what Twisted says."""
        level = event.get("log_level", LogLevel.info)
        name = str(event.get("log_namespace", ""))
        if not self._plain:
            return name == _RETRIES and level is LogLevel.info
        own = name.startswith("twisted.") or name == "log_legacy"
        return level < self._least or (own and level is LogLevel.info)

    def _dropped(self, count: int) -> str:
        event: LogEvent = {
            "log_format": "{count} lines were dropped because nobody read this output",
            "log_level": LogLevel.warn,
            "log_namespace": "tristunnel.log",
            "log_time": datetime.now(UTC).timestamp(),
            "count": count,
        }
        return self._line(event) or ""

    def line(self, text: str) -> None:
        """Write a line that another process has made, as it is."""
        self._write(f"{text}\n", {})

    def take(self, other: LogFile) -> None:
        """Have another file turned over with this one."""
        self._others.append(other)

    def reopen(self) -> None:
        """Open the files anew that somebody has renamed."""
        for file in self._files():
            file.reopen()

    def turn(self) -> None:
        """Begin other files; see L{LogFile.turn}."""
        for file in self._files():
            file.turn()

    def _files(self) -> list[LogFile]:
        return [*([self._file] if self._file else []), *self._others]

    def around(self, service: Service) -> Service:
        """Have C{twistd} use this log for a service."""
        return _Logged(service, self) if self._inside else service


class _Logged(MultiService):
    """
    C{twistd} looks for an observer among the components of the application that
    a service becomes a part of.
    """

    def __init__(self, service: Service, observer: Log) -> None:
        super().__init__()
        self._observer = observer
        service.setServiceParent(self)

    def setServiceParent(self, parent: object) -> None:
        if isinstance(parent, Componentized):
            parent.setComponent(ILogObserver, self._observer)
        super().setServiceParent(parent)


def _systemLog(prefix: str) -> Callable[[str, LogEvent], object]:
    from twisted.python.syslog import SyslogObserver

    observer = SyslogObserver(prefix)

    def write(text: str, event: LogEvent) -> None:
        isError = event.get("log_level") in (LogLevel.error, LogLevel.critical)
        observer.emit({"message": (text,), "isError": isError, "system": "-"})

    return write
