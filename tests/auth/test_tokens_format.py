"""Tests for L{tristunnel.auth.tokens_format}."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tristunnel.auth.tokens_format import (
    PREFIX,
    Token,
    TokenList,
    digestOf,
    formatTime,
    formatToken,
    newToken,
    parseTime,
    parseToken,
    tokenNameProblem,
)
from tristunnel.model.names import HostNames
from tristunnel.model.permissions import RIGHTS, Permissions
from tristunnel.model.policy import VisitorPolicy, parseNetworks
from tristunnel.model.ports import PortRange

HASH = "ab" * 32
GOOD: dict[str, Any] = {"name": "laptop", "sha256": HASH}

optional = st.none
counts = optional() | st.integers(0, 10**9)
times = optional() | st.integers(0, 4 * 10**9).map(float)
spans = st.tuples(st.integers(1, 65535), st.integers(1, 65535)).map(
    lambda it: (min(it), max(it))
)
words = st.from_regex(r"[a-z][a-z0-9-]{0,10}", fullmatch=True)
networks = st.lists(st.ip_addresses().map(str), max_size=3).map(parseNetworks)
limits = st.integers(0, 10**9)
stays = st.just(0.0) | st.integers(1, 10**9).map(float)
policies = st.builds(
    VisitorPolicy,
    allow=networks,
    deny=networks,
    visitorsPerAddress=limits,
    maxVisitors=limits,
    visitorRate=limits,
    rate=st.integers(0, 10**12),
    idle=stays,
    maxAge=stays,
)
permissions = st.builds(
    Permissions,
    ports=optional()
    | st.lists(spans, min_size=1, max_size=3).map(lambda it: PortRange(tuple(it))),
    protocols=optional() | st.frozensets(words, max_size=3),
    maxTunnels=counts,
    maxVisitors=counts,
    rate=optional() | st.integers(1, 10**12),
    expires=times,
    may=st.frozensets(st.sampled_from(RIGHTS)),
    services=optional() | st.lists(words, max_size=3).map(tuple),
    policy=policies,
)
names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.@+-]{0,63}", fullmatch=True).filter(
    lambda name: tokenNameProblem(name) is None
)
tokens = st.builds(
    Token,
    name=names,
    digest=st.binary(min_size=32, max_size=32),
    permissions=permissions,
    created=times,
    revoked=times,
)
json_ = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)
KEYS = ["ports", "protocols", "maxTunnels", "maxVisitors", "rate", "expires", "may"]
KEYS += ["services", "created", "revoked", "name", "sha256", "other"]
KEYS += ["allow", "deny", "visitorsPerTunnel", "visitorsPerAddress", "visitorRate"]
KEYS += ["ratePerTunnel", "idle", "maxAge"]


class TokenTests(SynchronousTestCase):
    """Tokens themselves."""

    def test_random(self) -> None:
        """They are long, random, one word, and begin in a way that is known."""
        made = {newToken() for _ in range(100)}
        self.assertEqual(len(made), 100)
        for token in made:
            self.assertTrue(token.startswith(PREFIX))
            self.assertGreater(len(token), 40)
            self.assertEqual(token.split(), [token])

    def test_names(self) -> None:
        """Names are words; those that the program uses itself are not to be had."""
        for name in ("laptop", "a@b.example", "x+y-z_1"):
            self.assertIsNone(tokenNameProblem(name))
        for name in (
            "",
            "a b",
            "-a",
            "a\n",
            "é",
            "x" * 65,
            "anonymous",
            "tunnel-1",
            "access-x",
        ):
            self.assertIsNotNone(tokenNameProblem(name))


class LineTests(SynchronousTestCase):
    """A line of the file."""

    def assertBroken(self, words: str, **values: object) -> None:
        error = self.assertRaises(
            ValueError, parseToken, json.dumps({**GOOD, **values})
        )
        self.assertIn(words, str(error))
        self.assertNotIn("\n", str(error))

    def test_least(self) -> None:
        """A name and a hash are enough, and permit to open tunnels."""
        token = parseToken(json.dumps(GOOD), 7)
        self.assertEqual(token.permissions, Permissions())
        self.assertEqual((token.name, token.line), ("laptop", 7))

    def test_everything(self) -> None:
        """All that a line may say; rates and ports also as numbers."""
        token = parseToken(
            json.dumps(
                {
                    **GOOD,
                    "ports": 9000,
                    "names": "blog,*.example.org",
                    "protocols": ["tcp", "udp"],
                    "maxTunnels": 0,
                    "maxVisitors": 100,
                    "rate": "10MB/s",
                    "expires": "2030-12-31",
                    "may": ["open", "access"],
                    "services": ["ssh", "db-*"],
                    "created": None,
                    "allow": ["10.0.0.0/8", "2001:db8::/32"],
                    "deny": ["10.9.0.0/16"],
                    "visitorsPerTunnel": 5,
                    "visitorsPerAddress": 2,
                    "visitorRate": 30,
                    "ratePerTunnel": "1MB/s",
                    "idle": 60,
                    "maxAge": 3600.5,
                }
            )
        )
        expected = Permissions(
            PortRange(((9000, 9000),)),
            frozenset({"tcp", "udp"}),
            0,
            100,
            10_000_000,
            1924905600.0,
            frozenset({"open", "access"}),
            ("ssh", "db-*"),
            policy=VisitorPolicy(
                parseNetworks(["10.0.0.0/8", "2001:db8::/32"]),
                parseNetworks(["10.9.0.0/16"]),
                5,
                2,
                30,
                1_000_000,
                60.0,
                3600.5,
            ),
            names=HostNames(("blog", "*.example.org")),
        )
        self.assertEqual(token.permissions, expected)

    def test_broken(self) -> None:
        """Each mistake is named, above all a restriction that is misspelled."""
        self.assertBroken("there is no 'maxTunnel'", maxTunnel=5)
        self.assertBroken("there is no name", name=5)
        self.assertBroken("reserved", name="anonymous")
        self.assertBroken("hexadecimal", sha256="ab")
        self.assertBroken("maxTunnels takes a whole number", maxTunnels=-1)
        self.assertBroken("maxTunnels takes a whole number", maxTunnels=True)
        self.assertBroken("maxVisitors takes a whole number", maxVisitors=1.5)
        self.assertBroken("rate: 'fast' is not a rate", rate="fast")
        self.assertBroken("rate takes bytes", rate=[])
        self.assertBroken("ports: '9-1' is not a port range", ports="9-1")
        self.assertBroken("ports takes ports", ports={})
        self.assertBroken("expires takes a time", expires="soon")
        self.assertBroken("expires takes a time", expires=5)
        self.assertBroken("revoked takes a time", revoked=True)
        self.assertBroken("protocols takes protocols", protocols=["T C P"])
        self.assertBroken("protocols takes a list", protocols="tcp")
        self.assertBroken("may takes some of", may=["all"])
        self.assertBroken("services takes names", services=[""])
        self.assertBroken("allow: 'office' is not an address", allow=["office"])
        self.assertBroken("deny takes a list", deny="10.0.0.0/8")
        self.assertBroken("visitorsPerTunnel takes a whole", visitorsPerTunnel="5")
        self.assertBroken("ratePerTunnel: 'fast' is not a rate", ratePerTunnel="fast")
        self.assertBroken("idle takes seconds", idle=0.5)
        self.assertBroken("maxAge takes seconds", maxAge="1h")
        for line in ("", "[]", "5", '{"a": 1', "[" * 100_000, '{"name": "a",}'):
            error = self.assertRaises(ValueError, parseToken, line)
            self.assertEqual(str(error), "it is not a JSON object")
        twice = '{"name": "a", "name": "b"}'
        error = self.assertRaises(ValueError, parseToken, twice)
        self.assertEqual(str(error), "a key appears twice")

    @given(tokens)
    def test_roundTrip(self, token: Token) -> None:
        """What is written is read again."""
        line = formatToken(token)
        self.assertNotIn("\n", line)
        self.assertEqual(parseToken(line), token)

    @given(st.dictionaries(st.sampled_from(KEYS), json_))
    def test_anything(self, values: dict[str, object]) -> None:
        """Values of any JSON type are read or refused with L{ValueError}."""
        try:
            parseToken(json.dumps({**GOOD, **values}))
        except ValueError as error:
            self.assertNotIn("\n", str(error))
            self.assertLess(len(str(error)), 300)

    @given(st.integers(0, 4 * 10**9))
    def test_times(self, seconds: int) -> None:
        """Times are written to the second."""
        self.assertEqual(parseTime(formatTime(seconds)), seconds)

    def test_zones(self) -> None:
        """A time without a zone is one of UTC."""
        self.assertEqual(parseTime("1970-01-01T00:01"), 60)
        self.assertEqual(parseTime("1970-01-01T01:00+01:00"), 0)
        self.assertRaises(ValueError, parseTime, "0001-01-01T00:00+23:00x")


class FileTests(SynchronousTestCase):
    """The whole file."""

    def test_found(self) -> None:
        """A token is found by itself, not by its hash or the empty one."""
        line = json.dumps({"name": "a", "sha256": digestOf("secret").hex()})
        found = TokenList.parse(line.encode())
        token = found.find(b"secret")
        assert token is not None
        self.assertEqual(token.name, "a")
        for wrong in (b"", b"Secret", digestOf("secret"), bytes(32)):
            self.assertIsNone(found.find(wrong))
        self.assertNotIn(digestOf("secret").hex(), repr(found))

    def test_nobody(self) -> None:
        """An empty file has no token, not even one whose hash is all zeros."""
        self.assertIsNone(TokenList.parse(b"").find(b""))

    def test_lines(self) -> None:
        """Broken lines are left out with their numbers; of two lines with one name or
        hash the first counts."""
        good = json.dumps(GOOD)
        other = json.dumps({"name": "other", "sha256": "cd" * 32})
        data = "\n".join(
            [
                "# tokens",
                "",
                good + "\r",
                "oops",
                json.dumps({"name": "laptop", "sha256": "00" * 32}),
                json.dumps({"name": "third", "sha256": HASH}),
                "x" * 100_000,
                "  " + other,
            ]
        )
        found = TokenList.parse(data.encode() + b"\n\xff{}")
        self.assertEqual(list(found.byName), ["laptop", "other"])
        self.assertEqual(found.byName["other"].line, 8)
        self.assertEqual(
            [(problem.line, problem.reason) for problem in found.problems],
            [
                (4, "it is not a JSON object"),
                (5, "the name is already on an earlier line, which counts"),
                (6, "the sha256 is already on an earlier line, which counts"),
                (7, "it is too long"),
                (9, "it is not UTF-8"),
            ],
        )

    @given(st.lists(tokens | st.binary(max_size=40), max_size=8))
    def test_anything(self, parts: list[Token | bytes]) -> None:
        """Whatever else is in the file, the good lines are in force."""
        lines = [
            formatToken(part).encode()
            if isinstance(part, Token)
            else part.replace(b"\n", b"")
            for part in parts
        ]
        found = TokenList.parse(b"\n".join(lines))
        wanted: dict[str, Token] = {}
        for part in parts:
            digests = {each.digest for each in wanted.values()}
            if (
                isinstance(part, Token)
                and part.name not in wanted
                and part.digest not in digests
            ):
                wanted[part.name] = part
        self.assertEqual(found.byName, wanted)
        self.assertLessEqual(len(wanted) + found.problemCount, len(parts))
