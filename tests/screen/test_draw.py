"""Tests for L{tristunnel.screen.draw}, L{tristunnel.screen.model} and
L{tristunnel.screen.qr}."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import Any

import segno
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.text import Text
from twisted.trial.unittest import SynchronousTestCase

from tests.screen.example import clientStatus, server, serverStatus, tunnel
from tests.screen.picture import picture
from tristunnel.screen.draw import Pen, drawPage, natural
from tristunnel.screen.model import clientPage, qrTargets, serverPage, webAddress
from tristunnel.screen.qr import qrLines

DOCS = Path(__file__).resolve().parents[2] / "docs"

HINTS = ("Ctrl-C stops", "q QR code")

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

    def test_picture(self) -> None:
        """80 columns and 24 lines have everything that matters."""
        wave = "\u2582\u2583\u2584\u2585\u2586\u2586\u2585\u2584"
        lines = self.draw()
        self.assertIn(wave, lines[6])
        self.assertEqual(
            [line[:41].rstrip() if "Traffic" in line else line for line in lines],
            [
                "tristunnel 0.1.0                                        Ctrl-C stops"
                "   q QR code",
                "",
                "State       \u25cf online for 2 h 5 min",
                "Server      tls:tunnel.example.com:9000",
                "Round trip  12.3 ms",
                "Visitors    13 now, 1,292 in all, 14 turned away",
                "Traffic     34.4 kB/s down, 1.2 MB/s up",
                "In all      3.1 MB down, 4.0 GB up",
                "",
                "Tunnels                           Service           Now  In all"
                "       Down",
                "\u25cf tcp://tunnel.example.com:30001  localhost:8080     12   1,204"
                "  34.0 kB/s",
                "\u25cf udp://tunnel.example.com:5353   udp:localhost:53    1      88"
                "    420 B/s",
                "\u25cf tcp://tunnel.example.com:2222   localhost:22        0       0"
                "      0 B/s",
                "",
                "Events",
                "17:46:38  203.0.113.7:52012 came to localhost:8080",
                "17:46:35  198.51.100.23:40112 left after 8.1 s, 2.1 kB down, 184.0 kB"
                " up",
                "17:46:31  [2001:db8::17]:61001 came to localhost:8080",
                "17:46:27  198.51.100.23:40112 came to localhost:8080",
                "17:46:24  a visitor was turned away: nothing listens at"
                " localhost:22; start the",
                "          service, or mend --forward [service-refused] (14 times)",
                "17:46:19  203.0.113.99:51820 left after 2 min 4 s, 1.0 kB down, 9.3"
                " MB up",
                "17:46:10  192.0.2.61:33810 left after 0.2 s, 312 B down, 4.4 kB up",
                "15:41:28  connected to tls:tunnel.example.com:9000",
            ],
        )

    def test_wide(self) -> None:
        """Where there is room, nothing is left out."""
        lines = self.draw(120, 40)
        self.assertIn("       Down        Up", lines[9])
        self.assertIn("1.2 MB/s", lines[10])
        self.assertIn("[service-refused] (14 times)", "\n".join(lines))

    def test_narrow(self) -> None:
        """Where there is little, numbers go first, then the ends of lines; never the
        port of an address."""
        lines = self.draw(60, 20)
        self.assertEqual(len(lines), 20)
        self.assertTrue(lines[9].endswith("Now"), lines[9])
        drawn = "\n".join(self.draw(40, 20))
        self.assertRegex(drawn, "\n\u25cf tcp:.*\u2026.*:30001 ")

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

    def test_manyTunnels(self) -> None:
        """Tunnels that find no room are counted, and leave some to events."""
        tunnels = [tunnel(f"tcp://h.example:{n}", "web") for n in range(50)]
        lines = self.draw(tunnels=tunnels)
        shown = sum("tcp://h" in line for line in lines)
        self.assertIn(f"  and {50 - shown} more", lines)
        self.assertEqual(lines.index("Events"), 24 - 5)

    def test_lastingEvents(self) -> None:
        """A crowd of visitors does not push out what matters."""
        crowd = [{**clientStatus()["events"][0], "text": "came"}] * 50
        status = clientStatus(events=[*crowd, *clientStatus()["events"]])
        lines = drawPage(PLAIN, clientPage(status), 80, 24)
        self.assertEqual(len(lines), 24)
        self.assertIn("turned away: nothing", "\n".join(lines))

    def test_states(self) -> None:
        """What the client is at, with the reason; not by colour alone."""
        reason = "cable cut [session-lost]"
        for state, retry, line in (
            ("connecting", None, f"\u25cb connecting: {reason}"),
            ("waiting", 4.6, f"\u25cb waiting 5 s to try again: {reason}"),
            ("stopped", None, f"\u2717 given up: {reason}"),
            ("stopping", None, "\u25cb stopping when the visitors have left"),
        ):
            one = server(state=state, retryIn=retry, reason=reason, roundTrip=None)
            lines = self.draw(servers=[one])
            self.assertEqual(lines[2], f"State     {line}")
            self.assertNotIn("Round trip", "\n".join(lines))

    def test_longReason(self) -> None:
        """The cure, at the end of a reason, is still to be read."""
        one = server(state="waiting", retryIn=1, reason="why " * 30 + "cure")
        self.assertIn("cure", "\n".join(self.draw(servers=[one])[:6]))

    def test_severalServers(self) -> None:
        """Each connection of a client with several has a line."""
        other = server(server="tcp:other:1", state="connecting", dialect="vtunnel")
        lines = self.draw(servers=[server(), other])
        self.assertEqual(
            lines[2:4],
            [
                "tls:tunnel.example.com:9000  \u25cf online for 2 h 5 min, 12.3 ms",
                "tcp:other:1 (vtunnel)        \u25cb connecting, 12.3 ms",
            ],
        )

    def test_nothing(self) -> None:
        """At the beginning there is nothing, and that is said."""
        lines = self.draw(tunnels=[], events=[], rates=[])
        self.assertIn("  no tunnel yet", lines)
        self.assertIn("  nothing has happened yet", lines)

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

    def test_ascii(self) -> None:
        """A terminal that knows ASCII only gets nothing else."""
        page = clientPage(clientStatus(), HINTS)
        for width in (40, 80):
            lines = drawPage(coloured(None, "ANSI_X3.4-1968"), page, width, 24)
            self.assertTrue("".join(lines).isascii())

    @given(st.text(max_size=300), st.integers(1, 120))
    @settings(deadline=None, max_examples=50)
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

    def test_file(self) -> None:
        """In a file nothing is cut off."""
        page = clientPage(clientStatus())
        text = "\n".join(drawPage(PLAIN, page, natural(page)))
        self.assertIn("[service-refused] (14 times)", text.replace("\n          ", " "))
        self.assertIn("  1.2 MB/s\n", text)
        self.assertIn("connected to tls:", text)


class ServerTests(SynchronousTestCase):
    """What C{tristunnel status} shows of a server."""

    def test_page(self) -> None:
        """Tunnels and clients, each with its numbers."""
        page = serverPage(serverStatus())
        lines = drawPage(PLAIN, page, natural(page))
        self.assertEqual(
            lines,
            [
                "tristunnel server",
                "",
                "Server    https://tunnel.example.com",
                "Visitors  24 now, 2,408 in all",
                "Traffic   68.0 kB/s in, 2.4 MB/s out",
                "In all    5 B in, 7 B out",
                "",
                "Tunnels                           Client                        Now"
                "  In all         In       Out",
                "\u25cf tcp://tunnel.example.com:30001  laptop at 203.0.113.50:41000"
                "   12   1,204  34.0 kB/s  1.2 MB/s",
                "\u25cb service db                      desk, not here                "
                " 12   1,204  34.0 kB/s  1.2 MB/s",
                "",
                "Clients               Who     Dialect  Tunnels    Here for",
                "\u25cf 203.0.113.50:41000  laptop  framed         1  1 min 30 s",
            ],
        )


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
        self.assertEqual(set(re.findall(r"https?://\S+", kept)), _NAMESPACE)
