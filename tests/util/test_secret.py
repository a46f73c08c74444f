"""Tests for L{tristunnel.util.secret}."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tristunnel.util.secret import isSecret, newSecret, secretHash


class SecretTests(SynchronousTestCase):
    def test_compared(self) -> None:
        """A secret is itself and no other one, whatever text a peer sends."""
        secret, kept = newSecret()
        self.assertTrue(isSecret(secret, kept))
        for other in ("", secret[:-1], secret + "x", "\ud800", newSecret()[0]):
            self.assertFalse(isSecret(other, kept))

    def test_nothingKept(self) -> None:
        """Where there is no secret, nothing is it."""
        for given in ("", "x"):
            self.assertFalse(isSecret(given, None))
            self.assertFalse(isSecret(given, b""))

    def test_emptyKept(self) -> None:
        """An empty secret that somebody kept on purpose is a secret."""
        self.assertTrue(isSecret("", secretHash("")))
