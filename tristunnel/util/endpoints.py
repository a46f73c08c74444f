"""
Endpoint strings, the UNIX sockets that a killed program leaves, and ports that
cannot be had.
"""

from __future__ import annotations

import errno
import os
import re
import socket
import stat
import sys
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import quoteStringArgument, serverFromString
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import (
    IListeningPort,
    IProtocolFactory,
    IStreamServerEndpoint,
)
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.tcp import Port
from twisted.python.failure import Failure
from zope.interface import implementer

from tristunnel.errors import TunnelError, badOption
from tristunnel.util.hosts import addressOf
from tristunnel.util.platform import AF_UNIX
from tristunnel.util.words import nearest

__all__ = [
    "BACKLOG",
    "ClearedEndpoint",
    "cannotListen",
    "checkBeforeFork",
    "checkWritable",
    "clearStaleSocket",
    "inBackground",
    "listenInFull",
    "serverEndpoint",
    "splitEndpoint",
    "tellOfDaemon",
    "unknownKeywords",
    "whyNoEndpoint",
    "withoutBrackets",
]

BACKLOG = 4096
"""Connections that may wait to be accepted at a port or a UNIX socket; the kernel may
allow fewer. Twisted's 50 are too few for clients that all come back at once."""

_PARSERS_WORDS: tuple[tuple[re.Pattern[str], str], ...] = (
    (
        re.compile(r"Unknown endpoint type: '(tor|onion)'"),
        r"\1: comes with txtorcon: pip install txtorcon",
    ),
    (re.compile(r"Unknown endpoint type: (.*)"), r"unknown type \1"),
    (
        re.compile(r"(?:invalid literal for int|could not convert).*: (.*)"),
        r"\1 is not a number",
    ),
    (re.compile(r".* unexpected keyword argument '(.*)'"), r"it has no \1="),
    (re.compile(r".* missing \d+ required .*: '(.*)'"), r"the \1 is missing"),
    (re.compile(r".* takes .* positional arguments? but .*"), "it has too many parts"),
    (re.compile(r".* got multiple values for argument '(.*)'"), r"\1 is given twice"),
)
"""What Twisted's endpoint parsers raise, which is Python's words for the call of
a function, and what a person can make something of."""


_TYPES = ("haproxy", "ssl", "systemd", "tcp", "tcp6", "tls", "unix")

_BRACKETS = re.compile(
    r"(?<=[:=])\[([0-9a-fA-F.]*:[0-9a-fA-F:.]*(?:%[\w.%-]+)?)\](?=:|$)"
)


def withoutBrackets(description: str) -> str:
    """
    Write IPv6 addresses of an endpoint string as Twisted takes them: without
    brackets, and with quoted colons.
    """
    return _BRACKETS.sub(lambda found: found[1].replace(":", r"\:"), description)


def listenInFull(description: str, kind: str = "tcp", interface: str = "") -> str:
    """
    Write a place to listen at in full, if it is in one of the forms that people use
    elsewhere: C{PORT}, C{ADDRESS:PORT}, C{localhost:PORT}, C{*:PORT}, each perhaps
    behind C{tcp:} or C{ssl:}, and an absolute path for a UNIX socket.

    @param kind: What a place without one is.
    @param interface: The address for a port that stands alone; empty for all.
    @return: An endpoint string, or C{description} if it is in no such form.
    """
    place = description.strip()
    if place.startswith("/"):
        return f"unix:{quoteStringArgument(place)}"
    said, colon, rest = place.partition(":")
    isSaid = bool(colon) and said in ("tcp", "ssl")
    host, colon, port = (rest if isSaid else place).rpartition(":")
    if not (port.isascii() and port.isdecimal()) or (isSaid and not colon):
        return description
    if colon:
        interface = host.removeprefix("[").removesuffix("]")
        interface = {"*": "", "localhost": "127.0.0.1"}.get(interface, interface)
        if interface and addressOf(interface) is None:
            return description
    where = f":interface={quoteStringArgument(interface)}" if interface else ""
    return f"{said if isSaid else kind}:{port}{where}"


