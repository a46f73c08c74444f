"""
Looking up names, in such a way that a name server that does not answer holds up nothing
that can do without it.

Twisted's resolver calls C{getaddrinfo} in the reactor's ten threads, for as long as
that takes, and a shutdown waits for all of them. Here there is only one query for a
name at a time, in a thread that a shutdown does not wait for. Whoever asks waits for a
limited time only. Names in the hosts file need no thread at all.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from functools import lru_cache, partial
from threading import Thread
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary, proxy

from twisted.internet._resolver import GAIResolver
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import DNSLookupError
from twisted.internet.interfaces import IAddress, IHostResolution, IResolutionReceiver
from twisted.names.hosts import searchFileForAll
from twisted.python.filepath import FilePath
from twisted.python.threadpool import ThreadPool
from zope.interface import implementer

__all__ = [
    "FRESH",
    "LIMIT",
    "PATIENCE",
    "Answer",
    "NoAddress",
    "isAddress",
    "known",
    "lookUp",
    "resolveWith",
]

LIMIT = 8.0
"""Seconds to wait for an answer: longer than the C library's five for the first
of two name servers, shorter than a service's ten."""

PATIENCE = 2.0
"""Seconds to wait for an answer if an older one is known, as RFC 8767 recommends."""

FRESH = 0.1
"""Seconds for which an answer is used again without a query: enough for many visitors
at once, and too short to send anybody to where a service no longer is."""

_OLDEST = 86400.0
_HOSTS = "/etc/hosts"
_THREADS = 64
_UNKNOWN = (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME))
_MOST = 1024


class NoAddress(DNSLookupError):
    """A look-up failed. The message says why, without Twisted's own prefix."""

    def __str__(self) -> str:
        return str(self.args[0])


class Answer(NamedTuple):
    """
    Where a name leads.

    @ivar addresses: IP addresses, the preferred one first.
    @ivar isNew: Whether they were looked up for this query, and not earlier.
    """

    addresses: list[str]
    isNew: bool


def isAddress(host: str) -> bool:
    """Whether a host is an IP address, so that there is nothing to look up."""
    return isIPAddress(host) or isIPv6Address(host)


@lru_cache(maxsize=256)
def _fromFile(name: str, version: tuple[int, ...]) -> list[str]:
    """
    Find a name in the hosts file.

    @param version: Changes when the file does: the key of the cache.
    """
    found = searchFileForAll(FilePath(_HOSTS), name.encode("ascii"))
    return list(dict.fromkeys(found))


def known(host: str) -> list[str]:
    """Find a name without a name server."""
    name = host.removesuffix(".")
    try:
        status = os.stat(_HOSTS)
    except OSError:
        found = []
    else:
        version = status.st_mtime_ns, status.st_size, status.st_ino
        found = _fromFile(name, version)
    if not found and (name == "localhost" or name.endswith(".localhost")):
        return ["127.0.0.1", "::1"]  # RFC 6761, 6.3.
    return found


class _Threads(ThreadPool):
    """Threads in which the C library may hang; the process ends without them."""

    threadFactory = partial(Thread, daemon=True)  # type: ignore[assignment] # any callable will do


@implementer(IResolutionReceiver)
class _Asking:
    """A query in progress."""

    def __init__(self, began: float) -> None:
        self.began = began
        self.waiting: list[Deferred[Answer]] = []
        self.addresses: list[str] = []
        # Whether the name server failed, rather than the name being unknown.
        self.failed = False
        self.over: Deferred[_Asking] = Deferred()

    def getaddrinfo(self, *arguments: Any) -> Any:
        """Ask, in a thread."""
        try:
            return socket.getaddrinfo(*arguments)
        except socket.gaierror as error:
            self.failed = error.errno not in _UNKNOWN
            raise
        except (OSError, UnicodeError) as error:
            # The resolver catches one kind of exception only; after another it would
            # never answer.
            raise socket.gaierror(socket.EAI_FAIL, str(error)) from None

    def resolutionBegan(self, resolutionInProgress: IHostResolution) -> None:
        pass

    def addressResolved(self, address: IAddress) -> None:
        host = getattr(address, "host", None)
        if host is not None and host not in self.addresses:
            self.addresses.append(host)

    def resolutionComplete(self) -> None:
        self.over.callback(self)


