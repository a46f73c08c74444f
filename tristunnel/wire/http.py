"""
HTTP/1 from a peer that may be anybody: feed bytes, get events.

httptools (the parser of Node.js) takes messages apart. What it accepts but another
program may read differently is refused here, so that programs behind us agree on where
a message begins and ends: anything but exactly one C{Host}, a C{Transfer-Encoding}
other than C{chunked}, a body with an upgrade, other versions, C{CONNECT}.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, ClassVar

from httptools import (
    HttpParserCallbackError,
    HttpParserError,
    HttpParserUpgrade,
    HttpRequestParser,
    HttpResponseParser,
)

__all__ = [
    "MOST_HEADERS",
    "MOST_HEAD_BYTES",
    "BadMessage",
    "Event",
    "Head",
    "Headers",
    "MessageEnd",
    "RequestHead",
    "RequestReader",
    "ResponseHead",
    "ResponseReader",
]

MOST_HEAD_BYTES = 32 * 1024
"""The most bytes of a head, or of a message's trailers."""

MOST_HEADERS = 100
"""The most headers of a message, trailers included."""

Headers = list[tuple[bytes, bytes, bytes]]
"""Each header's name in lower case, its name as it came, and its value."""


@dataclass(frozen=True, slots=True)
class BadMessage:
    """
    What came is not an acceptable message; the last event of a reader.

    @ivar status: The status with which an HTTP server answers.
    @ivar reason: What is wrong, in a few words.
    """

    status: int
    reason: str


@dataclass(frozen=True, slots=True)
class MessageEnd:
    """
    The end of a message.

    @ivar trailers: The headers after its body.
    """

    trailers: Headers


@dataclass(slots=True)
class Head:
    """
    What the heads of requests and responses have in common.

    @ivar version: C{"1.0"} or C{"1.1"}.
    @ivar headers: All of them, in their order.
    @ivar length: C{Content-Length}, or C{None}.
    @ivar chunked: Whether the body is in chunks.
    @ivar connection: The words of C{Connection}, in lower case.
    @ivar upgrade: What C{Upgrade} names, if C{Connection} says so; otherwise empty,
        also for an upgrade to another version of HTTP.
    """

    version: str
    headers: Headers
    length: int | None = None
    chunked: bool = False
    connection: frozenset[bytes] = frozenset()
    upgrade: bytes = b""

    @property
    def keepAlive(self) -> bool:
        """Whether another message may follow on the connection."""
        if self.version == "1.1":
            return b"close" not in self.connection
        return b"keep-alive" in self.connection

    def all(self, name: bytes) -> list[bytes]:
        """Find all headers of a name in lower case."""
        return [value for lower, _, value in self.headers if lower == name]

    def get(self, name: bytes) -> bytes:
        """Find the first header of a name in lower case; empty if there is none."""
        for lower, _, value in self.headers:
            if lower == name:
                return value
        return b""


@dataclass(slots=True)
class RequestHead(Head):
    """
    @ivar method: In upper case.
    @ivar target: The path and the query, or C{*}.
    @ivar host: The value of C{Host}.
    """

    method: bytes = b""
    target: bytes = b""
    host: bytes = b""

    @property
    def hasBody(self) -> bool:
        """Whether a body follows."""
        return self.chunked or bool(self.length)


@dataclass(slots=True)
class ResponseHead(Head):
    """
    @ivar status: 100 to 599.
    @ivar reason: The phrase after it.
    """

    status: int = 0
    reason: bytes = b""

    @property
    def isInterim(self) -> bool:
        """Whether another response to the same request follows."""
        return self.status < 200 and self.status != 101


Event = RequestHead | ResponseHead | bytes | MessageEnd | BadMessage
"""What a reader returns."""

_NOTHING: Headers = []
_END = MessageEnd(_NOTHING)
_LOOKED_AT = frozenset(
    (b"connection", b"content-length", b"host", b"transfer-encoding", b"upgrade")
)
_ABSOLUTE = re.compile(rb"https?://([^/?#]*)(.*)", re.IGNORECASE | re.DOTALL)
_ODD = re.compile(rb"[^\x21-\x7e]")
_HOST = re.compile(
    rb"[A-Za-z0-9._-]+(?::[0-9]{1,5})?|\[[0-9A-Fa-f:.]+\](?::[0-9]{1,5})?"
)
# With h2c, more requests would pass though only the first was checked.
_HTTP = re.compile(rb"h2|http|tls", re.IGNORECASE)
_REFUSED_METHODS = frozenset((b"CONNECT", b"PRI", b"SOURCE", b"TRACE"))


