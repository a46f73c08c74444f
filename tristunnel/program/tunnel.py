"""A tunnel in a program that knows nothing of Twisted."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any, ClassVar, Self, TypedDict, Unpack

from twisted.internet.defer import Deferred, succeed

from tristunnel.errors import TunnelError
from tristunnel.program.events import Event
from tristunnel.program.handlers import HandlerEndpoint
from tristunnel.program.opening import Opening, Wanted, inProgramWords, urlOf
from tristunnel.program.thread import ReactorThread
from tristunnel.util.words import nearest

__all__ = ["OpenTunnel", "Options", "Tunnel", "begin", "expose"]


class Options(TypedDict, total=False):
    """
    Keyword arguments of C{expose}, beside the target; see L{Wanted}. C{None} stands for
    the default.
    """

    server: str | None
    token: str | None
    pin: str | None
    ca: str | None
    insecure: bool | None
    name: str | None
    port: int | None
    udp: bool | None
    timeout: float | None
    standby: int | None
    inspect: str | None
    handler: Any


class OpenTunnel:
    """
    An open tunnel, apart from how the program waits.

    @param opening: The tunnel.
    @param thread: Where it is served.
    """

    # By what only one tunnel can have.
    _places: ClassVar[dict[object, Opening]] = {}

    def __init__(self, opening: Opening, thread: ReactorThread) -> None:
        self._opening = opening
        self._thread = thread
        self._over: Future[None] = Future()
        # Its end comes in any case, and cannot be cancelled.
        self._over.set_running_or_notify_cancel()

    @property
    def url(self) -> str:
        """Where a browser finds it: C{http://HOST:PORT}, or C{https://}."""
        return urlOf(self.address)

    @property
    def address(self) -> str:
        """
        Where visitors come, as the server says, for example C{tcp://HOST:PORT}. It may
        change when the session was lost and another one has replaced it.
        """
        return self._opening.address

    @property
    def requestsURL(self) -> str:
        """
        Where a browser of this machine sees the latest requests, with the token that
        opens the page; empty without C{inspect}.
        """
        inspector = self._opening.inspector
        return "" if inspector is None else inspector.url

    @property
    def isOpen(self) -> bool:
        """Whether it is served, or will be as soon as the server is there again."""
        return self._thread.isHere and not self._over.done()

    def _checkHere(self) -> None:
        if not self._thread.isHere:
            raise TunnelError(
                "not-permitted",
                "this tunnel is served by the process that has opened it, and this is a"
                " fork of that: call expose here for one of its own",
            )

    def __repr__(self) -> str:
        return f"<{'open' if self.isOpen else 'closed'} tunnel {self.url}>"

    def _ended(self) -> None:
        """In the reactor's thread: it is over."""
        reason = self._opening.over
        if not self._over.done():
            if reason is None:
                self._over.set_result(None)
            else:
                self._over.set_exception(inProgramWords(reason))

    def _close(self) -> Future[None]:
        if not self._thread.isHere:
            # A fork's child: the tunnel is its parent's.
            done: Future[None] = Future()
            done.set_result(None)
            return done

        async def close() -> None:
            await self._opening.close()

        return self._thread.start(close)


class Tunnel(OpenTunnel):
    """
    A tunnel that is open until it is closed, or the program ends. It can be used in
    any thread, and in C{with}.
    """

    def close(self) -> None:
        """Close it. Its visitors' connections end, and its port is free."""
        self._close().result()

    def wait(self, timeout: float | None = None) -> None:
        """
        Wait until it is closed.

        @param timeout: Seconds to wait at the most; C{None} for any time.
        @raise TunnelError: If the server refuses it for good.
        @raise TimeoutError: If it is still open.
        """
        self._checkHere()
        self._over.result(timeout)

    def events(self) -> Iterator[Event]:
        """
        Its events, from its opening on. The iterator waits for the next event, and ends
        with the tunnel.
        """
        self._checkHere()
        return iter(self._opening.events)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *problem: object) -> None:
        self.close()


