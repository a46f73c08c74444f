"""Tests for how exchanges are shown: as text, without secrets, and as archives."""

from __future__ import annotations

import gzip
import json
import subprocess
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.inspect.streams import INFO, STREAMS, aForward, aRecord
from tristunnel.errors import TunnelError
from tristunnel.inspect.calls import matching
from tristunnel.inspect.curl import curlOf
from tristunnel.inspect.exchange import Exchange
from tristunnel.inspect.har import harOf
from tristunnel.inspect.masks import MASK, maskedHeader, maskedTarget, unmasked
from tristunnel.inspect.record import Record
from tristunnel.inspect.replay import Edits, requestOf
from tristunnel.inspect.shown import detailOf, summaryOf
from tristunnel.inspect.tap import Tap
from tristunnel.inspect.text import prettyJSON, prettyXML

_LOGIN = (
    b"POST /login?next=/&token=T0p HTTP/1.1\r\nHost: blog.example:8080\r\n"
    b"Authorization: Bearer s3cret\r\nCookie: a=1; b=2\r\nX-Forwarded-Proto: https\r\n"
    b"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 24\r\n\r\n"
    b"user=ada&password=hunter"
)
_WELCOME = (
    b"HTTP/1.1 302 Found\r\nSet-Cookie: sid=abc; HttpOnly\r\n"
    b"Location: /home?code=C0de\r\nContent-Length: 0\r\n\r\n"
)
_SECRETS = ("T0p", "s3cret", "a=1", "b=2", "hunter", "sid=abc", "C0de")


def recorded(request: bytes, response: bytes) -> tuple[Record, Exchange]:
    record = aRecord()
    tap = Tap(record, aForward(), INFO)
    tap.asked(request)
    tap.answered(response)
    (exchange,) = record.exchanges.values()
    return record, exchange


def _body(kind: str, body: bytes, more: str = "") -> dict[str, Any]:
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
    whole = f"{head}{more}\r\n".encode() + body
    _, exchange = recorded(STREAMS["one"][0][0], whole)
    shown: dict[str, Any] = detailOf(exchange)["response"]["body"]
    return shown


class BodyTests(SynchronousTestCase):
    """Bodies are shown as what they are."""

    def test_kinds(self) -> None:
        """By their type, and as bytes where they are no text."""
        for kind, body, expected, shown in (
            (
                "application/json",
                b'{"a":[1.50]}',
                "json",
                '{\n  "a": [\n    1.50\n  ]\n}',
            ),
            ("application/problem+json; charset=utf-8", b"{}", "json", "{}"),
            ("text/xml", b"<a><b>1</b></a>", "xml", "<a>\n  <b>1</b>\n</a>"),
            ("image/svg+xml", b"<a/>", "xml", "<a/>"),
            (
                "application/x-www-form-urlencoded",
                b"a=1&b=%C3%A4+",
                "form",
                "a = 1\nb = \xe4 ",
            ),
            ("text/html", b"<script>", "text", "<script>"),
            ("text/plain; charset=iso-8859-1", b"\xe4", "text", "\xe4"),
            ("", b"plain", "text", "plain"),
            ("text/plain", b"\xff\xfe", "hex", "00000000  ff fe"),
            ("text/plain", b"a\x1b[2J", "hex", "00000000  61 1b"),
            ("text/plain; charset=punycode", b"abc", "text", "abc"),
            ("image/png", b"\x89PNG", "hex", "00000000  89 50 4e 47"),
        ):
            found = _body(kind, body)
            self.assertEqual(found["kind"], expected, kind)
            text = found["pretty"] or found["text"]
            self.assertEqual(text[: len(shown)], shown, kind)

    def test_packed(self) -> None:
        """What is compressed is unpacked, up to a bound; else it says how it is."""
        for body, more, kind, note in (
            (gzip.compress(b'{"a":1}'), "gzip", "json", "unpacked from gzip"),
            (gzip.compress(bytes(10**6)), "gzip", "hex", "not all of it"),
            (b"no gzip", "gzip", "json", "damaged"),
            (b"\x1b\0", "br", "hex", "compressed with br"),
        ):
            found = _body("application/json", body, f"Content-Encoding: {more}\r\n")
            self.assertEqual(found["kind"], kind, note)
            self.assertIn(note, found["note"])

    @given(st.text(alphabet='{}[]",:\\ a1', max_size=40))
    def test_json(self, text: str) -> None:
        """Laying out JSON, or what is none, changes nothing but spaces outside text."""
        self.assertEqual("".join(prettyJSON(text).split()), "".join(text.split()))

    @given(st.recursive(st.none() | st.floats(allow_nan=False) | st.text(), st.lists))
    def test_sameJSON(self, value: object) -> None:
        """What is laid out means the same."""
        self.assertEqual(json.loads(prettyJSON(json.dumps(value))), value)

    @given(st.text(alphabet='<>/ab=" \n', max_size=40))
    def test_xml(self, text: str) -> None:
        """So it is with XML."""
        self.assertEqual("".join(prettyXML(text).split()), "".join(text.split()))

    def test_deep(self) -> None:
        """What has as many levels as bytes does not become larger than it is."""
        self.assertLess(len(prettyJSON("[" * 60_000)), 60_000 * 70)
        self.assertLess(len(prettyXML("<a>" * 20_000)), 20_000 * 70)


