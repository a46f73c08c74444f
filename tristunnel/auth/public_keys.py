"""
Public keys of SSH clients, as people write them, and C{--auth keys:DIRECTORY}: a file
in OpenSSH's C{authorized_keys} format for each id.
"""

from __future__ import annotations

import os
import re
from base64 import b64decode, b64encode
from binascii import Error
from dataclasses import dataclass

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_ssh_public_key
from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.error import UnauthorizedLogin
from twisted.cred.strcred import ICheckerFactory, InvalidAuthArgumentString
from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import Logger
from twisted.plugin import IPlugin
from zope.interface import implementer

from tristunnel.auth.credentials import ITunnelCredentials, nameProblem
from tristunnel.auth.files import readAtOnce
from tristunnel.errors import TunnelError, badOption
from tristunnel.model.permissions import Grant, GrantedName, Permissions
from tristunnel.model.ports import parsePorts
from tristunnel.wire.ssh import Fields
from tristunnel.wire.vtunnel_ssh import keyBlob, parsePublicKey

__all__ = [
    "AuthorizedKeys",
    "KeyLine",
    "KeysCheckerFactory",
    "formatKey",
    "parseKey",
    "parseLine",
]

LEAST_RSA = 2048
"""Bits of an RSA key that is taken."""

MAX_FILE = 256 * 1024
"""Bytes of a file of keys that are read."""

_VTUNNEL = "vt-pub-"
_KINDS = ("ssh-ed25519", "ecdsa-sha2-", "ssh-rsa")
_FREE = frozenset(
    (
        "restrict",
        "port-forwarding",
        *(f"no-{each}" for each in ("pty", "agent-forwarding", "X11-forwarding")),
        *("no-x11-forwarding", "no-user-rc", "pty", "user-rc"),
    )
)
"""Options of OpenSSH's that forbid or allow what there is not here."""

_OPTION = re.compile(r'([A-Za-z0-9-]+)(?:="((?:[^"\\]|\\.)*)")?(?:,|(?=\s)|$)')


def parseKey(text: str) -> bytes:
    """
    Read a public key as a C{.pub} file of OpenSSH's has it, or as vtunnel's C{vt-pub-}.

    @return: The key as SSH has it on the wire.
    @raise TunnelError: C{bad-option}.
    """
    text = text.strip()
    if text.startswith(_VTUNNEL):
        return keyBlob(parsePublicKey(text))
    words = text.split()
    try:
        key = load_ssh_public_key(" ".join(words[:2]).encode())
        blob = b64decode(words[1], validate=True)
    except (ValueError, UnsupportedAlgorithm, Error, IndexError):
        key, blob = None, b""
    if key is None or not text.startswith(_KINDS):
        raise badOption(
            "this is not a public key; one begins with ssh-ed25519, ecdsa-sha2-... or"
            " ssh-rsa, as in a file .pub of ssh-keygen"
        )
    if isinstance(key, RSAPublicKey) and key.key_size < LEAST_RSA:
        raise badOption(f"an RSA key has at least {LEAST_RSA} bits")
    return blob


def formatKey(blob: bytes) -> str:
    """Write a key as OpenSSH does, from how SSH has it on the wire."""
    kind = Fields(blob).text(64)
    return f"{kind} {b64encode(blob).decode()}"


@dataclass(frozen=True)
class KeyLine:
    """
    A line of a file of keys.

    @ivar blob: The key as SSH has it on the wire.
    @ivar permissions: What it permits.
    """

    blob: bytes
    permissions: Permissions


def parseLine(line: str) -> KeyLine:
    """
    Read a line (C{sshd(8)}, AUTHORIZED_KEYS FILE FORMAT).

    @raise TunnelError: C{bad-option}. An option that is not known here may restrict
        what the key is for, so that the key is of no use.
    """
    ports: list[str] = []
    limited, at = False, 0
    if not line.startswith((*_KINDS, _VTUNNEL)):
        while found := _OPTION.match(line, at):
            at = found.end()
            name, value = found[1], found[2]
            if name == "permitlisten" and value:
                limited = True
                ports.append(value.rpartition(":")[2])
            elif name not in _FREE:
                raise badOption(f"the option {name[:40]} is not supported")
            if line[at - 1] != ",":
                break
    permissions = Permissions()
    if limited and "*" not in ports:
        permissions = Permissions(ports=parsePorts(",".join(ports)))
    return KeyLine(parseKey(line[at:]), permissions)


@implementer(ICredentialsChecker)
class AuthorizedKeys:
    """
    Admits whoever has a key that is in the file of its id.

    @param directory: Holds a file for each id. A relative path counts from the
        directory that is current now.
    """

    credentialInterfaces = (ITunnelCredentials,)
    takesKeys = True
    _log = Logger()

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self._directory = os.path.abspath(directory) if directory else ""
        if not os.path.isdir(self._directory):
            raise badOption(
                f"{self._directory!r} is not a directory of files with keys"
            )

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._directory!r}>"

    def _find(self, user: str, key: bytes) -> KeyLine | None:
        if nameProblem(user) is not None or "/" in user or user.startswith("."):
            return None
        path = os.path.join(self._directory, user)
        try:
            _, data = readAtOnce(path)
        except (OSError, ValueError):
            return None
        for number, raw in enumerate(data[:MAX_FILE].splitlines(), 1):
            line = raw.decode("utf-8", "replace").strip()
            if not line or line.startswith("#"):
                continue
            try:
                read = parseLine(line)
            except TunnelError as problem:
                self._log.warn(
                    "{path}, line {number} is left out: {problem}",
                    path=path,
                    number=number,
                    problem=problem.message,
                )
                continue
            if read.blob == key:
                return read
        return None

    def knowsKey(self, user: str, key: bytes) -> bool:
        """Whether a key is in the file of an id."""
        return self._find(user, key) is not None

    def keysOf(self, user: str) -> list[bytes]:
        """Nobody is known by another key than an own one."""
        return []

    def requestAvatarId(
        self, credentials: ITunnelCredentials
    ) -> Deferred[bytes | tuple[()]]:
        """
        Look a key up.

        @return: Fires with a L{GrantedName}, or fails with C{UnauthorizedLogin}.
        """
        user = credentials.fields.get("id")
        if not credentials.key or not isinstance(user, str):
            return fail(UnauthorizedLogin())
        found = self._find(user, credentials.key)
        if found is None:
            return fail(UnauthorizedLogin())

        def look() -> None:
            if grant.ended is None and self._find(user, found.blob) is None:
                grant.end(TunnelError("token-revoked", "the key has been removed"))

        grant = Grant(found.permissions, look=look)
        return succeed(GrantedName(user.encode(), grant))


@implementer(ICheckerFactory, IPlugin)
class KeysCheckerFactory:
    """The C{keys} type of C{--auth}."""

    authType = "keys"
    argStringFormat = "Path of a directory with a file of public keys for each id"
    authHelp = """
Admits SSH clients by their public keys. The directory has a file for each id, in
the format of OpenSSH's authorized_keys; ssh ID@SERVER comes as ID. permitlisten=
limits the ports of a key, and a key with an option that is not known is not taken.
"""
    credentialInterfaces = (ITunnelCredentials,)

    def generateChecker(self, argstring: str) -> AuthorizedKeys:
        """@raise InvalidAuthArgumentString: If it is not a directory."""
        try:
            return AuthorizedKeys(argstring.strip())
        except TunnelError as error:
            raise InvalidAuthArgumentString(error.message) from None
