"""Tests for L{tristunnel.http.tree}: the pages of a server, in memory."""

from __future__ import annotations

import base64
import json
from typing import Any
from xmlrpc.client import Fault, dumps, loads

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.address import HostnameAddress, IPv4Address, IPv6Address
from twisted.internet.testing import StringTransport

from tests.jsonrpc.loopback import parsed
from tests.service.rig import ServiceTestCase
from tristunnel.auth.checkers import checkingCallable
from tristunnel.auth.realm import Authenticator, portalFor
from tristunnel.http.callers import HTTPCallers
from tristunnel.http.site import LimitedSite
from tristunnel.http.tree import Health, rootOf, rpcPages
from tristunnel.model.quota import TunnelQuota

HERE = IPv6Address("TCP", "2001:db8::1", 9000)
PEER = IPv4Address("TCP", "192.0.2.1", 50000)


def known(fields: Any) -> bool:
    return fields in (
        {"id": "alice", "secret": "open sesame"},
        {"id": "bob", "secret": "pass:word"},
        {"token": "tok"},
    )


class SiteTestCase(ServiceTestCase):
    """A site without a network."""

    def setUp(self) -> None:
        super().setUp()
        self.here: Any = HERE
        self.build()

    def build(
        self, authenticator: Authenticator | None = None, hostnames: Any = None
    ) -> None:
        callers = HTTPCallers(authenticator or Authenticator())
        pages = {b"health": Health(), **rpcPages(self.service, callers, hostnames)}
        self.site = LimitedSite(rootOf(pages), reactor=self.clock, admit=callers.admit)

    def send(self, data: bytes, peer: Any = PEER) -> tuple[int, dict[str, str], bytes]:
        channel: Any = self.site.buildProtocol(peer)
        transport = StringTransport(hostAddress=self.here, peerAddress=peer)
        channel.makeConnection(transport)
        channel.dataReceived(data)
        self.assertNotEqual(transport.value(), b"", "there was no answer")
        answer = parsed(transport.value())
        channel.connectionLost(None)
        return answer

    def post(
        self,
        body: bytes,
        *headers: str,
        host: str | None = "server:9000",
        path: str = "/rpc",
        kind: str = "application/json",
        peer: Any = PEER,
    ) -> tuple[int, dict[str, str], bytes]:
        lines = [f"POST {path} HTTP/1.1", f"Content-Length: {len(body)}", *headers]
        lines.append(f"Content-Type: {kind}")
        if host is not None:
            lines.append(f"Host: {host}")
        return self.send("\r\n".join([*lines, "", ""]).encode("latin-1") + body, peer)

    def call(
        self, method: str, params: object = (), *headers: str, **how: Any
    ) -> dict[str, Any]:
        request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        status, _, body = self.post(json.dumps(request).encode(), *headers, **how)
        self.assertEqual(status, 200, body)
        answer: dict[str, Any] = json.loads(body)
        self.assertEqual((answer.pop("jsonrpc"), answer.pop("id")), ("2.0", 1))
        return answer

    def closeAll(self) -> None:
        for entry in self.call("listTunnels")["result"]:
            self.assertEqual(self.call("closeTunnel", [entry["uri"]]), {"result": None})
        self.assertNothingLeft()