def splitEndpoint(description: str) -> tuple[str, list[str], dict[str, str]]:
    """
    Split an endpoint string as Twisted does: colons separate, C{=} makes a
    keyword, a backslash takes the next character as it is. Beyond that, brackets
    keep the colons of an IPv6 address.

    @return: The prefix, the other positional parts, the keywords.
    """
    parts: list[tuple[str | None, str]] = []
    key: str | None = None
    text = ""
    letters = iter(withoutBrackets(description))
    for letter in letters:
        if letter == "\\":
            text += next(letters, "")
        elif letter == ":":
            parts.append((key, text))
            key, text = None, ""
        elif letter == "=" and key is None:
            key, text = text, ""
        else:
            text += letter
    parts.append((key, text))
    positional = [value for name, value in parts if name is None]
    keywords = {name: value for name, value in parts if name is not None}
    return (positional[0] if positional else ""), positional[1:], keywords


def unknownKeywords(option: str, keywords: dict[str, str], known: set[str]) -> None:
    """
    @raise TunnelError: C{bad-option}, if there is a keyword beside C{known}.
    """
    unknown = sorted(set(keywords) - known)
    if unknown:
        raise badOption(
            f"{option}: {unknown[0]}= is not known; there is {', '.join(sorted(known))}"
        )


def whyNoEndpoint(prefix: str, error: Exception) -> str:
    """
    Say in plain words why a parser of Twisted did not take an endpoint string.

    @param prefix: Its kind.
    @param error: What was raised; parsers raise whatever comes to hand.
    """
    if prefix == "systemd" and isinstance(error, LookupError):
        return "systemd has passed no such socket; is it in the unit's .socket file?"
    text = str(getattr(error, "strerror", None) or error) or type(error).__name__
    for pattern, words in _PARSERS_WORDS:
        found = pattern.fullmatch(text)
        if found:
            if not prefix:
                return "it is empty"
            if prefix.replace(",", "").isdecimal() and "," in prefix:
                return "give the option again for each port"
            if addressOf(prefix) is not None:
                return f"the port is missing: {prefix}:9000"
            if "." in prefix and "Unknown" in text:
                return f"{prefix!r} is not an address of this machine"
            near = nearest(prefix, _TYPES, lists=False) if "Unknown" in text else ""
            return found.expand(words) + near
    return text


_ASK_TIME = 1.0


def clearStaleSocket(path: str) -> None:
    """
    Remove a socket, and its lock, if nobody listens there.

    @param path: The socket's path; one that begins with a null byte is no
        file. What is there and no socket is left alone.
    """
    if not path or path.startswith("\0"):
        return
    with suppress(OSError):
        if stat.S_ISSOCK(os.stat(path).st_mode) and _isDeaf(path):
            # The lock first: whoever sees a socket without one will ask, too.
            _unlock(path)
            os.unlink(path)
            return
    with suppress(OSError):
        if not os.path.lexists(path) and os.readlink(f"{path}.lock") == str(
            os.getpid()
        ):
            # We hold no lock yet, so it is that of a former life.
            _unlock(path)


def _unlock(path: str) -> None:
    lock = f"{path}.lock"
    if os.path.islink(lock):
        os.unlink(lock)


def _isDeaf(path: str) -> bool:
    """
    Whether nobody listens at a socket. A program that is too busy to answer
    does listen.
    """
    with socket.socket(AF_UNIX) as probe:
        probe.settimeout(_ASK_TIME)
        return probe.connect_ex(path) == errno.ECONNREFUSED


@implementer(IStreamServerEndpoint)
@dataclass(frozen=True)
class ClearedEndpoint:
    """
    A UNIX socket's endpoint that is not stopped by what is left of an earlier
    one.

    @ivar endpoint: Listens.
    @ivar path: The socket's path.
    """

    endpoint: IStreamServerEndpoint
    path: str

    def listen(self, factory: IProtocolFactory) -> Deferred[IListeningPort]:
        clearStaleSocket(self.path)
        listening: Deferred[IListeningPort] = self.endpoint.listen(factory)
        return listening


def serverEndpoint(reactor: Any, description: str) -> IStreamServerEndpoint:
    """
    Have Twisted read an endpoint string, in which IPv6 addresses may have
    brackets. L{BACKLOG} connections may wait there, unless it says how many. A UNIX
    socket's endpoint tidies up before it listens.

    @raise Exception: Whatever a parser raises.
    """
    prefix, parts, keywords = splitEndpoint(description)
    written = withoutBrackets(description)
    number = parts[0] if parts else keywords.get("port", "")
    if prefix in ("tcp", "tcp6") and number.isdecimal() and int(number[:6]) > 65535:
        raise ValueError(f"{number!r} is not a port")
    if prefix in ("tcp", "tcp6", "ssl", "unix") and "backlog" not in keywords:
        written += f":backlog={BACKLOG}"
    endpoint: IStreamServerEndpoint = serverFromString(reactor, written)
    path = parts[0] if parts else keywords.get("address", "")
    if prefix != "unix" or not path:
        return endpoint
    return ClearedEndpoint(endpoint, path)


