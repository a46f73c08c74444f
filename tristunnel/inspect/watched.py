"""A service whose visitors' requests are inspected."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IProtocol,
    IProtocolFactory,
    IStreamClientEndpoint,
)
from twisted.logger import Logger
from zope.interface import implementer

from tristunnel.dataplane.glimpse import Stand, passDirectly
from tristunnel.dataplane.join import spliceIfPlain
from tristunnel.dataplane.pipes import canSplice
from tristunnel.dataplane.splice import Stretch
from tristunnel.errors import TunnelError
from tristunnel.forwards.forward import Forward
from tristunnel.inspect.record import Record
from tristunnel.inspect.tap import Tap
from tristunnel.interfaces import Closed

__all__ = ["WatchedEndpoint", "watch"]

_log = Logger()


UNSEEN = 1024 * 1024
"""When at least so many bytes need not be looked at, the kernel moves them, if it
can."""


class _Direction:
    """
    One direction of an inspected stream, of which some bytes need not be looked at.

    @param source: The end that reads it.
    @param sink: The other one.
    @param left: Says how many bytes need not be looked at.
    @param passed: Told of those that have passed unseen.
    """

    def __init__(
        self,
        source: Any,
        sink: Any,
        left: Callable[[], int],
        passed: Callable[[int], None],
    ) -> None:
        self._source, self._sink = source, sink
        self._left = left
        self._passed = passed
        self._stretch: Stretch | None = None

    def lookedAt(self) -> None:
        """
        Have the kernel move the next bytes, if enough of them need not be looked at.
        """
        stretch, left = self._stretch, self._left()
        if stretch is not None:
            if not left:
                self._stretch = None
                stretch.leave()
        elif left >= UNSEEN and canSplice():
            source = getattr(self._source, "readsBy", None)
            sink = getattr(self._sink, "writesBy", None)
            if (
                source is not None
                and source.splice is None
                and sink is not None
                and sink.spliceToUs is None
            ):
                self._stretch = Stretch(source, sink, self._left, self._moved)

    def _moved(self, count: int) -> None:
        self._passed(count)
        self.lookedAt()


class _TappedEnd(Stand):
    """
    Stands for one end of an inspected stream.

    @param ended: Called before the end is told that no more follows.
    @param broken: Called when nothing more passes.
    """

    def __init__(
        self,
        end: Any,
        look: Callable[[bytes], None],
        ended: Callable[[], None],
        broken: Closed,
    ) -> None:
        super().__init__(end, look)
        self._ended = ended
        self._broken = broken

    def join(self, peer: Stand, closed: Closed) -> None:
        def over(reason: TunnelError | None) -> None:
            self._broken(reason)
            closed(reason)

        super().join(peer, over)

    def finish(self) -> None:
        self._ended()
        self.end.finish()

    def reset(self, reason: TunnelError) -> None:
        self._broken(reason)
        self.end.reset(reason)


class _Looking:
    """Inspects one stream. An error here ends the inspection, not the stream."""

    def __init__(
        self, record: Record, forward: Forward, info: Mapping[str, object]
    ) -> None:
        self._tap = Tap(record, forward, info, self._detach)
        self._ends: tuple[Any, Any]
        self._stands: tuple[_TappedEnd, _TappedEnd]
        self._open = 2

    def between(
        self, service: Any, visitor: Any, toService: Any, toVisitor: Any
    ) -> tuple[Any, Any]:
        """
        Put this between two ends.

        @param service: The service's end itself.
        @param visitor: The visitor's.
        @param toService: What is to be joined for the service: the end, or what stands
            for it.
        @param toVisitor: Likewise for the visitor.
        @return: What is to be joined in the place of these two.
        """
        tap = self._tap
        askedUnseen = partial(self._safely, tap.askedUnseen, None)
        answeredUnseen = partial(self._safely, tap.answeredUnseen, None)
        up = _Direction(visitor, service, lambda: tap.askLeft, askedUnseen)
        down = _Direction(service, visitor, lambda: tap.answerLeft, answeredUnseen)
        asked = partial(self._safely, tap.asked, up)
        answered = partial(self._safely, tap.answered, down)
        ended = partial(self._safely, tap.answeringEnded)
        self._ends = service, visitor
        self._stands = (
            _TappedEnd(toService, asked, lambda: None, self._broken),
            _TappedEnd(toVisitor, answered, ended, self._broken),
        )
        return self._stands

    def _safely(
        self, look: Callable[..., None], way: _Direction | None = None, *passed: object
    ) -> None:
        try:
            look(*passed)
            if way is not None:
                way.lookedAt()
        except Exception:
            _log.failure("What passes could not be looked at")
            self._tap.stop("of a fault, which the log shows")

    def _broken(self, reason: TunnelError | None) -> None:
        """One of the two ends is over, or is broken."""
        self._open -= 1
        if reason is not None or not self._open:
            self._safely(partial(self._tap.broken, reason))

    def _detach(self) -> None:
        service, visitor = self._ends
        toService, toVisitor = self._stands
        passDirectly(service, toVisitor)
        passDirectly(visitor, toService)
        if toService.end is service and toVisitor.end is visitor:
            spliceIfPlain(service, visitor)


@implementer(IStreamClientEndpoint)
@dataclass(frozen=True, eq=False)
class WatchedEndpoint:
    """
    A service whose visitors' requests are inspected. L{connect} itself is for checks,
    which have no visitor.

    @ivar below: The service.
    @ivar forward: What it is offered as.
    @ivar record: What is kept.
    """

    below: IStreamClientEndpoint
    forward: Forward
    record: Record

    def watched(
        self, info: Mapping[str, object]
    ) -> tuple[IStreamClientEndpoint, Callable[[Any, Any, Any, Any], tuple[Any, Any]]]:
        """As L{ServiceConnector.connect} has it."""
        return self.below, _Looking(self.record, self.forward, info).between

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        made: Deferred[IProtocol] = self.below.connect(protocolFactory)
        return made


def watch(forward: Forward, record: Record) -> Forward:
    """
    Have a forward's requests inspected, if it may have any.

    @param record: What keeps them.
    @return: The same forward, with another endpoint; or itself.
    """
    inner = forward.inner
    if forward.isUDP or (inner is not None and inner.gateway is not None):
        return forward
    endpoint: Any = forward.endpoint
    return replace(forward, endpoint=WatchedEndpoint(endpoint, forward, record))
