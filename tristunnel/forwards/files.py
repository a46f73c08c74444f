"""C{--forward 8080=files:DIR}: the files of a directory, as a web site."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from twisted.web.resource import IResource
from twisted.web.server import Request
from twisted.web.static import DirectoryLister, File

from tristunnel.errors import badOption
from tristunnel.http.plain import ErrorText
from tristunnel.http.site import LimitedChannel, LimitedSite

__all__ = ["Files", "filesFrom"]

INDEXES = ("index.html", "index.htm")
"""The files that are shown for a directory: the first one that exists."""

MOST_RANGES = 10
"""Parts of a file that one request may ask for."""


def _nothing() -> IResource:
    return ErrorText(404, "There is nothing at this address.")


class Files(File):
    """
    A directory, or what is in it.

    It shows nothing whose name begins with a dot, nothing that is neither a file nor a
    directory, and nothing outside of the directory, even by a symbolic link.

    @param root: The directory, as the system knows it.
    @param lists: Whether a directory without an index lists its files.
    @param indexes: The names of files that are shown for a directory.
    """

    def __init__(self, path: str, root: str, lists: bool, indexes: list[str]) -> None:
        super().__init__(path, defaultType="application/octet-stream")
        self._root = root
        self._lists = lists
        self.indexNames = indexes

    def createSimilarFile(self, path: str) -> Files:
        return Files(path, self._root, self._lists, self.indexNames)

    def getChild(self, path: bytes, request: Request) -> IResource:
        if path.startswith(b".") or b"\0" in path:
            return _nothing()
        try:
            path.decode("utf-8")
        except UnicodeDecodeError:
            return _nothing()
        if not path and self.isdir() and not self._indexed():
            return self._listing()
        child: IResource = super().getChild(path, request)
        return child if isinstance(child, Files) and child.isShown else _nothing()

    def _indexed(self) -> bool:
        return self.childSearchPreauth(*self.indexNames) is not None

    @property
    def isShown(self) -> bool:
        """Whether it is within the directory, after all links, and can be read."""
        real = os.path.realpath(self.path)
        within = real == self._root or real.startswith(
            self._root.rstrip(os.sep) + os.sep
        )
        inside = os.path.relpath(real, self._root).split(os.sep)
        hidden = any(part.startswith(".") for part in inside if part != ".")
        # Opening a pipe would wait for its other end.
        isOne = os.path.isfile(real) or os.path.isdir(real)
        return within and not hidden and isOne

    def _listing(self) -> IResource:
        if not self._lists:
            return ErrorText(404, "This directory has no index.")
        names = [
            each
            for each in self.listNames()
            if not each.startswith(".")
            and self.createSimilarFile(self._below(each)).isShown
        ]
        return DirectoryLister(
            self.path, names, self.contentTypes, self.contentEncodings, self.defaultType
        )

    def _below(self, name: str) -> str:
        return os.path.join(self.path, name)

    def render_GET(self, request: Request) -> bytes | int:
        said = request.getHeader(b"range")
        # Twisted's own parser accepts any number of parts, and only ASCII.
        if said is not None and (not said.isascii() or said.count(b",") >= MOST_RANGES):
            request.requestHeaders.removeHeader(b"range")
        request.setHeader(b"x-content-type-options", b"nosniff")
        answer: bytes | int = super().render_GET(request)
        return answer

    render_HEAD = render_GET

    def _rangeToOffsetAndSize(self, start: int | None, end: int | None) -> Any:
        if start is None and end is not None:
            # The last bytes, of a file that may have fewer.
            end = max(0, min(end, self.getFileSize()))
        return super()._rangeToOffsetAndSize(start, end)


class _Channel(LimitedChannel):
    # A visitor who takes a large file slowly still takes it.
    isKnown = True


class _FilesSite(LimitedSite):
    protocol = _Channel


def filesFrom(
    reactor: Any, spec: str, words: Sequence[str], keywords: Mapping[str, Sequence[str]]
) -> LimitedSite:
    """
    Read what follows C{files:}.

    @param spec: The forward, for messages.
    @param words: Its parts without a keyword: the directory.
    @param keywords: The others.
    @raise TunnelError: C{bad-option}.
    """
    option = f"--forward {spec!r}"
    if len(words) != 1:
        raise badOption(f"{option} names a single directory: write files:DIR")
    (path,) = words
    if unknown := sorted(set(keywords) - {"index", "listing"}):
        raise badOption(
            f"{option}: {unknown[0]}= is not known; there is index= and listing="
        )
    listing = keywords.get("listing", ["no"])[-1]
    if listing not in ("yes", "no"):
        raise badOption(f"{option}: listing= takes yes or no")
    indexes = list(keywords.get("index", INDEXES))
    if any(not each or os.sep in each or each.startswith(".") for each in indexes):
        raise badOption(f"{option}: index= takes the name of a file")
    root = os.path.realpath(os.path.expanduser(path))
    if not os.path.isdir(root) or not os.access(root, os.R_OK | os.X_OK):
        raise badOption(f"{option}: {path} is not a directory that can be read")
    return _FilesSite(Files(root, root, listing == "yes", indexes), reactor=reactor)