def begin(kind: Any, target: int | str | None, options: Options) -> Future[Any]:
    """
    Begin to open a tunnel.

    @param kind: L{OpenTunnel}, or a subclass.
    @param target: The service; C{None} if there is a handler.
    @return: The tunnel, once it is open.
    """
    for name in options:
        if name not in Options.__annotations__:
            also = nearest(name, Options.__annotations__)
            raise TypeError(f"expose() has no argument {name!r}{also}")
    thread = ReactorThread.current()
    settings: dict[str, Any] = dict(options)
    handler = settings.pop("handler", None)

    async def work() -> Any:
        made: Any = None
        endpoint: HandlerEndpoint | None = None

        def released() -> None:
            thread.left(opening)
            if OpenTunnel._places.get(opening.place) is opening:
                del OpenTunnel._places[opening.place]
            if made is not None:
                made._ended()

        def stopHandler() -> Deferred[None]:
            return succeed(None) if endpoint is None else endpoint.stop()

        try:
            wanted = Wanted.by(target, settings)
            endpoint = None if handler is None else HandlerEndpoint(handler)
            opening = Opening(thread.reactor, wanted, endpoint, released, stopHandler)
            made = kind(opening, thread)
            if opening.isFixed:
                former = OpenTunnel._places.pop(opening.place, None)
                if former is not None:
                    await former.close()
                OpenTunnel._places[opening.place] = opening
            thread.whenLeaving(opening, opening.close)
            if endpoint is not None:
                await endpoint.start(thread.reactor)
            await opening.open()
        except BaseException as error:
            await stopHandler()
            if isinstance(error, TunnelError):
                raise inProgramWords(error) from None
            raise
        return made

    return thread.start(work)


def expose(target: int | str | None = None, **options: Unpack[Options]) -> Tunnel:
    """
    Make a service reachable through a tunnel server, and return when it is.

    The connection is kept up in the background, by a thread that ends with the
    program. A second call for the same port or name closes what the first one
    has opened.

    @param target: The service: a port of this machine, C{"HOST:PORT"}, or a
        Twisted endpoint string. Left out where there is a C{handler}.
    @keyword handler: Instead of a target: an ASGI or WSGI application, or a
        function of one L{Request<tristunnel.program.handlers.Request>}. It is
        served through the tunnel alone, without a port of this machine.
    @keyword server: The server, as C{--connect} takes it, C{"t.example.com"} for
        example, or the name of one that C{tristunnel join} has kept. Left out, it
        is C{TRISTUNNEL_SERVER} of the environment, or the default one of those.
    @keyword token: What the server knows us by. Left out, it is
        C{TRISTUNNEL_TOKEN} of the environment, or what was kept.
    @keyword pin: The SHA-256 fingerprint of the server's certificate. Left out, it
        is C{TRISTUNNEL_PIN} beside C{TRISTUNNEL_SERVER}, or what was kept.
    @keyword ca: A PEM file or a directory of authorities to trust instead.
    @keyword insecure: Whether any certificate will do.
    @keyword name: The tunnel's name at the server.
    @keyword port: The visitors' port; 0, the default, for any.
    @keyword udp: Whether the service is a UDP service.
    @keyword timeout: Seconds in which the tunnel must be open, 30 if it is left
        out. What fails sooner is told sooner.
    @keyword inspect: Where a page shows the latest HTTP requests, as C{--inspect} takes
        it, C{"localhost:4040"} for example: L{OpenTunnel.requestsURL}.
    @raise TunnelError: With a code and, in one line, the cause and the cure.
    """
    opened = begin(Tunnel, target, options)
    try:
        made: Tunnel = opened.result()
    except TunnelError as error:
        # The place where it was raised is of no use to the program.
        raise error.with_traceback(None) from None
    except BaseException:
        opened.cancel()
        raise
    return made
