"""What tests of processes share."""

from __future__ import annotations

import os
from typing import Any

from twisted.internet.task import Clock

__all__ = ["FakeReactor", "descriptors"]


class FakeReactor(Clock):
    """A reactor whose descriptors are read and written by the test."""

    def __init__(self) -> None:
        super().__init__()
        self.readers: set[Any] = set()
        self.writers: set[Any] = set()

    def addReader(self, reader: Any) -> None:
        self.readers.add(reader)

    def removeReader(self, reader: Any) -> None:
        self.readers.discard(reader)

    def addWriter(self, writer: Any) -> None:
        self.writers.add(writer)

    def removeWriter(self, writer: Any) -> None:
        self.writers.discard(writer)

    def turn(self) -> None:
        for writer in list(self.writers):
            writer.doWrite()
        for reader in list(self.readers):
            reader.doRead()


def descriptors(process: int | str = "self") -> int:
    return len(os.listdir(f"/proc/{process}/fd"))
