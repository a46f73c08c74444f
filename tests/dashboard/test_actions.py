"""
Tests for what the dashboard does besides ending things: granting access for a
time, and revoking tokens.
"""

from __future__ import annotations

import re
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tests.dashboard.rig import HERE, DashboardTestCase
from tests.service.rig import Session
from tristunnel.auth.token_store import TokenStore
from tristunnel.auth.tokens import TokenFile
from tristunnel.errors import TunnelError
from tristunnel.model.permissions import Permissions
from tristunnel.service.invitations import Invitations, ServerPlace
from tristunnel.tls.certificates import selfSigned
from tristunnel.wire.invitation import Invitation


class GrantTests(DashboardTestCase):
    """Granting access to a tunnel that has a name."""

    def setUp(self) -> None:
        super().setUp()
        self.build(asked=True)
        alice, bob = (
            replace(self.owner(name), clientSide=Session()) for name in ("alice", "bob")
        )
        self.uri = self.open(alice, name="shop")
        self.open(bob, name="of-bob")
        self.open(alice)
        self.login = self.basic("alice")

    def form(self, *headers: str) -> tuple[str, dict[str, str]]:
        status, answer, body = self.ask(
            f"/dashboard/grant?id={self.tunnelId()}", *headers, host=HERE
        )
        self.assertEqual(status, 200, body)
        fields = dict(re.findall(r'name="(\w+)" value="([^"]+)"', body))
        self.assertEqual(set(fields), {"form", "id", "do"})
        return answer["set-cookie"].partition(";")[0], fields

    def grant(self, **wanted: str) -> tuple[int, str]:
        cookie, fields = self.form(self.login)
        status, answer, body = self.post(
            {**fields, "ttl": "1h", **wanted}, f"Cookie: {cookie}", self.login
        )
        self.assertEqual(answer["cache-control"], "no-store")
        return status, body

    def test_link(self) -> None:
        """The page leads there, for tunnels that have a name."""
        page = self.page(self.login)
        self.assertIn(f'href="dashboard/grant?id={self.tunnelId()}"', page)
        self.assertEqual(page.count('aria-label="Grant access to shop"'), 1)
        # The unnamed one, and the row that the script copies.
        self.assertEqual(len(re.findall(r'class="grant"[^>]*aria-label=""', page)), 2)

    def test_granted(self) -> None:
        """The capability is shown once; who has it is listed, and it is taken back."""
        status, body = self.grant(address="192.0.2.0/24", token="bob", uses="3")
        self.assertEqual(status, 200)
        self.assertIn("Access to shop is granted", body)
        self.assertIn("For 1 hour", body)
        (uri,) = set(re.findall(r"w3p://[^\s<']+", body))
        self.assertRegex(uri, r"^w3p://127\.0\.0\.1:9000/access/\w+#[\w-]{32}$")
        (access,) = self.service.access.of(None)
        self.assertEqual((access.record.token, access.usesLeft), ("bob", 3))
        self.assertAlmostEqual(access.until - self.clock.seconds(), 3600, 1)

        page = self.page(self.login)
        for text in (
            "from 192.0.2.0/24",
            "1 h 0 min",
            "alice granted access to shop for 1h",
            'aria-label="Revoke access to shop"',
        ):
            self.assertIn(text, page)
        self.assertNotIn(uri.partition("#")[2], page)
        self.assertNotIn("shop", self.page(self.basic("bob")))

        identifier = f"access:{access.id}"
        status, _, _ = self.ask(
            f"/dashboard/end?id={identifier}", self.basic("bob"), host=HERE
        )
        self.assertEqual(status, 404)
        status, headers, _ = self.end(identifier, self.login)
        self.assertEqual((status, headers["location"]), (303, "../?done=access"))
        self.assertEqual(len(self.service.access), 0)
        self.assertIn(
            "The access was revoked.", self.page(self.login, path="/?done=access")
        )

    def test_wrong(self) -> None:
        """What is wrong is said, what was right stays, and nothing is granted."""
        for wanted, needle in (
            ({"ttl": "for ever"}, "duration"),
            ({"ttl": "60d"}, "ttl takes seconds"),
            ({"address": "the office"}, "IP address"),
            ({"uses": "many"}, "how often takes a number"),
            ({"uses": "9999999"}, "uses takes"),
        ):
            status, body = self.grant(**{"token": "bob", **wanted})
            self.assertEqual(status, 400)
            self.assertIn('role="alert"', body)
            self.assertIn(needle, body)
            self.assertIn('value="bob"', body)
        status, body = self.grant(address='"><script>')
        self.assertNotIn("<script>", body)
        self.assertEqual(len(self.service.access), 0)

    def test_notTheirs(self) -> None:
        """Nobody grants somebody else's, nor does a form of another site."""
        cookie, fields = self.form(self.login)
        headers = [f"Cookie: {cookie}", self.login]
        for number in (1, 2):
            other = self.tunnelId(number)
            where = f"/dashboard/grant?id={other}"
            self.assertEqual(self.ask(where, self.login, host=HERE)[0], 404)
            wanted = {**fields, "id": other, "ttl": "1h"}
            self.assertEqual(self.post(wanted, *headers)[0], 404)
        wanted = {**fields, "ttl": "1h"}
        for more in (["Origin: https://evil.example"], ["Sec-Fetch-Site: cross-site"]):
            self.assertEqual(self.post(wanted, *headers, *more)[0], 403)
        self.assertEqual(self.post(wanted, self.login)[0], 403)
        status, _, _ = self.post(wanted, f"Cookie: {cookie}", self.basic("bob"))
        self.assertEqual(status, 403)
        self.assertEqual(len(self.service.access), 0)

    def test_gone(self) -> None:
        """A tunnel that is over meanwhile is gone."""
        cookie, fields = self.form(self.login)
        self.close(self.uri, self.owner("alice"))
        status, _, body = self.post(fields, f"Cookie: {cookie}", self.login)
        self.assertEqual(status, 404)
        self.assertIn("It has already ended", body)


