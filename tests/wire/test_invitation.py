"""Tests of L{tristunnel.wire.invitation}."""

from __future__ import annotations

import hashlib
import re
import shlex
from pathlib import Path

from hypothesis import assume, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tristunnel.errors import TunnelError
from tristunnel.wire.invitation import (
    PIN_BYTES,
    USUAL_PORT,
    Invitation,
    newCode,
    readCode,
)

CODE = "k7f39q2mabcdefgh"
PIN = hashlib.sha256(b"certificate").digest()[:PIN_BYTES]
ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"

_HOSTS = st.sampled_from(
    ["t.example.com", "192.0.2.1", "2001:db8::1", "fe80::1%eth0", "::ffff:102:304", "a"]
)
_INVITATIONS = st.builds(
    Invitation,
    _HOSTS,
    st.integers(1, 65535),
    st.binary(min_size=PIN_BYTES, max_size=PIN_BYTES),
    st.text(ALPHABET, min_size=16, max_size=16),
)


class InvitationTests(SynchronousTestCase):
    def refused(self, text: str) -> str:
        error = self.assertRaises(TunnelError, Invitation.parse, text)
        self.assertEqual(error.code.name, "bad-option")
        self.assertNotIn("\n", error.message)
        return error.message

    def test_text(self) -> None:
        """The wire format, letter by letter."""
        self.assertEqual(
            str(Invitation("t.example.com", USUAL_PORT, PIN, CODE)),
            "t.example.com#k7f3-9q2m-abcd-efgh-0fb6-vm48-6q0w-mfrj-hk7a-smfk-3b4t-177e",
        )

    @settings(max_examples=200)
    @given(_INVITATIONS)
    def test_roundTrip(self, invitation: Invitation) -> None:
        """What is written is read, and a shell takes it as one word that it leaves as
        it is, also without quotes."""
        text = str(invitation)
        self.assertEqual(Invitation.parse(text), invitation)
        self.assertEqual(shlex.split(text), [text])
        self.assertFalse(set(text) & set("[](){}*?$&|;<>\\\"'`!~"))

    @settings(max_examples=200)
    @given(_INVITATIONS, st.data())
    def test_mistyped(self, invitation: Invitation, data: st.DataObject) -> None:
        """One wrong letter, two that changed places, and what is missing or too much
        are noticed before anything is asked of a server."""
        place, _, body = str(invitation).partition("#")
        plain = body.replace("-", "")
        at = data.draw(st.integers(0, len(plain) - 2))
        letter = data.draw(st.sampled_from(ALPHABET))
        first, second = plain[at], plain[at + 1]
        wrong = data.draw(
            st.sampled_from(
                [
                    plain[:at] + letter + plain[at + 1 :],
                    plain[:at] + second + first + plain[at + 2 :],
                    plain[:at] + plain[at + 1 :],
                    plain[:at] + letter + plain[at:],
                ]
            )
        )
        assume(wrong != plain)
        self.refused(f"{place}#{wrong}")

    def test_typed(self) -> None:
        """Letters that look alike, capitals, other groups, quotes and brackets are no
        mistakes."""
        invitation = Invitation("2001:db8::1", 9001, PIN, newCode())
        body = str(invitation).partition("#")[2]
        for text in (
            f" '[2001:DB8::1]:9001#{body.upper()}'\n",
            f"2001:db8::1,9001#{body.replace('-', '')}",
            f"https://[2001:db8::1]:9001/#{body}",
            f"tristunnel join 2001:db8::1,9001#{body}",
            f"2001:db8::1,9001#{body.replace('0', 'O').replace('1', 'l')}",
            f"2001:db8::1,9001#{body.replace('1', 'I').replace('-', ' ')}",
        ):
            self.assertEqual(Invitation.parse(text), invitation)

    def test_wrong(self) -> None:
        """Each mistake is named, with what to do, and the code is not repeated."""
        body = str(Invitation("x", USUAL_PORT, PIN, CODE)).partition("#")[2]
        for text, said in (
            ("", "what follows the # is missing"),
            ("t.example.com", "what follows the # is missing"),
            ("t.example.com#", "what follows the # is missing"),
            (f"t.example.com#{body[:-1]}", "has 47 letters and digits"),
            (f"t.example.com#{body[:-1]}u", "a character after the #"),
            (f"t.example.com#{body[:-1]}é", "a character after the #"),
            (f"t.example.com#{body[:-1]}z", "mistyped after the #"),
            (f"#{body}", "the host is missing"),
            (f"a b#{body}", "'a b' is not a host"),
            (f"x:0#{body}", "'0' is not a port"),
            (f"x:99999#{body}", "'99999' is not a port"),
            (f"YOUR-SERVER:9001#{body}", "in place of YOUR-SERVER"),
            (f"your-server#{body}", "in place of YOUR-SERVER"),
        ):
            message = self.refused(text)
            self.assertIn(said, message)
            self.assertNotIn(body[:9], message)

    @settings(max_examples=300)
    @given(st.text(max_size=120))
    def test_anything(self, text: str) -> None:
        """Whatever it is, it is read or refused in one line."""
        try:
            Invitation.parse(text)
        except TunnelError as error:
            self.assertNotIn("\n", error.message)

    def test_documented(self) -> None:
        """The examples of the documentation are right."""
        path = Path(__file__).parents[2] / "docs" / "invitations.rst"
        if path.exists():
            found = re.findall(r"\S+#[0-9a-z-]{59}", path.read_text())
            self.assertEqual(
                {Invitation.parse(text) for text in found},
                {Invitation("t.example.com", USUAL_PORT, PIN, CODE)},
            )

    def test_secret(self) -> None:
        """A code does not get into a log by the representation."""
        self.assertNotIn(CODE, repr(Invitation("x", USUAL_PORT, PIN, CODE)))

    @given(st.text(max_size=40))
    def test_code(self, text: str) -> None:
        """A code alone is read, or it is none."""
        code = readCode(text)
        self.assertTrue(code == "" or (len(code) == 16 and set(code) <= set(ALPHABET)))
        made = newCode()
        self.assertEqual(readCode(made.upper()), made)
