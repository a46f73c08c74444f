"""Tests for L{tristunnel.auth.credentials}."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.cred.credentials import IUsernamePassword
from twisted.internet.address import IPv4Address
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from tristunnel.auth.credentials import ITunnelCredentials, TunnelCredentials

jsonValues = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


class TunnelCredentialsTests(SynchronousTestCase):
    def test_interfaces(self) -> None:
        """They are tunnel credentials and a username with a password."""
        credentials = TunnelCredentials({"id": "a"})
        verifyObject(ITunnelCredentials, credentials)
        verifyObject(IUsernamePassword, credentials)

    def test_fields(self) -> None:
        """The fields are a read-only copy without the protocol's key."""
        sent: dict[str, object] = {"id": "a", "extra": [1], "tristunnel": {"v": 1}}
        peer = IPv4Address("TCP", "192.0.2.1", 1)
        credentials = TunnelCredentials(sent, peer)
        sent["id"] = "b"
        self.assertEqual(dict(credentials.fields), {"id": "a", "extra": [1]})
        self.assertIs(credentials.peer, peer)
        with self.assertRaises(TypeError):
            credentials.fields["id"] = "c"  # type: ignore[index] # it must not

    def test_notAnObject(self) -> None:
        """A handshake that is no JSON object is a L{TypeError}."""
        odds: list[object] = [[], "id", None, 7]
        for sent in odds:
            with self.assertRaises(TypeError):
                TunnelCredentials(sent)  # type: ignore[arg-type] # it must not

    def test_username(self) -> None:
        """The username is the id in UTF-8; what cannot be a name is as good as
        absent."""
        for value, expected in (
            ("caf\u00e9", "caf\u00e9".encode()),
            (7, b"7"),
            ("", b""),
            (None, b""),
            (True, b""),
            (1.5, b""),
            ({"a": 1}, b""),
            ("\ud800", b""),
        ):
            self.assertEqual(TunnelCredentials({"id": value}).username, expected)
        self.assertEqual(TunnelCredentials({}).username, b"")

    def test_password(self) -> None:
        """The password is the first of C{secret}, C{password} and C{token} that says
        something."""
        fields = {"secret": "s", "password": "p", "token": "t"}
        self.assertEqual(TunnelCredentials(fields).password, b"s")
        fields["secret"] = ""
        self.assertEqual(TunnelCredentials(fields).password, b"p")
        del fields["password"]
        self.assertEqual(TunnelCredentials(fields).password, b"t")
        self.assertEqual(TunnelCredentials({"secret": None}).password, b"")
        self.assertEqual(TunnelCredentials({}).password, b"")

    def test_checkPassword(self) -> None:
        """Only the same password is right, and an absent one never is."""
        credentials = TunnelCredentials({"id": "a", "secret": "s\u00e9"})
        self.assertTrue(credentials.checkPassword("s\u00e9".encode()))
        self.assertTrue(
            credentials.checkPassword("s\u00e9")  # type: ignore[arg-type] # it must not
        )
        self.assertFalse(credentials.checkPassword(b"s"))
        self.assertFalse(credentials.checkPassword(b""))
        self.assertFalse(TunnelCredentials({"id": "a"}).checkPassword(b""))

    def test_repr(self) -> None:
        """The representation has the id, shortened, and no secret."""
        fields = {"id": "a\n", "secret": "s3cr3t", "other": "s3cr3t"}
        self.assertEqual(
            repr(TunnelCredentials(fields)), r"<TunnelCredentials id='a\n'>"
        )
        self.assertNotIn("s3cr3t", str(TunnelCredentials({"token": "s3cr3t"})))
        self.assertLess(len(repr(TunnelCredentials({"id": "x" * 10_000}))), 120)

    @given(st.dictionaries(st.text(), jsonValues), jsonValues, jsonValues)
    def test_anything(
        self, fields: dict[str, object], name: object, secret: object
    ) -> None:
        """Any JSON object makes credentials."""
        credentials = TunnelCredentials({**fields, "id": name, "secret": secret})
        self.assertIsInstance(credentials.username, bytes)
        self.assertIsInstance(credentials.password, bytes)
        self.assertIsInstance(repr(credentials), str)
