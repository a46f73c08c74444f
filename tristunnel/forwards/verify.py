"""
Whose requests a service accepts: C{verify=github:FILE}. The secrets are in the file,
and stay in the client.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from tristunnel.errors import badOption, printable
from tristunnel.forwards.gate import readSecrets
from tristunnel.wire.http import Head
from tristunnel.wire.signatures import SCHEMES, Claim, SignatureCheck, plain

__all__ = ["MOST_SECRETS", "Verification", "readVerification"]

MOST_SECRETS = 10
"""Secrets in a file: each costs time for each request."""

_MOST = 1024
_HEADER = re.compile(r"[A-Za-z0-9-]{1,100}")
_FORM = "write verify=github:FILE, stripe:FILE, slack:FILE or hmac:HEADER:FILE"


@dataclass(frozen=True)
class Verification:
    """
    How requests are signed.

    @ivar scheme: A key of L{SCHEMES}, or C{hmac}.
    @ivar header: The header of C{hmac}; empty for others.
    @ivar secrets: Those that are valid.
    """

    scheme: str
    header: str = ""
    secrets: tuple[bytes, ...] = field(default=(), repr=False)

    def check(self, head: Head, now: float) -> SignatureCheck:
        """
        Begin to check a request.

        @param now: The time of day, in seconds.
        @raise BadSignature: If its head alone is wrong.
        """
        read = plain(self.header) if self.header else SCHEMES[self.scheme]
        claim: Claim = read(head, now)
        return SignatureCheck(claim, self.secrets)


def readVerification(text: str) -> Verification:
    """
    Read C{SCHEME:FILE} or C{hmac:HEADER:FILE}, and the file: one secret on a line, any
    of which may have signed a request, so that they can be changed without a gap.

    @raise TunnelError: C{bad-option}, with the cause and no secret.
    """
    option = f"verify={printable(text, 100)}"
    scheme, _, path = text.partition(":")
    header = ""
    if scheme == "hmac":
        header, _, path = path.partition(":")
        if not _HEADER.fullmatch(header):
            raise badOption(f"{option}: {_FORM}")
    elif scheme not in SCHEMES:
        raise badOption(f"{option}: {_FORM}")
    if not path:
        raise badOption(f"{option} names no file with the secret; {_FORM}")
    lines = map(bytes.strip, readSecrets("verify", path).splitlines())
    secrets = tuple(dict.fromkeys(filter(None, lines)))
    shown = f"verify={scheme}:{printable(path, 100)}"
    if not secrets:
        raise badOption(f"{shown} is empty; write the secret of the sender into it")
    if len(secrets) > MOST_SECRETS or max(map(len, secrets)) > _MOST:
        raise badOption(
            f"{shown}: at most {MOST_SECRETS} secrets, one on a line, of up to"
            f" {_MOST} bytes"
        )
    return Verification(scheme, header, secrets)
