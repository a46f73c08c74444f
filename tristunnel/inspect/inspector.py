"""What C{--inspect} makes of a client."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.interfaces import IListeningPort
from twisted.logger import Logger
from twisted.python.failure import Failure

from tristunnel.errors import TunnelError
from tristunnel.forwards.destinations import isOurs
from tristunnel.forwards.forward import Forward
from tristunnel.inspect.calls import callsOf
from tristunnel.inspect.options import InspectSettings
from tristunnel.inspect.pages import InspectSite
from tristunnel.inspect.record import Record
from tristunnel.inspect.replay import Replays
from tristunnel.inspect.shown import summaryOf
from tristunnel.inspect.watched import watch
from tristunnel.util.endpoints import cannotListen
from tristunnel.util.hosts import hostAndPort

__all__ = ["Inspector"]


class Inspector(Service):
    """
    Keeps the latest requests of a client's services, and shows them on a page.

    @param reactor: Listens and tells time.
    @param settings: Where the page is, and how much is kept.

    @ivar record: What is kept.
    @ivar calls: The calls about it, by name.
    @ivar failed: Called with the reason if the page's port cannot be opened.
    @ivar opened: Called with the page's address, once it is there.
    """

    _log = Logger(namespace="tristunnel.client")

    def __init__(self, reactor: Any, settings: InspectSettings) -> None:
        self.record = Record(settings.limits, reactor.seconds)
        self.failed: Callable[[TunnelError], None] = lambda reason: None
        self.opened: Callable[[str], None] = lambda url: None
        self._place = settings.place
        self._replays = Replays(reactor, self.record)
        self.calls = callsOf(self.record, self._replays, lambda: self.url)
        self._site = InspectSite(reactor, self.record, self.calls)
        self._listening: IListeningPort | None = None

    def watch(self, forwards: Iterable[Forward]) -> list[Forward]:
        """Have the requests of forwards kept."""
        return [watch(each, self.record) for each in forwards]

    @property
    def page(self) -> str:
        """Where the page is, without its token; empty while it is nowhere."""
        if self._listening is None:
            return ""
        port = getattr(self._listening.getHost(), "port", 0)
        return f"http://{hostAndPort(self._place.host, port)}/"

    @property
    def url(self) -> str:
        """Where the page is, with its token, which opens it; likewise."""
        page = self.page
        return page and f"{page}?token={self._site.token}"

    def latest(self, most: int) -> list[dict[str, Any]]:
        """The newest requests in short, newest first."""
        kept = self.record.exchanges
        newest = [kept[number] for number in list(kept)[: -most - 1 : -1]]
        return [summaryOf(each) for each in newest]

    def startService(self) -> None:
        super().startService()
        opening = maybeDeferred(self._place.endpoint.listen, self._site)
        opening.addCallbacks(self._opened, self._notOpened)

    def _opened(self, listening: IListeningPort) -> None:
        self._listening = listening
        isOurs(listening)
        self._log.info(
            "Requests are shown on a page: 'tristunnel requests page' prints its"
            " address"
        )
        self.opened(self.url)

    def _notOpened(self, failure: Failure) -> None:
        reason = cannotListen(f"--inspect {self._place.description}", failure)
        self._log.critical("Cannot start: {reason}", reason=reason)
        self.failed(reason)

    def stopService(self) -> Deferred[object]:
        super().stopService()
        self._replays.stop()
        listening, self._listening = self._listening, None
        if listening is None:
            return succeed(None)
        isOurs(listening, False)
        return maybeDeferred(listening.stopListening)
