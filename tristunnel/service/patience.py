"""Waiting for the book, but not forever."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from tristunnel.errors import TunnelError

__all__ = ["BOOK_PATIENCE", "inTime", "leftUndone"]

BOOK_PATIENCE = 10.0
"""Seconds in which the book must answer; no port waits for it longer."""

_T = TypeVar("_T")
_log = Logger()


def leftUndone(log: Logger, what: str, **fields: Any) -> Callable[[Failure], None]:
    """
    Make an errback for something whose result nobody waits for. A book that cannot be
    asked, for example when the server ends, gives a line in the log; anything
    unexpected is logged with its traceback.

    @param what: What has gone wrong then, as a format.
    @param fields: The format's fields.
    """

    def failed(failure: Failure) -> None:
        if failure.check(TunnelError):
            log.warn(f"{what}: {{reason}}", reason=failure.value, **fields)
        else:
            log.failure(what, failure, **fields)

    return failed


def inTime(
    reactor: IReactorTime,
    asked: Deferred[_T],
    undo: Callable[[_T], Deferred[None]] | None = None,
) -> Deferred[_T]:
    """
    Wait for an answer of the book. The call is not cancelled: what the book does in the
    end is what counts.

    @param asked: The answer.
    @param undo: Takes back what was done, if nobody waits for it any more.
    @return: The answer; when it is late, C{internal}.
    """
    if asked.called and not asked.paused:
        return asked
    told: Deferred[_T] = Deferred()

    def done(result: _T) -> None:
        if not told.called:
            told.callback(result)
        elif undo is not None:
            maybeDeferred(undo, result).addErrback(
                leftUndone(_log, "The book still has what nobody wants")
            )

    def failed(failure: Failure) -> None:
        if not told.called:
            told.errback(failure)

    def late(_: object, seconds: float) -> NoReturn:
        raise TunnelError("internal", f"the book did not answer within {seconds:g} s")

    asked.addCallbacks(done, failed)
    return told if told.called else told.addTimeout(BOOK_PATIENCE, reactor, late)
