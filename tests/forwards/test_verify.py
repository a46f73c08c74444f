"""Tests for L{tristunnel.forwards.verify}, and where it is an option."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet import reactor as _reactor
from twisted.trial.unittest import SynchronousTestCase

from tristunnel.cli.client_tap import Options
from tristunnel.errors import TunnelError
from tristunnel.forwards.consent import Consent
from tristunnel.forwards.forward import Forward, parseForward
from tristunnel.forwards.verify import MOST_SECRETS, Verification, readVerification
from tristunnel.node.spec import parseNode
from tristunnel.program.opening import Wanted
from tristunnel.webhooks.endpoint import VerifiedEndpoint

reactor: Any = _reactor


class VerifyTests(SynchronousTestCase):
    """C{verify=}."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        self.directory.mkdir()
        self.secret = self.file("sesame\n")

    def file(self, text: str, name: str = "secret") -> str:
        path = self.directory / name
        path.write_text(text)
        os.chmod(path, 0o600)
        return str(path)

    def forward(self, option: str, place: str = "8080") -> Forward:
        return parseForward(reactor, f"{place}=localhost:3000,{option}")

    def refused(self, words: str, option: str, place: str = "8080") -> None:
        error = self.assertRaises(TunnelError, self.forward, option, place)
        self.assertEqual(error.code.name, "bad-option")
        self.assertIn(words, error.message)
        self.assertNotIn("sesame", error.message)
        self.assertNotIn("\n", error.message)

    def test_read(self) -> None:
        """Secrets are read of a file, one or several."""
        made = readVerification(f"github:{self.secret}")
        self.assertEqual(made, Verification("github", "", (b"sesame",)))
        self.assertNotIn("sesame", repr(made))
        several = self.file(" one \r\n\ntwo\none\n", "several")
        made = readVerification(f"hmac:X-Signature:{several}")
        self.assertEqual(made, Verification("hmac", "X-Signature", (b"one", b"two")))

    def test_places(self) -> None:
        """Ports and HTTP names can have it, by themselves and in tables."""
        option = f"verify=stripe:{self.secret}"
        for place in ("8080", "0", "http/hook", "http/hook/path", "unix/hook", "name"):
            forward = self.forward(option, place)
            self.assertIsNotNone(forward.verification, place)
            again = forward.asked(forward.port, forward.name)
            self.assertIn(option, again.spec)
        options = Options()
        options["forward"] = [
            {"to": "localhost:3000", "http": "h", "verify": option[7:]}
        ]
        options.parseOptions(["--connect", "tcp:localhost:1"])
        (found,) = options.forwards
        self.assertEqual(found.verification, self.forward(option).verification)

    def test_wrong(self) -> None:
        """What is wrong is told in a line, with no secret."""
        lines = "\n".join(map(str, range(MOST_SECRETS + 1)))
        for words, text in (
            ("hmac:HEADER:FILE", "nonsense"),
            ("write verify=github:FILE", "gihub:x"),
            ("names no file", "slack:"),
            ("hmac:HEADER:FILE", "hmac:secret"),
            ("hmac:HEADER:FILE", "hmac:X Y:secret"),
            ("cannot be read", f"github:{self.directory}/none"),
            ("cannot be read", f"github:{self.directory}"),
            ("is empty", f"github:{self.file(' ', 'empty')}"),
            (f"at most {MOST_SECRETS}", f"github:{self.file(lines, 'many')}"),
            ("up to 1024", f"github:{self.file('sesame' * 200, 'long')}"),
        ):
            self.refused(words, f"verify={text}")

    def test_elsewhere(self) -> None:
        """What speaks no HTTP, or is not looked at, cannot have it."""
        option = f"verify=github:{self.secret}"
        for place in ("udp/53", "tls/blog", "minecraft/mc", "postgres/db"):
            self.refused("is not for HTTP", option, place)
        self.refused("raw joins", f"{option},raw", "http/blog")
        for target in ("socks:allow=10.0.0.0/8", f"files:{self.directory}"):
            error = self.assertRaises(
                TunnelError, parseForward, reactor, f"1080={target},{option}"
            )
            self.assertIn("take no webhooks", error.message)

    def test_asked(self) -> None:
        """A server cannot have a client read files."""
        asked = {"id": "a", "to": f"localhost:3000,verify=github:{self.secret}"}
        error = self.assertRaises(
            TunnelError, Consent(["localhost:*"]).forward, reactor, asked
        )
        self.assertEqual(error.code.name, "not-permitted")
        self.assertIn("verify", error.message)

    def test_others(self) -> None:
        """Programs' tunnels, and those between servers, check it too."""
        option = f"localhost:3000,verify=github:{self.secret}"
        made = Wanted.by(option, {}).forward(reactor, None)
        self.assertIsInstance(made.endpoint, VerifiedEndpoint)
        text = option.replace(",", "\\,")
        spec = parseNode(reactor, f"a=tcp:localhost:1,forward=8080={text}")
        assert spec.forward is not None
        self.assertIsInstance(spec.forward.endpoint, VerifiedEndpoint)

    def test_changed(self) -> None:
        """Another secret makes another forward."""
        before = self.forward(f"verify=github:{self.secret}")
        self.assertTrue(before.isLike(self.forward(f"verify=github:{self.secret}")))
        self.file("other")
        self.assertFalse(before.isLike(self.forward(f"verify=github:{self.secret}")))

    @given(st.text(max_size=40))
    @settings(max_examples=40)
    def test_anything(self, text: str) -> None:
        """Whatever is given is refused in words: no such file is there."""
        error = self.assertRaises(TunnelError, readVerification, f"{text}:none/x")
        self.assertEqual(error.code.name, "bad-option")
