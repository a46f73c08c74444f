"""
Fixtures for pytest: C{pytest_plugins = ["tristunnel.testing"]}.

C{tunnelServer} is a server of the test run's own on this machine, and C{expose} is
L{tristunnel.expose} at that server; what it has opened is closed after the test.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tristunnel.program.local import localServer
from tristunnel.program.tunnel import Tunnel
from tristunnel.program.tunnel import expose as _expose

__all__ = ["expose", "tunnelServer"]


@pytest.fixture(scope="session")
def tunnelServer() -> Iterator[str]:
    """
    A tunnel server on the loopback interface. Anybody of this machine may open
    tunnels there.

    @return: Its address, for C{server=} and C{--connect}.
    """
    with localServer() as address:
        yield address


@pytest.fixture
def expose(tunnelServer: str) -> Iterator[Callable[..., Tunnel]]:
    """L{tristunnel.expose}, at C{tunnelServer} unless C{server=} says otherwise."""
    with ExitStack() as opened:

        def one(target: int | str | None = None, **options: Any) -> Tunnel:
            made = _expose(target, **{"server": tunnelServer, **options})
            return opened.enter_context(made)

        yield one
