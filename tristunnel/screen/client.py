"""A client together with its screen and its RPC, and the order in which they stop."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Mapping
from typing import IO, Any

from twisted.application.service import MultiService, Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import (
    ILogObserver,
    LogEvent,
    LogLevel,
    formatEvent,
    globalLogPublisher,
)
from zope.interface import implementer

from tristunnel.client.control import OFF, ClientControl, clientSocket, statusMethods
from tristunnel.client.listening import ServiceWatch, isListening
from tristunnel.client.log import LoggingClientObserver
from tristunnel.client.options import ClientOptions
from tristunnel.client.status import ProcessStatus, statusTicks
from tristunnel.errors import printable
from tristunnel.inspect.inspector import Inspector
from tristunnel.model.observer import ClientObserver, severalObservers
from tristunnel.screen.model import Page, clientPage, qrTargets
from tristunnel.screen.terminal import Terminal
from tristunnel.util.endpoints import tellOfDaemon
from tristunnel.util.events import RecentEvents
from tristunnel.util.output import Output, outputOf
from tristunnel.util.words import age, amount, plural

__all__ = ["ClientWatch", "ScreenLog", "WatchedClient", "farewell", "screenTerminal"]

_EVENTS = 60
"""The most events that a screen gets."""

_REQUESTS = 8
"""The most requests that a screen and C{status} show."""

_LEVELS = {LogLevel.warn: "warn", LogLevel.error: "error", LogLevel.critical: "error"}

_TRACEBACKS = 5


def screenTerminal(options: Mapping[str, Any]) -> Terminal | None:
    """
    Find out whether a client has a screen: it has one in a terminal, unless the log is
    wanted there.

    @param options: The client's, within C{twistd}'s.
    @return: The terminal, or C{None} if lines are to be written.
    """
    outer: Mapping[str, Any] = getattr(options, "parent", None) or {}
    if (
        options["no-screen"]
        or options["log-format"] != "text"
        or not outer.get("nodaemon")
        or outer.get("logfile") == "-"
        or outer.get("logger")
        or outer.get("debug")
    ):
        return None
    # Without a terminal as its input it is probably one of several programs in a
    # script.
    if sys.__stdin__ is None or sys.__stdin__.closed or not sys.__stdin__.isatty():
        return None
    terminal = Terminal.behind(sys.__stdout__)
    if terminal is not None and not terminal.mayEnter:
        terminal.close()
        return None
    return terminal


class WatchedClient(MultiService):
    """
    A client and the parts that show it, which stop last, so that the client's end can
    be seen.

    @param client: The client's service.
    @param status: Its state.
    @param grace: Seconds that its visitors get to finish.
    @param others: The other parts.
    """

    def __init__(
        self, client: Service, status: ProcessStatus, grace: float, *others: Service
    ) -> None:
        super().__init__()
        self._client = client
        self._status = status
        self._grace = grace
        self._others = others
        for each in (*others, client):
            each.setServiceParent(self)

    def stopService(self) -> Deferred[None]:
        self.running = False
        self._status.stopping(self._grace)
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        try:
            await maybeDeferred(self._client.stopService)
        finally:
            for each in self._others:
                await maybeDeferred(each.stopService)


@implementer(ILogObserver)
class ScreenLog:
    """
    The log while there is a screen: turns warnings into events on the screen, except
    for those that are there already, instead of writing over it.

    @param events: The screen's events.

    @ivar tracebacks: The tracebacks of the last failures, for which the screen has no
        room.
    @ivar fatal: The last message about what ends the program.
    """

    def __init__(self, events: RecentEvents) -> None:
        self.tracebacks: deque[str] = deque(maxlen=_TRACEBACKS)
        self.fatal: deque[str] = deque(maxlen=_TRACEBACKS)
        self._events = events

    def start(self) -> None:
        """Listen to the log."""
        globalLogPublisher.addObserver(self)

    def stop(self) -> None:
        """Stop listening."""
        globalLogPublisher.removeObserver(self)

    def __call__(self, event: LogEvent) -> None:
        """Take an event of the log."""
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


class _LastWords(Service):
    """Prints what is worth keeping once the terminal is restored."""

    def __init__(self, status: ProcessStatus, log: ScreenLog) -> None:
        self._status = status
        self._log = log

    def stopService(self) -> None:
        self._log.stop()
        out, err = outputOf(sys.__stdout__), outputOf(sys.__stderr__)
        farewell(self._status.describe(1), self._log, out, err)


def farewell(
    status: Mapping[str, Any],
    log: ScreenLog,
    out: IO[str] | Output | None,
    err: IO[str] | Output | None,
) -> None:
    """Write a summary, and why the client ended if nobody stopped it."""
    try:
        for each in (*log.tracebacks, *log.fatal):
            print(*(printable(line) for line in each.split("\n")), sep="\n", file=err)
        print(
            f"{plural(status['visitorsTotal'], 'visitor')} in"
            f" {age(status['seconds'])}, {amount(status['bytesIn'])} down,"
            f" {amount(status['bytesOut'])} up",
            file=out,
            flush=True,
        )
        for server in status["servers"]:
            if server["state"] == "stopped":
                print(f"Giving up: {server['reason']}", file=err, flush=True)
    except (OSError, ValueError):
        # The terminal itself may be gone.
        return


class ClientWatch:
    """
    Shows the clients of a process: on a screen or in a log, and by RPC.

    @param reactor: Tells time.
    @param options: The process's.

    @ivar status: The state of the clients.
    @ivar methods: The methods of the RPC, by name.
    @ivar mayRest: Whether a service need not run while nobody visits it.
    """

    def __init__(self, reactor: Any, options: ClientOptions) -> None:
        self.mayRest: Callable[[str], bool] = lambda target: False
        self.status = ProcessStatus(reactor.seconds)
        self.methods = statusMethods(self.status)
        self._reactor = reactor
        self._options = options
        self._terminal = screenTerminal(options)
        self._inspector: Inspector | None = None
        self._log = ScreenLog(self.status.events)
        if self._terminal is not None:
            self._log.start()
        tellOfDaemon(
            getattr(options, "parent", None),
            "client",
            "'tristunnel status' shows what it does",
        )

    def inspect(self, inspector: Inspector) -> None:
        """Show requests, too."""
        self._inspector = inspector
        self.methods.update(inspector.calls)
        self.status.more = lambda: {
            "page": inspector.page,
            "requests": inspector.latest(_REQUESTS),
        }
        inspector.record.changed = lambda: self.status.changed()
        real, out = sys.__stdout__, outputOf(sys.__stdout__)
        isTerminal = real is not None and real.isatty() and not self.hasScreen
        if out is not None and isTerminal:
            # A secret: for people, but not for a log.
            inspector.opened = lambda url: print(f"Requests: {url}", file=out)

    @property
    def hasScreen(self) -> bool:
        """
        Whether there is a screen, so that no lines may be written to the terminal.
        """
        return self._terminal is not None

    def observer(self, options: ClientOptions) -> ClientObserver:
        """
        Make the observer of a client.

        @param options: The client's own.
        """
        # twistd sends sys.stdout to the log, but the addresses are for pasting.
        out = None if self.hasScreen else outputOf(sys.__stdout__)
        connects = bool(options["service"]) or not options["listen"]
        status = self.status.follow(options.server.where, connects, options.forwards)
        log = LoggingClientObserver(out, self._reactor.seconds, self._reactor.callLater)
        both = severalObservers(ClientObserver, log, status)
        watch = ServiceWatch(
            self._reactor,
            both,
            lambda target: None if self.mayRest(target) else isListening(target),
        )
        return severalObservers(ClientObserver, log, status, watch)

    def around(self, client: Service, failed: Callable[[], None]) -> Service:
        """
        Put clients and what shows them together.

        @param client: All of them.
        @param failed: Called if the port of C{--rpc} cannot be opened.
        """
        options, status, terminal = self._options, self.status, self._terminal
        beside: list[Service] = [statusTicks(self._reactor, status)]
        if options["rpc"] != OFF:
            port = options.control
            if port is None:
                port = clientSocket(self._reactor, options.stateDirectory)
            beside.append(
                ClientControl(
                    self._reactor, port, self.methods, lambda reason: failed()
                )
            )
        if self._inspector is not None:
            self._inspector.failed = lambda reason: failed()
            beside.append(self._inspector)
        grace = max(each["grace"] for each in options.each)
        if terminal is None:
            return WatchedClient(client, status, grace, *beside)
        # The drawing code is large; a client without a screen does not load it.
        from tristunnel.screen.draw import Pen, drawPage
        from tristunnel.screen.service import Screen

        pen = Pen(terminal.encoding)

        def draw(width: int, height: int) -> list[str]:
            return drawPage(pen, self._page(), width, height)

        screen = Screen(self._reactor, terminal, pen, draw, self._codes)
        status.changed = screen.changed
        beside += [screen, _LastWords(status, self._log)]
        return WatchedClient(client, status, grace, *beside)

    def _page(self) -> Page:
        status = self.status
        hint = "q stops at once" if status.isStopping else "q stops"
        code = ("c QR code",) if self._codes() else ()
        shown = status.describe(_EVENTS)
        if self._inspector is not None:
            # A secret: for this screen, but not for the RPC.
            shown["page"] = self._inspector.url
        return clientPage(shown, (hint, *code))

    def _codes(self) -> list[str]:
        return qrTargets({"tunnels": self.status.tunnels()})