class SecretTests(SynchronousTestCase):
    """Secrets are shown to those who ask for them."""

    def test_everywhere(self) -> None:
        """In no form that is shown are there secrets, unless they are asked for."""
        _, exchange = recorded(_LOGIN, _WELCOME)
        for make in (
            lambda reveal: json.dumps(summaryOf(exchange, reveal)),
            lambda reveal: json.dumps(detailOf(exchange, reveal)),
            lambda reveal: curlOf(exchange, reveal),
            lambda reveal: json.dumps(harOf([exchange], reveal)),
        ):
            for secret in _SECRETS:
                self.assertNotIn(secret, make(False))
        shown = json.dumps(detailOf(exchange, True))
        for secret in _SECRETS:
            self.assertIn(secret, shown)

    def test_headers(self) -> None:
        """By the names of headers and parameters; what is no secret stays."""
        for name, value, shown in (
            ("Authorization", "Basic eA==", f"Basic {MASK}"),
            ("authorization", "x", MASK),
            ("Proxy-Authorization", "Basic x y", f"Basic {MASK}"),
            ("X-Api-Key", "1", MASK),
            ("X-Hub-Signature-256", "sha256=1", MASK),
            ("Cookie", "a=1;b", f"a={MASK};b"),
            ("Set-Cookie", "a=1; Path=/", f"a={MASK}; Path=/"),
            ("Referer", "https://h/?a=1&key=2", f"https://h/?a=1&key={MASK}"),
            ("Accept", "text/html", "text/html"),
            ("WWW-Authenticate", "Basic realm=x", "Basic realm=x"),
        ):
            self.assertEqual(maskedHeader(name, value), shown)
        self.assertEqual(maskedTarget("/a?x=1&api_key=k#t"), f"/a?x=1&api_key={MASK}#t")

    def test_back(self) -> None:
        """What was edited beside a mask gets the secret back that stood there."""
        original = [("Cookie", "a=1"), ("Cookie", "a=2"), ("X-Token", "t")]
        shown = [(name, maskedHeader(name, value)) for name, value in original]
        edited = [*shown[:2], ("X-New", "n")]
        self.assertEqual(
            unmasked(edited, original),
            [("Cookie", "a=1"), ("Cookie", "a=2"), ("X-New", "n")],
        )


class FilterTests(SynchronousTestCase):
    """A filter finds what it says."""

    def test_words(self) -> None:
        """By method, status, path, host and text, all of which must fit."""
        record, _ = recorded(_LOGIN, _WELCOME)
        for text, fits in (
            ("", True),
            ("method:post status:3xx path:/login", True),
            ("status:302 host:blog", True),
            ("status:200", False),
            ("method:GET", False),
            ("path:/home", False),
            ("ADA", True),
            ('"user=ada&pass"', True),
            ("httponly text:set-cookie", True),
            ("http://nowhere", False),
            ("nothing", False),
        ):
            self.assertEqual(bool(matching(record, text)), fits, text)

    def test_bad(self) -> None:
        """What is no filter is refused."""
        record = aRecord()
        for bad in ("status:9xx", "x" * 501, 5):
            error = self.assertRaises(TunnelError, matching, record, bad)
            self.assertEqual(error.code.name, "bad-option")


