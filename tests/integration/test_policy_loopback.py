"""
Policies at work, over the loopback interface: on streams that are spliced, on
those that are copied, and over TLS.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall

from tests.support.loopback import LoopbackTestCase, Service, Talk
from tristunnel.dataplane.splice import Splice
from tristunnel.dialects.framed.moves import Carrier
from tristunnel.model.policy import VisitorPolicy, parseNetworks


class SplicedTests(LoopbackTestCase):
    """Streams that have a connection of their own, and are spliced when busy."""

    carrier = Carrier("direct")

    async def busyPair(self, policy: VisitorPolicy) -> tuple[Talk, Talk]:
        """Have a visitor of a tunnel with a policy, to whom a lot is sent."""
        self.service = Service()
        await self.startServer()
        self.tunnels.policies.policy = policy
        (self.port,) = await self.startClient(f"0=127.0.0.1:{self.offer(self.service)}")
        visitor, serving = await self.pair(self.port, self.service)
        serving.say(bytes(4_000_000))
        await visitor.has(4_000_000)
        return visitor, serving

    def reason(self) -> Deferred[str]:
        """Wait for a visitor to be gone; the code of the reason."""
        done: Deferred[str] = Deferred()

        def told(event: tuple[object, ...]) -> None:
            if event[0] == "visitorGone" and not done.called:
                done.callback(str(event[3]))

        self.notes.listeners.append(told)
        return done

    async def test_age(self) -> None:
        """A stream ends at its age, both ends of it, though it is busy."""
        begun: list[Splice] = []
        original = Splice.move

        def begin(splice: Splice) -> None:
            begun.append(splice)
            original(splice)

        self.patch(Splice, "move", begin)
        reason = self.reason()
        visitor, serving = await self.busyPair(VisitorPolicy(maxAge=1.0))
        self.assertEqual(bool(begun), self.carrier.kind == "direct")

        busy = LoopingCall(serving.say, bytes(1000))
        busy.clock = self.reactor
        busy.start(0.05)
        self.assertEqual(await reason, "expired")
        busy.stop()
        await visitor.gone()
        await serving.gone()

    async def test_idle(self) -> None:
        """So does one through which nothing passes any more."""
        reason = self.reason()
        visitor, serving = await self.busyPair(VisitorPolicy(idle=1.0))
        self.assertEqual(await reason, "expired")
        await visitor.gone()
        await serving.gone()

    async def test_rate(self) -> None:
        """All bytes arrive, and no faster than they may."""
        policy = VisitorPolicy(rate=8_000_000)
        began = self.reactor.seconds()
        visitor, _ = await self.busyPair(policy)
        # What passes at once is a tenth of a second's worth, and a read.
        self.assertGreater(self.reactor.seconds() - began, 0.3)
        self.assertEqual(len(visitor.data), 4_000_000)

    async def test_rateLater(self) -> None:
        """
        A rate that comes while a stream is busy holds for it, in both
        directions, and can be lifted; no byte is lost.
        """
        visitor, serving = await self.busyPair(VisitorPolicy())
        (tunnel,) = self.tunnels.here
        self.tunnels.policies.setByOwner(tunnel, VisitorPolicy(rate=8_000_000))
        began = self.reactor.seconds()
        serving.say(bytes(4_000_000))
        visitor.say(b"x" * 4_000_000)
        await visitor.has(8_000_000)
        await serving.has(4_000_000)
        self.assertGreater(self.reactor.seconds() - began, 0.3)

        # At this rate it would take a minute.
        self.tunnels.policies.setByOwner(tunnel, VisitorPolicy(rate=100_000))
        serving.say(b"y" * 6_000_000)
        await visitor.has(8_000_001)
        self.tunnels.policies.setByOwner(tunnel, VisitorPolicy())
        await visitor.has(14_000_000)
        self.assertEqual(visitor.data[8_000_000:], b"y" * 6_000_000)

    async def test_denied(self) -> None:
        """
        A visitor from where none may come from is reset, and the service hears
        nothing of it; the others go on.
        """
        visitor, serving = await self.busyPair(VisitorPolicy())
        (tunnel,) = self.tunnels.here
        self.tunnels.policies.setByOwner(
            tunnel, VisitorPolicy(deny=parseNetworks(["127.0.0.0/8"]))
        )
        before = len(self.service.talks)
        late = await self.visit(self.port)
        await late.gone()
        self.assertEqual(
            [code for _, code in self.notes.named("visitorRefused")], ["not-permitted"]
        )
        self.assertEqual(len(self.service.talks), before)
        serving.say(b"still")
        await visitor.has(4_000_005)
        self.assertEqual(self.tunnels.policies.endDenied(tunnel), 1)
        await visitor.gone()
        await serving.gone()


class CopiedTests(SplicedTests):
    """Streams within the session."""

    carrier = Carrier("session")


class SecureTests(SplicedTests):
    """Streams of a session over TLS."""

    tls = True
    carrier = Carrier("session")
