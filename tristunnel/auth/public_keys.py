"""
Public keys of SSH clients, as people write them, and C{--auth keys:DIRECTORY}: a file
in OpenSSH's C{authorized_keys} format for each id.
"""

from __future__ import annotations

import os
import re
import time
from base64 import b64decode, b64encode
from binascii import Error
from dataclasses import dataclass, field
from functools import partial

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_ssh_public_key
from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.error import UnauthorizedLogin
from twisted.cred.strcred import ICheckerFactory, InvalidAuthArgumentString
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.plugin import IPlugin
from zope.interface import implementer

from tristunnel.auth.credentials import ITunnelCredentials, nameProblem
from tristunnel.auth.files import readAtOnce, reasonOf
from tristunnel.errors import TunnelError, badOption
from tristunnel.model.permissions import Grant, GrantedName, Permissions
from tristunnel.model.ports import parsePorts
from tristunnel.util.log_limiter import BoundedLog
from tristunnel.util.watch import Signature, signatureOf
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
"""The fewest bits of an RSA key."""

LOOK_INTERVAL = 1.0
"""Seconds between two checks of the files of those who are logged in."""

MAX_FILE = 256 * 1024
"""The most bytes of a file of keys."""

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
"""Options of OpenSSH about features that do not exist here."""

_OPTION = re.compile(r'([A-Za-z0-9-]+)(?:="((?:[^"\\]|\\.)*)")?(?:,|(?=\s)|$)')


def parseKey(text: str) -> bytes:
    """
    Read a public key as a C{.pub} file of OpenSSH's has it, or as vtunnel's C{vt-pub-}.

    @return: The key in SSH's wire format.
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
    """Write a key as OpenSSH does, from SSH's wire format."""
    kind = Fields(blob).text(64)
    return f"{kind} {b64encode(blob).decode()}"


@dataclass(frozen=True)
class KeyLine:
    """
    A line of a file of keys.

    @ivar blob: The key in SSH's wire format.
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


@dataclass(eq=False)
class _Held:
    """
    A key by which a client has logged in.

    @ivar user: The id.
    @ivar blob: The key in SSH's wire format.
    @ivar grant: What the login was granted.
    @ivar seen: The state of the file when it was last checked.
    @ivar isMissing: Whether the key was missing then.
    """

    user: str
    blob: bytes
    grant: Grant = field(init=False)
    seen: Signature | None = None
    isMissing: bool = False


@implementer(ICredentialsChecker)
class AuthorizedKeys:
    """
    Admits whoever has a key that is in the file of its id, for as long as it is there.

    @param directory: Holds a file for each id. A relative path counts from the
        directory that is current now.
    @param clock: Times the checks; the reactor by default.
    """

    credentialInterfaces = (ITunnelCredentials,)
    takesKeys = True
    _log = Logger()

    def __init__(
        self, directory: str | os.PathLike[str], clock: IReactorTime | None = None
    ) -> None:
        self._directory = os.path.abspath(directory) if directory else ""
        if not os.path.isdir(self._directory):
            raise badOption(
                f"{self._directory!r} is not a directory of files with keys"
            )
        self._clock = clock
        self._inUse: dict[_Held, None] = {}
        self._looking: IDelayedCall | None = None
        # Anybody who offers keys can cause these lines.
        self._bounded = BoundedLog(time.monotonic)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._directory!r}>"

    def _search(self, user: str, key: bytes) -> KeyLine | None:
        """
        Look for a key in the file of an id.

        @raise OSError: If there is a file that cannot be read.
        @raise ValueError: If there is one that is not understood.
        """
        if nameProblem(user) is not None or "/" in user or user.startswith("."):
            return None
        path = os.path.join(self._directory, user)
        try:
            _, data = readAtOnce(path)
        except FileNotFoundError:
            return None
        if len(data) > MAX_FILE:
            self._warn(path, f"only its first {MAX_FILE // 1024} KiB are read")
        # Other lines are skipped quickly, since anybody can cause this search.
        written = (b64encode(key), b64encode(key[-32:]).rstrip(b"="))
        for number, raw in enumerate(data[:MAX_FILE].splitlines(), 1):
            line = raw.decode("utf-8", "replace").strip()
            if line.startswith("#") or not any(each in raw for each in written):
                continue
            try:
                read = parseLine(line)
            except TunnelError as problem:
                self._warn(path, f"line {number} is left out: {problem.message}")
                continue
            if read.blob == key:
                return read
        return None

    def _warn(self, path: str, what: str) -> None:
        text = "The keys in {path}: {what}"
        self._bounded(self._log.warn, text, path, what, path=path, what=what)

    def _find(self, user: str, key: bytes) -> KeyLine | None:
        """The same; a file that cannot be read has no keys."""
        try:
            return self._search(user, key)
        except (OSError, ValueError) as problem:
            why = f"nobody can log in by them: {reasonOf(problem)}"
            self._warn(os.path.join(self._directory, user), why)
            return None

    def knowsKey(self, user: str, key: bytes) -> bool:
        """Whether a key is in the file of an id."""
        return self._find(user, key) is not None

    def keysOf(self, user: str) -> list[bytes]:
        """Nobody has keys beside those of their own file."""
        return []

    def requestAvatarId(
        self, credentials: ITunnelCredentials
    ) -> Deferred[bytes | tuple[()]]:
        user = credentials.fields.get("id")
        if not credentials.key or not isinstance(user, str):
            return fail(UnauthorizedLogin())
        found = self._find(user, credentials.key)
        if found is None:
            return fail(UnauthorizedLogin())
        held = _Held(user, found.blob)
        held.grant = Grant(
            found.permissions,
            look=partial(self._check, held),
            watched=partial(self._watched, held),
        )
        return succeed(GrantedName(user.encode(), held.grant))

    # Keys in use

    def _check(self, held: _Held) -> None:
        """Update a grant to what the file says."""
        grant = held.grant
        if grant.ended is not None:
            return
        try:
            found = self._search(held.user, held.blob)
        except (OSError, ValueError):
            # A file that cannot be read leaves its last content in force.
            return
        if found is None:
            grant.end(TunnelError("token-revoked", "the key has been removed"))
        elif found.permissions != grant.permissions:
            grant.change(found.permissions)

    def _watched(self, held: _Held) -> None:
        if held.grant.inUse:
            self._inUse[held] = None
        else:
            self._inUse.pop(held, None)
        if self._inUse and self._looking is None:
            if self._clock is None:
                # See TokenFile.
                from twisted.internet import reactor

                self._clock = IReactorTime(reactor)
            self._looking = self._clock.callLater(LOOK_INTERVAL, self._look)
        elif not self._inUse and self._looking is not None:
            self._looking.cancel()
            self._looking = None

    def _look(self) -> None:
        """Look at the files of all keys in use."""
        self._looking = None
        files: dict[str, Signature | None] = {}
        for held in list(self._inUse):
            if held.user not in files:
                try:
                    path = os.path.join(self._directory, held.user)
                    files[held.user] = signatureOf(os.stat(path))
                except OSError:
                    files[held.user] = None
            if files[held.user] != held.seen or held.seen is None:
                self._lookAt(held, files[held.user])
        for held in list(self._inUse)[:1]:
            self._watched(held)

    def _lookAt(self, held: _Held, seen: Signature | None) -> None:
        isMissing = self._find(held.user, held.blob) is None
        if isMissing and not held.isMissing:
            # The file may be in the middle of being written.
            held.isMissing = True
            return
        held.seen, held.isMissing = seen, False
        self._check(held)


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
