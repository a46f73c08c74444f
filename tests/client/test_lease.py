"""
What a client remembers over a restart, L{tristunnel.client.lease}.
"""

from __future__ import annotations

import json
import os

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.tls.files import FileTestCase
from tristunnel.client.lease import ClientLease

_SPEC = "0=localhost:80"


class ClientLeaseTests(FileTestCase):
    """
    A file that outlives its client, and may be no use.
    """

    def take(self, where: str = "tcp:a:1", *specs: str) -> ClientLease:
        """
        Take up a lease as a client does that starts.
        """
        lease = ClientLease.forClient(
            self.directory / "state", where, specs or (_SPEC,)
        )
        self.addCleanup(lease.close)
        return lease

    def fill(self, lease: ClientLease) -> None:
        """
        Have a server grant it.
        """
        lease.granted({"id": "i", "secret": "s"}, [])
        lease.opened(_SPEC, "w3p://a/1", 4000)

    def test_remembered(self) -> None:
        """
        The next client of the kind has what the last one had; nobody else can
        read it.
        """
        first = self.take()
        self.assertEqual(first.asOffer(), {})
        self.fill(first)
        first.close()
        second = self.take()
        self.assertEqual(second.asOffer(), {"id": "i", "secret": "s"})
        self.assertEqual(second.uris, {_SPEC: "w3p://a/1"})
        self.assertEqual(second.ports, {_SPEC: 4000})
        self.assertEqual(second.specOf("w3p://a/1"), _SPEC)
        (path,) = (self.directory / "state").iterdir()
        self.assertEqual(path.stat().st_mode & 0o777, 0o600)
        self.assertEqual(path.parent.stat().st_mode & 0o777, 0o700)

    def test_another(self) -> None:
        """
        Another server, or other services, are another lease.
        """
        lease = self.take()
        self.fill(lease)
        lease.close()
        self.assertEqual(self.take("tcp:b:1").asOffer(), {})
        self.assertEqual(self.take("tcp:a:1", "1=x:1").asOffer(), {})

    def test_notKept(self) -> None:
        """
        Tunnels that the server has not kept are forgotten, the ports that
        they had are not.
        """
        lease = self.take()
        self.fill(lease)
        lease.granted({"id": "new", "secret": "t"}, ["w3p://a/2"])
        self.assertEqual((lease.uris, lease.ports), ({}, {_SPEC: 4000}))
        self.assertEqual(lease.asOffer(), {"id": "new", "secret": "t"})

    def test_confirmed(self) -> None:
        """
        A server that confirms a lease sends no secret; ours stays.
        """
        lease = self.take()
        self.fill(lease)
        lease.granted({"id": "i"}, ["w3p://a/1"])
        self.assertEqual(lease.asOffer(), {"id": "i", "secret": "s"})
        self.assertEqual(lease.uris, {_SPEC: "w3p://a/1"})

    def test_locked(self) -> None:
        """
        Two clients that are alike share nothing.
        """
        first = self.take()
        self.fill(first)
        second = self.take()
        self.assertEqual(second.asOffer(), {})
        self.fill(second)
        second.opened(_SPEC, "w3p://a/9", 9)
        first.close()
        self.assertEqual(self.take().ports, {_SPEC: 4000})

    def test_damaged(self) -> None:
        """
        A file that makes no sense is a line, and a new beginning.
        """
        lease = self.take()
        self.fill(lease)
        lease.close()
        (path,) = (self.directory / "state").iterdir()
        good = json.loads(path.read_bytes())
        for damaged in (
            b"{",
            b"[]",
            b"7",
            b"\xff\xfe",
            b"[" * 100_000,
            b'{"id": "i", "uris": []}',
            b'{"ports": {"x": Infinity}}',
            json.dumps({**good, "ports": {_SPEC: "many"}}).encode(),
            json.dumps({**good, "ports": {_SPEC: 70000}}).encode(),
            json.dumps({**good, "ports": {_SPEC: -1}}).encode(),
            json.dumps({**good, "ports": {_SPEC: None}}).encode(),
        ):
            path.write_bytes(damaged)
            with self.problems() as lines:
                lease = self.take()
            self.assertEqual(len(lines), 1, damaged[:50])
            self.assertIn("damaged", lines[0])
            self.assertEqual((lease.asOffer(), lease.uris, lease.ports), ({}, {}, {}))
            self.fill(lease)
            lease.close()
            self.assertEqual(json.loads(path.read_bytes()), good)

    @settings(
        max_examples=50,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.binary(max_size=60))
    def test_anything(self, content: bytes) -> None:
        """
        Whatever is in the file, the client starts.
        """
        lease = self.take()
        self.fill(lease)
        lease.close()
        (path,) = (self.directory / "state").iterdir()
        path.write_bytes(content)
        lease = self.take()
        self.fill(lease)
        lease.close()
        self.assertEqual(self.take().ports[_SPEC], 4000)
        self.doCleanups()

    def test_unusable(self) -> None:
        """
        A directory that cannot be used is a line, and the client remembers in
        memory.
        """
        self.write("state")
        with self.problems() as lines:
            lease = self.take()
        (line,) = lines
        self.assertIn("--state-dir", line)
        self.fill(lease)
        self.assertEqual(lease.ports, {_SPEC: 4000})

    def test_full(self) -> None:
        """
        A disk that is full is a line, and nothing worse.
        """
        if not os.path.exists("/dev/full"):
            return
        lease = self.take()
        lease.close()
        (path,) = (self.directory / "state").iterdir()
        path.unlink()
        path.symlink_to("/dev/full")
        lease = self.take()
        with self.problems() as lines:
            self.fill(lease)
        self.assertTrue(lines)
        self.assertIn("was not written", lines[0])
