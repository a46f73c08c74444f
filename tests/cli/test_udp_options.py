"""The command line, as far as it is about UDP."""

from __future__ import annotations

from twisted.python import usage
from twisted.trial.unittest import SynchronousTestCase

from tristunnel.cli.client_tap import Options as ClientOptions
from tristunnel.cli.server_tap import Options as ServerOptions
from tristunnel.listeners.udp import IDLE


class OptionTests(SynchronousTestCase):
    """C{--udp-idle} and C{--forward udp/...}."""

    def _server(self, *arguments: str) -> ServerOptions:
        options = ServerOptions()
        options.parseOptions(["--state-dir", self.mktemp(), *arguments])
        return options

    def test_idle(self) -> None:
        """A minute, unless something else is said."""
        self.assertEqual(self._server()["udp-idle"], IDLE)
        self.assertEqual(self._server("--udp-idle", "5")["udp-idle"], 5.0)

    def test_wrongIdle(self) -> None:
        """No time, and no number."""
        for value in ("0", "-1", "nan", "1e9", "soon"):
            self.assertRaises(usage.UsageError, self._server, "--udp-idle", value)

    def test_forward(self) -> None:
        """A UDP service is offered, also for a tunnel that is given by its URI."""
        for arguments in (
            ["--connect", "tcp:h:9000", "--forward", "udp/5353=localhost:53"],
            ["--tunnel", "w3p://h:9000/id#secret", "--to", "udp:localhost:53"],
        ):
            options = ClientOptions()
            options.parseOptions(["--state-dir", self.mktemp(), *arguments])
            (forward,) = options.forwards
            self.assertTrue(forward.isUDP)
            self.assertEqual(forward.target, "udp:localhost:53")
