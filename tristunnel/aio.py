"""
Tunnels in an asyncio program::

    async with tristunnel.aio.expose(3000) as tunnel:
        print(tunnel.url)
        await tunnel.wait()

They are served in a thread of their own; no reactor has to be installed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Generator
from typing import Any, Self, Unpack

from tristunnel.errors import TunnelError
from tristunnel.program.events import Event
from tristunnel.program.tunnel import OpenTunnel, Options, begin

__all__ = ["Event", "Exposing", "Tunnel", "expose"]


class Tunnel(OpenTunnel):
    """A tunnel that is open until it is closed, or the program ends."""

    async def close(self) -> None:
        """Close it. Its visitors' connections end, and its port is free."""
        await asyncio.wrap_future(self._close())

    async def wait(self) -> None:
        """
        Wait until it is closed. Cancelling this leaves it open.

        @raise TunnelError: If the server refuses it for good.
        """
        self._checkHere()
        await asyncio.shield(asyncio.wrap_future(self._over))

    async def events(self) -> AsyncIterator[Event]:
        """What happens, from its opening on, until it is closed."""
        self._checkHere()
        loop, news, index = asyncio.get_running_loop(), asyncio.Event(), 0

        def wake() -> None:
            # The loop may be closed by now.
            if not loop.is_closed():
                loop.call_soon_threadsafe(news.set)

        while True:
            news.clear()
            event, index, over = self._opening.events.after(index, wake)
            if over:
                return
            if event is None:
                await news.wait()
            else:
                yield event

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *problem: object) -> None:
        await self.close()


class Exposing:
    """A tunnel to be: for C{await}, or C{async with}."""

    def __init__(self, target: int | str | None, options: Options) -> None:
        self._target = target
        self._options = options
        self._tunnel: Tunnel | None = None

    async def _open(self) -> Tunnel:
        opening = begin(Tunnel, self._target, self._options)
        try:
            made: Tunnel = await asyncio.wrap_future(opening)
        except TunnelError as error:
            # Where it was raised is of no use to the program.
            raise error.with_traceback(None) from None
        return made

    def __await__(self) -> Generator[Any, None, Tunnel]:
        return self._open().__await__()

    async def __aenter__(self) -> Tunnel:
        self._tunnel = await self._open()
        return self._tunnel

    async def __aexit__(self, *problem: object) -> None:
        if self._tunnel is not None:
            await self._tunnel.close()


def expose(target: int | str | None = None, **options: Unpack[Options]) -> Exposing:
    """
    Make a service reachable through a tunnel server. The parameters and errors are
    those of L{tristunnel.expose}.
    """
    return Exposing(target, options)
