"""Decides at a tunnel's public side who is let in, and who is turned away."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from tristunnel.dataplane.rate import TokenBucket
from tristunnel.errors import TunnelError
from tristunnel.model.policy import VisitorPolicy
from tristunnel.model.tunnel import Stream
from tristunnel.util.hosts import addressOf

__all__ = ["PolicyFilter", "StreamSweep", "hostOfVisitor"]

SHARE = 8
"""Streams are looked at so many times within the shortest limit; one may live for
longer than it should by the time between two looks."""

SHORTEST = 0.05
"""Seconds between two looks, at least."""

LONGEST = 15.0
"""Seconds between two looks, at most."""

_REMEMBERED = 10_000


class PolicyFilter:
    """
    Applies a L{VisitorPolicy} to a tunnel; remembers who is there if that matters: a
    L{VisitorFilter<tristunnel.model.tunnel.VisitorFilter>}.

    @param policy: What to apply; L{apply} replaces it at any time, for those who come
        later.
    @param seconds: The clock.
    @param countryOf: Finds the country of an address; empty for one that is not known.
    """

    def __init__(
        self,
        policy: VisitorPolicy,
        seconds: Callable[[], float],
        countryOf: Callable[[str], str] = lambda host: "",
    ) -> None:
        self._seconds = seconds
        self._countryOf = countryOf
        # The visits that each address has left.
        self._buckets: OrderedDict[str, TokenBucket] = OrderedDict()
        self.apply(policy, ())

    def apply(self, policy: VisitorPolicy, inside: Iterable[Stream]) -> None:
        """
        Ask something else of those who come from now on.

        @param inside: Those who are there already.
        """
        self.policy = policy
        self._asks = policy.asksVisitors
        self._inside: Counter[str] = Counter()
        if self._asks:
            for stream in inside:
                self._inside[hostOfVisitor(stream.visitorAddress)] += 1
                if self not in stream.filters:
                    stream.filters.append(self)
        self._count = self._inside.total()

    def enter(self, stream: Stream) -> None:
        host = hostOfVisitor(stream.visitorAddress)
        self._check(host)
        self._count += 1
        self._inside[host] += 1

    def leave(self, stream: Stream) -> None:
        # It may ask nothing any more of those who came when it did.
        if self._asks:
            host = hostOfVisitor(stream.visitorAddress)
            self._count -= 1
            self._inside[host] -= 1
            if not self._inside[host]:
                del self._inside[host]

    def _check(self, host: str) -> None:
        policy = self.policy
        self.checkNetwork(host)
        if policy.maxVisitors and self._count >= policy.maxVisitors:
            raise TunnelError(
                "limit-reached",
                f"{policy.maxVisitors} visitors are connected, which is the limit",
            )
        if (
            policy.visitorsPerAddress
            and self._inside[host] >= policy.visitorsPerAddress
        ):
            raise TunnelError(
                "limit-reached",
                f"{policy.visitorsPerAddress} visitors from {host} are connected,"
                " which is the limit",
            )
        if policy.visitorRate and not self._takeToken(host, policy.visitorRate):
            raise TunnelError(
                "limit-reached",
                f"more than {policy.visitorRate} visitors per minute came from {host}",
                60 / policy.visitorRate,
            )

    def checkNetwork(self, host: str) -> None:
        """
        @raise TunnelError: C{not-permitted}, if visitors may not come from
            there; also for a visitor without an address, where addresses
            matter.
        """
        policy = self.policy
        if not (policy.allow or policy.deny or policy.countries):
            return
        address = addressOf(host)
        if address is None:
            raise TunnelError("not-permitted", "the visitor's address is not known")
        if any(address in network for network in policy.deny):
            raise TunnelError("not-permitted", f"visitors from {host} are denied")
        if policy.allow and not any(address in network for network in policy.allow):
            raise TunnelError("not-permitted", f"visitors from {host} are not allowed")
        if policy.countries and self._countryOf(str(address)) not in policy.countries:
            raise TunnelError(
                "not-permitted", f"visitors from the country of {host} are not allowed"
            )

    def _takeToken(self, host: str, perMinute: int) -> bool:
        bucket = self._buckets.pop(host, None)
        if bucket is None:
            bucket = TokenBucket(perMinute / 60, self._seconds, perMinute)
        elif bucket.atOnce != perMinute:
            bucket.change(perMinute / 60, perMinute)
        self._buckets[host] = bucket
        if len(self._buckets) > _REMEMBERED:
            # The one that was not seen for longest has most likely regained all of
            # them.
            self._buckets.popitem(last=False)
        return bucket.take()


def hostOfVisitor(address: str) -> str:
    """The host of C{HOST:PORT}, without brackets."""
    host = address.rpartition(":")[0] or address
    return host.removeprefix("[").removesuffix("]")


class StreamSweep:
    """
    Ends the streams that are too old or were silent for too long, of all tunnels
    that limit that: a L{VisitorFilter<tristunnel.model.tunnel.VisitorFilter>}.

    They are looked at together now and then, instead of having a timer each: a stream
    that lives for a millisecond costs no timer, and the counts show whether bytes pass,
    by splicing, by copying or in datagrams.

    @param reactor: Tells time.
    """

    def __init__(self, reactor: IReactorTime) -> None:
        self._reactor = reactor
        # How many bytes had passed, and since when no more did.
        self._watched: dict[Stream, tuple[int, float]] = {}
        self._look: IDelayedCall | None = None

    def __len__(self) -> int:
        return len(self._watched)

    def enter(self, stream: Stream) -> None:
        now = self._reactor.seconds()
        self._watched[stream] = (0, now)
        self._lookSoon(stream, now)

    def watch(self, stream: Stream) -> None:
        """
        Watch a stream that came in before it was to be watched, or whose
        limits have changed.
        """
        now = self._reactor.seconds()
        if stream not in self._watched:
            self._watched[stream] = (stream.bytesIn + stream.bytesOut, now)
            stream.filters.append(self)
        self._lookSoon(stream, now)

    def _lookSoon(self, stream: Stream, now: float) -> None:
        interval = _interval(stream)
        if self._look is None:
            self._look = self._reactor.callLater(interval, self._sweep)
        elif self._look.getTime() > now + interval:
            self._look.reset(interval)

    def leave(self, stream: Stream) -> None:
        self._watched.pop(stream, None)
        if not self._watched and self._look is not None:
            self._look.cancel()
            self._look = None

    def _sweep(self) -> None:
        self._look = None
        now = self._reactor.seconds()
        interval = LONGEST
        for stream, (before, since) in list(self._watched.items()):
            policy = stream.tunnel.policy
            passed = stream.bytesIn + stream.bytesOut
            if passed != before:
                since = now
                self._watched[stream] = (passed, now)
            if policy.maxAge and now - stream.opened >= policy.maxAge:
                why = f"a stream may last {policy.maxAge:g} s here"
                stream.reset(TunnelError("expired", why))
            elif policy.idle and now - since >= policy.idle:
                why = f"nothing passed for {policy.idle:g} s"
                stream.reset(TunnelError("expired", why))
            else:
                interval = min(interval, _interval(stream))
        if self._watched:
            self._look = self._reactor.callLater(interval, self._sweep)


def _interval(stream: Stream) -> float:
    policy = stream.tunnel.policy
    limits = [limit for limit in (policy.idle, policy.maxAge) if limit]
    shortest = min(limits, default=LONGEST)
    return max(SHORTEST, min(shortest / SHARE, LONGEST))
