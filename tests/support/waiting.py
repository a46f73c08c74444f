"""
Ends of streams that wait to be joined, and the ports in memory where they
arrive.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred, succeed

from tests.support.ends import SilentEnd
from tristunnel.errors import TunnelError
from tristunnel.interfaces import Closed, End
from tristunnel.model.options import TunnelOptions
from tristunnel.model.ports import Reserve

__all__ = ["Port", "Ports", "WaitingEnd"]


class WaitingEnd(SilentEnd):
    """
    An L{End<tristunnel.interfaces.End>} whose remote is the test.

    @ivar peer: What it was joined to, or C{None}.
    @ivar refused: The code of the reason why it was broken off, or empty.
    @ivar ended: Whether it sends no more.
    @ivar early: What it has sent before it is joined.
    """

    guessable = True

    def __init__(self) -> None:
        self.received = 0
        self.early = b""
        self.heard: Callable[[], None] | None = None
        self.peer: End | None = None
        self.refused = ""
        self.ended = False
        self._closed: Closed | None = None

    def leave(self, reason: TunnelError | None) -> None:
        """Be over, of its own accord."""
        self.ended = True
        if self._closed is not None:
            closed, self._closed = self._closed, None
            closed(reason)

    def say(self, data: bytes) -> None:
        """Send something."""
        self.early += data
        self.received += len(data)
        self._stir()

    def finishSending(self) -> None:
        """Send no more, and perhaps be gone."""
        self.ended = True
        self._stir()

    def _stir(self) -> None:
        if self.peer is None and self.heard is not None:
            self.heard()

    def skipEarly(self, count: int) -> None:
        """Pass so many bytes to nobody."""
        self.early = self.early[count:]
        self.received -= count

    def join(self, peer: End, closed: Closed) -> None:
        assert self.peer is None and not self.refused
        self.peer, self._closed = peer, closed

    def whileWaiting(self, left: Closed) -> None:
        if self.peer is None:
            self._closed = left

    def reset(self, reason: TunnelError) -> None:
        assert not self.refused
        if not self.ended:
            self.refused = reason.code.name
        self.leave(reason)


class Port:
    """
    A port in memory.

    @ivar closed: Whether it was closed.
    @ivar number: Its number.
    """

    def __init__(
        self, ports: Ports, number: int, arrived: Callable[[End, str], None]
    ) -> None:
        self.closed = False
        self.number = number
        self._ports = ports
        self._arrived = arrived

    @property
    def address(self) -> tuple[str, str, int]:
        """Where it is."""
        return (self._ports.scheme, "", self.number)

    def come(self, says: bytes = b"hello", host: str = "192.0.2.7") -> WaitingEnd:
        """Connect to it, and say something."""
        assert not self.closed
        end = WaitingEnd()
        self._arrived(end, f"{host}:50000")
        if says and not end.ended:
            end.say(says)
        return end

    def close(self) -> Deferred[None]:
        """Listen no more."""
        if not self.closed:
            self.closed = True
            del self._ports.open_[self.number]
        if self._ports.slow is None:
            return succeed(None)
        slow: Deferred[None] = Deferred()
        self._ports.slow.append(slow)
        return slow


async def reserved(kind: str, port: int | str) -> None:
    """Reserve a port where there is nobody else."""


class Ports:
    """
    L{Listeners<tristunnel.service.caller.Listeners>} in memory: four ports from
    8010.

    @ivar scheme: What addresses begin with.
    @ivar open_: What is open, by number.
    @ivar slow: The closings that are under way, if they take time.
    """

    def __init__(self, scheme: str = "tcp", first: int = 8010) -> None:
        self.scheme = scheme
        self.open_: dict[int, Port] = {}
        self.slow: list[Deferred[None]] | None = None
        self._numbers = range(first, first + 4)

    async def open(
        self,
        options: TunnelOptions,
        arrived: Callable[[End, str], None],
        reserve: Reserve,
    ) -> Port:
        """Listen."""
        port = options.port
        free = [number for number in self._numbers if number not in self.open_]
        if port in self.open_:
            raise TunnelError("port-taken")
        if port and port not in self._numbers:
            raise TunnelError("port-not-permitted")
        if not free:
            raise TunnelError("ports-exhausted")
        number = port or free[0]
        await reserve("tcp", number)
        self.open_[number] = Port(self, number, arrived)
        return self.open_[number]

    def at(self, uri: str) -> Port:
        """The open port that a URI names."""
        return self.open_[int(uri.partition("#")[0].rpartition(":")[2])]
