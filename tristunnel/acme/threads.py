"""
Calls that block, each in a thread of its own that the end of the process does not wait
for.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Thread
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

__all__ = ["inThread"]

_T = TypeVar("_T")


def inThread(reactor: Any, call: Callable[[], _T]) -> Deferred[_T]:
    """
    Make a call that blocks. A thread of the reactor's would hold up the end of the
    process for as long as an authority does not answer.

    @param reactor: Gets the result.
    @param call: What to do.
    @return: Its result.
    """
    done: Deferred[_T] = Deferred()

    def tell(result: _T | Failure) -> None:
        if not done.called:
            done.callback(result)

    def work() -> None:
        try:
            result: _T | Failure = call()
        except BaseException:
            result = Failure()
        reactor.callFromThread(tell, result)

    Thread(target=work, name="acme", daemon=True).start()
    return done
