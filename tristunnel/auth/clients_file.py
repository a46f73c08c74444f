"""C{--auth clients:PATH}: a file of ids and secrets."""

from __future__ import annotations

import os

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.error import UnauthorizedLogin
from twisted.cred.strcred import ICheckerFactory, InvalidAuthArgumentString
from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import Logger
from twisted.plugin import IPlugin
from zope.interface import implementer

from tristunnel.auth.clients_format import ClientList, parseClients
from tristunnel.auth.credentials import ITunnelCredentials, TunnelCredentials
from tristunnel.auth.files import MAX_FILE_SIZE, FollowedFile, reasonOf
from tristunnel.errors import TunnelError
from tristunnel.util.files import warnIfOpen

__all__ = ["MAX_FILE_SIZE", "ClientsFile", "ClientsFileCheckerFactory"]


@implementer(ICredentialsChecker)
class ClientsFile:
    """
    Admits the clients of a file, and follows the changes of that file.

    The file is looked at (one C{stat}) at each login. Writers should replace
    it in one step (write another file, then rename), since a login in the
    middle of a change sees half of it.

    @see: L{tristunnel.auth.clients_format} for what is in the file.
    """

    credentialInterfaces = (ITunnelCredentials,)
    _log = Logger()

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """
        @param path: The file. A relative path counts from the directory that
            is current now, wherever a daemon goes later.
        @raise TunnelError: C{bad-option} when the file cannot be read.
        """
        self._file = FollowedFile(path, "clients file", self._log, self._load)
        self._path = self._file.path
        self._clients = ClientList()
        try:
            self._file.read()
        except (OSError, ValueError) as error:
            raise TunnelError(
                "bad-option",
                f"cannot read the clients file {self._path!r}: {reasonOf(error)};"
                " give the path of a readable file with one ID:SECRET per line",
            ) from None

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
        self._clients = parseClients(data)
        digests = self._clients.digests
        anybody = sum(digest is None for digest in digests.values())
        (self._log.warn if anybody else self._log.info)(
            "The clients file {path!r} admits {count} ids{anybody}",
            path=self._path,
            count=len(digests),
            anybody=f"; anybody may claim {anybody} of them" if anybody else "",
        )
        if any(self._clients.digests.values()):
            warnIfOpen(self._path, status.st_mode, "secrets")
        self._logProblems()

    def _logProblems(self) -> None:
        for problem in self._clients.problems:
            self._log.error(
                "Clients file {path!r}, line {line}: {reason}; the line is left out",
                path=self._path,
                line=problem.line,
                reason=problem.reason,
            )
        more = self._clients.problemCount - len(self._clients.problems)
        if more > 0:
            self._log.error(
                "Clients file {path!r}: {count} more lines are broken and left out",
                path=self._path,
                count=more,
            )


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
