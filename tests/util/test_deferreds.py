"""Work that is asked for while it is being done."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tristunnel.util.deferreds import Coalesced


class CoalescedTests(SynchronousTestCase):
    """Nothing that is asked for is forgotten, and nothing is done twice at once."""

    def setUp(self) -> None:
        self.doing: list[Deferred[None]] = []
        self.failures: list[Failure] = []
        self.coalesced = Coalesced(self._work, self.failures.append)

    async def _work(self) -> None:
        self.doing.append(Deferred())
        await self.doing[-1]

    def test_once(self) -> None:
        """It is done at once, and when it is asked for after its end."""
        for count in (1, 2):
            self.coalesced.ask()
            self.assertEqual(len(self.doing), count)
            self.assertFalse(self.coalesced.isDone)
            self.doing[-1].callback(None)
            self.assertTrue(self.coalesced.isDone)

    def test_meanwhile(self) -> None:
        """What is asked for meanwhile, however often, is done once more."""
        for _ in range(4):
            self.coalesced.ask()
        self.assertEqual(len(self.doing), 1)
        self.doing[0].callback(None)
        self.assertEqual(len(self.doing), 2)
        self.doing[1].callback(None)
        self.assertEqual(len(self.doing), 2)
        self.assertTrue(self.coalesced.isDone)

    def test_failed(self) -> None:
        """A failure is told, and ends nothing."""
        self.coalesced.ask()
        self.coalesced.ask()
        self.doing[0].errback(ZeroDivisionError())
        self.doing[1].callback(None)
        self.assertEqual(len(self.failures), 1)
        self.failures[0].trap(ZeroDivisionError)
        self.assertTrue(self.coalesced.isDone)
