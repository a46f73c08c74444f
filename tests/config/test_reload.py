"""Reading a file again, L{tristunnel.config.reload}."""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.logger import ILogObserver, LogLevel, globalLogPublisher

from tests.config.test_options import FileOptionsTestCase
from tristunnel.cli import server_tap
from tristunnel.config.reload import Changes, Reload, differing
from tristunnel.errors import TunnelError


class ReloadTests(FileOptionsTestCase):
    """All of a file is put in force, or nothing."""

    tap = server_tap

    def setUp(self) -> None:
        super().setUp()
        self.applied: list[tuple[Any, Any]] = []
        self.limiter: Deferred[None] | None = None
        self.events: list[Any] = []
        note = cast(ILogObserver, self.events.append)
        globalLogPublisher.addObserver(note)
        self.addCleanup(globalLogPublisher.removeObserver, note)

    async def apply(self, old: Any, new: Any) -> Changes:
        self.applied.append((old["lease"], new["lease"]))
        if self.limiter is not None:
            await self.limiter
        return Changes([f"lease = {new['lease']:g}"], ["port"])

    def test_good(self) -> None:
        """What has changed is answered, and logged."""
        reload = Reload(self.read("lease = 1"), self.apply)
        self.file("lease = 2")
        answer = self.successResultOf(reload.reload())
        self.assertEqual(answer, {"changed": ["lease = 2"], "needsRestart": ["port"]})
        self.file("lease = 3")
        self.successResultOf(reload.reload())
        self.assertEqual(self.applied, [(1.0, 2.0), (2.0, 3.0)])
        told = [str(e["changes"]) for e in self.events if "changes" in e]
        self.assertEqual(told[0], "lease = 2; needs a restart: port")

    def test_bad(self) -> None:
        """Of a file that is wrong nothing is applied; the answer and the log have the
        line. When it is right again, it counts."""
        reload = Reload(self.read("lease = 1"), self.apply)
        for text in ("lease = 2\nfoo = 3", "lease = -1", "lease = ", "\xff"):
            path = self.file(text)
            error = self.failureResultOf(reload.reload(), TunnelError).value
            self.assertEqual(error.code.name, "bad-option")
            self.assertIn(f"{path}:", error.message)
        path.unlink()
        error = self.failureResultOf(reload.reload(), TunnelError).value
        self.assertIn("cannot be read: No such file", error.message)
        reload.reloadLater()
        self.assertEqual(self.applied, [])
        told = [e for e in self.events if e["log_level"] == LogLevel.error]
        self.assertEqual(len(told), 6)
        self.file("lease = 4")
        self.successResultOf(reload.reload())
        self.assertEqual(self.applied, [(1.0, 4.0)])

    def test_noFile(self) -> None:
        """Without a file there is nothing to read."""
        reload = Reload(self.parse(), self.apply)
        error = self.failureResultOf(reload.reload(), TunnelError).value
        self.assertIn("start with --config", error.message)
        # The signal may have been about the log file alone.
        del self.events[:]
        reload.reloadLater()
        self.assertEqual([e["log_level"] for e in self.events], [LogLevel.info])

    def test_oneAfterTheOther(self) -> None:
        """Who asks while it is being done waits, and sees what is the case then."""
        self.limiter = Deferred()
        reload = Reload(self.read("lease = 1"), self.apply)
        self.file("lease = 2")
        first, second = reload.reload(), reload.reload()
        self.assertNoResult(first)
        self.assertEqual(self.applied, [(1.0, 2.0)])
        self.file("lease = 3")
        limiter, self.limiter = self.limiter, None
        limiter.callback(None)
        self.successResultOf(first)
        self.successResultOf(second)
        self.assertEqual(self.applied, [(1.0, 2.0), (2.0, 3.0)])

    def test_broken(self) -> None:
        """If it fails for another reason, that is logged, and the next one may do."""

        async def fail(old: Any, new: Any) -> Changes:
            raise RuntimeError("broken")

        reload = Reload(self.read("lease = 1"), fail)
        reload.reloadLater()
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.failureResultOf(reload.reload(), RuntimeError)

    def test_differing(self) -> None:
        """What is the same in other words, or from elsewhere, is no change."""
        old = self.read("lease = 120.0\nport = ['tcp:1']")
        self.assertEqual(differing(old, self.read("port = ['tcp:1']")), set())
        self.assertEqual(
            differing(old, self.read("port = ['tcp:1']", "--lease", "120")), set()
        )
        self.assertEqual(differing(old, self.read("grace = 1")), {"port", "grace"})