class _Lookups:
    """
    The queries to a reactor's resolver, and its answers. Twisted's usual resolver is
    run in threads of our own.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._asking: dict[str, _Asking] = {}
        self._known: dict[str, tuple[float, list[str]]] = {}
        self._threads: _Threads | None = None

    def lookUp(self, host: str, again: bool) -> Deferred[Answer]:
        """Begin a query, join the one in progress, or use what is known."""
        now = self._reactor.seconds()
        since, known = self._known.get(host, (0.0, []))
        usable = bool(known) and not again and now - since < _OLDEST
        if usable and now - since < FRESH:
            return succeed(Answer(known, False))
        asking = self._asking.get(host)
        isNew = asking is None
        if asking is None:
            asking = self._asking[host] = _Asking(now)
        elif usable and now - asking.began >= PATIENCE:
            return succeed(Answer(known, False))

        def late(result: object, seconds: float) -> Answer:
            if usable:
                return Answer(known, False)
            raise NoAddress(
                f"the name server did not answer within {seconds:g} s where {host} is"
            )

        waiting: Deferred[Answer] = Deferred(asking.waiting.remove)
        asking.waiting.append(waiting)
        waiting.addTimeout(PATIENCE if usable else LIMIT, self._reactor, late)
        if isNew:
            self._ask(host, asking)
        return waiting

    def _ask(self, host: str, asking: _Asking) -> None:
        """Begin to ask."""
        asking.over.addCallback(self._answered, host)
        resolver = self._reactor.nameResolver
        if isinstance(resolver, GAIResolver):
            own: Any = asking.getaddrinfo
            resolver = GAIResolver(self._reactor, self._pool, own)
        resolver.resolveHostName(asking, host, 0)

    def _pool(self) -> ThreadPool:
        """The threads, from the first name on."""
        if self._threads is None:
            self._threads = _Threads(0, _THREADS, "look-ups")
            self._threads.start()
        return self._threads

    def _answered(self, asking: _Asking, host: str) -> None:
        """Remember the answer, and tell those who wait."""
        del self._asking[host]
        answer = Answer(asking.addresses, True)
        if asking.addresses:
            if len(self._known) >= _MOST:
                self._known.clear()
            self._known[host] = self._reactor.seconds(), asking.addresses
        elif asking.failed:
            answer = Answer(self._known.get(host, (0.0, []))[1], False)
        else:
            self._known.pop(host, None)
        waiting, asking.waiting = asking.waiting, []
        for each in waiting:
            if answer.addresses:
                each.callback(answer)
            else:
                why = f"there is no address for {host}; check the spelling"
                each.errback(NoAddress(why))


_OF: WeakKeyDictionary[Any, _Lookups] = WeakKeyDictionary()


def lookUp(reactor: Any, host: str, again: bool = False) -> Deferred[Answer]:
    """
    Find a host's addresses.

    If the name server fails or is slow, its last answer is used; if there is none, the
    look-up fails after L{LIMIT}.

    @param reactor: Tells time and has a resolver.
    @param host: What L{hostName<tristunnel.util.hosts.hostName>} returned.
    @param again: Whether what is known has proved wrong.
    @return: Fires with at least one address, or fails with L{NoAddress}.
    """
    if isAddress(host):
        return succeed(Answer([host], True))
    if here := known(host):
        return succeed(Answer(here, True))
    if reactor not in _OF:
        # A strong reference would keep the key alive forever.
        _OF[reactor] = _Lookups(proxy(reactor))
    return _OF[reactor].lookUp(host, again)


def resolveWith(reactor: Any) -> Callable[[str], Deferred[list[str]]]:
    """Make a function that finds a host's addresses as L{lookUp} does."""
    return lambda host: lookUp(reactor, host).addCallback(lambda each: each.addresses)