class CallTests(SiteTestCase):
    """Calls by JSON-RPC and XML-RPC."""

    def test_asInTheReadme(self) -> None:
        """C{curl -d}, which calls it a form."""
        how = {"kind": "application/x-www-form-urlencoded"}
        status, headers, body = self.post(
            b'{"jsonrpc":"2.0","id":1,"method":"openTunnel"}', **how
        )
        self.assertEqual((status, headers["content-type"]), (200, "application/json"))
        self.assertEqual(
            body, b'{"jsonrpc": "2.0", "id": 1, "result": "tcp://server:8010"}\n'
        )
        _, _, body = self.post(
            b'{"jsonrpc":"2.0","id":2,"method":"getTunnelAddress",'
            b'"params":["tcp://server:8010"]}',
            **how,
        )
        self.assertEqual(
            body, b'{"jsonrpc": "2.0", "id": 2, "result": "tcp://server:8011"}\n'
        )

    def test_options(self) -> None:
        """Options go by name, or in an object."""
        for params in ({"port": 8012, "name": "x"}, [{"port": 8012, "name": "x"}]):
            uri = self.call("openTunnel", params)["result"]
            self.assertEqual(
                self.call("getTunnelAddress", {"uri": uri}),
                {"result": "tcp://server:8012"},
            )
            self.closeAll()

    def test_errors(self) -> None:
        """A refusal has a number and a stable code."""
        for method, params, number, code in (
            ("openTunnel", {"port": 80}, -32005, "port-not-permitted"),
            ("openTunnel", {"speed": 1}, -32008, "bad-option"),
            ("openTunnel", ["tcp"], -32008, "bad-option"),
            ("getTunnelAddress", ["tcp://x:1"], -32003, "unknown-tunnel"),
            ("getTunnelAddress", [5], -32008, "bad-option"),
            ("closeTunnel", ["tcp://x:1"], -32003, "unknown-tunnel"),
        ):
            error = self.call(method, params)["error"]
            self.assertEqual(
                (error["code"], error["data"]["code"]), (number, code), error
            )
        wrong: list[tuple[str, Any, int]] = [
            ("getTunnelAddress", [], -32602),
            ("listTunnels", {"all": True}, -32602),
            ("destroy", [], -32601),
            ("__init__", [], -32601),
        ]
        for method, params, number in wrong:
            self.assertEqual(self.call(method, params)["error"]["code"], number)
        self.assertNothingLeft()

    def test_xmlrpc(self) -> None:
        """The same by XML-RPC."""

        def call(method: str, *params: Any) -> Any:
            body = dumps(params, method).encode()
            status, headers, answer = self.post(body, path="/RPC2", kind="text/xml")
            self.assertEqual((status, headers["content-type"][:8]), (200, "text/xml"))
            return loads(answer)[0][0]

        uri = call("openTunnel", {"name": "shop"})
        self.assertEqual(call("getTunnelAddress", uri), "tcp://server:8011")
        self.assertEqual(call("listTunnels")[0]["name"], "shop")
        self.assertIs(call("closeTunnel", uri), None)
        fault = self.assertRaises(Fault, call, "getTunnelAddress", uri)
        self.assertEqual(fault.faultCode, -32003)
        self.assertEqual(call("openTunnel"), "tcp://server:8010")
        self.closeAll()

    def test_batch(self) -> None:
        """A batch opens what there are ports for, each refusal in its place."""
        one = {"jsonrpc": "2.0", "method": "openTunnel", "params": {"via": "w3p"}}
        batch = [{**one, "id": number} for number in range(6)]
        _, _, body = self.post(json.dumps(batch).encode())
        answers = json.loads(body)
        self.assertEqual(
            ["result" in answer for answer in answers], [True] * 4 + [False] * 2
        )
        self.assertEqual(answers[5]["error"]["data"], {"code": "ports-exhausted"})
        self.closeAll()

    def test_flood(self) -> None:
        """Who asks for too much is told so; others are served."""
        self.makeService(quota=TunnelQuota(1, 2))
        self.build()
        self.assertIn("result", self.call("openTunnel"))
        error = self.call("openTunnel")["error"]
        self.assertEqual(error["data"]["code"], "limit-reached")
        other = IPv4Address("TCP", "192.0.2.2", 50000)
        self.assertIn("result", self.call("openTunnel", peer=other))
        third = IPv4Address("TCP", "192.0.2.3", 50000)
        self.assertIn("error", self.call("openTunnel", peer=third))

    def test_health(self) -> None:
        """Whoever asks is told that the server lives."""
        status, headers, body = self.send(
            b"GET /health HTTP/1.1\r\nHost: whatever\r\n\r\n"
        )
        self.assertEqual((status, body), (200, b"ok\n"))
        self.assertEqual(headers["cache-control"], "no-store")


