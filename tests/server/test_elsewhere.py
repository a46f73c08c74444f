"""Tests for L{tristunnel.server.elsewhere}, and the marks that it reads."""

from __future__ import annotations

from typing import Any
from unittest.mock import Mock
from uuid import UUID, uuid4

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tristunnel.dialects.zlayer.data import ZLayerSessions
from tristunnel.server.detector import HERE
from tristunnel.server.elsewhere import LONGEST_LINE, PageOwners
from tristunnel.service.tickets import Tickets
from tristunnel.util.members import memberIn, memberMark

COUNT = 4


def owners(index: int) -> PageOwners:
    return PageOwners(Mock(), index, COUNT)


def asked(path: str, index: int = 0) -> int | None:
    return owners(index).whose(f"GET {path} HTTP/1.1\r\nHost: x\r\n".encode())


class PageOwnersTests(SynchronousTestCase):
    """Whose a connection is, by its first line."""

    def test_here(self) -> None:
        """What is nobody's in particular is served where it comes."""
        for path in (
            "/",
            "/rpc",
            "/tunnel",
            "/tunnel/v1",
            "/tunnel/v1/data/x",
            "/host.",
        ):
            self.assertEqual(asked(path), HERE, path)
        self.assertEqual(owners(0).whose(b"W3PTUNL"), HERE)
        self.assertEqual(owners(0).whose(b"POST /host/1.x HTTP/1.1"), HERE)

    def test_marked(self) -> None:
        """A name that a member has made is that member's, and its own are here."""
        for page in ("host", "client"):
            self.assertEqual(asked(f"/{page}/3.secret"), 3)
            self.assertEqual(asked(f"/{page}/3.secret?token=t"), 3)
            self.assertEqual(asked(f"/{page}/3.secret", 3), HERE)

    def test_channel(self) -> None:
        """Both sides of a channel come to the same member, whoever is asked."""
        found = set()
        for number in range(50):
            room = f"room%20{number}"
            at = {
                index if (whose := asked(f"/{page}/{room}", index)) == HERE else whose
                for index in range(COUNT)
                for page in ("host", "client")
            }
            self.assertEqual(len(at), 1)
            found |= at
        self.assertEqual(found, set(range(COUNT)))

    def test_data(self) -> None:
        """zlayer's connections are of the member that has named them."""
        sessions = ZLayerSessions(Mock())
        sessions.member = 2
        stream: Any = Mock()
        identifier = sessions.expect(stream, Mock())
        self.assertEqual(asked(f"/tunnel/v1/data/{identifier}"), 2)
        foreign = UUID(bytes=b"\xff" + uuid4().bytes[1:])
        self.assertEqual(asked(f"/tunnel/v1/data/{foreign}"), HERE)

    def test_unfinished(self) -> None:
        """More is read until the line is whole, but not for ever."""
        line = b"GET /host/1.x HTTP/1.1"
        for length in range(4, len(line)):
            self.assertIsNone(owners(0).whose(line[:length]))
        self.assertEqual(owners(0).whose(b"GET /" + b"x" * LONGEST_LINE), HERE)

    @given(st.binary(max_size=200))
    def test_anything(self, data: bytes) -> None:
        """Whatever comes, there is an answer."""
        self.assertIn(owners(1).whose(b"GET " + data), {None, HERE, 0, 2, 3})


class MarkTests(SynchronousTestCase):
    """What tickets and names begin with."""

    @given(st.text(max_size=8))
    def test_anything(self, text: str) -> None:
        """Whoever wrote it, it names one of the members or none."""
        self.assertIn(memberIn(text, COUNT), {None, *range(COUNT)})

    def test_marks(self) -> None:
        """What a member makes is known to be its own; a server alone marks nothing."""
        for index in range(64):
            self.assertEqual(memberIn(f"{memberMark(index)}name", 64), index)
        self.assertEqual(memberMark(None), "")
        for text in ("7.name", "1name", ".name", "-1.name", "\u0661.name", ""):
            self.assertIsNone(memberIn(text, COUNT), text)

    def test_tickets(self) -> None:
        """A ticket with a mark is taken as any other one, once."""
        tickets = Tickets(lambda: 0.0)
        tickets.mark = memberMark(3)
        use = Mock()
        text = tickets.grant(use).text
        self.assertEqual(memberIn(text, COUNT), 3)
        self.assertIs(tickets.redeem(text), use)
        self.assertIsNone(tickets.redeem(text))
