"""Tests for L{tristunnel.util.logs}."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path
from typing import Any

from hypothesis import given
from twisted.application.internet import ClientService
from twisted.application.service import Application, IService, Service
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, fail
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.interfaces import (
    IProtocol,
    IProtocolFactory,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.logger import (
    FileLogObserver,
    ILogObserver,
    LogEvent,
    Logger,
    LogLevel,
    globalLogPublisher,
)
from twisted.python import usage
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer

from tests.support.processes import startTristunnel
from tests.util.test_untrusted import hostile, strings
from tristunnel.cli.client_tap import Options as ClientOptions
from tristunnel.cli.server_tap import Options as ServerOptions
from tristunnel.errors import TunnelError
from tristunnel.util.logs import Log, jsonLine, textLine

reactor: Any = _reactor


class LineTests(SynchronousTestCase):
    """What a line has."""

    def line(self, log: Any) -> dict[str, Any]:
        out = StringIO()
        log(Logger("name.space", observer=FileLogObserver(out, jsonLine)))
        text = out.getvalue()
        self.assertEqual(text.count("\n"), 1)
        line: dict[str, Any] = json.loads(text)
        return line

    def test_event(self) -> None:
        """The message, and what it is made of."""
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
                "message": "a \u2603 left after 1.2 s: gone [reset]",
                "format": "{who} left after {seconds:.1f} s: {reason}",
                "who": "a \u2603",
                "seconds": 1.25,
                "reason": "gone [reset]",
                "code": "reset",
                "many": "[1]",
                "infinite": "inf",
            },
        )

    def test_reserved(self) -> None:
        """An event cannot say when it happened, or how bad it is."""
        line = self.line(
            lambda log: log.info("x", time="never", logger="y", traceback="z")
        )
        self.assertEqual((line["level"], line["logger"]), ("info", "name.space"))
        self.assertNotIn("traceback", line)

    def test_failure(self) -> None:
        """A failure has its traceback, in the same line."""

        def fail(log: Logger) -> None:
            try:
                raise ZeroDivisionError("by nothing")
            except ZeroDivisionError:
                log.failure("It failed")

        line = self.line(fail)
        self.assertEqual((line["level"], line["message"]), ("critical", "It failed"))
        self.assertIn("by nothing", line["traceback"])

    def test_old(self) -> None:
        """Events of old programs are written, too; those that say nothing are not."""
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


@implementer(IStreamClientEndpoint)
class Refusing:
    """Where nobody is connected to."""

    attempts = 0

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        self.attempts += 1
        return fail(ConnectionRefusedError())


class RetryTests(SynchronousTestCase):
    """What Twisted says of each attempt to have a connection again."""

    def test_quiet(self) -> None:
        """That is not written, for whoever wants the connection says what is wrong."""
        options: Any = usage.Options()
        path = self.mktemp()
        options.parent = {"nodaemon": True, "logfile": path}
        log = Log(options)
        clock = Clock()
        endpoint = Refusing()
        service = ClientService(endpoint, Factory(), lambda attempt: 1.0, clock)
        globalLogPublisher.addObserver(log)
        self.addCleanup(globalLogPublisher.removeObserver, log)
        service.startService()
        clock.pump([1.0] * 5)
        Logger(namespace="x").info("Something else")
        service.stopService()
        (line,) = Path(path).read_text().splitlines()
        self.assertIn("Something else", line)
        self.assertEqual(endpoint.attempts, 6)


class OptionTests(SynchronousTestCase):
    """C{--log-format}."""

    def test_wrong(self) -> None:
        """There are two formats, at both commands."""
        for options, arguments in (
            (ServerOptions(), []),
            (ClientOptions(), ["--connect", "tcp:localhost:1"]),
        ):
            error = self.assertRaises(
                usage.UsageError,
                options.parseOptions,
                [*arguments, "--log-format", "xml"],
            )
            self.assertIn("there is json, text", str(error))

    def logOf(self, **twistd: Any) -> Log:
        class Options(dict[str, Any]):
            parent: Any = None

        options = Options({"log-format": twistd.pop("kind", "text")})
        options.parent = twistd
        return Log(options)

    def test_application(self) -> None:
        """C{twistd} finds the log in the application, where it is to."""
        for twistd, found in (
            ({"nodaemon": True}, True),
            ({"nodaemon": True, "logger": print}, False),
            ({}, False),
        ):
            log = self.logOf(**twistd)
            application, inner = Application("x"), Service()
            log.around(inner).setServiceParent(application)
            self.assertIs(
                application.getComponent(ILogObserver), log if found else None
            )
            IService(application).startService()
            self.assertTrue(inner.running)

    def test_file(self) -> None:
        """Both formats go where C{twistd} is told to log."""
        path = Path(self.mktemp()).absolute()
        for kind, pattern in (
            ("text", r"^\S+ \[-#info\] hello\n$"),
            ("json", r'^{"time": .*"message": "hello", .*}\n$'),
        ):
            log = self.logOf(logfile=str(path), nodaemon=False, kind=kind)
            log(
                {
                    "log_format": "hello",
                    "log_time": 0.0,
                    "log_level": LogLevel.info,
                    "log_namespace": "-",
                }
            )
            self.assertRegex(path.read_text(), pattern)
            path.unlink()

    def test_noPlace(self) -> None:
        """A log that cannot be written ends the start, in one line."""
        for twistd, cause in (
            ({"nodaemon": False, "logfile": "-"}, "Daemons cannot log to stdout"),
            ({"nodaemon": True, "logfile": "/nowhere/log"}, "No such file"),
        ):
            error = self.assertRaises(SystemExit, self.logOf, **twistd)
            self.assertIn(cause, str(error))


class HostileTests(SynchronousTestCase):
    """Events that quote somebody."""

    @given(hostile, hostile, hostile)
    def test_anybody(self, said: str, name: str, message: str) -> None:
        """Whatever an event holds, what is written is printable."""
        event: LogEvent = {
            "log_format": "{said} from {peer} {error}",
            "log_level": LogLevel.info,
            "log_namespace": name,
            "log_time": 0.0,
            "said": said,
            "peer": [name],
            "error": ValueError(message),
            name: said,
        }
        text, line = textLine(event), jsonLine(event)
        assert text is not None and line is not None
        for written in (text, line):
            self.assertTrue(written.endswith("\n"))
            self.assertTrue(written[:-1].isprintable(), ascii(written))
        for value in strings(json.loads(line)):
            self.assertTrue(value.isprintable(), ascii(value))
        try:
            raise ValueError(message)
        except ValueError:
            event["log_failure"] = Failure()
        text, line = textLine(event), jsonLine(event)
        assert text is not None and line is not None
        self.assertTrue(all(each.isprintable() for each in text[:-1].split("\n\t")))
        trace = json.loads(line)["traceback"]
        self.assertTrue(all(each.isprintable() for each in trace.split("\n")))

    def test_silent(self) -> None:
        """An event that says nothing has no line; a failure without words has one."""
        self.assertIs(textLine({"log_level": LogLevel.info}), None)
        try:
            raise ZeroDivisionError("by nothing")
        except ZeroDivisionError:
            text = textLine({"log_failure": Failure(), "log_time": 0.0})
        self.assertIn("A failure", str(text))
        self.assertIn("\n\tbuiltins.ZeroDivisionError: by nothing\n", str(text))


class ProcessTests(TestCase):
    """A real server."""

    timeout = 60

    async def test_server(self) -> None:
        """Every line that it writes is JSON."""
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
