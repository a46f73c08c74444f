"""C{tristunnel requests}, with a client's socket."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from tests.inspect.streams import aRecord, passing
from tests.support.short import shortDirectory
from tristunnel.cli.main import parser
from tristunnel.client.control import ClientControl, clientSocket, statusMethods
from tristunnel.client.status import ProcessStatus
from tristunnel.errors import TunnelError
from tristunnel.inspect.calls import callsOf
from tristunnel.inspect.replay import Replays
from tristunnel.inspect.shown import summaryOf
from tristunnel.screen.draw import Pen, drawPage
from tristunnel.screen.model import clientPage

reactor: Any = _reactor

_PAGE = "http://127.0.0.1:4040/?token=x"


class RequestsTests(TestCase):
    """A client that has kept a few requests, and one that keeps none."""

    def setUp(self) -> None:
        self.directory = shortDirectory(self)
        self.record = aRecord()
        for name in ("one", "a body", "a WebSocket", "another protocol", "no answer"):
            passing(self.record, name)
        calls = callsOf(self.record, Replays(reactor, self.record), lambda: _PAGE)
        self.replays: list[dict[str, Any]] = []

        def replayRequest(caller: object, id: int, **edits: Any) -> dict[str, Any]:
            self.replays.append({"id": id, **edits})
            return summaryOf(self.record.exchanges[id])

        calls["replayRequest"] = replayRequest
        status = statusMethods(ProcessStatus(reactor.seconds))
        self.controls: list[ClientControl] = []
        for methods in (status, {**status, **calls}):
            port = clientSocket(reactor, Path(self.directory))
            control = ClientControl(reactor, port, methods)
            control.startService()
            self.addCleanup(control.stopService)
            self.controls.append(control)

    async def run_(self, *words: str) -> str:
        options = parser().parse_args(
            ["requests", *words, "--state-dir", str(self.directory)]
        )
        out = io.StringIO()
        self.patch(sys, "stdout", out)
        await options.run(reactor, options)
        return out.getvalue()

    async def test_list(self) -> None:
        """Each request is a line, or an object; a filter leaves some out."""
        text = await self.run_()
        self.assertRegex(
            text.splitlines()[0],
            r"^    1  \d\d:\d\d:\d\d   200       0 ms       2 B  GET /a$",
        )
        self.assertEqual(len(text.splitlines()), 4)
        self.assertIn("(3 messages)", text)
        self.assertIn("none", text.splitlines()[3])
        lines = (await self.run_("--json", "--filter", "status:1xx")).splitlines()
        self.assertEqual([json.loads(line)["path"] for line in lines], ["/ws"])

    async def test_show(self) -> None:
        """All of one, without secrets and without what would command a terminal."""
        text = await self.run_("show", "2")
        self.assertIn("POST /b HTTP/1.1\nHost: h\nContent-Length: 3\n", text)
        self.assertIn("\nHTTP/1.1 204 No\n", text)
        self.assertIn("\nservice: text, 2 bytes\nhi\n", await self.run_("show", "3"))
        found = json.loads(await self.run_("show", "2", "--json"))
        self.assertEqual(found["request"]["body"]["text"], "xyz")

    async def test_replay(self) -> None:
        """A request is sent again, also with other parts."""
        await self.run_("replay", "2")
        body = Path(self.directory) / "body"
        body.write_bytes(b"new\xff")
        await self.run_(
            *("replay", "2", "--method", "PUT", "--path", "/c"),
            *("--header", "host: other", "--header", "X-A:1", "--body-file", str(body)),
        )
        headers = [["Content-Length", "3"], ["host", "other"], ["X-A", "1"]]
        self.assertEqual(
            self.replays,
            [
                {"id": 2},
                {
                    **{"id": 2, "method": "PUT", "path": "/c", "headers": headers},
                    "body": "new\udcff",
                },
            ],
        )

    async def test_others(self) -> None:
        """The command for curl, the archive, the page; and all can be forgotten."""
        self.assertRegex(await self.run_("curl", "1"), r"^curl -i .*http://h/a\n$")
        har = json.loads(await self.run_("har", "--filter", "path:/a"))
        self.assertEqual(len(har["log"]["entries"]), 2)
        self.assertEqual(await self.run_("page"), f"{_PAGE}\n")
        await self.run_("clear")
        self.assertEqual(await self.run_(), "")

    async def test_wrong(self) -> None:
        """What is wrong is said in one line."""
        for words, said in (
            (("show", "99"), "no longer kept"),
            (("--filter", "status:x"), "status:404"),
            (("replay", "2", "--header", "X"), "NAME:VALUE"),
            (("replay", "2", "--body-file", "/nowhere"), "--body-file"),
            (("--rpc", "nowhere"), "--rpc"),
        ):
            with self.assertRaises(TunnelError) as caught:
                await self.run_(*words)
            self.assertIn(said, caught.exception.message)

    async def test_several(self) -> None:
        """Of several clients that keep requests, one has to be named."""
        port = clientSocket(reactor, Path(self.directory))
        another = ClientControl(reactor, port, self.controls[1].methods)
        another.startService()
        self.addCleanup(another.stopService)
        with self.assertRaises(TunnelError) as caught:
            await self.run_()
        self.assertIn(f"--rpc {port.description}", caught.exception.message)
        self.assertEqual(
            await self.run_("page", "--rpc", port.description), f"{_PAGE}\n"
        )

    async def test_nobody(self) -> None:
        """Without a client that keeps requests, it says how to start one."""
        await self.controls[1].stopService()
        with self.assertRaises(TunnelError) as caught:
            await self.run_()
        self.assertIn("--inspect", caught.exception.message)


class ScreenTests(TestCase):
    """The client's screen shows the latest requests, too."""

    def test_table(self) -> None:
        """In a table of their own, with what went wrong to be seen."""
        record = aRecord()
        for name in ("one", "a body", "no answer"):
            passing(record, name)
        status = {
            **ProcessStatus(Clock().seconds).describe(),
            "page": "http://127.0.0.1:4040/",
            "requests": [summaryOf(each) for each in record.exchanges.values()],
        }
        lines = drawPage(Pen("ascii", styled=False), clientPage(status), 80)
        text = "\n".join(lines)
        self.assertIn("shown at http://127.0.0.1:4040/", text)
        self.assertRegex(text, r"(?m)^\* GET /a +localhost:3000 +200 +0 ms +2 B$")
        self.assertRegex(text, r"(?m)^x GET /a +localhost:3000 +none +0 B$")