class HostTests(SiteTestCase):
    """Tunnels are named by the name that the caller used for the server."""

    def assertNamed(self, expected: str, host: str | None) -> None:
        uri = self.call("openTunnel", host=host)["result"]
        self.assertEqual(uri, f"tcp://{expected}:8010")
        self.assertEqual(
            self.call("getTunnelAddress", [uri], host="other.example")["result"],
            f"tcp://{expected}:8011",
        )
        self.assertEqual(self.call("closeTunnel", [uri]), {"result": None})

    def test_header(self) -> None:
        """The C{Host} header counts, whatever its port."""
        for host, expected in (
            ("server:9000", "server"),
            ("server", "server"),
            ("Tunnel.Example.:80", "tunnel.example"),
            ("192.0.2.9:443", "192.0.2.9"),
            ("[2001:db8::7]:9000", "[2001:db8::7]"),
            ("[::1]", "[::1]"),
        ):
            self.assertNamed(expected, host)

    def test_noHeader(self) -> None:
        """Without one, it is the address that the connection came to."""
        self.assertNamed("[2001:db8::1]", None)
        self.assertNamed("[2001:db8::1]", "")
        self.here = IPv4Address("TCP", "198.51.100.1", 9000)
        self.assertNamed("198.51.100.1", None)

    def test_odd(self) -> None:
        """What is no host name gets no answer but an error."""
        for host in ("a b", "a/b", "[::1", "<x>", "a:b:c", "x:99999999", "\xe4"):
            status, _, _ = self.post(b"{}", host=host)
            self.assertIn(status, (400, 403), host)

    def test_hostname(self) -> None:
        """A configured name overrides it all."""
        self.makeService(hostname="tunnel.example")
        self.build()
        uri = self.call("openTunnel", host="[::1]:9000")["result"]
        self.assertEqual(uri, "tcp://tunnel.example:8010")

    def test_localSocket(self) -> None:
        """Over a UNIX socket it is what the caller wrote."""
        self.here = HostnameAddress(b"unix", 0)
        self.assertNamed("localhost", "localhost")


class BrowserTests(SiteTestCase):
    """A browser's page from elsewhere can do nothing."""

    BODY = b'{"jsonrpc": "2.0", "id": 1, "method": "openTunnel"}'

    def assertForbidden(self, *headers: str, host: str = "server:9000") -> None:
        for kind in ("application/x-www-form-urlencoded", "application/json"):
            status, answer, _ = self.post(self.BODY, *headers, host=host, kind=kind)
            self.assertEqual(status, 403)
            self.assertNotIn("access-control-allow-origin", answer)
        self.assertNothingLeft()

    def test_elsewhere(self) -> None:
        """A page of another site, or of none."""
        self.assertForbidden("Origin: https://evil.example")
        self.assertForbidden("Origin: null")
        self.assertForbidden("Referer: https://evil.example/page")
        self.assertForbidden("Sec-Fetch-Site: cross-site")
        self.assertForbidden("Sec-Fetch-Site: same-site")
        self.assertForbidden("Origin: http://localhost:3000", host="localhost:9000")

    def test_rebinding(self) -> None:
        """A page whose own name was made to lead to this server."""
        self.assertForbidden("Origin: http://evil.example", host="evil.example")

    def test_configuredNames(self) -> None:
        """With C{--hostname}, other names are refused from everybody."""
        self.build(hostnames=["tunnel.example", "localhost"])
        self.assertForbidden(host="evil.example")
        self.call("listTunnels", host="tunnel.example:9000")
        self.call("listTunnels", host="192.0.2.1")

    def test_preflight(self) -> None:
        """A browser that asks for permission gets none."""
        status, headers, _ = self.send(
            b"OPTIONS /rpc HTTP/1.1\r\nHost: server\r\nOrigin: http://evil.example\r\n"
            b"Access-Control-Request-Method: POST\r\n\r\n"
        )
        self.assertEqual(status, 405)
        self.assertFalse([name for name in headers if name.startswith("access-")])

    def test_get(self) -> None:
        """Nothing happens by GET."""
        status, headers, _ = self.send(
            b"GET /rpc?method=openTunnel HTTP/1.1\r\nHost: server\r\n\r\n"
        )
        self.assertEqual((status, headers["allow"]), (405, "POST"))

    def test_plainText(self) -> None:
        """The one kind of body that a page can send anywhere besides forms."""
        status, _, _ = self.post(self.BODY, kind="text/plain")
        self.assertEqual(status, 415)


