"""Which ports may be given to visitors."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Container, Iterator
from dataclasses import dataclass
from typing import Protocol, TypeVar

from tristunnel.errors import TunnelError, badOption

__all__ = ["UNPRIVILEGED", "PortRange", "Reserve", "parsePorts"]

Reserve = Callable[[str, int | str], Awaitable[object]]
"""Reserves a port of a kind, such as C{"tcp"}, or a name of a kind, for one tunnel
alone, in place of what it had reserved before; or raises L{TunnelError}."""


class _Listener(Protocol):
    """A listener on a port."""

    @property
    def address(self) -> tuple[str, str, int]: ...

    def close(self) -> object: ...


_L = TypeVar("_L", bound=_Listener)


_TRIES = 8
"""How many ports of the kernel's choice are tried: one that is free here may be
reserved by a tunnel elsewhere."""


@dataclass(frozen=True)
class PortRange:
    """
    A set of ports.

    @ivar spans: First and last port of each part.
    """

    spans: tuple[tuple[int, int], ...]

    def __contains__(self, port: object) -> bool:
        return isinstance(port, int) and any(
            first <= port <= last for first, last in self.spans
        )

    def __len__(self) -> int:
        return sum(last - first + 1 for first, last in self.spans)

    def __str__(self) -> str:
        return ",".join(
            str(first) if first == last else f"{first}-{last}"
            for first, last in self.spans
        )

    def shuffled(self) -> Iterator[int]:
        """
        Yield every port once, beginning at a random one: two servers with the same
        range seldom try the same port, and a port that was closed is not given out
        again at once.
        """
        ports = [port for first, last in self.spans for port in range(first, last + 1)]
        start = random.randrange(len(ports))
        yield from ports[start:]
        yield from ports[:start]

    def check(self, port: int) -> None:
        """@raise TunnelError: C{port-not-permitted}."""
        if port in self:
            return
        cure = f"ask for one of {self}, or for any with 0"
        if port < 1024 and self is UNPRIVILEGED:
            cure = "start the server with --ports to allow privileged ports"
        raise TunnelError(
            "port-not-permitted", f"port {port} is not allowed here; {cure}"
        )

    async def choose(
        self,
        port: int,
        prefer: int,
        listen: Callable[[int], _L],
        reserve: Callable[[int], Awaitable[object]],
        own: Container[int] = (),
    ) -> _L:
        """
        Listen on a port of the range. The port is reserved first, unless the kernel
        chooses it.

        @param port: The one to take; 0 for any.
        @param prefer: With C{port} 0, the one to take if it is free; 0 for
            none.
        @param listen: Listens on a port, or raises L{TunnelError}.
        @param reserve: Reserves one, likewise.
        @param own: Those that the server has for itself.
        @return: What C{listen} has made.
        @raise TunnelError: C{port-taken}, C{port-not-permitted} or
            C{ports-exhausted}.
        """

        async def take(port: int) -> _L:
            if port and port in own:
                raise TunnelError(
                    "port-taken",
                    f"port {port} is used by the server itself; choose another, or 0"
                    " for any",
                )
            if port:
                await reserve(port)
                return listen(port)
            listener = listen(0)
            try:
                await reserve(listener.address[2])
            except BaseException:
                listener.close()
                raise
            return listener

        if port:
            self.check(port)
            return await take(port)
        preferred = [prefer] if prefer and prefer in self else []
        # Where any port will do, the kernel knows which one is free.
        candidates = [0] * _TRIES if self is UNPRIVILEGED else self.shuffled()
        for candidate in (*preferred, *candidates):
            try:
                return await take(candidate)
            except TunnelError as refusal:
                if refusal.code.name != "port-taken" and candidate not in preferred:
                    raise
        raise TunnelError(
            "ports-exhausted", f"all {len(self)} ports ({self}) are taken"
        )


UNPRIVILEGED = PortRange(((1024, 65535),))
"""The ports that are given out unless the operator says otherwise."""


def parsePorts(text: str) -> PortRange:
    """
    Read C{30000-31000}, C{8080} or several of them with commas between.

    @raise TunnelError: C{bad-option}.
    """
    spans = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        try:
            span = (int(first), int(last if dash else first))
        except ValueError:
            span = (0, 0)
        if not 1 <= span[0] <= span[1] <= 65535:
            raise badOption(
                f"{part.strip()!r} is not a port range; write for example 30000-31000"
            )
        spans.append(span)
    return PortRange(tuple(spans))
