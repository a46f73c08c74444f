"""Tests for L{tristunnel.connect.credentials}."""

from __future__ import annotations

import io
import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tristunnel.cli.client_tap import Options
from tristunnel.connect.credentials import givenToken
from tristunnel.errors import TunnelError


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class GivenTokenTests(SynchronousTestCase):
    """Where the token comes from."""

    def refused(self, path: str, environment: dict[str, str], **options: object) -> str:
        error = self.assertRaises(TunnelError, givenToken, path, environment, **options)
        self.assertEqual(error.code.name, "bad-option")
        self.assertNotIn("\n", error.message)
        return str(error.message)

    def test_none(self) -> None:
        """There need not be one."""
        self.assertEqual(givenToken("", {}), "")
        self.assertEqual(givenToken("", {"TRISTUNNEL_TOKEN": ""}), "")

    def test_environment(self) -> None:
        """The variable's, without white space around it."""
        self.assertEqual(givenToken("", {"TRISTUNNEL_TOKEN": " tst_x\n"}), "tst_x")
        said = self.refused("", {"TRISTUNNEL_TOKEN": "sec ret"})
        self.assertNotIn("ret", said.replace("printable", ""))

    def test_file(self) -> None:
        """The first line of a file, in place of the variable's."""
        path = Path(self.mktemp())
        path.write_text("\ntst_x  \nmore\n")
        self.assertEqual(givenToken(str(path), {"TRISTUNNEL_TOKEN": "y"}), "tst_x")
        for content in (b"", b" \n", b"\xff", b"two words"):
            path.write_bytes(content)
            self.refused(str(path), {})
        self.assertIn("cannot be read", self.refused(f"{path}.none", {}))

    def test_prompt(self) -> None:
        """C{-} asks at a terminal, and reads a line where there is none."""
        asked: list[str] = []

        def ask(prompt: str) -> str:
            asked.append(prompt)
            return "tst_x"

        self.assertEqual(givenToken("-", {}, Terminal(), ask), "tst_x")
        self.assertEqual(asked, ["Token: "])
        self.assertEqual(givenToken("-", {}, io.StringIO("tst_y\nz"), ask), "tst_y")
        self.refused("-", {}, stdin=io.StringIO())

        def leave(prompt: str) -> str:
            raise EOFError

        self.refused("-", {}, stdin=Terminal(), ask=leave)


class OptionsTests(SynchronousTestCase):
    """C{twistd tunnel-client --token-file}."""

    def credentials(self, *words: str, **environment: str) -> dict[str, object]:
        path = Path(self.mktemp())
        path.write_text("tst_file")
        self.patch(os, "environ", {"HOME": str(path.parent), **environment})
        options = Options()
        options.parseOptions(
            ["--connect", "tcp:server:9000"]
            + [word.replace("FILE", str(path)) for word in words]
        )
        found: dict[str, object] = options["credentials"]
        return found

    def test_sent(self) -> None:
        """The token is sent as C{token}; other credentials come before the variable's,
        and with the file's."""
        self.assertEqual(self.credentials(), {})
        variable = {"TRISTUNNEL_TOKEN": "tst_variable"}
        self.assertEqual(self.credentials(**variable), {"token": "tst_variable"})
        self.assertEqual(
            self.credentials("--token-file", "FILE", **variable), {"token": "tst_file"}
        )
        self.assertEqual(
            self.credentials("--credentials", "id=a", **variable), {"id": "a"}
        )
        self.assertEqual(
            self.credentials("--credentials", "id=a", "--token-file", "FILE"),
            {"id": "a", "token": "tst_file"},
        )