class AuthTests(SiteTestCase):
    """With C{--auth}, every call needs credentials."""

    ALICE = "Basic " + base64.b64encode(b"alice:open sesame").decode()
    BOB = "basic " + base64.b64encode(b"bob:pass:word").decode()

    def setUp(self) -> None:
        super().setUp()
        self.build(Authenticator(portalFor([checkingCallable(known)])))

    def as_(self, who: str, method: str, *params: object) -> dict[str, Any]:
        return self.call(method, params, f"Authorization: {who}")

    def test_refused(self) -> None:
        """Without good credentials the answer is 401, whatever was called."""
        wrong = base64.b64encode(b"alice:wrong").decode()
        for headers in (
            [],
            ["Authorization: Bearer wrong"],
            ["Authorization: Bearer"],
            ["Authorization: Basic"],
            ["Authorization: Basic !!!"],
            [f"Authorization: Basic {wrong}"],
            ["Authorization: Basic YWxpY2U="],
            ["Authorization: Digest username=alice"],
            ["Authorization: \xff\xfe"],
            ["Authorization: Bearer \xff\xfe"],
        ):
            for path, kind in (("/rpc", "application/json"), ("/RPC2", "text/xml")):
                status, answer, body = self.post(b"x", *headers, path=path, kind=kind)
                self.assertEqual(status, 401, headers)
                self.assertIn("Basic", answer["www-authenticate"])
                self.assertNotIn(b"Traceback", body)
        self.assertNothingLeft()

    def test_accepted(self) -> None:
        """A token or a name with a password will do; the password may have colons."""
        for who in ("Bearer tok", "bearer tok", self.ALICE, self.BOB):
            self.assertEqual(self.as_(who, "listTunnels"), {"result": []})

    def test_owners(self) -> None:
        """What one has opened, another can neither close nor see."""
        uri = self.as_(self.ALICE, "openTunnel")["result"]
        self.assertEqual(self.as_(self.BOB, "listTunnels"), {"result": []})
        for method in ("closeTunnel", "getTunnelAddress"):
            error = self.as_(self.BOB, method, uri)["error"]
            self.assertEqual(error["data"]["code"], "unknown-tunnel")
        self.assertEqual(
            self.as_(self.ALICE, "getTunnelAddress", uri)["result"], "tcp://server:8011"
        )
        (entry,) = self.as_(self.ALICE, "listTunnels")["result"]
        self.assertEqual(entry["owner"], "alice")
        self.assertEqual(self.as_(self.ALICE, "closeTunnel", uri), {"result": None})
        self.assertNothingLeft()


_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(10**300, 10**310)
    | st.floats()
    | st.text()
    | st.sampled_from(["tcp", "tls", "w3p", "session", "tcp://server:8010"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=10), inner, max_size=4)
    ),
    max_leaves=12,
)

_OPTIONS = st.dictionaries(
    st.sampled_from(
        ["via", "listener", "port", "prefer", "name", "visitors", "ttl", "private"]
    )
    | st.text(max_size=8),
    _JSON | st.integers(8009, 8014) | st.sampled_from(["tcp", "tls", "w3p"]),
    max_size=5,
)

