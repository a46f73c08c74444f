"""Tests for L{tristunnel.screen.draw}, L{tristunnel.screen.model} and
L{tristunnel.screen.draw}."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import Any

import segno
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.text import Text
from twisted.trial.unittest import SynchronousTestCase

from tests.screen.example import clientStatus, server, serverStatus, tunnel
from tests.screen.golden import assertGolden
from tests.screen.picture import picture
from tristunnel.screen.draw import Pen, drawPage, natural
from tristunnel.screen.model import clientPage, qrTargets, serverPage
from tristunnel.util.hosts import webAddress
from tristunnel.util.qr import qrLines

DOCS = Path(__file__).resolve().parents[2] / "docs"

HINTS = ("q stops", "c QR code")

PLAIN = Pen(styled=False)

_NAMESPACE = {'http://www.w3.org/2000/svg">'}


def coloured(environment: dict[str, str] | None = None, encoding: str = "utf-8") -> Pen:
    return Pen(encoding, True, environment or {"TERM": "xterm-256color"})


class ClientTests(SynchronousTestCase):
    """A client's screen."""

    def setUp(self) -> None:
        before = os.environ.get("TZ")

        def restore() -> None:
            if before is None:
                del os.environ["TZ"]
            else:
                os.environ["TZ"] = before
            time.tzset()

        self.addCleanup(restore)
        os.environ["TZ"] = "UTC"
        time.tzset()

    def draw(
        self, width: int = 80, height: int | None = 24, **status: Any
    ) -> list[str]:
        page = clientPage(clientStatus(**status), HINTS)
        return drawPage(PLAIN, page, width, height)

    def test_pictures(self) -> None:
        """What each size and each state shows; colours and codes are apart."""
        tunnels = [tunnel(f"tcp://h.example:{n}", "web") for n in range(50)]
        crowd = [{**clientStatus()["events"][0], "text": "came"}] * 50
        taken = "the name 'db' is already in use; choose another [name-taken]"
        gone: dict[str, Any] = {"ready": False}
        troubles = [
            tunnel("tcp://h.example:1", "localhost:3000", name="shop", speaks="http"),
            tunnel("tcp://h.example:2", "localhost:3001", name="www", listens=False),
            tunnel("", "localhost:5432", name="db", reason=taken, **gone, wanted="db"),
            tunnel("", "localhost:1", wanted="port 80", **gone),
        ]
        asleep, failed = "is stopped: nobody has come for 15m", "was not started: rc 3"
        onDemand = [
            tunnel("tcp://h.example:1", "localhost:3000", demand="is being started"),
            tunnel("tcp://h.example:2", "localhost:3001", demand=asleep),
            tunnel("tcp://h.example:3", "localhost:3002", demand=failed),
            tunnel("tcp://h.example:4", "localhost:3003", demand="", visitors=1),
        ]
        why = "cable cut [session-lost]"
        other = server(server="tcp:other:1", state="connecting", dialect="vtunnel")
        asking = server(retryIn=3.2)
        for name, size, status in (
            ("client", (80, 24), {}),
            ("wide", (120, 40), {}),
            # Numbers go first, then the ends of lines; never an address's port.
            ("narrow", (60, 20), {}),
            ("narrowest", (40, 20), {}),
            # Tunnels without room are counted, and leave some to events.
            ("many-tunnels", (80, 24), {"tunnels": tunnels}),
            # A crowd of visitors does not push out what matters.
            ("crowd", (80, 24), {"events": [*crowd, *clientStatus()["events"]]}),
            # Names, web sites, what is refused, and services that do not listen.
            ("troubles", (80, 24), {"tunnels": troubles, "servers": [asking]}),
            ("troubles-narrow", (50, 20), {"tunnels": troubles}),
            ("troubles-short", (80, 13), {"tunnels": troubles}),
            # Services that are started for their visitors.
            ("on-demand", (80, 24), {"tunnels": onDemand}),
            ("several-servers", (80, 24), {"servers": [server(), other]}),
            ("nothing", (80, 24), {"tunnels": [], "events": [], "rates": []}),
            *(
                (state, (60, 12), {"servers": [server(state=state, **more)]})
                for state, more in (
                    ("connecting", {"reason": why, "roundTrip": None}),
                    ("waiting", {"reason": why, "retryIn": 4.6}),
                    ("stopped", {"reason": "why " * 30 + "cure"}),
                    ("stopping", {"stopsIn": 6.2}),
                )
            ),
        ):
            options: dict[str, Any] = status
            assertGolden(self, name, self.draw(*size, **options))
        page = clientPage(clientStatus())
        assertGolden(self, "file", drawPage(PLAIN, page, natural(page)))
        ascii_ = drawPage(Pen("ANSI_X3.4-1968", False), page, 80, 24)
        assertGolden(self, "ascii", ascii_)
        pen = coloured(None, "ANSI_X3.4-1968")
        for width in (40, 80):
            self.assertTrue("".join(drawPage(pen, page, width, 24)).isascii())

    def test_bounds(self) -> None:
        """No size makes it larger than the terminal, or fail."""
        many = [tunnel(f"tcp://h.example:{n}", f"web{n}") for n in range(50)]
        for tunnels in (many, many[:1], []):
            for width in (1, 2, 5, 13, 20, 39, 60, 80, 200):
                for height in (1, 2, 5, 9, 12, 20, 24, 60):
                    lines = self.draw(width, height, tunnels=tunnels)
                    self.assertLessEqual(len(lines), height)
                    for line in lines:
                        self.assertLessEqual(cell_len(line), width)

    def test_colours(self) -> None:
        """A terminal gets colours; with C{NO_COLOR} it gets bold and dim only."""
        page = clientPage(clientStatus(), HINTS)
        for environment, expected in (
            ({"TERM": "xterm-256color"}, True),
            ({"TERM": "xterm-256color", "NO_COLOR": "1"}, False),
        ):
            drawn = "\n".join(drawPage(coloured(environment), page, 80, 24))
            codes = set(re.findall(r"\x1b\[([0-9;]*)m", drawn))
            self.assertIn("1", codes)
            found = {c for code in codes for c in code.split(";") if c.startswith("3")}
            self.assertEqual(bool(found), expected, codes)
            self.assertEqual(
                [Text.from_ansi(line).plain.rstrip() for line in drawn.split("\n")],
                drawPage(PLAIN, page, 80, 24),
            )

    @given(st.text(max_size=300), st.integers(1, 120))
    def test_anyText(self, text: str, width: int) -> None:
        """Whatever others write stays within its line and is no code."""
        status = clientStatus(
            servers=[server(state="waiting", retryIn=1.0, reason=text, server=text)],
            tunnels=[tunnel(text, text)],
            events=[{**clientStatus()["events"][0], "text": text, "level": "warn"}],
        )
        lines = drawPage(PLAIN, clientPage(status), width, 24)
        for line in lines:
            self.assertTrue(line.isprintable(), ascii(line))
            self.assertLessEqual(cell_len(line), width)