class TokenTests(DashboardTestCase):
    """Tokens, for operators."""

    def setUp(self) -> None:
        super().setUp()
        self.path = Path(self.mktemp())
        self.store = TokenStore(self.path)
        for name in ("laptop", "a+b", "alice"):
            self.store.create(name, Permissions(maxTunnels=5))
        self.file = TokenFile(self.path, self.clock)
        self.build(asked=True, tokens=[self.file])
        self.login = self.basic("alice")

    def test_shown(self) -> None:
        """An admin sees what each token may, and how many use it."""
        self.enter("laptop")
        self.assertNotIn("a+b", self.page(self.login))
        self.promote("admin")
        page = self.page(self.login)
        for text in (
            '<b data-f="name">laptop</b>',
            "open, 5 tunnels",
            '<td role="cell" data-label="Sessions" class="n" data-f="sessions">1</td>',
            'href="dashboard/end?id=token%3Aa%2Bb"',
        ):
            self.assertIn(text, page)

    def test_revoked(self) -> None:
        """A token is revoked in the file, and what lives on it ends."""
        self.promote("admin")
        ended: list[str] = []
        grant = self.file._grantOf(self.file.tokens()[1])
        grant.watch(lambda reason: ended.append(reason.code.name))
        where = quote("token:a+b", safe="")
        question = self.page(self.login, path=f"/dashboard/end?id={where}")
        self.assertIn("Revoke the token of a+b?", question)
        self.assertNotIn("signed in", question)
        own = self.page(self.login, path="/dashboard/end?id=token:alice")
        self.assertIn("signed in", own)
        status, headers, _ = self.end(where, self.login)
        self.assertEqual((status, headers["location"]), (303, "../?done=token"))
        self.assertEqual(ended, ["token-revoked"])
        self.assertIsNotNone(self.store.read().byName["a+b"].revoked)
        page = self.page(self.login)
        self.assertIn("alice revoked the token of a+b", page)
        self.assertLess(page.index(">laptop<"), page.index(">a+b<"))
        self.assertIn(">revoked<", page)
        status, _, _ = self.ask(f"/dashboard/end?id={where}", self.login, host=HERE)
        self.assertEqual(status, 404)

    def test_notAdmin(self) -> None:
        """Others may not, even if they make the form themselves."""
        self.open(self.owner("alice"))
        for identifier in ("token:laptop", "token:alice", "token:", "access:x", ":"):
            where = f"/dashboard/end?id={identifier}"
            self.assertEqual(self.ask(where, self.login, host=HERE)[0], 404)
        cookie, fields = self.question(self.tunnelId(), self.login)
        for identifier in ("token:laptop", "access:x", "other:x"):
            status, _, _ = self.post(
                {**fields, "id": identifier}, f"Cookie: {cookie}", self.login
            )
            self.assertEqual(status, 404)
        self.assertIsNone(self.store.read().byName["laptop"].revoked)

    def test_notWritable(self) -> None:
        """A file that the server may not write: that is said, with the cure."""
        self.promote("admin")

        def revoke(name: str) -> None:
            raise TunnelError("bad-option", "cannot write '/tokens': Permission denied")

        self.patch(self.file, "revoke", revoke)
        status, _, body = self.end("token:laptop", self.login)
        self.assertEqual(status, 409)
        self.assertIn("Permission denied", body)
        self.assertIn("tristunnel token revoke laptop", body)


