"""Ports of this machine, for a test."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import TestCase

__all__ = ["listenHere"]


def listenHere(case: TestCase, reactor: Any, factory: Any) -> int:
    """
    Listen on the loopback interface until a test is over.

    @return: The port.
    """
    port = reactor.listenTCP(0, factory, interface="127.0.0.1")
    case.addCleanup(port.stopListening)
    return int(port.getHost().port)
