"""
A reactor in a thread of its own, for programs that have no reactor, or another one.

The reactor is not installed as the process's: a program may have one of its own, an
asyncio loop, or a notebook around it. The thread and those that it starts are daemons,
so that the program ends when its last line has run; the tunnels say goodbye in
C{atexit}.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, InvalidStateError
from concurrent.futures import TimeoutError as Late
from contextlib import suppress
from functools import partial
from threading import Event, Lock, Thread
from typing import Any, ClassVar, TypeVar

from twisted.internet.defer import Deferred
from twisted.python import threadable
from twisted.python.failure import Failure

from tristunnel.dataplane.reactor import polledReactor
from tristunnel.util.process import useMonotonicTime

__all__ = ["ReactorThread", "daemon"]

A = TypeVar("A")

FAREWELL = 0.7
"""Seconds in which the tunnels of a program that ends may say goodbye."""


daemon: Any = partial(Thread, daemon=True)
"""Makes a thread that does not keep the program from ending."""


def _makeReactor() -> Any:
    try:
        from twisted.internet.epollreactor import EPollReactor as Reactor
    except ImportError:
        from twisted.internet.selectreactor import SelectReactor as Reactor
    return Reactor()


class ReactorThread:
    """
    Runs a reactor until the program ends.

    @ivar reactor: The reactor, with the data plane's sockets. To be used in its
        thread only.
    """

    _current: ClassVar[ReactorThread | None] = None
    _lock: ClassVar[Lock] = Lock()

    def __init__(self) -> None:
        made = _makeReactor()
        useMonotonicTime(made)
        pool = made.getThreadPool()
        # Twisted's own threads would keep the interpreter from ending.
        pool.threadFactory = daemon
        self.reactor: Any = polledReactor(made)
        self._leaving: dict[object, Callable[[], Deferred[Any]]] = {}
        self._process = os.getpid()
        self._ready = Event()
        made.callWhenRunning(self._ready.set)
        self._thread = Thread(target=self._run, name="tristunnel", daemon=True)

    def _run(self) -> None:
        # What a program's own reactor has registered as its thread stays.
        former = threadable.ioThread
        self.reactor.callWhenRunning(setattr, threadable, "ioThread", former)
        self.reactor.run(installSignalHandlers=False)

    @classmethod
    def current(cls) -> ReactorThread:
        """Get the one of this process; it is started if there is none."""
        with cls._lock:
            current = cls._current
            if current is None or not current.isHere:
                current = cls._current = cls()
                current._thread.start()
                current._ready.wait()
                atexit.register(current.stop)
            return current

    @classmethod
    def forget(cls) -> None:
        """
        After a fork, the child has no thread, and its copy of the lock may be locked.
        """
        cls._lock, cls._current = Lock(), None

    @property
    def isHere(self) -> bool:
        """Whether this is still the process in which it was made."""
        return self._process == os.getpid() and (
            self._thread.ident is None or self._thread.is_alive()
        )

    def start(self, work: Callable[[], Coroutine[Any, Any, A]]) -> Future[A]:
        """
        Run a coroutine in the reactor's thread.

        @param work: Makes it.
        @return: Its result; cancelling it cancels the coroutine.
        """
        result: Future[A] = Future()
        self.reactor.callFromThread(self._start, work, result)
        return result

    def _start(
        self, work: Callable[[], Coroutine[Any, Any, A]], result: Future[A]
    ) -> None:
        if result.cancelled():
            return
        running = Deferred.fromCoroutine(work())

        def cancelled(result: Future[A]) -> None:
            if result.cancelled():
                self.reactor.callFromThread(running.cancel)

        def failed(failure: Failure) -> None:
            with suppress(InvalidStateError):
                result.set_exception(failure.value)

        def done(value: A) -> None:
            with suppress(InvalidStateError):
                result.set_result(value)

        result.add_done_callback(cancelled)
        running.addCallbacks(done, failed)

    def whenLeaving(self, key: object, leave: Callable[[], Deferred[Any]]) -> None:
        """
        Register something to do when the program ends. To be called in the thread.

        @param leave: Starts it.
        """
        self._leaving[key] = leave

    def left(self, key: object) -> None:
        """It is done."""
        self._leaving.pop(key, None)

    def stop(self) -> None:
        """Say goodbye, and stop. Called when the program ends."""
        if not self.isHere:
            return

        async def leave() -> None:
            for one in [each() for each in self._leaving.values()]:
                await one

        with suppress(Late, Exception):
            self.start(leave).result(FAREWELL)
        self.reactor.callFromThread(self.reactor.stop)
        self._thread.join(FAREWELL)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=ReactorThread.forget)
