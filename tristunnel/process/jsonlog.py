"""
C{--log-format json}: the log as JSON, an object a line.

Twisted's own JSON log is made to be read by Twisted. This one is made for
programs that collect logs: what happened is in C{message}, and what it is made
of has names.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, TextIO

from twisted.application.service import MultiService, Service
from twisted.logger import FileLogObserver, ILogObserver, LogEvent, formatEvent
from twisted.python.components import Componentized
from twisted.python.logfile import LogFile

from tristunnel.errors import TunnelError

__all__ = ["FORMATS", "JSONLogged", "checkFormat", "jsonLine", "logged"]

FORMATS = ("text", "json")

# What Twisted puts into events for programs from before twisted.logger.
_OLD = frozenset(
    ("format", "isError", "message", "printed", "system", "time", "failure", "why")
)
_OURS = frozenset(("time", "level", "logger", "message", "format", "code", "traceback"))


def checkFormat(name: str) -> None:
    """
    @raise TunnelError: C{bad-option}, if that is no format.
    """
    if name not in FORMATS:
        raise TunnelError(
            "bad-option", f"--log-format {name!r} is not known; write text or json"
        )


def _plain(value: object) -> object:
    """
    A value as JSON can have it.
    """
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if value == value and abs(value) < 1e300 else str(value)
    return str(value)


def jsonLine(event: LogEvent) -> str | None:
    """
    Write an event.

    @return: The line with its end; C{None} for an event that says nothing.
    """
    message = formatEvent(event)
    if not message and "log_failure" not in event:
        return None
    level = event.get("log_level")
    seconds = event.get("log_time") or 0.0
    line: dict[str, object] = {
        "time": datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds"),
        "level": getattr(level, "name", "info"),
        "logger": str(event.get("log_namespace") or ""),
        "message": message,
    }
    if "log_format" in event:
        # The same for all events of a kind.
        line["format"] = str(event["log_format"])
    for name, value in event.items():
        if name.startswith("log_") or name in _OLD or name in _OURS or callable(value):
            continue
        line[name] = _plain(value)
        if isinstance(value, TunnelError):
            line["code"] = value.code.name
    if "log_failure" in event:
        line["traceback"] = event["log_failure"].getTraceback()
    return json.dumps(line, ensure_ascii=False, default=str) + "\n"


class JSONLogged(MultiService):
    """
    A service that has C{twistd} log in JSON: C{twistd} looks for an observer
    among the components of the application that the service becomes a part of.

    @param service: The service itself.
    @param observer: Where events are to go.
    """

    def __init__(self, service: Service, observer: FileLogObserver) -> None:
        super().__init__()
        self._observer = observer
        service.setServiceParent(self)

    def setServiceParent(self, parent: object) -> None:
        """
        Become part of an application, and have it use the observer.
        """
        if isinstance(parent, Componentized):
            parent.setComponent(ILogObserver, self._observer)
        super().setServiceParent(parent)


def _fileFor(options: Mapping[str, Any]) -> TextIO:
    """
    Where C{twistd}, by its own options, writes the log.
    """
    name = options.get("logfile")
    if name == "-" or (not name and options.get("nodaemon")):
        return sys.stdout
    file: TextIO = LogFile.fromFullPath(name or "twistd.log")
    return file


def logged(service: Service, options: Any) -> Service:
    """
    Have a service's log written as its options say.

    @param options: Those of the command, within those of C{twistd}.
    """
    if options["log-format"] != "json":
        return service
    outer = getattr(options, "parent", None) or {}
    return JSONLogged(service, FileLogObserver(_fileFor(outer), jsonLine))
