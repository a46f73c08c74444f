"""
What happens when a process has no descriptors left.
"""

from __future__ import annotations

import os
from resource import RLIMIT_NOFILE, getrlimit, setrlimit

from twisted.internet.error import ConnectError
from twisted.internet.task import deferLater

from tests.support.loopback import LoopbackTestCase, Service


class ExhaustedTests(LoopbackTestCase):
    """A server without descriptors turns visitors away and recovers."""

    timeout = 60

    async def test_recovers(self) -> None:
        """
        Those who come while there is none are turned away; those who are there
        stay, and later ones are served.
        """
        service = Service(b"hello")
        port = await self.tunnel(service)
        first = await self.visit(port)
        await first.has(5)
        soft, hard = getrlimit(RLIMIT_NOFILE)
        self.addCleanup(setrlimit, RLIMIT_NOFILE, (soft, hard))
        used = max(map(int, os.listdir("/proc/self/fd")))
        # Visitor and server are one process here: the visitor's own socket is
        # the last one there is.
        setrlimit(RLIMIT_NOFILE, (used + 2, hard))
        held = []
        try:
            while True:
                held.append(os.open(os.devnull, os.O_RDONLY))
        except OSError:
            os.close(held.pop())
        try:
            visitor = await self.visit(port)
        except ConnectError:
            # The reset was there before the visitor has looked.
            pass
        else:
            await visitor.ended()
            self.assertEqual(visitor.data, b"")
            visitor.close()
        self.flushLoggedErrors()
        setrlimit(RLIMIT_NOFILE, (soft, hard))
        for descriptor in held:
            os.close(descriptor)
        await deferLater(self.reactor, 0)
        later = await self.visit(port)
        await later.has(5)
        first.say(b"still here")
        await service.talks[0].has(10)


class ExhaustedStockTests(ExhaustedTests):
    """The same over Twisted's own transports."""

    stock = True
