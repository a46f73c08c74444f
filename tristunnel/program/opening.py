"""A tunnel that a program holds open, as the reactor's thread sees it."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from math import isfinite
from typing import Any
from urllib.parse import urlsplit

from twisted.internet.defer import Deferred, TimeoutError, maybeDeferred
from twisted.internet.interfaces import IStreamClientEndpoint

from tristunnel.config.servers import KnownServer, ServerStore
from tristunnel.connect.address import ServerAddress, Trust, parseConnect
from tristunnel.connect.credentials import TOKEN_VARIABLE
from tristunnel.connect.route import connectOptionsBy
from tristunnel.dialects.framed.client_service import TunnelClientService
from tristunnel.dialects.framed.standby import MOST_STANDBYS
from tristunnel.errors import TunnelError, badOption
from tristunnel.forwards.forward import Forward, parseForward
from tristunnel.inspect.inspector import Inspector
from tristunnel.inspect.options import InspectSettings, parseInspect
from tristunnel.inspect.record import Limits
from tristunnel.model.observer import ClientObserver, Visit
from tristunnel.program.events import Event, Events
from tristunnel.tls.certificates import parseFingerprint
from tristunnel.util.words import isName
from tristunnel.webhooks.endpoint import verified

__all__ = [
    "PIN_VARIABLE",
    "SERVER_VARIABLE",
    "TIMEOUT",
    "Opening",
    "Wanted",
    "inProgramWords",
    "urlOf",
]

SERVER_VARIABLE = "TRISTUNNEL_SERVER"
"""The environment variable that may name the server."""

PIN_VARIABLE = "TRISTUNNEL_PIN"
"""The environment variable that may hold the fingerprint of its certificate."""

TIMEOUT = 30.0
"""Seconds in which a tunnel has to be open."""

NO_SERVER = (
    'which server? pass server="HOST", set TRISTUNNEL_SERVER, or take up the'
    " server's invitation once: tristunnel join INVITATION"
)

NO_TARGET = (
    "what is to be exposed? pass a port or HOST:PORT, or handler= with a function or"
    " an application"
)

_SORTS = {str: "text", int: "a number", float: "a number", bool: "True or False"}


def inProgramWords(error: TunnelError) -> TunnelError:
    """
    Make an error fit for a program, which has no use for the names of the command's
    options, nor for the place in our code where it was raised.
    """
    said = re.sub(r"""^--forward (['"]).*?\1: """, "", error.message)
    said = re.sub(r"--(pin|ca) ([0-9A-Fa-f:]{32,}|FILE)", r'\1="\2"', said)
    said = re.sub(r"--(pin|ca|insecure)\b", r"\1=", said)
    said = re.sub(r"--token-file( FILE)?\b", "token=", said)
    said = re.sub(r"--connect\b ?", "server=", said)
    said = said.replace(", or add --inspect-remote", "")
    said = re.sub(r"--inspect\b ?", "inspect=", said)
    return TunnelError(error.code.name, said, error.retryAfter)


@dataclass(frozen=True)
class Wanted:
    """
    What a program asks for; the parameters of L{tristunnel.expose}.

    @ivar target: The service: a port, C{HOST:PORT}, or an endpoint string.
    @ivar server: The server, as C{--connect} takes it, or the name of one that
        C{tristunnel join} has kept; empty for C{TRISTUNNEL_SERVER}, and then for
        the default of those that were kept.
    @ivar token: The token; empty for C{TRISTUNNEL_TOKEN}, and then for what was kept
        with the server.
    @ivar pin: The fingerprint of the server's certificate.
    @ivar ca: A file or directory of authorities to trust instead of the platform's.
    @ivar insecure: Whether any certificate will do.
    @ivar name: The tunnel's name, or empty.
    @ivar port: The visitors' port, or 0 for any.
    @ivar udp: Whether the service is a UDP service.
    @ivar timeout: Seconds in which the tunnel has to be open.
    @ivar standby: The number of other members of the server's cluster that are kept
        ready to take over.
    @ivar inspect: Where a page shows the latest requests, as C{--inspect} takes it;
        empty for nowhere.
    """

    target: str = ""
    server: str = ""
    token: str = ""
    pin: str = ""
    ca: str = ""
    insecure: bool = False
    name: str = ""
    port: int = 0
    udp: bool = False
    timeout: float = TIMEOUT
    standby: int = 0
    inspect: str = ""

    @classmethod
    def by(cls, target: object, options: Mapping[str, Any]) -> Wanted:
        """
        Read what a program has passed; C{None} stands for the default.

        @raise TunnelError: C{bad-option}, for a value of another type.
        """
        if target is not None and (
            not isinstance(target, int | str) or isinstance(target, bool)
        ):
            raise badOption(f"{target!r} cannot be exposed; {NO_TARGET}")
        passed: dict[str, Any] = {"target": "" if target is None else str(target)}
        passed |= {name: each for name, each in options.items() if each is not None}
        for field in fields(cls):
            value, kind = passed.get(field.name, field.default), type(field.default)
            kinds = (int, float) if kind is float else (kind,)
            if type(value) not in kinds and not (
                kind is str and isinstance(value, str)
            ):
                raise badOption(
                    f"{field.name}= takes {_SORTS[kind]}, not {type(value).__name__}"
                )
        made = cls(**passed)
        if not (isfinite(made.timeout) and made.timeout > 0):
            raise badOption("timeout= takes a number of seconds greater than 0")
        if not 0 <= made.standby <= MOST_STANDBYS:
            raise badOption(f"standby= takes a number from 0 to {MOST_STANDBYS}")
        return made

    def forward(self, reactor: Any, endpoint: IStreamClientEndpoint | None) -> Forward:
        """
        Make the forward to offer.

        @param endpoint: The service, if it is not a place on the network.
        @raise TunnelError: C{bad-option}.
        """
        if self.name and (not isName(self.name) or self.name.isdecimal()):
            raise badOption(
                "a tunnel's name has letters, digits, '-', '_' and '.', and is no"
                f" number; {self.name!r} is none"
            )
        if not 0 <= self.port <= 65535:
            raise badOption(f"{self.port} is not a valid port; 0 takes any")
        if bool(self.target) == (endpoint is not None):
            raise badOption(NO_TARGET)
        kind = "udp/" if self.udp else ""
        wanted = f"{kind}{self.port}"
        if endpoint is not None:
            if self.udp:
                raise badOption("a handler answers HTTP: leave out udp=True")
            made = Forward(f"{wanted}=handler", self.port, self.name, "", endpoint)
            return self._byName(made)
        target = self.target
        if target.isdecimal():
            target = f"localhost:{target}"
        made = parseForward(reactor, f"{wanted}={target}")
        if made.scheme == "http":
            made = self._byName(made)
        if made.inner is not None and made.inner.gateway is not None:
            made.inner.gateway.checkPublic(None)
        if made.options.start or made.options.wake:
            raise badOption("a program starts its services itself: leave that out")
        made = verified(reactor, made)
        return replace(made, name=self.name) if self.name else made

    def _byName(self, made: Forward) -> Forward:
        """Give a web service a name, if the server has names."""
        return made if self.port else replace(made, listener="web")

    def address(
        self, reactor: Any, store: ServerStore, environment: Mapping[str, str]
    ) -> tuple[ServerAddress, dict[str, object]]:
        """
        Make the server's address, and our credentials.

        @raise TunnelError: C{bad-option}.
        """
        known = self._known(store, environment)
        pins = (self.pin,) if self.pin else known.pins
        trust = Trust(tuple(map(parseFingerprint, pins)), self.ca, self.insecure)
        route = connectOptionsBy(reactor, "", {}, 30.0)
        address = parseConnect(reactor, known.connect, trust, route)
        token = self.token or environment.get(TOKEN_VARIABLE, "") or known.token
        return address, {"token": token} if token else {}

    def _known(self, store: ServerStore, environment: Mapping[str, str]) -> KnownServer:
        named = self.server or environment.get(SERVER_VARIABLE, "")
        known = store.read()
        if named in known.byName:
            return known.byName[named]
        if named:
            pin = "" if self.server else environment.get(PIN_VARIABLE, "")
            return KnownServer("", named, (pin,) if pin else ())
        if not known.byName:
            raise badOption(NO_SERVER)
        return known.find()


class Opening(ClientObserver):
    """
    A tunnel.

    @param reactor: The thread's.
    @param wanted: What is asked for.
    @param endpoint: The service, if it is not a place on the network.
    @param released: Called when it is over.
    @param stopHandler: Has the service stop, where it is the program's own.

    @ivar events: What happens.
    @ivar address: Where visitors come, as the server says.
    @ivar over: Why it ended: set when it has.
    @ivar inspector: What keeps its requests, or C{None}.
    """

    def __init__(
        self,
        reactor: Any,
        wanted: Wanted,
        endpoint: IStreamClientEndpoint | None,
        released: Callable[[], object],
        stopHandler: Callable[[], Deferred[None]],
    ) -> None:
        self.events = Events()
        self.address = ""
        self.over: TunnelError | None = None
        self._reactor = reactor
        self._released = released
        self._stopHandler = stopHandler
        self._open: Deferred[None] = Deferred()
        self._ended: list[Deferred[None]] = []
        self._isOver = False
        self._isUp = False
        self._timeout = wanted.timeout
        forward = wanted.forward(reactor, endpoint)
        address, credentials = wanted.address(reactor, ServerStore(), os.environ)
        self.place = (address.where, forward.isUDP, forward.port, forward.name)
        self.where = address.where
        self.inspector: Inspector | None = None
        if wanted.inspect:
            place = parseInspect(reactor, wanted.inspect, False)
            self.inspector = Inspector(reactor, InspectSettings(place, Limits()))
            self.inspector.failed = self._failed
            (forward,) = self.inspector.watch([forward])
        self._service = TunnelClientService(
            reactor, address, [forward], credentials, self, grace=0.0
        )
        self._service.forGood = True
        self._service.standby.count = wanted.standby

    @property
    def isFixed(self) -> bool:
        """Whether its place can be nobody else's."""
        return bool(self.place[2] or self.place[3])

    async def open(self) -> None:
        """
        Connect, and have the tunnel opened.

        @raise TunnelError: With why there is none.
        """
        if self.inspector is not None:
            self.inspector.startService()
        self._service.startService()
        try:
            await self._open.addTimeout(self._timeout, self._reactor)
        except TimeoutError:
            late = TunnelError(
                "session-lost",
                f"{self.where} has opened no tunnel within {self._timeout:g} s; is"
                " that the right port?",
            )
            await self._end(late)
            raise late from None
        except BaseException as error:
            await self._end(error if isinstance(error, TunnelError) else None)
            raise

    def close(self) -> Deferred[None]:
        """
        Close it.

        @return: Fires when the server was told.
        """
        return self._end(None)

    def _end(self, reason: TunnelError | None) -> Deferred[None]:
        waiting: Deferred[None] = Deferred()
        if self._isOver:
            waiting.callback(None)
            return waiting
        self._ended.append(waiting)
        if len(self._ended) > 1:
            return waiting
        self.over = reason

        def stopped(result: object) -> None:
            self._isOver = True
            self._released()
            self.events.add(Event("closed", self.address, self.over), last=True)
            ended, self._ended = self._ended, []
            for each in ended:
                each.callback(None)

        stopping = maybeDeferred(self._service.stopService)
        if self.inspector is not None:
            stopping.addBoth(lambda _, page: page.stopService(), self.inspector)
        stopping.addBoth(lambda _: self._stopHandler())
        stopping.addBoth(stopped)
        return waiting

    def _failed(self, reason: TunnelError) -> None:
        if not self._open.called:
            self._open.errback(reason)

    # What the client tells

    def tunnelReady(self, address: str, target: str) -> None:
        self.address = address
        self._isUp = True
        self.events.add(Event("opened", address))
        if not self._open.called:
            self._open.callback(None)

    def tunnelFailed(self, wanted: str, reason: TunnelError) -> None:
        self._failed(reason)

    def disconnected(self, reason: TunnelError) -> None:
        # Not for each attempt to reconnect.
        if self._isUp:
            self._isUp = False
            self.events.add(Event("disconnected", self.address, reason))
        self._failed(reason)

    def gaveUp(self, reason: TunnelError) -> None:
        if self._open.called:
            self._end(reason)
        else:
            self._failed(reason)

    def serviceFailed(self, target: str, reason: TunnelError) -> None:
        self.events.add(Event("service-failed", target, reason))

    def visitorConnected(self, visit: Visit) -> None:
        self.events.add(Event("visitor", visit.visitor))

    def visitorGone(self, visit: Visit, reason: TunnelError | None) -> None:
        self.events.add(Event("visitor-gone", visit.visitor, reason))


def urlOf(address: str) -> str:
    """
    Write a tunnel's address as a URL.

    @param address: As the server says it.
    """
    parts = urlsplit(address)
    if parts.scheme in ("tcp", "tls"):
        return f"http{'s' if parts.scheme == 'tls' else ''}://{parts.netloc}"
    return address