class _Refusal(Exception):
    """Ends the parser's work from within."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.bad = BadMessage(status, reason)


def _checkCount(headers: Headers) -> None:
    if len(headers) > MOST_HEADERS:
        raise _Refusal(431, "the head has too much in it")


def _checkEncoding(encoding: bytes, head: Head) -> None:
    if encoding != b"chunked":
        raise _Refusal(501, "Transfer-Encoding is not chunked")
    if head.version == "1.0":
        raise _Refusal(400, "Transfer-Encoding is not for HTTP/1.0")


class _Reader:
    """
    What both directions have in common: the parser's events in a list, and the limits
    of a head.
    """

    makeParser: ClassVar[Any]

    def __init__(self) -> None:
        self._events: list[Event] = []
        self._headers: Headers = []
        self._start = b""
        self._inBody = False
        self._over = False
        self._silent = self._feeding = 0
        self._parser: Any = self.makeParser(self)

    @property
    def isBetween(self) -> bool:
        """Whether no message is half read."""
        return not (self._inBody or self._headers or self._start)

    @property
    def inBody(self) -> bool:
        """Whether a message's head is complete, but not its body."""
        return self._inBody

    def passOver(self) -> None:
        """
        Skip the rest of the present message's body, which is not given to this reader:
        what comes next begins another message.
        """
        self._parser = self.makeParser(self)
        self._silent = 0
        self._forget()

    def _fed(self, data: bytes) -> int | None:
        """
        Have the parser take bytes.

        @return: Where the bytes begin that are not HTTP, after an upgrade.
        """
        if self._over:
            return None
        events = self._events
        known = len(events)
        self._feeding = self._silent + len(data)
        try:
            self._parser.feed_data(data)
        except HttpParserUpgrade as upgrade:
            return int(upgrade.args[0])
        except HttpParserCallbackError as error:
            cause = error.__context__
            self._bad(cause.bad if isinstance(cause, _Refusal) else _UNREADABLE)
        except HttpParserError as error:
            status = 501 if "method" in str(error) else 400
            self._bad(BadMessage(status, _words(error)))
        self._silent = 0 if len(events) > known else self._silent + len(data)
        if self._silent > MOST_HEAD_BYTES:
            self._bad(BadMessage(431, "the head is too long"))
        return None

    def _bad(self, bad: BadMessage) -> None:
        if not self._over:
            self._over = True
            self._events.append(bad)

    def _taken(self) -> list[Event]:
        events, self._events = self._events, []
        return events

    # What httptools calls

    def on_header(self, name: bytes, value: bytes) -> None:
        # Their number is checked at the end; their bytes are limited.
        self._headers.append((name.lower(), name, value.strip(b" \t")))

    def on_body(self, body: bytes) -> None:
        self._events.append(body)

    def on_message_complete(self) -> None:
        headers = self._headers
        if headers and self._inBody:
            _checkCount(headers)
            self._events.append(MessageEnd(headers))
            self._headers = []
        else:
            self._events.append(_END)
        self._start = b""
        self._inBody = False

    def _forget(self) -> None:
        self._headers = []
        self._start = b""
        self._inBody = False

    def _read(self, head: RequestHead | ResponseHead) -> list[bytes]:
        """
        Read what matters in a head in both directions.

        @return: The value of each C{Host}.
        """
        if self._feeding > MOST_HEAD_BYTES:
            # Otherwise it cannot be too long, and need not be measured.
            size = sum(len(name) + len(value) for name, _, value in head.headers)
            if size > MOST_HEAD_BYTES:
                raise _Refusal(431, "the head is too long")
        _checkCount(head.headers)
        encoding = None
        upgrade = b""
        hosts = []
        for lower, _, value in head.headers:
            if lower not in _LOOKED_AT:
                continue
            if lower == b"host":
                hosts.append(value)
            elif lower == b"content-length":
                head.length = int(value)
            elif lower == b"transfer-encoding":
                if encoding is not None:
                    raise _Refusal(400, "Transfer-Encoding is there twice")
                encoding = value.lower()
            elif lower == b"connection":
                words = frozenset(map(bytes.strip, value.lower().split(b",")))
                head.connection |= words
            else:
                upgrade = value
        if encoding is not None:
            _checkEncoding(encoding, head)
            head.chunked = True
        if upgrade and b"upgrade" in head.connection and not _HTTP.search(upgrade):
            head.upgrade = upgrade
        return hosts

    def _begin(self, head: RequestHead | ResponseHead) -> None:
        self._headers = []
        self._inBody = True
        self._events.append(head)

    def _version(self) -> str:
        version: str = self._parser.get_http_version()
        if version not in ("1.1", "1.0"):
            raise _Refusal(505, "only HTTP/1.1 and HTTP/1.0 are understood")
        return version


_UNREADABLE = BadMessage(400, "the message cannot be read")


def _words(error: HttpParserError) -> str:
    return str(error.args[0] if error.args else error)[:100]


