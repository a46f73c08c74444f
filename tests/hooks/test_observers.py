"""What hooks are told of a client."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tristunnel.errors import TunnelError
from tristunnel.hooks.observers import HookedClient


class _Hooks:
    def __init__(self) -> None:
        self.told: list[str] = []

    def tell(self, kind: str, text: str, **fields: object) -> None:
        self.told.append(kind)


class ClientTests(SynchronousTestCase):
    """A client whose server shows a certificate that is not its own."""

    def test_certificateTrouble(self) -> None:
        """It is told once, and again when it was right meanwhile."""
        hooks: Any = _Hooks()
        client = HookedClient(hooks, "tls:t.example:9000")
        wrong = TunnelError("bad-pin")
        for _ in range(3):
            client.disconnected(wrong)
        self.assertEqual(hooks.told, ["certificate-trouble"])
        client.acknowledged("framed")
        client.disconnected(wrong)
        self.assertEqual(
            hooks.told[1:], ["client-up", "certificate-trouble", "client-down"]
        )
        client.disconnected(TunnelError("session-lost"))
        self.assertEqual(len(hooks.told), 4)

    def test_health(self) -> None:
        """It is told when a service is not well any more, and when it is again."""
        hooks: Any = _Hooks()
        client = HookedClient(hooks, "tls:t.example:9000")
        client.serviceHealth("localhost:1", False, "it answers 503")
        client.serviceHealth("localhost:1", True, "")
        self.assertEqual(hooks.told, ["service-unwell", "service-well"])
