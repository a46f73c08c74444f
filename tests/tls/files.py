"""Files of certificates that a test changes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from tristunnel.errors import TunnelError

__all__ = ["FileTestCase", "replace"]


def replace(path: Path, data: bytes) -> Path:
    """Put a file into place all at once, as programs that renew certificates do."""
    temporary = path.with_name(path.name + ".new")
    temporary.write_bytes(data)
    temporary.chmod(0o600)
    os.replace(temporary, path)
    return path


class FileTestCase(SynchronousTestCase):
    """A test with a directory of its own."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir(parents=True)

    def write(self, name: str, *parts: bytes) -> Path:
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return replace(path, b"".join(parts))

    @contextmanager
    def refused(self, *words: str) -> Iterator[None]:
        with self.assertRaises(TunnelError) as context:
            yield
        error = context.exception
        self.assertEqual(error.code.name, "bad-option")
        self.assertNotIn("\n", error.message)
        for word in words:
            self.assertIn(word, error.message)

    @contextmanager
    def problems(self) -> Iterator[list[str]]:
        lines: list[str] = []
        with capturedLogs() as events:
            yield lines
        lines.extend(
            formatEvent(event)
            for event in events
            if event["log_level"] in (LogLevel.warn, LogLevel.error, LogLevel.critical)
        )