class ServerTests(SynchronousTestCase):
    """What C{tristunnel status} shows of a server."""

    def test_page(self) -> None:
        """Tunnels and clients, each with its numbers."""
        page = serverPage(serverStatus())
        assertGolden(self, "server", drawPage(PLAIN, page, natural(page)))


class CodeTests(SynchronousTestCase):
    """QR codes."""

    address = "http://tunnel.example.com:30001/"

    def modules(self) -> list[list[bool]]:
        rows = segno.make(self.address, micro=False, error="m").matrix_iter(border=2)
        return [[bool(module) for module in row] for row in rows]

    def test_halfBlocks(self) -> None:
        """A line has two rows of the code, and all of it."""
        halves = {
            "\u2588": (False, False),
            "\u2580": (False, True),
            "\u2584": (True, False),
            " ": (True, True),
        }
        for coloured in (False, True):
            drawn: list[list[bool]] = []
            for line in qrLines(self.address, coloured=coloured):
                pairs = [halves[letter] for letter in Text.from_ansi(line).plain]
                drawn += [[pair[0] for pair in pairs], [pair[1] for pair in pairs]]
            expected = self.modules()
            self.assertEqual(drawn[: len(expected)], expected)
            self.assertFalse(any(any(row) for row in drawn[len(expected) :]))

    def test_ascii(self) -> None:
        """Without half blocks a module takes two letters."""
        lines = qrLines(self.address, unicode=False)
        drawn = [
            [line[at : at + 2] == "  " for at in range(0, len(line), 2)]
            for line in lines
        ]
        self.assertEqual(drawn, self.modules())

    def test_addresses(self) -> None:
        """A phone can open web sites; a TCP tunnel may lead to one."""
        for address, web in (
            ("http://shop.example.com/", "http://shop.example.com/"),
            ("https://shop.example.com", "https://shop.example.com"),
            ("tcp://h.example:8080", "http://h.example:8080/"),
            ("tls://h.example:443", "https://h.example:443/"),
            ("tcp://[2001:db8::1]:80", "http://[2001:db8::1]:80/"),
            ("udp://h.example:53", ""),
            ("service db", ""),
            ("tcp://", ""),
            ("tcp://[", ""),
            ("", ""),
        ):
            self.assertEqual(webAddress(address), web)
        self.assertEqual(
            qrTargets(clientStatus()),
            ["http://tunnel.example.com:30001/", "http://tunnel.example.com:2222/"],
        )


class DocumentationTests(SynchronousTestCase):
    """The picture in the documentation."""

    if not DOCS.is_dir():
        skip = "there is no documentation beside these tests"

    def test_picture(self) -> None:
        """It shows what the screen shows; C{python -m tests.screen.picture} makes it
        anew."""

        def texts(svg: str) -> list[str]:
            found = re.findall(r">([^<>]+)</text>", svg)
            return [each for each in found if not re.match(r"\d\d:\d\d:\d\d", each)]

        kept = (DOCS / "_static" / "screen.svg").read_text("utf-8")
        self.assertEqual(texts(kept), texts(picture()))
        # It asks nobody for a font.
        self.assertEqual(set(re.findall(r"https?://(?!tunnel)\S+", kept)), _NAMESPACE)
