"""Tests for L{tristunnel.model.ports}."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from tristunnel.errors import TunnelError
from tristunnel.model.ports import UNPRIVILEGED, PortRange, parsePorts

SPANS = st.lists(
    st.tuples(st.integers(1, 65535), st.integers(0, 50)).map(
        lambda span: (span[0], min(65535, sum(span)))
    ),
    min_size=1,
    max_size=4,
)


class Port:
    """A port that is open."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.closed = False

    @property
    def address(self) -> tuple[str, str, int]:
        return ("tcp", "", self.number)

    def close(self) -> None:
        self.closed = True


async def reserved(port: int) -> None:
    """Nobody else has it."""


class PortRangeTests(SynchronousTestCase):
    """Tests for L{PortRange} and L{parsePorts}."""

    def test_parsed(self) -> None:
        """Single ports, ranges and lists of them."""
        for text, spans in (
            ("8080", ((8080, 8080),)),
            ("30000-31000", ((30000, 31000),)),
            ("1-65535", ((1, 65535),)),
            (" 80 , 90-91 ", ((80, 80), (90, 91))),
        ):
            self.assertEqual(parsePorts(text).spans, spans)

    def test_reserved(self) -> None:
        """
        A port that is another one's is passed over, and was not opened; the one that
        the kernel has chosen is closed again.
        """
        asked: list[int] = []
        for ports, tried in (
            (PortRange(((4000, 4003),)), 4),
            (UNPRIVILEGED, 1),
            (PortRange(((4000, 4000),)), 1),
        ):
            opened: list[Port] = []
            asked.clear()

            async def reserve(port: int, wanted: int = tried) -> None:
                asked.append(port)
                if len(asked) < wanted or wanted == 1:
                    raise TunnelError("port-taken")

            def listen(port: int, opened: list[Port] = opened) -> Port:
                opened.append(Port(port))
                return opened[-1]

            choosing = Deferred.fromCoroutine(ports.choose(0, 0, listen, reserve))
            if tried == 1:
                refusal = self.failureResultOf(choosing, TunnelError).value
                self.assertEqual(refusal.code.name, "ports-exhausted")
                self.assertTrue(all(port.closed for port in opened))
            else:
                self.assertEqual(self.successResultOf(choosing).number, asked[-1])
                self.assertEqual(len(opened), 1)

    def test_own(self) -> None:
        """What the server has for itself is given to nobody, however it is asked
        for."""
        ports = PortRange(((4000, 4001),))

        def choose(port: int, prefer: int) -> Deferred[Port]:
            choosing = ports.choose(port, prefer, Port, reserved, {4000})
            return Deferred.fromCoroutine(choosing)

        refusal = self.failureResultOf(choose(4000, 0), TunnelError).value
        self.assertEqual(refusal.code.name, "port-taken")
        self.assertIn("used by the server itself", refusal.message)
        for prefer in (0, 4000, 4001):
            self.assertEqual(self.successResultOf(choose(0, prefer)).number, 4001)
        ports = UNPRIVILEGED
        self.assertEqual(self.successResultOf(choose(0, 4000)).number, 0)

    def test_wrong(self) -> None:
        """Anything else is refused, with what was written and an example."""
        for text in ("", "0", "65536", "5-4", "a", "80-", "-80", "80,", "1-2-3", "0-5"):
            with self.assertRaises(TunnelError) as caught:
                parsePorts(text)
            self.assertEqual(caught.exception.code.name, "bad-option")
            self.assertIn("30000-31000", caught.exception.message)

    @given(st.text(max_size=20) | st.text("0123456789-, ", max_size=20))
    def test_anything(self, text: str) -> None:
        """Whatever is written is a set of ports, or refused with one line."""
        try:
            ports = parsePorts(text)
        except TunnelError as error:
            self.assertEqual(error.code.name, "bad-option")
            self.assertNotIn("\n", error.message)
        else:
            for port in (0, 65536):
                self.assertNotIn(port, ports)
            self.assertEqual(parsePorts(str(ports)), ports)

    @given(SPANS)
    def test_shuffled(self, spans: list[tuple[int, int]]) -> None:
        """Every port comes, as often as it was named, and each is permitted."""
        ports = PortRange(tuple(spans))
        wanted = [port for first, last in spans for port in range(first, last + 1)]
        self.assertEqual(sorted(ports.shuffled()), sorted(wanted))
        self.assertEqual(len(ports), len(wanted))
        for port in wanted:
            ports.check(port)

    def test_shuffledStart(self) -> None:
        """The first one differs from time to time."""
        ports = parsePorts("30000-31000")
        self.assertGreater(len({next(ports.shuffled()) for _ in range(50)}), 1)

    def test_outside(self) -> None:
        """A port outside is refused; the message says what there is."""
        with self.assertRaises(TunnelError) as caught:
            parsePorts("30000-31000,8080").check(80)
        self.assertEqual(caught.exception.code.name, "port-not-permitted")
        self.assertIn("30000-31000,8080", caught.exception.message)

    def test_privileged(self) -> None:
        """Where the operator said nothing of ports, the cure for a privileged one is
        the operator's."""
        with self.assertRaises(TunnelError) as caught:
            UNPRIVILEGED.check(443)
        self.assertIn("--ports", caught.exception.message)
        UNPRIVILEGED.check(1024)

    def test_otherThings(self) -> None:
        """Only numbers are ports."""
        self.assertNotIn("8080", parsePorts("8080"))
        self.assertNotIn(None, parsePorts("8080"))
