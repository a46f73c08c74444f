"""
Tests for L{tristunnel.process.jsonlog}.
"""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path
from typing import Any

from twisted.application.service import Application, IService, Service
from twisted.internet import reactor as _reactor
from twisted.logger import (
    FileLogObserver,
    ILogObserver,
    Logger,
    LogLevel,
)
from twisted.python import usage
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.processes import startTristunnel
from tristunnel.client_tap import Options as ClientOptions
from tristunnel.errors import TunnelError
from tristunnel.process.jsonlog import JSONLogged, jsonLine, logged
from tristunnel.server_tap import Options as ServerOptions

reactor: Any = _reactor


class LineTests(SynchronousTestCase):
    """
    What a line has.
    """

    def line(self, log: Any) -> dict[str, Any]:
        """
        Log something.

        @return: What is written.
        """
        out = StringIO()
        log(Logger("name.space", observer=FileLogObserver(out, jsonLine)))
        text = out.getvalue()
        self.assertEqual(text.count("\n"), 1)
        line: dict[str, Any] = json.loads(text)
        return line

    def test_event(self) -> None:
        """
        The message, and what it is made of.
        """
        line = self.line(
            lambda log: log.warn(
                "{who} left\nafter {seconds:.1f} s: {reason}",
                who="a \u2603",
                seconds=1.25,
                reason=TunnelError("reset", "gone"),
                many=[1],
                infinite=float("inf"),
                call=lambda: 1,
            )
        )
        self.assertRegex(line.pop("time"), r"^\d{4}-\d\d-\d\dT[\d:.]{12}\+00:00$")
        self.assertEqual(
            line,
            {
                "level": "warn",
                "logger": "name.space",
                "message": "a \u2603 left\nafter 1.2 s: gone [reset]",
                "format": "{who} left\nafter {seconds:.1f} s: {reason}",
                "who": "a \u2603",
                "seconds": 1.25,
                "reason": "gone [reset]",
                "code": "reset",
                "many": "[1]",
                "infinite": "inf",
            },
        )

    def test_reserved(self) -> None:
        """
        An event cannot say when it happened, or how bad it is.
        """
        line = self.line(
            lambda log: log.info("x", time="never", logger="y", traceback="z")
        )
        self.assertEqual((line["level"], line["logger"]), ("info", "name.space"))
        self.assertNotIn("traceback", line)

    def test_failure(self) -> None:
        """
        A failure has its traceback, in the same line.
        """

        def fail(log: Logger) -> None:
            try:
                raise ZeroDivisionError("by nothing")
            except ZeroDivisionError:
                log.failure("It failed")

        line = self.line(fail)
        self.assertEqual((line["level"], line["message"]), ("critical", "It failed"))
        self.assertIn("by nothing", line["traceback"])

    def test_old(self) -> None:
        """
        Events of old programs are written, too; those that say nothing are not.
        """
        event = {
            "log_format": "{log_text}",
            "log_text": "said",
            "log_level": LogLevel.info,
            "log_time": 0.0,
            "message": ("said",),
            "isError": 0,
        }
        text = jsonLine(event)
        assert text is not None
        self.assertEqual(
            json.loads(text),
            {
                "time": "1970-01-01T00:00:00.000+00:00",
                "level": "info",
                "logger": "",
                "message": "said",
                "format": "{log_text}",
            },
        )
        self.assertIs(jsonLine({"log_level": LogLevel.info}), None)


class OptionTests(SynchronousTestCase):
    """
    C{--log-format}.
    """

    def test_wrong(self) -> None:
        """
        There are two formats, at both commands.
        """
        for options, arguments in (
            (ServerOptions(), []),
            (ClientOptions(), ["--connect", "tcp:localhost:1"]),
        ):
            error = self.assertRaises(
                usage.UsageError,
                options.parseOptions,
                [*arguments, "--log-format", "xml"],
            )
            self.assertIn("write text or json", str(error))

    def test_application(self) -> None:
        """
        The service brings its observer into the application, where C{twistd}
        looks for it.
        """
        inner = Service()
        observer = FileLogObserver(StringIO(), jsonLine)
        application = Application("x")
        JSONLogged(inner, observer).setServiceParent(application)
        self.assertIs(application.getComponent(ILogObserver), observer)
        IService(application).startService()
        self.assertTrue(inner.running)

    def test_file(self) -> None:
        """
        It goes where C{twistd} is told to log.
        """

        class Options(dict[str, Any]):
            parent: Any = None

        options = Options({"log-format": "text"})
        service = Service()
        self.assertIs(logged(service, options), service)
        path = Path(self.mktemp()).absolute()
        options["log-format"] = "json"
        options.parent = {"logfile": str(path)}
        application = Application("x")
        logged(service, options).setServiceParent(application)
        observer = application.getComponent(ILogObserver)
        observer({"log_format": "hello", "log_time": 0.0})
        observer._outFile.close()
        self.assertEqual(json.loads(path.read_text())["message"], "hello")


class ProcessTests(TestCase):
    """
    A real server.
    """

    timeout = 60

    async def test_server(self) -> None:
        """
        Every line that it writes is JSON.
        """
        directory = Path(self.mktemp()).absolute()
        directory.mkdir(parents=True)
        server = startTristunnel(
            reactor,
            "tunnel",
            [
                *("--port", "tcp:0:interface=127.0.0.1"),
                *("--state-dir", "state", "--log-format", "json"),
            ],
            directory,
        )
        self.addCleanup(server.stop)
        await server.says("Listening for clients")
        await server.stop()
        lines = [json.loads(line) for line in server.lines]
        (listening,) = (each for each in lines if "address" in each)
        self.assertEqual(listening["port"], "tcp:0:interface=127.0.0.1")
        self.assertEqual(listening["level"], "info")
