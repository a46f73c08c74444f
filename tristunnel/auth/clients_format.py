"""
The text of a clients file: ids and secrets, without any files.

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
import io
import re
from dataclasses import dataclass, field

from tristunnel.auth.names import nameProblem

__all__ = ["ClientList", "Problem", "parseClients"]

_ANYBODY = b"*"
_HASHED = b"sha256:"
_HEX_DIGEST = re.compile(rb"[0-9a-fA-F]{64}\Z")
_NOBODY = hashlib.sha256(b"").digest()
_MAX_PROBLEMS = 20


@dataclass(frozen=True)
class Problem:
    """
    A line that was left out.

    @ivar line: Its number, counted from 1.
    @ivar reason: What is wrong with it, without its text, which may be secret.
    """

    line: int
    reason: str


@dataclass
class ClientList:
    """
    What a clients file says.

    @ivar digests: The SHA-256 of each secret by its id; C{None} for an id that
        needs no secret.
    @ivar problems: The first lines that are broken; at most 20 are kept.
    @ivar problemCount: How many lines are broken.
    """

    digests: dict[bytes, bytes | None] = field(default_factory=dict, repr=False)
    problems: list[Problem] = field(default_factory=list)
    problemCount: int = 0

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
        # Only an empty secret matches the stand-in for unknown ids.
        return matches and bool(secret)


def _digestOf(secret: bytes) -> bytes | None:
    if not secret.startswith(_HASHED):
        return hashlib.sha256(secret).digest()
    digits = secret[len(_HASHED) :]
    if _HEX_DIGEST.match(digits) is None:
        return None
    return bytes.fromhex(digits.decode("ascii"))


def _readLine(line: bytes, clients: ClientList) -> str | None:
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
    if name in clients.digests:
        return "the id is on an earlier line, which stays in force"
    if not secret:
        return "there is no secret after the colon"
    if secret == _ANYBODY:
        clients.digests[name] = None
        return None
    digest = _digestOf(secret)
    if digest is None:
        return "sha256: is not followed by 64 hexadecimal digits"
    clients.digests[name] = digest
    return None


def parseClients(data: bytes) -> ClientList:
    """
    Read the content of a clients file. This never fails: broken lines are
    left out and reported.
    """
    clients = ClientList()
    for number, line in enumerate(io.BytesIO(data), 1):
        line = line.strip()
        if not line or line.startswith(b"#"):
            continue
        problem = _readLine(line, clients)
        if problem is None:
            continue
        clients.problemCount += 1
        if len(clients.problems) < _MAX_PROBLEMS:
            clients.problems.append(Problem(number, problem))
    return clients
