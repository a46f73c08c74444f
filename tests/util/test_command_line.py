"""Tests for L{tristunnel.util.command_line}."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from unittest import skipUnless

from twisted.trial.unittest import SynchronousTestCase

import tristunnel
from tristunnel.cli.client_tap import Options
from tristunnel.util.command_line import exposedSecrets, valuesOf

_SHOW = """
import sys
from tristunnel.util.command_line import hideArguments
done = hideArguments(sys.argv[2:])
print(done, open("/proc/self/cmdline", "rb").read())
"""


class HideTests(SynchronousTestCase):
    """Secrets on the command line."""

    @skipUnless(sys.platform == "linux", "only Linux shows it")
    def test_hidden(self) -> None:
        """They are overwritten for others, and nothing else is."""
        root = str(Path(tristunnel.__file__).parent.parent)
        arguments = ["w3p://host/id#s3cret", "s3cret", "schl\u00fcssel", ""]
        done = subprocess.run(
            [sys.executable, "-c", _SHOW, *arguments],
            env={"PYTHONPATH": root, "LC_ALL": "C.UTF-8"},
            capture_output=True,
            check=True,
        ).stdout.decode()
        self.assertTrue(done.startswith("True "), done)
        self.assertNotIn("s3cret", done)
        self.assertNotIn("schl", done)
        self.assertIn("hideArguments", done)

    def test_values(self) -> None:
        """The values of options, however they are written."""
        words = ["--token", "a", "x", "--user=b:c", "--tokens", "d", "--token"]
        self.assertEqual(valuesOf(words, "--token", "--user"), ["a", "b:c", ""])

    def test_exposed(self) -> None:
        """What of the client's options is a secret, and where it belongs."""
        options = Options()
        options["tunnel"] = "w3p://host:1/id#fragment"
        options["credentials"] = {"id": "laptop", "secret": "pw"}
        options["proxy"] = "http://me:pass@proxy:3128"
        options["connect"] = "wss://me:word@host/client/room?token=tun_x"
        options["header"] = [("X-Trace", "yes"), ("Authorization", "Bearer t")]
        exposed = exposedSecrets(options)
        self.assertEqual(
            {option: secrets for option, (_, secrets) in exposed.items()},
            {
                "--tunnel": ["fragment"],
                "--credentials": ["pw"],
                "--proxy": ["me:pass"],
                "--connect": ["me:word", "token=tun_x"],
                "--header": ["Bearer t"],
            },
        )
        self.assertEqual(exposedSecrets(Options()), {})
        options = Options()
        options["connect"] = "wss://host:1/tunnel?a=b"
        self.assertEqual(exposedSecrets(options), {})