_CALL = st.fixed_dictionaries(
    {"jsonrpc": st.just("2.0")},
    optional={
        "id": _JSON,
        "method": st.sampled_from(
            ["openTunnel", "getTunnelAddress", "closeTunnel", "listTunnels"]
        )
        | _JSON,
        "params": _OPTIONS | st.lists(_OPTIONS | _JSON, max_size=3) | _JSON,
    },
)


class HostileTests(SiteTestCase):
    """Whatever is posted is answered in form, nothing fails, and nothing is left."""

    def assertInForm(self, body: bytes) -> None:
        status, _, answer = self.post(body)
        self.assertIn(status, (200, 204))
        self.assertEqual(self.flushLoggedErrors(), [])
        self.assertNotIn(b"Traceback", answer)
        if status == 200:
            answers = json.loads(answer)
            for each in answers if isinstance(answers, list) else [answers]:
                self.assertEqual(each["jsonrpc"], "2.0")
                self.assertEqual(len({"result", "error"} & set(each)), 1)
                if "error" in each:
                    self.assertNotIn(each["error"]["code"], (-32603, -32000), each)
                    self.assertTrue(len(each["error"]["message"]) < 2000)

    @settings(max_examples=200)
    @given(st.binary(max_size=300))
    def test_bytes(self, body: bytes) -> None:
        """Any bytes."""
        self.assertInForm(body)

    @settings(max_examples=300)
    @given(_CALL | st.lists(_CALL, max_size=5))
    def test_calls(self, body: object) -> None:
        """Calls with odd parameters."""
        self.assertInForm(json.dumps(body).encode("ascii"))
        self.closeAll()

    @settings(max_examples=300)
    @given(_OPTIONS)
    def test_options(self, options: dict[str, object]) -> None:
        """Tunnels with odd options."""
        request = {"jsonrpc": "2.0", "id": 1, "method": "openTunnel", "params": options}
        self.assertInForm(json.dumps(request).encode("ascii"))
        self.closeAll()

    @settings(max_examples=200)
    @given(st.data())
    def test_broken(self, data: st.DataObject) -> None:
        """A call in which bytes are cut out, doubled and changed."""
        body = bytearray(
            b'{"jsonrpc": "2.0", "id": 7, "method": "openTunnel", "params":'
            b' {"via": "w3p", "name": "x", "ttl": 1.5e3, "visitors": 2}}'
        )
        for _ in range(data.draw(st.integers(1, 5))):
            at = data.draw(st.integers(0, len(body) - 1))
            body[at : at + data.draw(st.integers(0, 3))] = data.draw(
                st.binary(max_size=3)
            )
        self.assertInForm(bytes(body))
        self.closeAll()

    @settings(max_examples=200)
    @given(st.binary(max_size=300))
    def test_xml(self, inside: bytes) -> None:
        """The same for XML-RPC."""
        whole = b"<methodCall><methodName>openTunnel</methodName>" + inside
        for body in (inside, whole + b"</methodCall>"):
            status, _, answer = self.post(body, path="/RPC2", kind="text/xml")
            self.assertEqual(status, 200)
            self.assertIn(b"methodResponse", answer)
            self.assertEqual(self.flushLoggedErrors(), [])
        self.closeAll()

    def test_names(self) -> None:
        """No parameter has a name that means something to ourselves."""
        for name in ("f", "func", "self", "caller", "options", "method", "args"):
            error = self.call("openTunnel", {name: 1})["error"]
            # Python 3.11 itself says that "options" goes by position.
            self.assertIn(error["code"], (-32008, -32602), name)
            error = self.call("getTunnelAddress", {"uri": "x", name: 1})["error"]
            self.assertEqual(error["code"], -32602, name)
        self.assertNothingLeft()
