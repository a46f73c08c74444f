"""
What a client remembers over a restart, L{tristunnel.dialects.base.lease}.
"""

from __future__ import annotations

import errno
import json
import os

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock

from tests.tls.files import FileTestCase
from tristunnel.dialects.base.lease import MANY, TRY_AGAIN, ClientLease
from tristunnel.util import descriptor_calls, locked_file
from tristunnel.util.locked_file import LockedFile

_SPEC = "0=localhost:80"

OFFER: dict[str, object] = {"id": "i", "secret": "s", "fence": 3}


class ClientLeaseTests(FileTestCase):
    """A file that outlives its client, and may be no use."""

    def take(self, where: str = "tcp:a:1", *specs: str) -> ClientLease:
        """Take up a lease as a client does that starts."""
        lease = ClientLease.forClient(
            self.directory / "state", where, specs or (_SPEC,)
        )
        self.addCleanup(lease.close)
        return lease

    def fill(self, lease: ClientLease) -> None:
        lease.granted(OFFER, [])
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
        self.assertEqual(second.asOffer(), OFFER)
        self.assertEqual(second.uris, {_SPEC: "w3p://a/1"})
        self.assertEqual(second.ports, {_SPEC: 4000})
        self.assertEqual(second.specOf("w3p://a/1"), _SPEC)
        (path,) = (self.directory / "state").iterdir()
        self.assertEqual(path.stat().st_mode & 0o777, 0o600)
        self.assertEqual(path.parent.stat().st_mode & 0o777, 0o700)

    def test_manyTunnels(self) -> None:
        """
        Thousands of tunnels that open one after another are not written one by one;
        a client that stops writes what is left.
        """
        clock = Clock()
        replace = LockedFile.replace
        written: list[float] = []

        def slow(self: LockedFile, content: bytes) -> None:
            written.append(clock.seconds())
            clock.advance(0.01)
            replace(self, content)

        self.patch(LockedFile, "replace", slow)
        place = self.directory / "state"
        first = ClientLease.forClient(place, "tcp:a:1", (_SPEC,), clock)
        for number in range(1000):
            first.opened(f"{number}=localhost:80", f"w3p://a/{number}", number)
        self.assertLessEqual(len(written), MANY)
        clock.advance(0.2)
        self.assertLessEqual(len(written), MANY + 1)
        first.opened(_SPEC, "w3p://a/last", 0)
        first.close()
        second = ClientLease.forClient(place, "tcp:a:1", (_SPEC,), clock)
        self.addCleanup(second.close)
        self.assertEqual(len(second.uris), 1000)
        self.assertEqual(second.uris[_SPEC], "w3p://a/last")

    def test_another(self) -> None:
        """Another server, or other services, are another lease."""
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
        """A server that confirms a lease sends no secret; ours stays."""
        lease = self.take()
        self.fill(lease)
        lease.granted({"id": "i"}, ["w3p://a/1"])
        self.assertEqual(lease.asOffer(), {"id": "i", "secret": "s"})
        self.assertEqual(lease.uris, {_SPEC: "w3p://a/1"})

    def test_locked(self) -> None:
        """Two clients that are alike share nothing."""
        first = self.take()
        self.fill(first)
        second = self.take()
        self.assertEqual(second.asOffer(), {})
        self.fill(second)
        second.opened(_SPEC, "w3p://a/9", 9)
        first.close()
        self.assertEqual(self.take().ports, {_SPEC: 4000})

    def test_damaged(self) -> None:
        """A file that makes no sense is a line, and a new beginning."""
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
            kept = json.loads(path.read_bytes())
            self.assertEqual({**kept, "salt": good["salt"]}, good)

    @settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.binary(max_size=60))
    def test_anything(self, content: bytes) -> None:
        """Whatever is in the file, the client starts."""
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

    def fails(self, number: int) -> None:
        """Have the disk take nothing, until C{broken} is 0."""

        def fsync(descriptor: int) -> None:
            if self.broken:
                raise OSError(self.broken, os.strerror(self.broken))

        self.broken = number
        self.patch(os, "fsync", fsync)

    def test_full(self) -> None:
        """
        A disk that is full is one line with a cure; what was written before
        stays, and is replaced as soon as there is room.
        """
        clock = Clock()
        directory = self.directory / "state"
        lease = ClientLease.forClient(directory, "tcp:a:1", [_SPEC], clock)
        self.fill(lease)
        (path,) = directory.iterdir()
        before = path.read_bytes()
        self.fails(errno.ENOSPC)
        with self.problems() as lines:
            lease.opened(_SPEC, "w3p://a/2", 4001)
            lease.opened(_SPEC, "w3p://a/3", 4002)
            clock.advance(TRY_AGAIN)
            clock.advance(TRY_AGAIN)
        (line,) = lines
        self.assertIn("was not written (No space left on device)", line)
        self.assertIn("--state-dir", line)
        self.assertEqual(list(directory.iterdir()), [path])
        self.assertEqual(path.read_bytes(), before)
        self.broken = 0
        clock.advance(TRY_AGAIN)
        self.assertEqual(json.loads(path.read_bytes())["ports"], {_SPEC: 4002})
        self.assertEqual(clock.getDelayedCalls(), [])
        lease.close()

    def test_fullToTheEnd(self) -> None:
        """The last try is when the client stops; no timer is left."""
        clock = Clock()
        lease = ClientLease.forClient(self.directory / "state", "a", [_SPEC], clock)
        self.fails(errno.EDQUOT)
        with self.problems() as lines:
            self.fill(lease)
            lease.close()
        self.assertEqual(len(lines), 1)
        self.assertEqual(clock.getDelayedCalls(), [])
        self.assertEqual(self.take("a").ports, {})

    def test_directoryComesBack(self) -> None:
        """A directory that could not be used is used when it can be."""
        clock = Clock()
        self.write("state")
        directory = self.directory / "state"
        with self.problems() as lines:
            lease = ClientLease.forClient(directory, "tcp:a:1", [_SPEC], clock)
            self.fill(lease)
        self.assertEqual(len(lines), 1)
        directory.unlink()
        clock.advance(TRY_AGAIN)
        lease.close()
        self.assertEqual(self.take().ports, {_SPEC: 4000})

    def test_readOnly(self) -> None:
        """
        What is in a directory that cannot be written to is taken up all the
        same.
        """
        lease = self.take()
        self.fill(lease)
        lease.close()
        opened = os.open

        def readOnly(path: str, flags: int, mode: int = 0o777) -> int:
            if flags & (os.O_WRONLY | os.O_RDWR) or not os.path.exists(path):
                raise OSError(errno.EROFS, os.strerror(errno.EROFS))
            return opened(path, flags, mode)

        self.patch(os, "open", readOnly)
        with self.problems() as lines:
            second = self.take()
            second.opened(_SPEC, "w3p://a/1", 4001)
        self.assertEqual(second.asOffer(), OFFER)
        self.assertEqual(len(lines), 1)
        self.assertIn("Read-only", lines[0])

    def test_halfWritten(self) -> None:
        """
        A client that is killed while it writes leaves a whole file: the old
        one, or the new one.
        """
        first = self.take()
        self.fill(first)
        (path,) = (self.directory / "state").iterdir()
        for killed in ("fsync", "replace"):
            patched = self.patch(os, killed, self._die)
            with self.assertRaises(KeyboardInterrupt):
                first.opened(_SPEC, "w3p://a/2", 5000)
            patched.restore()
            self.assertEqual(json.loads(path.read_bytes())["ports"], {_SPEC: 4000})
        first.opened(_SPEC, "w3p://a/2", 5000)
        first.close()
        self.assertEqual(self.take().ports, {_SPEC: 5000})
        self.assertEqual(list(path.parent.iterdir()), [path])

    def _die(self, *arguments: object) -> None:
        raise KeyboardInterrupt

    def test_replacedWhileTaken(self) -> None:
        """
        Who opens the file just before its owner replaces it gets no lock on
        what nobody will see again.
        """
        first = self.take()
        self.fill(first)
        lock = descriptor_calls.lockFile

        def lockFile(descriptor: int) -> None:
            locking.restore()
            first.opened(_SPEC, "w3p://a/1", 4001)
            first.close()
            lock(descriptor)

        locking = self.patch(locked_file, "lockFile", lockFile)
        self.assertEqual(self.take().ports, {_SPEC: 4001})
