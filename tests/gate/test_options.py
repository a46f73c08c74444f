"""
What is asked of visitors, as owners write it: L{tristunnel.model.gate} and
L{tristunnel.forwards.gate}.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet import reactor as _reactor
from twisted.trial.unittest import SynchronousTestCase

from tests.gate.rig import ANNA, PIN
from tristunnel.auth import passwords
from tristunnel.auth.passwords import isPassword
from tristunnel.client.options import checkForwards
from tristunnel.errors import TunnelError
from tristunnel.forwards.forward import Forward, parseForward
from tristunnel.model.gate import GATE_OPTIONS
from tristunnel.model.options import TunnelOptions

reactor: Any = _reactor

_PROVIDER = """
issuer = "https://accounts.example"
client-id = "blog"
client-secret = "secret"
groups = ["staff"]
"""

_anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda each: st.lists(each) | st.dictionaries(st.text(), each),
    max_leaves=5,
)


class OptionTests(SynchronousTestCase):
    """The options of C{openTunnel}."""

    def refused(self, words: str, **options: Any) -> None:
        error = self.assertRaises(TunnelError, TunnelOptions.fromMapping, options)
        self.assertEqual(error.code.name, "bad-option")
        self.assertIn(words, error.message)

    def test_wrong(self) -> None:
        """What is wrong is told in a line."""
        issuer = {"issuer": "https://a.example", "clientID": "x"}
        for words, options in (
            ("a hash of bcrypt", {"pin": "2580"}),
            ("a hash of bcrypt", {"pin": PIN.replace("$04$", "$31$")}),
            ("NAME:HASH", {"login": ["anna"]}),
            ("NAME:HASH", {"login": ["anna:secret"]}),
            ("a user twice", {"login": [ANNA, ANNA]}),
            ("takes an object", {"oidc": "https://a.example"}),
            ("needs the issuer", {"oidc": {"clientID": "x"}}),
            ("needs the issuer", {"oidc": {**issuer, "issuer": "ftp://a.example"}}),
            ("needs a client ID", {"oidc": {"issuer": "https://a.example"}}),
            ("did you mean clientID", {"oidc": {**issuer, "clientId": "x"}}),
            ("takes a list of strings", {"oidc": {**issuer, "groups": "staff"}}),
            ("must include openid", {"oidc": {**issuer, "scopes": ["email"]}}),
            ("goes with pin", {"stay": 3600}),
            ("from 60 up", {"stay": 5, "link": True}),
            ("true or false", {"link": "yes"}),
        ):
            self.refused(words, **options)

    def test_described(self) -> None:
        """What is shown of a gate has no secrets in it."""
        issuer = {"issuer": "https://a.example", "clientID": "x", "clientSecret": "SEC"}
        asked = {"pin": PIN, "login": [ANNA], "oidc": issuer, "link": True, "stay": 60}
        gate = TunnelOptions.fromMapping(asked).gate
        self.assertEqual(gate.ways, ("pin", "login", "oidc", "link"))
        shown = repr(gate.describe())
        self.assertIn("anna", shown)
        for secret in ("$2b$", "SEC"):
            self.assertNotIn(secret, shown)

    @given(st.dictionaries(st.sampled_from(list(GATE_OPTIONS)), _anything))
    @settings(max_examples=25)
    def test_anything(self, options: dict[str, Any]) -> None:
        """Whatever is asked is understood or refused."""
        try:
            TunnelOptions.fromMapping(options)
        except TunnelError as error:
            self.assertEqual(error.code.name, "bad-option")


class FileTests(SynchronousTestCase):
    """The files that a forward names."""

    def setUp(self) -> None:
        self.patch(passwords, "COST", 4)
        self.directory = Path(self.mktemp())
        self.directory.mkdir()

    def file(self, text: str) -> str:
        path = self.directory / "file"
        path.write_text(text)
        os.chmod(path, 0o600)
        return str(path)

    def forward(self, option: str, place: str = "http/blog") -> Forward:
        return parseForward(reactor, f"{place}=localhost:3000,{option}")

    def refused(self, words: str, option: str, place: str = "http/blog") -> None:
        error = self.assertRaises(TunnelError, self.forward, option, place)
        self.assertIn(words, error.message)
        self.assertNotIn("secret", error.message)

    def test_pin(self) -> None:
        """A PIN travels as its hash, the same each time."""
        forward = self.forward(f"pin={self.file('2580')},stay=1h")
        asked = forward.gate.asked(b"salt", forward.wanted)
        self.assertEqual(asked, forward.gate.asked(b"salt", forward.wanted))
        self.assertNotEqual(asked, forward.gate.asked(b"other", forward.wanted))
        self.assertTrue(isPassword(b"2580", str(asked["pin"])))
        self.assertEqual(asked["stay"], 3600.0)
        self.assertNotIn("2580", repr(forward))
        TunnelOptions.fromMapping(asked)

    def test_users(self) -> None:
        """Passwords and hashes of users, as htpasswd writes them."""
        path = self.file(f"# comment\n{ANNA}\nben:hunter22\n")
        asked = self.forward(f"login={path}").gate.asked(b"salt", "blog")
        anna, ben = TunnelOptions.fromMapping(asked).gate.login
        self.assertEqual(anna, ANNA)
        self.assertTrue(isPassword(b"hunter22", ben.partition(":")[2]))

    def test_provider(self) -> None:
        """A provider is described in TOML."""
        gate = self.forward(f"oidc={self.file(_PROVIDER)}").gate
        oidc = TunnelOptions.fromMapping(gate.asked(b"", "")).gate.oidc
        assert oidc is not None
        self.assertEqual((oidc.clientID, oidc.groups), ("blog", ("staff",)))
        self.assertNotIn("secret", repr(gate))

    def test_wrong(self) -> None:
        """What is wrong is told, without secrets."""
        for words, option, text in (
            ("at least 4 characters", "pin", "258"),
            ("there is no password", "pin", ""),
            ("one line", "pin", "2580\nx"),
            ("up to 72 bytes", "pin", "secret" * 20),
            ("htpasswd -B", "login", "anna:$apr1$secret"),
            ("htpasswd -B", "login", "anna:sha256:secret"),
            ("line 2: there is no colon", "login", "anna:secret\nsecret\n"),
            ("already on an earlier line", "login", "anna:secret\nanna:secret\n"),
            ("the hash is incomplete", "login", "anna:$2y$05$secret"),
            ("has no users", "login", "#\n"),
            ("is not TOML", "oidc", "issuer"),
            (
                "has no key 'client_id'; did you mean client-id?",
                "oidc",
                "client_id = 1",
            ),
            ("needs the issuer", "oidc", ""),
        ):
            self.refused(words, f"{option}={self.file(text)}")
        self.refused("cannot be read", f"pin={self.directory}/none")
        self.refused("goes with pin=", "stay=1h")
        self.refused("stay=x", f"pin={self.file('2580')},stay=x")
        self.refused("is written link", "link=yes")
        self.refused("write allow=NETWORK", "networks=10.0.0.0/8")

    def test_elsewhere(self) -> None:
        """Only HTTP names can ask; others have networks and countries."""
        pin = f"pin={self.file('2580')}"
        for place in ("8080", "tls/blog", "udp/53", "minecraft/mc", "ssh"):
            self.refused("not an HTTP name", pin, place)
        bare = parseForward(reactor, f"3000,{pin}")
        error = self.assertRaises(TunnelError, checkForwards, [bare])
        self.assertIn("not an HTTP name", error.message)
        # As a short command has it.
        checkForwards([replace(bare, listener="web")])
        self.refused("raw joins whole connections", f"{pin},raw")
        forward = self.forward("allow=10.0.0.0/8,deny=10.1.0.0/16,countries=DE", "8080")
        self.assertEqual(
            forward.options.policy,
            {"allow": ["10.0.0.0/8"], "deny": ["10.1.0.0/16"], "countries": ["DE"]},
        )

    def test_changed(self) -> None:
        """Another content of a file makes another forward."""
        option = f"pin={self.file('2580')}"
        before = self.forward(option)
        self.assertTrue(before.isLike(self.forward(option)))
        self.file("2581")
        self.assertFalse(before.isLike(self.forward(option)))
