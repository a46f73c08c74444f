"""Changing a token file: one writer at a time, and never half a file."""

from __future__ import annotations

import fcntl
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from tristunnel.auth.files import readAtOnce, reasonOf
from tristunnel.auth.tokens_format import (
    Token,
    TokenList,
    digestOf,
    formatToken,
    newToken,
    parseTokens,
    tokenNameProblem,
)
from tristunnel.errors import TunnelError
from tristunnel.model.permissions import Permissions

__all__ = ["TokenStore"]


class TokenStore:
    """
    A token file, to be changed.

    What it does not understand it leaves as it is: comments, and lines that
    are broken.

    @param path: The file; it is made when the first token is.
    @param now: The time of day.
    """

    def __init__(
        self, path: str | os.PathLike[str], now: Callable[[], float] = time.time
    ) -> None:
        # A link stays a link.
        self._path = os.path.realpath(path)
        self._now = now

    def read(self) -> TokenList:
        """@raise TunnelError: C{bad-option}, if the file cannot be read."""
        return parseTokens(self._data())

    def _data(self) -> bytes:
        try:
            return readAtOnce(self._path)[1]
        except (OSError, ValueError) as error:
            raise TunnelError(
                "bad-option", f"cannot read {self._path!r}: {reasonOf(error)}"
            ) from None

    def create(self, name: str, permissions: Permissions) -> str:
        """
        Make a token. The name of a revoked one may be given again.

        @return: The token, which is kept nowhere.
        @raise TunnelError: C{name-taken}; C{bad-option}, if the file cannot be
            written.
        """
        problem = tokenNameProblem(name)
        if problem is not None:
            raise TunnelError("bad-option", problem)
        secret = newToken()
        made = Token(name, digestOf(secret), permissions, created=self._now())
        with self._locked(make=True):
            data = self._data() if os.path.exists(self._path) else b""
            lines = data.split(b"\n")
            before = parseTokens(data).byName.get(name)
            if before is not None:
                if before.revoked is None:
                    raise TunnelError(
                        "name-taken",
                        f"there is a token {name!r}; revoke it first, or choose"
                        " another name",
                    )
                del lines[before.line - 1]
            while lines and not lines[-1].strip():
                lines.pop()
            self._write([*lines, formatToken(made).encode()])
        return secret

    def revoke(self, name: str) -> Token:
        """
        Mark a token as revoked; doing it twice is no error.

        @return: The token.
        @raise TunnelError: C{bad-option}, if there is none of that name.
        """
        with self._locked():
            data = self._data()
            lines = data.split(b"\n")
            token = parseTokens(data).byName.get(name)
            if token is None:
                raise TunnelError("bad-option", f"there is no token {name!r}")
            if token.revoked is None:
                token = replace(token, revoked=self._now())
                lines[token.line - 1] = formatToken(token).encode()
                self._write(lines)
        return token

    @contextmanager
    def _locked(self, make: bool = False) -> Iterator[None]:
        """
        Keep other writers out. The lock is on the directory, since the file
        itself is replaced.

        @param make: Whether to make the directory, if there is none.
        """
        directory = os.path.dirname(self._path)
        try:
            if make:
                os.makedirs(directory, mode=0o700, exist_ok=True)
            descriptor = os.open(directory, os.O_RDONLY)
        except OSError as error:
            raise TunnelError(
                "bad-option", f"cannot use directory {directory!r}: {error.strerror}"
            ) from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _write(self, lines: list[bytes]) -> None:
        """
        Replace the file in one step, for its owner's eyes alone; an existing
        one keeps its owner, so that the server can still read what root
        changes.
        """
        try:
            self._replace(b"\n".join(lines).rstrip(b"\n") + b"\n")
        except OSError as error:
            raise TunnelError(
                "bad-option", f"cannot write {self._path!r}: {error.strerror}"
            ) from None

    def _replace(self, data: bytes) -> None:
        directory, name = os.path.split(self._path)
        # Made with mode 0600.
        descriptor, temporary = tempfile.mkstemp(prefix=f".{name}.", dir=directory)
        try:
            with open(descriptor, "wb") as stream:
                stream.write(data)
                stream.flush()
                if os.path.exists(self._path):
                    old = os.stat(self._path)
                    new = os.fstat(descriptor)
                    if (old.st_uid, old.st_gid) != (new.st_uid, new.st_gid):
                        os.fchown(descriptor, old.st_uid, old.st_gid)
                    # A group that may read it was let in on purpose.
                    os.fchmod(descriptor, 0o600 | (old.st_mode & 0o040))
                os.fsync(descriptor)
            os.replace(temporary, self._path)
        except BaseException:
            os.unlink(temporary)
            raise