class AgainTests(SynchronousTestCase):
    """A request is written again as it was, or as it was edited."""

    def test_asItWas(self) -> None:
        """The same head and body, but for what is about the connection."""
        _, exchange = recorded(_LOGIN, _WELCOME)
        head, _, body = requestOf(exchange, Edits()).partition(b"\r\n\r\n")
        before, _, same = _LOGIN.partition(b"\r\n\r\n")
        self.assertEqual(body, same)
        self.assertEqual(
            set(head.split(b"\r\n")), {*before.split(b"\r\n"), b"Connection: close"}
        )

    def test_edited(self) -> None:
        """With other parts; masks stand for the secrets that were there."""
        _, exchange = recorded(_LOGIN, _WELCOME)
        headers = [["Host", "x"], ["authorization", f"Bearer {MASK}"]]
        edits = Edits.of("PUT", "/other", headers, "new")
        self.assertEqual(
            requestOf(exchange, edits),
            b"PUT /other HTTP/1.1\r\nHost: x\r\nauthorization: Bearer s3cret\r\n"
            b"Connection: close\r\nContent-Length: 3\r\n\r\nnew",
        )
        masked = Edits(path=summaryOf(exchange)["path"])
        self.assertIn(b"token=T0p", requestOf(exchange, masked))

    def test_refused(self) -> None:
        """What would be another request than one, or none, is not sent."""
        _, exchange = recorded(_LOGIN, _WELCOME)
        host = ["Host", "h"]
        for edits in (
            Edits.of("GE T", None, None, None),
            Edits.of("GET\r\nX: y", None, None, None),
            Edits.of(None, "/a b", None, None),
            Edits.of(None, "http://elsewhere/", None, None),
            Edits.of(None, f"/{MASK}", None, None),
            Edits.of(None, None, [host, ["X", "a\r\nY: b"]], None),
            Edits.of(None, None, [host, ["X y", "a"]], None),
            Edits.of(None, None, [["X", "y"]], None),
            Edits.of(None, None, [host, host], None),
            Edits.of(None, None, [host, ["X-Token", MASK]], None),
            Edits.of(None, None, [host] + [["X", "y"]] * 200, None),
        ):
            error = self.assertRaises(TunnelError, requestOf, exchange, edits)
            self.assertEqual(error.code.name, "bad-option")
        for bad in ((1, None, None, None), (None, None, [["a"]], None)):
            self.assertRaises(TunnelError, Edits.of, *bad)

    def test_notWhole(self) -> None:
        """Nor is one whose body was not kept, unless there is another one."""
        long = b"POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\n"
        _, exchange = recorded(long + bytes(100_000), _WELCOME)
        error = self.assertRaises(TunnelError, requestOf, exchange, Edits())
        self.assertIn("--inspect-body", error.message)
        self.assertTrue(requestOf(exchange, Edits(body="b")).endswith(b"\r\n\r\nb"))

    def test_curl(self) -> None:
        """A shell reads the command as what was sent, whatever is in it."""
        nasty = b"'; touch /nowhere; echo $HOME `x` \\ \" \xc3\xa4"
        request = (
            b"PUT /a?b='$(x)' HTTP/1.1\r\nHost: h:80\r\nX-A: " + nasty + b"\r\n"
            b"X-Empty:\r\nContent-Length: %d\r\n\r\n" % len(nasty) + nasty
        )
        _, exchange = recorded(request, _WELCOME)
        command = curlOf(exchange, True).removeprefix("curl ")
        done = subprocess.run(
            ["/bin/sh", "-c", f"printf '%s\\0' {command}"],
            capture_output=True,
            check=True,
        )
        words = done.stdout.split(b"\0")[:-1]
        self.assertEqual(
            words[words.index(b"-X") :],
            [
                *(b"-X", b"PUT", b"-H", b"X-A: " + nasty, b"-H", b"X-Empty;"),
                *(b"--data-binary", nasty, b"-H", b"Content-Type:"),
                b"http://h:80/a?b='$(x)'",
            ],
        )


_ENTRY: dict[str, dict[str, type]] = {
    "": {"startedDateTime": str, "time": float, "request": dict, "response": dict,
         "cache": dict, "timings": dict},
    "request": {"method": str, "url": str, "httpVersion": str, "cookies": list,
                "headers": list, "queryString": list, "headersSize": int,
                "bodySize": int},
    "response": {"status": int, "statusText": str, "httpVersion": str, "cookies": list,
                 "headers": list, "content": dict, "redirectURL": str,
                 "headersSize": int, "bodySize": int},
    "timings": {"send": float, "wait": float, "receive": float},
}  # fmt: skip
"""What HAR 1.2 asks of an entry, and of its parts."""


class ArchiveTests(SynchronousTestCase):
    """Exchanges become an archive as HAR 1.2 describes it."""

    def test_members(self) -> None:
        """Each entry has what is asked for, in the right type."""
        for name, (asked, answered, expected) in STREAMS.items():
            record = aRecord()
            tap = Tap(record, aForward(), INFO)
            for take, pieces in ((tap.asked, asked), (tap.answered, answered)):
                for piece in pieces:
                    take(piece)
            har = json.loads(json.dumps(harOf(record.exchanges.values(), True)))["log"]
            self.assertEqual(har["version"], "1.2")
            self.assertEqual(len(har["entries"]), len(expected), name)
            for entry in har["entries"]:
                for part, members in _ENTRY.items():
                    found = entry[part] if part else entry
                    for member, kind in members.items():
                        self.assertIsInstance(found[member], kind, f"{name} {member}")
                self.assertIsInstance(entry["response"]["content"]["mimeType"], str)

    def test_content(self) -> None:
        """What is no text is written in base64, and messages are there."""
        _, exchange = recorded(
            STREAMS["one"][0][0], b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n\xff\0"
        )
        (entry,) = harOf([exchange], False)["log"]["entries"]
        content = entry["response"]["content"]
        self.assertEqual((content["text"], content["encoding"]), ("/wA=", "base64"))
        record = aRecord()
        tap = Tap(record, aForward(), INFO)
        asked, answered, _ = STREAMS["a WebSocket"]
        tap.asked(asked[0])
        tap.answered(answered[0])
        (entry,) = harOf(record.exchanges.values(), False)["log"]["entries"]
        self.assertEqual(entry["_webSocketMessages"][0]["data"], "hi")
