"""Reading C{--on-event}, and what receivers get."""

from __future__ import annotations

import hashlib
import hmac
import json
import sys
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.python import usage
from twisted.trial.unittest import SynchronousTestCase

from tristunnel.auth.files import readSecret
from tristunnel.errors import TunnelError
from tristunnel.hooks import options as hookOptions
from tristunnel.hooks.event import KINDS, HookEvent, kindsNamed, signature
from tristunnel.hooks.options import AskOptionsMixin, decisionsOf, hookSettings, hooksOf
from tristunnel.hooks.target import parseTarget


def anEvent(**fields: Any) -> HookEvent:
    return HookEvent(
        "an-id", "client-up", 12.5, "Client laptop is up", "server", fields
    )


class TargetTests(SynchronousTestCase):
    """C{--on-event}."""

    def test_kinds(self) -> None:
        """Without kinds all are told; with some, only those, by pattern too."""
        self.assertEqual(parseTarget("https://a.test/x").kinds, set(KINDS))
        some = parseTarget("client-*,limit-reached=https://a.test/x?a=b")
        self.assertEqual(
            some.kinds, {"client-up", "client-down", "client-refused", "limit-reached"}
        )

    def test_shown(self) -> None:
        """What messages say has no secret in it."""
        for text in (
            "https://hooks.test:8443/services/SECRET?key=SECRET",
            "slack+https://hooks.test:8443/services/SECRET",
        ):
            self.assertEqual(parseTarget(text).shown, "https://hooks.test:8443/")
        shown = parseTarget(f"exec:{sys.executable} -c SECRET").shown
        self.assertEqual(shown, f"exec:{sys.executable}")

    def test_wrong(self) -> None:
        """What is wrong is told in one line, without what may be secret."""
        cases = {
            "": "https://HOST/PATH",
            "ftp://a.test/SECRET": "https://HOST/PATH",
            "https:///SECRET": "https://HOST/PATH",
            "https://a.test:99999/SECRET": "https://HOST/PATH",
            "https://user:SECRET@a.test/": "--event-secret-file",
            "client-upp=https://a.test/SECRET": "did you mean client-up?",
            "exec:": "'' is not a program",
            "exec:/no/such/program SECRET": "/no/such/program",
            "exec:'a": "quotation",
        }
        for text, words in cases.items():
            error = self.assertRaises(TunnelError, parseTarget, text)
            self.assertEqual(error.code.name, "bad-option")
            self.assertIn(words, error.message, text)
            self.assertNotIn("SECRET", error.message)
            self.assertNotIn("\n", error.message)

    @given(st.text(max_size=60))
    def test_anything(self, text: str) -> None:
        """Whatever is given is understood or refused."""
        try:
            target = parseTarget(text)
        except TunnelError as error:
            self.assertEqual(error.code.name, "bad-option")
        else:
            self.assertTrue(target.kinds)

    def test_kindsNamed(self) -> None:
        """A pattern that means nothing is refused."""
        self.assertEqual(kindsNamed("visitor-*"), {k for k in KINDS if "visitor-" in k})
        self.assertRaises(TunnelError, kindsNamed, "nothing-*")

    def test_secret(self) -> None:
        """A secret that can be guessed, or is for nobody, is refused."""
        path = self.mktemp()
        with open(path, "w") as file:
            file.write("short\n")
        for options, words in (
            ({"on-event": ["https://a.test/"], "event-secret-file": path}, "16"),
            ({"on-event": [], "event-secret-file": path}, "goes with"),
            ({"on-event": ["https://a.test/"], "event-secret-file": "none"}, "read"),
        ):
            error = self.assertRaises(TunnelError, hookSettings, options)
            self.assertIn(words, error.message)

    def test_secretOnce(self) -> None:
        """The secret's file is read once, however many things are signed with it."""
        path = self.mktemp()
        with open(path, "w") as file:
            file.write("0123456789abcdef\n")
        read: list[str] = []

        def reading(said: str, path: str) -> bytes:
            read.append(path)
            return readSecret(said, path)

        self.patch(hookOptions, "readSecret", reading)
        options = _Options()
        options["on-event"] = ["https://a.test/"]
        options.parseOptions(["--event-secret-file", path, "--ask", "https://a.test/"])
        options.checkHooks()
        self.assertIsNotNone(hooksOf(Clock(), options, "server"))
        self.assertIsNotNone(decisionsOf(Clock(), options))
        self.assertEqual(read, [path])


class _Options(AskOptionsMixin, usage.Options):
    """Options about hooks alone."""


class EventTests(SynchronousTestCase):
    """What is delivered."""

    def test_json(self) -> None:
        """A JSON object with what there is to know."""
        self.assertEqual(
            json.loads(anEvent(client="laptop").json()),
            {
                "id": "an-id",
                "kind": "client-up",
                "time": 12.5,
                "program": "server",
                "text": "Client laptop is up",
                "client": "laptop",
            },
        )

    def test_environment(self) -> None:
        """The same as variables, which can hold no NUL."""
        variables = anEvent(client="a\0b").environment()
        self.assertEqual(variables["TRISTUNNEL_EVENT_CLIENT"], "ab")
        self.assertEqual(variables["TRISTUNNEL_EVENT_KIND"], "client-up")

    def test_signature(self) -> None:
        """Anybody can check it with the secret, the time and the body."""
        made = signature(b"secret", 1234, b"body")
        digest = hmac.new(b"secret", b"1234.body", hashlib.sha256).hexdigest()
        self.assertEqual(made, f"t=1234,v1={digest}")
