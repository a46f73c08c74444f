"""Tests for L{tristunnel.wire.signatures}: what the senders themselves publish."""

from __future__ import annotations

import hmac
from base64 import b64encode

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tristunnel.wire.http import Head
from tristunnel.wire.signatures import (
    SCHEMES,
    TOLERANCE,
    BadSignature,
    Scheme,
    SignatureCheck,
    plain,
)


def aHead(*headers: tuple[str, bytes]) -> Head:
    return Head(
        "1.1",
        [(name.lower().encode(), name.encode(), value) for name, value in headers],
    )


#: What GitHub's documentation has.
_GITHUB = (
    "X-Hub-Signature-256",
    b"sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17",
)
_GITHUB_SECRET = b"It's a Secret to Everybody"

#: What Slack's documentation has.
_SLACK = (
    "X-Slack-Signature",
    b"v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503",
)
_SLACK_TIME = ("X-Slack-Request-Timestamp", b"1531420618")
_SLACK_SECRET = b"8f742231b10e8888abcd99yyyzzz85a5"
_SLACK_BODY = (
    b"token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow"
    b"&channel_id=G8PSS9T3V&channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner"
    b"&command=%2Fwebhook-collect&text=&response_url=https%3A%2F%2Fhooks.slack.com"
    b"%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN&trigger_id="
    b"398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c"
)

#: What the tests of Stripe's own library for .NET have.
_STRIPE = (
    "Stripe-Signature",
    b"t=1533204620,"
    b"v1=f0bdba6d4eacbd8ad8a3bbadd7248e633ec1477f7899c124c51b39405fa36613,"
    b"v0=63f3a72374a733066c4be69ed7f8e5ac85c22c9f0a6a612ab9a025a9e4ee7eef",
)
_STRIPE_SECRET = b"webhook_secret"
_STRIPE_BODY = b"""{
  "id": "evt_123",
  "object": "event",
  "account": "acct_123",
  "api_version": "2017-05-25",
  "created": 1533204620,
  "data": {
    "object": {
      "id": "ii_123",
      "object": "invoiceitem",
      "amount": 1000,
      "currency": "usd",
      "customer": "cus_123",
      "date": 1533204620,
      "description": "Test Invoice Item",
      "discountable": false,
      "invoice": "in_123",
      "livemode": false,
      "metadata": {},
      "period": {
        "start": 1533204620,
        "end": 1533204620
      },
      "plan": null,
      "proration": false,
      "quantity": null,
      "subscription": null
    }
  },
  "livemode": false,
  "pending_webhooks": 1,
  "request": {
    "id": "req_123",
    "idempotency_key": "idempotency-key-123"
  },
  "type": "invoiceitem.created"
}
"""

_SAMPLES: tuple[tuple[str, tuple[tuple[str, bytes], ...], bytes, bytes, float], ...] = (
    ("github", (_GITHUB,), _GITHUB_SECRET, b"Hello, World!", 0.0),
    ("slack", (_SLACK, _SLACK_TIME), _SLACK_SECRET, _SLACK_BODY, 1531420618.0),
    ("stripe", (_STRIPE,), _STRIPE_SECRET, _STRIPE_BODY, 1533204620.0),
)


class SampleTests(SynchronousTestCase):
    """What others have published."""

    def isGood(
        self, scheme: Scheme, head: Head, body: bytes, now: float, *secrets: bytes
    ) -> bool:
        check = SignatureCheck(scheme(head, now), secrets)
        for place in range(0, len(body), 7):
            check.update(body[place : place + 7])
        return check.isGood

    def test_published(self) -> None:
        """It is good, by one of several secrets too; another body or secret is not."""
        for name, headers, secret, body, now in _SAMPLES:
            read, head = SCHEMES[name], aHead(*headers)
            self.assertTrue(self.isGood(read, head, body, now, secret), name)
            self.assertTrue(self.isGood(read, head, body, now, b"old", secret), name)
            self.assertFalse(self.isGood(read, head, body + b" ", now, secret), name)
            self.assertFalse(self.isGood(read, head, body, now, b"other"), name)

    def test_time(self) -> None:
        """Where there is a time, it must be near ours."""
        for name, headers, _, _, now in _SAMPLES[1:]:
            read, head = SCHEMES[name], aHead(*headers)
            for near in (-TOLERANCE, TOLERANCE):
                read(head, now + near)
            for far in (-TOLERANCE - 1, TOLERANCE + 1):
                self.assertRaises(BadSignature, read, head, now + far)

    def test_several(self) -> None:
        """Of Stripe's signatures one must be good."""
        name, value = _STRIPE
        for more in (b",v1=" + b"0" * 64, b", v1=" + b"F" * 64, b",v2=x"):
            head = aHead((name, value + more))
            self.assertTrue(
                self.isGood(
                    SCHEMES["stripe"], head, _STRIPE_BODY, 1533204620, _STRIPE_SECRET
                )
            )
        old = aHead((name, value.replace(b"v1=", b"v2=")))
        self.assertRaises(BadSignature, SCHEMES["stripe"], old, 1533204620)

    def test_plain(self) -> None:
        """Others write hexadecimal or base64, with a word before it or without."""
        digest = hmac.digest(b"secret", b"body", "sha256")
        text = digest.hex().encode()
        for value in (text, text.upper(), b"sha256=" + text, b64encode(digest)):
            head = aHead(("X-Signature", value))
            read = plain("X-Signature")
            self.assertTrue(self.isGood(read, head, b"body", 0, b"secret"), value)
            self.assertFalse(self.isGood(read, head, b"bodi", 0, b"secret"), value)

    def test_wrong(self) -> None:
        """What is no signature is told in words."""
        for name, headers, words in (
            ("github", (), "not 0"),
            ("github", (_GITHUB, _GITHUB), "not 2"),
            ("github", (("X-Hub-Signature-256", b"sha1=00"),), "begin with sha256="),
            (
                "github",
                (("X-Hub-Signature-256", b"sha256=00"),),
                "not an HMAC-SHA256 signature",
            ),
            ("slack", (_SLACK,), "X-Slack-Request-Timestamp"),
            ("slack", (("X-Slack-Signature", b"v1=00"), _SLACK_TIME), "with v0="),
            ("slack", (_SLACK, ("X-Slack-Request-Timestamp", b"now")), "no time"),
            ("stripe", (("Stripe-Signature", b"v1=00"),), "no time"),
            ("stripe", (("Stripe-Signature", b"t=1,t=2"),), "no time"),
            ("stripe", (("Stripe-Signature", b"t=-5"),), "no time"),
        ):
            head = aHead(*headers)
            error = self.assertRaises(BadSignature, SCHEMES[name], head, 1531420618)
            self.assertIn(words, str(error))

    @given(
        st.sampled_from([*SCHEMES, "hmac"]),
        st.lists(
            st.tuples(
                st.sampled_from([_GITHUB[0], _SLACK[0], _SLACK_TIME[0], _STRIPE[0]]),
                st.binary(max_size=80)
                | st.from_regex(rb"(sha256=|v0=|t=[0-9]{1,13},v1=)?[0-9a-f]{62,66}"),
            ),
            max_size=3,
        ),
    )
    def test_anything(self, name: str, headers: list[tuple[str, bytes]]) -> None:
        """Whatever is in a head is a claim that does not hold, or none."""
        read = SCHEMES.get(name) or plain(_GITHUB[0])
        try:
            claim = read(aHead(*headers), 1531420618)
        except BadSignature as problem:
            self.assertNotIn("\n", str(problem))
            return
        self.assertFalse(SignatureCheck(claim, [b"secret"]).isGood)