_CURES: dict[int | None, tuple[str, str]] = {
    errno.EADDRINUSE: ("port-taken", "choose another or stop the program that uses it"),
    errno.EACCES: (
        "port-not-permitted",
        "choose one above 1023, or give this program CAP_NET_BIND_SERVICE",
    ),
    errno.EADDRNOTAVAIL: ("bad-option", "this machine does not have that address"),
}
"""What a port cannot be had for, and what to do about it."""


def cannotListen(what: str, failure: Failure) -> TunnelError:
    """
    Say why a port cannot be had.

    @param what: The option, and the endpoint it names.
    @param failure: How listening failed.
    """
    error = getattr(failure.value, "socketError", failure.value)
    why = getattr(error, "strerror", None) or str(error)
    number = getattr(error, "errno", None)
    code, cure = _CURES.get(number, ("bad-option", "choose another"))
    return TunnelError(code, f"{what} cannot be listened on: {why}; {cure}")


def inBackground(outer: Mapping[str, Any] | None) -> bool:
    """
    @param outer: The options of C{twistd} itself, or C{None}.
    @return: Whether it is to leave its terminal.
    """
    return (
        outer is not None
        and "nodaemon" in outer
        and not (outer["nodaemon"] or outer.get("debug"))
    )


def tellOfDaemon(outer: Mapping[str, Any] | None, what: str, how: str) -> None:
    """
    Say where to look, if this process is about to leave its terminal: C{twistd}
    does so without a word.

    @param outer: The options of C{twistd} itself, or C{None}.
    @param what: What the program is: C{server}.
    @param how: How to find out what it does.
    """
    out = sys.__stdout__
    if outer is None or not inBackground(outer) or out is None:
        return
    log = "the system log" if outer.get("syslog") else ""
    name = os.path.join(outer.get("rundir") or "", outer.get("logfile") or "twistd.log")
    log = log or os.path.abspath(name)
    with suppress(OSError, ValueError):
        out.write(
            f"The {what} goes to the background. Its log is {log}; {how}, and"
            " 'twistd -n' keeps it here.\n"
        )
        out.flush()


def checkBeforeFork(
    outer: Mapping[str, Any] | None,
    ports: Iterable[tuple[str, IStreamServerEndpoint]],
    directory: Path | None = None,
) -> None:
    """
    End the process with one line on standard error, and status 1, if it is to go
    to the background and would fail there.

    @param outer: The options of C{twistd} itself.
    @param ports: What is to be listened on, each with the option and the endpoint
        that the user wrote.
    @param directory: Where state is to be kept.
    """
    # In another root directory, paths mean something else.
    if not inBackground(outer) or (outer or {}).get("chroot"):
        return
    for what, endpoint in ports:
        # Sockets of systemd's are there already, and can be taken once.
        if "systemd:" not in what:
            _try(what, endpoint)
    if directory is not None:
        try:
            checkWritable(directory)
        except TunnelError as reason:
            _cannotStart(reason)


def checkWritable(directory: Path) -> None:
    """
    Find out whether a directory, which may have to be made, can be written to.

    @raise TunnelError: C{bad-option}.
    """
    there = directory
    while not there.exists():
        there = there.parent
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise badOption(
            f"{directory} cannot be written to ({error.strerror}): give --state-dir, or"
            " let this user write there"
        ) from None


def _try(what: str, endpoint: IStreamServerEndpoint) -> None:
    factory = Factory.forProtocol(Protocol)
    factory.noisy = False
    listening = maybeDeferred(endpoint.listen, factory)
    failures: list[Failure] = []
    opened: list[Any] = []
    listening.addCallbacks(opened.append, failures.append)
    for failure in failures:
        _cannotStart(cannotListen(what, failure))
    for port in opened:
        if isinstance(port, Port):
            # At once: the reactor does not run before the fork.
            port.connectionLost(Failure(ConnectionDone()))
        else:
            port.stopListening()


def _cannotStart(reason: TunnelError) -> None:
    sys.exit(f"Cannot start: {reason}")