class InviteTests(DashboardTestCase):
    """Letting clients in, for operators."""

    def setUp(self) -> None:
        super().setUp()
        directory = Path(self.mktemp())
        self.store = TokenStore(directory / "tokens")
        self.store.create("alice", Permissions())
        self.file = TokenFile(directory / "tokens", self.clock)
        self.build(asked=True, tokens=[self.file])
        self.service.invitations = Invitations([self.file])
        certificate = selfSigned(directory, ["localhost"])
        self.service.invitations.place = ServerPlace(
            "t.example", 9001, str(certificate)
        )
        self.login = self.basic("alice")

    def letIn(self, do: str, **wanted: str) -> tuple[int, str]:
        status, answer, body = self.ask("/dashboard/invite", self.login, host=HERE)
        self.assertEqual(status, 200, body)
        fields = dict(re.findall(r'name="(\w+)" value="([^"]+)"', body))
        cookie = answer["set-cookie"].partition(";")[0]
        status, answer, body = self.post(
            {"form": fields["form"], "do": do, **wanted},
            f"Cookie: {cookie}",
            self.login,
        )
        self.assertEqual(answer["cache-control"], "no-store")
        return status, unescape(body)

    def test_invited(self) -> None:
        """An admin gets the command that takes an invitation up; it is listed."""
        self.promote("admin")
        self.assertIn('href="dashboard/invite"', self.page(self.login))
        status, body = self.letIn("invite", name="phone", ports="8000-8010")
        self.assertEqual(status, 200, body)
        (word,) = re.findall(
            r"<code class=\"secret\">tristunnel join (\S+)</code>", body
        )
        invitation = Invitation.parse(word)
        self.assertEqual((invitation.host, invitation.port), ("t.example", 9001))
        joining = self.service.invitations.join(invitation.code, "n" * 22)
        made, _ = self.successResultOf(joining)
        self.assertEqual(
            (made.name, str(made.permissions.ports)), ("phone", "8000-8010")
        )
        page = self.page(self.login)
        self.assertIn(">phone<", page)
        self.assertIn("alice has invited phone", page)
        self.assertNotIn(invitation.code, page)

    def test_token(self) -> None:
        """Or a token, which is shown only once."""
        self.promote("admin")
        status, body = self.letIn("token", name="script", expires="30d")
        self.assertEqual(status, 200, body)
        (token,) = re.findall(r'<code class="secret">(tst_\S+)</code>', body)
        self.assertIn("script", self.store.read().byName)
        page = self.page(self.login)
        self.assertIn("alice has made a token: script", page)
        self.assertNotIn(token, page)

    def test_wrong(self) -> None:
        """What is wrong is said above the form, which keeps what was in it."""
        self.promote("admin")
        hostile = '"><script>x'
        for wanted in (
            {"name": hostile},
            {"name": "x", "ports": hostile},
            {"name": "x", "expires": hostile},
            {"name": "alice"},
        ):
            for do in ("invite", "token"):
                status, body = self.letIn(do, **wanted)
                self.assertEqual(status, 400, wanted)
                self.assertIn('role="alert"', body)
                if "name" in wanted:
                    self.assertIn(f'value="{wanted["name"]}"', body)
        _, _, body = self.ask("/dashboard/invite", self.login, host=HERE)
        self.assertEqual(len(self.store.read().byName), 1)

    def test_notAdmin(self) -> None:
        """Nobody but an admin lets clients in, even with a form of another kind."""
        self.assertNotIn("dashboard/invite", self.page(self.login))
        self.assertEqual(self.ask("/dashboard/invite", self.login, host=HERE)[0], 404)
        self.open(self.owner("alice"))
        cookie, fields = self.question(self.tunnelId(), self.login)
        for do in ("invite", "token"):
            wanted = {"form": fields["form"], "do": do, "name": "x"}
            status, _, _ = self.post(wanted, f"Cookie: {cookie}", self.login)
            self.assertEqual(status, 404)
        self.assertEqual(len(self.store.read().byName), 1)

    def test_crossSite(self) -> None:
        """A page of another site can have none made."""
        self.promote("admin")
        for fields, headers in (
            ({"do": "token", "name": "x"}, []),
            ({"do": "token", "name": "x"}, ["Origin: http://evil.example"]),
            (
                {"do": "token", "name": "x", "form": "forged"},
                ["Cookie: tristunnel_form=x"],
            ),
        ):
            status, _, _ = self.post(fields, self.login, *headers)
            self.assertEqual(status, 403)
        self.assertEqual(len(self.store.read().byName), 1)

    # Managed clients

    def manage(self, **wanted: str) -> tuple[int, str]:
        status, answer, body = self.ask("/dashboard/managed", self.login, host=HERE)
        self.assertEqual(status, 200, body)
        fields = dict(re.findall(r'name="(\w+)" value="([^"]+)"', body))
        cookie = answer["set-cookie"].partition(";")[0]
        wanted = {"form": fields["form"], "do": "manage", **wanted}
        status, _, body = self.post(wanted, f"Cookie: {cookie}", self.login)
        return status, unescape(body)

    def test_managed(self) -> None:
        """An admin gives a client a tunnel, sees it, and takes it away."""
        self.promote("admin")
        self.assertIn('href="dashboard/managed"', self.page(self.login))
        given = {"client": "laptop", "to": "localhost:3000", "port": "8080"}
        self.assertEqual(self.manage(**given)[0], 303)
        _, _, body = self.ask("/dashboard/managed", self.login, host=HERE)
        self.assertIn("laptop: localhost:3000, visitors' port 8080", unescape(body))
        self.assertIn("not connected", body)
        (identifier,) = re.findall(r'name="id" value="(\w+)"', body)
        self.assertEqual(self.manage(do="unmanage", id=identifier)[0], 303)
        self.assertIn("gave laptop a tunnel", self.page(self.login))
        _, _, body = self.ask("/dashboard/managed", self.login, host=HERE)
        self.assertNotIn("localhost:3000,", body)

    def test_managedWrong(self) -> None:
        """What is wrong is said, escaped, and keeps what was in the form."""
        self.promote("admin")
        hostile = '"><script>x'
        for wanted in (
            {"client": "laptop", "to": hostile},
            {"client": "", "to": "localhost:1"},
            {"client": "laptop", "to": "localhost:1", "port": "x"},
            {"client": "laptop", "to": "localhost:1", "name": hostile},
            {"do": "unmanage", "id": hostile},
        ):
            status, body = self.manage(**wanted)
            self.assertEqual(status, 400, wanted)
            self.assertIn('role="alert"', body)

    def test_managedNotAdmin(self) -> None:
        """It is for admins."""
        self.assertNotIn("dashboard/managed", self.page(self.login))
        self.assertEqual(self.ask("/dashboard/managed", self.login, host=HERE)[0], 404)
        self.open(self.owner("alice"))
        cookie, fields = self.question(self.tunnelId(), self.login)
        wanted = {"form": fields["form"], "do": "manage", "client": "x", "to": "a:1"}
        status, _, _ = self.post(wanted, f"Cookie: {cookie}", self.login)
        self.assertEqual(status, 404)


class CrowdTests(DashboardTestCase):
    """Very many visitors."""

    def test_size(self) -> None:
        """What is sent each second has a bound, however many there are."""
        self.open(replace(self.owner(), clientSide=Session()))
        sizes: list[Any] = []
        for most in (100, 5000):
            (tunnel,) = self.watch.counters.tunnels
            for number in range(len(tunnel.streams), most):
                self.visit(8010, number)
            sizes.append(len(self.page()))
        self.assertLess(sizes[1], 1.2 * sizes[0])
        self.assertIn("100 of 5,000 are shown", self.page())
