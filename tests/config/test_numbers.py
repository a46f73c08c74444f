"""Tests for L{tristunnel.config.numbers}."""

from __future__ import annotations

from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase

from tristunnel.cli import access_tap, client_tap, server_tap
from tristunnel.config.numbers import Number, checkNumbers, count, seconds
from tristunnel.config.policy_options import PolicyOptionsMixin
from tristunnel.errors import TunnelError


class NumberTests(SynchronousTestCase):
    """Numbers, and what is said of anything else."""

    def test_read(self) -> None:
        """Numbers are read."""
        self.assertEqual(seconds("grace", 0.0, "")[4]("2.5"), 2.5)
        self.assertEqual(count("sessions", 0, "")[4]("3"), 3)

    def test_mistakes(self) -> None:
        """A mistake in an option names the option and what it takes."""
        for tap, words, said in (
            (
                server_tap,
                "--grace soon",
                "--grace takes a time such as 90 or 2m, not 'soon'",
            ),
            (server_tap, "--max-clients 1.5", "--max-clients takes a whole number"),
            (server_tap, "--max-clients -1", "--max-clients takes a number, from 0 up"),
            (server_tap, "--udp-idle 0", "--udp-idle takes seconds, from 0.1 up"),
            (server_tap, "--max-visitors all", "--max-visitors takes a whole number"),
            (server_tap, "--lease nan", "--lease takes seconds, from 0 up"),
            (client_tap, "--sessions few", "--sessions takes a whole number"),
            (client_tap, "--sessions 0", "--sessions takes a number from 1 to"),
            (client_tap, "--check-idle -1", "--check-idle takes seconds, from 0 to"),
            (access_tap, "--grace -1", "--grace takes seconds, from 0 up"),
        ):
            error = self.assertRaises(
                UsageError, tap.Options().parseOptions, words.split()
            )
            self.assertIn(said, str(error))

    def test_everyRange(self) -> None:
        """Each number of each command is checked, at both ends of its range."""
        for kind in (server_tap.Options, client_tap.Options, PolicyOptionsMixin):
            rows = [
                row[4]
                for each in kind.__mro__
                for row in each.__dict__.get("optParameters", ())
                if len(row) > 4 and isinstance(row[4], Number)
            ]
            right = {number.option: number.least for number in rows}
            checkNumbers(kind, right)
            checkNumbers(kind, {n.option: n.most for n in rows})
            for number in rows:
                wrong = [number.least - 1, float("nan")]
                wrong += [number.most + 1] if number.most < 1e300 else []
                for value in wrong:
                    if number.orZero and not value:
                        continue
                    options = {**right, number.option: value}
                    error = self.assertRaises(TunnelError, checkNumbers, kind, options)
                    self.assertIn(f"--{number.option} takes", error.message)
