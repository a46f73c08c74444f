"""
Certificates from a real authority, Pebble, which looks at what it is told; one way in
the default suite, and all of them with C{TRISTUNNEL_LONG=1}.
"""

from __future__ import annotations

import os
import stat
import sys
import time
from pathlib import Path
from typing import Any
from unittest import skipUnless

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from tests.acme.pebble import Pebble, needsPebble
from tests.support.polling import until
from tristunnel.acme.dns import CommandRecords, Records, UpdatedRecords
from tristunnel.acme.order import Orders
from tristunnel.acme.problems import AuthorityProblem
from tristunnel.acme.renewal import AutomaticCertificates
from tristunnel.acme.settings import ExternalAccount
from tristunnel.acme.store import Store
from tristunnel.acme.threads import inThread
from tristunnel.tls.pem import certificateNames

LONG = bool(os.environ.get("TRISTUNNEL_LONG"))
WHY = "set TRISTUNNEL_LONG=1 to prove names in every way"


class PebbleTests(TestCase):
    skip = needsPebble

    def setUp(self) -> None:
        self.pebble = Pebble(reactor, Path(self.mktemp()).absolute())
        self.addCleanup(lambda: Deferred.fromCoroutine(self.pebble.stop()))
        self.store = Store(self.pebble.directory)

    def orders(
        self, *ways: str, account: Any = None, records: Records | None = None
    ) -> Orders:
        account = account or self.pebble.account()
        return Orders(reactor, account, self.pebble.answers, records, 0.0, ways)

    def service(self, orders: Orders, **more: Any) -> AutomaticCertificates:
        made = AutomaticCertificates(reactor, orders, self.store, **more)
        made.startService()
        self.addCleanup(made.stopService)
        return made

    async def test_http(self) -> None:
        """
        A name that is wanted gets its certificate over HTTP-01, which is in force at
        once, and nobody else can read the key.
        """
        await self.pebble.start()
        service = self.service(self.orders("http-01"))
        self.assertIsNone(service.certificates.find("blog.test.example"))
        service.want("blog.test.example")
        await until(lambda: service.certificates.find("blog.test.example"))
        found = service.certificates.newest("blog.test.example")
        assert found is not None
        self.assertEqual(certificateNames(found), ("blog.test.example",))
        (state,) = service.states()
        self.assertEqual(state.error, "")
        self.assertGreater(state.next, state.since)
        self.assertLess(state.next, state.until)
        for each in ("fullchain.pem", "privkey.pem"):
            path = self.pebble.directory / "live" / "blog.test.example" / each
            self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o600)
        (token,) = set(self.pebble.challenges.asked)
        self.assertIsNone(self.pebble.answers.get(token.encode()))
        self.assertIn(b"CERTIFICATE", await self.pebble.root())

    @skipUnless(LONG, WHY)
    async def test_tlsALPN(self) -> None:
        """A name is proved by a certificate with the challenge."""
        await self.pebble.start()
        issued = await self.orders("tls-alpn-01").obtain(["blog.test.example"])
        self.store.save("blog.test.example", issued)
        self.assertIsNone(self.pebble.answers.contextFor("blog.test.example"))

    @skipUnless(LONG, WHY)
    async def test_updates(self) -> None:
        """A domain and all names in it are proved by updates of a name server."""
        await self.pebble.start()
        names = self.pebble.names
        records = UpdatedRecords(f"127.0.0.1:{names.port}", str(names.keyFile))
        service = self.service(self.orders(records=records))
        service.wantDomains(["t.test.example"])
        service.want("blog.t.test.example")
        await until(lambda: service.certificates.find("blog.t.test.example"))
        (state,) = service.states()
        self.assertEqual(state.names, ("t.test.example", "*.t.test.example"))
        self.assertEqual(names.updates, 4)

    @skipUnless(LONG, WHY)
    async def test_command(self) -> None:
        """A wildcard is proved by a command, which removes its records again."""
        await self.pebble.start()
        script = self.pebble.directory / "hook.py"
        script.write_text(HOOK)
        file = self.pebble.names.commandFile
        records = CommandRecords(f"{sys.executable} {script} {file}")
        await self.orders(records=records).obtain(["*.test.example", "test.example"])
        self.assertEqual(file.read_text(), "")

    @skipUnless(LONG, WHY)
    async def test_refused(self) -> None:
        """A name that is not proved is told of, and the next attempt is later."""
        await self.pebble.start()
        service = self.service(self.orders("http-01"))
        self.patch(self.pebble.answers, "get", lambda path: b"another machine's")
        service.want("blog.test.example")
        await until(lambda: service.states()[0].error)
        (state,) = service.states()
        self.assertIn("blog.test.example is not proved", state.error)
        self.assertEqual(state.since, 0.0)
        again = Store(self.pebble.directory).renewal("blog.test.example")
        self.assertEqual(again.failures, 1)
        self.assertGreaterEqual(again.next - again.tried, 300.0)
        self.flushLoggedErrors()

    async def test_customers(self) -> None:
        """An authority that has customers takes an account that is bound to theirs."""
        key = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"
        self.pebble.customers = {"kid-1": key}
        await self.pebble.start()
        stranger = ExternalAccount("kid-2", key)
        for external, words in ((None, "customers"), (stranger, "not known")):
            orders = self.orders("http-01", account=self.pebble.account(external))
            with self.assertRaises(AuthorityProblem) as caught:
                await orders.obtain(["a.test.example"])
            self.assertIn("--acme-eab", caught.exception.message)
            self.assertIn(words, caught.exception.message)
        account = self.pebble.account(ExternalAccount("kid-1", key))
        await self.orders("http-01", account=account).obtain(["a.test.example"])

    @skipUnless(LONG, WHY)
    async def test_unknownAccount(self) -> None:
        """An authority that has forgotten an account gets another one."""
        await self.pebble.start()
        account = self.pebble.account()
        await self.orders("http-01", account=account).obtain(["a.test.example"])
        (path,) = (self.pebble.directory / "accounts").iterdir()
        regr = path / "regr.json"
        before = regr.read_text()
        regr.write_text(before.replace("/my-account/", "/my-account/0"))
        issued = await self.orders("http-01").obtain(["b.test.example"])
        self.assertIn(b"CERTIFICATE", issued.fullchain)
        self.assertNotIn("/my-account/0", regr.read_text())

    @skipUnless(LONG, WHY)
    async def test_closedAccount(self) -> None:
        """An account that was closed gets a successor with another key."""
        await self.pebble.start()
        account = self.pebble.account()
        orders = self.orders("http-01", account=account)
        await orders.obtain(["a.test.example"])
        (path,) = (self.pebble.directory / "accounts").iterdir()
        before = (path / "private_key.json").read_text()

        def close(client: Any) -> None:
            client.deactivate_registration(client.net.account)

        await inThread(reactor, lambda: account.call(close))
        issued = await orders.obtain(["b.test.example"])
        self.assertIn(b"CERTIFICATE", issued.fullchain)
        self.assertNotEqual((path / "private_key.json").read_text(), before)

    @skipUnless(LONG, WHY)
    async def test_renewal(self) -> None:
        """A certificate is renewed when two thirds of its time are over."""
        await self.pebble.start()
        name = "blog.test.example"
        orders = self.orders("http-01")
        self.store.save(name, await orders.obtain([name]))
        serials = set()
        passed = [0.0]
        now = time.time
        service = self.service(orders, now=lambda: now() + passed[0])
        service.want(name)
        found = service.certificates.newest(name)
        assert found is not None
        serials.add(found.serial_number)
        whole = found.not_valid_after_utc - found.not_valid_before_utc
        passed[0] = whole.total_seconds() * 0.7
        service.want(name)

        def renewed() -> bool:
            certificate = service.certificates.newest(name)
            assert certificate is not None
            serials.add(certificate.serial_number)
            return len(serials) > 1

        await until(renewed)

    async def test_dead(self) -> None:
        """An authority that is not there is told of in one line."""
        self.pebble.url = "https://localhost:1/dir"
        with self.assertRaises(AuthorityProblem) as caught:
            await self.orders("http-01").obtain(["a.test.example"])
        self.assertIn("localhost:1/dir: it cannot be reached", str(caught.exception))


HOOK = """
import sys
from pathlib import Path
file, action, name, value = Path(sys.argv[1]), *sys.argv[2:]
lines = file.read_text().splitlines(True) if file.exists() else []
line = f"{name} {value}\\n"
lines = lines + [line] if action == "add" else [x for x in lines if x != line]
file.write_text("".join(lines))
"""
