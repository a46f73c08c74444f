"""Tests for L{tristunnel.model.observer}."""

from __future__ import annotations

from typing import Any
from unittest.mock import Mock, call

from twisted.trial.unittest import SynchronousTestCase

from tristunnel.model.observer import ClientObserver, ServerObserver, severalObservers


class SeveralObserversTests(SynchronousTestCase):
    def test_everything(self) -> None:
        """All that there is to tell is told to all, in order."""
        for kind in (ServerObserver, ClientObserver):
            names = [name for name in dir(kind) if not name.startswith("_")]
            self.assertIn("visitorGone", names)
            everybody = Mock()
            several: Any = severalObservers(kind, everybody.one, everybody.two)
            for name in names:
                code = getattr(kind, name).__code__
                arguments = [object() for _ in range(code.co_argcount - 1)]
                everybody.reset_mock()
                getattr(several, name)(*arguments)
                told = [getattr(call, each) for each in ("one", "two")]
                self.assertEqual(
                    everybody.mock_calls,
                    [getattr(each, name)(*arguments) for each in told],
                )