class RequestReader(_Reader):
    """
    Reads a visitor's requests.

    @ivar rest: What came after a request for an upgrade; it is not read before L{goOn}
        is called.
    """

    makeParser = HttpRequestParser

    def __init__(self) -> None:
        super().__init__()
        self.rest: bytes | None = None

    def feed(self, data: bytes) -> list[Event]:
        """
        Take bytes.

        @return: The events that they complete: heads, pieces of bodies, L{MessageEnd}s;
            and L{BadMessage} as the very last.
        """
        if self.rest is not None:
            self.rest += data
            return []
        offset = self._fed(data)
        if offset is not None:
            self.rest = data[offset:]
        return self._taken()

    def goOn(self) -> list[Event]:
        """Go on after a refused upgrade: read what came after the request as HTTP."""
        rest, self.rest = self.rest or b"", None
        self.passOver()
        return self.feed(rest) if rest else []

    def on_url(self, url: bytes) -> None:
        self._start += url
        if len(self._start) > MOST_HEAD_BYTES:
            raise _Refusal(414, "the target is too long")

    def on_headers_complete(self) -> None:
        head = RequestHead(self._version(), self._headers)
        head.method = self._parser.get_method()
        if head.method in _REFUSED_METHODS:
            raise _Refusal(405, f"{head.method.decode('ascii')} is not for names")
        target = self._start
        if _ODD.search(target):
            raise _Refusal(400, "the target has bytes that no target has")
        hosts = self._read(head)
        authority = None
        if not target.startswith(b"/"):
            if found := _ABSOLUTE.fullmatch(target):
                authority, target = found.groups()
                if not target.startswith(b"/"):
                    target = b"/" + target
            elif (target, head.method) != (b"*", b"OPTIONS"):
                raise _Refusal(400, "the target is no path")
        if len(hosts) != 1:
            # A request of HTTP/1.0 may lack it, but then nobody knows which site is
            # meant.
            raise _Refusal(400, "there must be one Host")
        if authority is not None and authority.lower() != hosts[0].lower():
            raise _Refusal(400, "Host is not the one of the target")
        if not _HOST.fullmatch(hosts[0]):
            raise _Refusal(400, "Host is not a name")
        head.host = hosts[0]
        head.target = target.partition(b"#")[0] if b"#" in target else target
        if head.hasBody and self._parser.should_upgrade():
            # Its body could not be told from the bytes after the upgrade.
            raise _Refusal(501, "a request with a body cannot ask for an upgrade")
        self._begin(head)


class ResponseReader(_Reader):
    """
    Reads a service's responses.

    @ivar toHead: Whether the next one answers a C{HEAD}, and so has no body whatever
        its headers say.
    @ivar rest: What came after a response that agrees to an upgrade.
    """

    makeParser = HttpResponseParser

    def __init__(self) -> None:
        super().__init__()
        self.toHead = False
        self.rest: bytes | None = None
        self._bodiless = False

    def feed(self, data: bytes) -> list[Event]:
        """
        Take bytes.

        @return: As L{RequestReader.feed}; a response without a length ends with
            L{ended}.
        """
        offset = self._fed(data)
        if offset is not None:
            self.rest = data[offset:]
        events = self._taken()
        if self._bodiless:
            events = self._withoutBody(events)
        return events

    def _withoutBody(self, events: list[Event]) -> list[Event]:
        """End a response to a HEAD after its head; what follows is not part of it."""
        kept: list[Event] = []
        for event in events:
            kept.append(event)
            if isinstance(event, ResponseHead) and not event.isInterim:
                break
        kept.append(_END)
        if any(isinstance(each, bytes) for each in events):
            # It is complete, but nobody knows where the next one would begin.
            kept.append(BadMessage(502, "a response to HEAD has a body"))
            self._over = True
        self._bodiless = self.toHead = False
        self.passOver()
        return kept

    def ended(self) -> list[Event]:
        """
        Take the end of the connection.

        @return: The end of a response that ends like this; L{BadMessage} in the middle
            of another.
        """
        if self._inBody and self._untilClose:
            self._forget()
            return [_END]
        if self.isBetween:
            return []
        return [BadMessage(502, "the service closed the connection too early")]

    def on_status(self, status: bytes) -> None:
        self._start += status
        if len(self._start) > MOST_HEAD_BYTES:
            raise _Refusal(502, "the status line is too long")

    def on_headers_complete(self) -> None:
        head = ResponseHead(self._version(), self._headers)
        head.status = self._parser.get_status_code()
        if not 100 <= head.status <= 599:
            raise _Refusal(502, "the status is none")
        head.reason = self._start
        self._read(head)
        self._begin(head)
        bodiless = head.status < 200 or head.status in (204, 304)
        self._untilClose = not (head.chunked or head.length is not None or bodiless)
        if self.toHead and not head.isInterim:
            self._bodiless = True

    _untilClose = False
