"""
C{--auth clients:PATH}: a file of ids and secrets.

One client per line::

    # a comment
    laptop:correct horse battery staple
    camera:sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
    guest:*

An id holds no colon; a secret may. The last line admits whoever claims to be
C{guest}. That takes a mark of its own, since a line without a colon is more
often an id and a secret with something else in between.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.error import UnauthorizedLogin
from twisted.cred.strcred import ICheckerFactory, InvalidAuthArgumentString
from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import Logger
from twisted.plugin import IPlugin
from zope.interface import implementer

from tristunnel.auth.credentials import (
    ITunnelCredentials,
    TunnelCredentials,
    nameProblem,
)
from tristunnel.auth.files import FollowedFile, Lines
from tristunnel.errors import TunnelError
from tristunnel.util.files import warnIfOpen
from tristunnel.util.words import plural

__all__ = ["ClientList", "ClientsFile", "ClientsFileCheckerFactory"]

_ANYBODY = b"*"
_HASHED = b"sha256:"
_HEX_DIGEST = re.compile(rb"[0-9a-fA-F]{64}\Z")
_NOBODY = hashlib.sha256(b"").digest()


@dataclass
class ClientList(Lines):
    """
    The content of a clients file.

    @ivar digests: The SHA-256 of each secret by its id; C{None} for an id that
        needs no secret.
    """

    digests: dict[bytes, bytes | None] = field(default_factory=dict, repr=False)

    def admits(self, name: bytes, secret: bytes) -> bool:
        """
        Check an id and a secret, in time that tells neither which ids exist
        nor how much of a secret is right.
        """
        # Digests have one length, so the comparison hides the secret's, too.
        digest = self.digests.get(name, _NOBODY)
        given = hashlib.sha256(secret).digest()
        matches = hmac.compare_digest(given, _NOBODY if digest is None else digest)
        if digest is None:
            return True
        # Unknown ids are compared with a stand-in, which only an empty secret matches.
        return matches and bool(secret)

    def proved(self, proves: Callable[[bytes], bool]) -> list[bytes]:
        """
        Find out whose secret a client has proved to have.

        @param proves: Tells whether a SHA-256 is that of the secret.
        @return: The ids, in the order of the file.
        """
        return [
            name
            for name, digest in self.digests.items()
            # Nobody has an empty secret.
            if digest is not None and digest != _NOBODY and proves(digest)
        ]

    def readLine(self, line: bytes, number: int) -> str | None:
        name, colon, secret = line.partition(b":")
        name, secret = name.strip(), secret.strip()
        if not colon:
            return (
                "there is no colon after the id; write ID:SECRET, or ID:* for an id"
                " that anybody may claim"
            )
        try:
            problem = nameProblem(name.decode("utf-8"))
        except UnicodeDecodeError:
            problem = "the id is not UTF-8"
        if problem is not None:
            return problem
        if name in self.digests:
            return "the id is already on an earlier line, which counts"
        if not secret:
            return "there is no secret after the colon"
        if secret == _ANYBODY:
            self.digests[name] = None
            return None
        digest = _digestOf(secret)
        if digest is None:
            return "sha256: is not followed by 64 hexadecimal digits"
        self.digests[name] = digest
        return None


def _digestOf(secret: bytes) -> bytes | None:
    if not secret.startswith(_HASHED):
        return hashlib.sha256(secret).digest()
    digits = secret[len(_HASHED) :]
    if _HEX_DIGEST.match(digits) is None:
        return None
    return bytes.fromhex(digits.decode("ascii"))


@implementer(ICredentialsChecker)
class ClientsFile:
    """
    Admits the clients of a file, and follows the changes of that file.

    The file is looked at (one C{stat}) at each login. Writers should replace
    it in one step (write another file, then rename), since a login in the
    middle of a change sees half of it.
    """

    credentialInterfaces = (ITunnelCredentials,)
    takesProofs = True
    _log = Logger()

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """
        @param path: The file. A relative path counts from the directory that
            is current now, wherever a daemon goes later.
        @raise TunnelError: C{bad-option} when the file cannot be read.
        """
        cure = "give the path of a readable file with one ID:SECRET per line"
        self._file = FollowedFile(path, "clients file", cure, self._log, self._load)
        self._path = self._file.path
        self._clients = ClientList()
        self._file.begin()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._path!r}>"

    def requestAvatarId(
        self, credentials: ITunnelCredentials
    ) -> Deferred[bytes | tuple[()]]:
        """
        Look a client up.

        @param credentials: Either an C{id} with one of C{secret},
            C{password}, C{token}, or a C{token} alone of the form
            C{ID:SECRET}.
        @return: fires with the id, or fails with C{UnauthorizedLogin}.
        """
        self._file.follow()
        if credentials.proves is not None:
            names = self._clients.proved(credentials.proves)
            return succeed(names[0]) if names else fail(UnauthorizedLogin())
        name, secret = self._claim(credentials)
        if self._clients.admits(name, secret):
            return succeed(name)
        return fail(UnauthorizedLogin())

    @staticmethod
    def _claim(credentials: ITunnelCredentials) -> tuple[bytes, bytes]:
        sent = TunnelCredentials(credentials.fields, credentials.peer)
        if set(sent.fields) != {"token"}:
            return sent.username, sent.password
        name, _, secret = sent.password.partition(b":")
        return name, secret

    def _load(self, status: os.stat_result, data: bytes) -> None:
        self._clients = ClientList.parse(data)
        digests = self._clients.digests
        anybody = sum(digest is None for digest in digests.values())
        (self._log.warn if anybody else self._log.info)(
            "The clients file {path!r} admits {count}{anybody}",
            path=self._path,
            count=plural(len(digests), "id"),
            anybody=f"; {anybody} without a secret" if anybody else "",
        )
        if any(self._clients.digests.values()):
            warnIfOpen(self._path, status.st_mode, "secrets")
        self._file.logProblems(self._clients)


@implementer(ICheckerFactory, IPlugin)
class ClientsFileCheckerFactory:
    """The C{clients} type of C{--auth}."""

    authType = "clients"
    argStringFormat = "Path of a file with one ID:SECRET per line"
    authHelp = """
Admits the clients that a file lists, one ID:SECRET per line:

    # a comment
    laptop:correct horse battery staple
    camera:sha256:HEX
    guest:*

White space around an id or a secret does not count. A secret can be stored
as the SHA-256 of itself in 64 hexadecimal digits (for a long random secret;
printf %s SECRET | sha256sum prints them). With * for a secret, whoever claims
that id is admitted. A line without a colon is refused.

Over HTTP, an id and a secret are a Basic login or the bearer token ID:SECRET.

The file may change while the server runs; the next login sees the new
content. Replace it by renaming, so that nobody sees half of it.
"""
    credentialInterfaces = (ITunnelCredentials,)

    def generateChecker(self, argstring: str) -> ClientsFile:
        if not argstring.strip():
            raise InvalidAuthArgumentString(
                "clients needs the path of a file: --auth clients:PATH"
            )
        try:
            return ClientsFile(argstring)
        except TunnelError as error:
            raise InvalidAuthArgumentString(error.message) from None
