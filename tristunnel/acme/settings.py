"""
The settings of automatic certificates, which are read without loading the library for
them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = [
    "LETS_ENCRYPT",
    "WAIT",
    "AuthoritySettings",
    "DomainSettings",
    "ExternalAccount",
]

LETS_ENCRYPT = "https://acme-v02.api.letsencrypt.org/directory"
"""The authority that is asked by default."""

WAIT = 30.0
"""The default for the seconds until a changed record is visible everywhere."""


@dataclass(frozen=True)
class ExternalAccount:
    """
    A customer's account with an authority, which ours is bound to (RFC 8555, section
    7.3.4).

    @ivar identifier: What the authority calls its key.
    @ivar key: The key, in base64url.
    """

    identifier: str
    key: str = field(repr=False)


@dataclass(frozen=True)
class AuthoritySettings:
    """
    The authority to ask for certificates.

    @ivar email: The address that the authority may write to.
    @ivar directory: The URL of its directory.
    @ivar ca: A PEM file with the roots for its own TLS; empty for the platform's.
    @ivar external: The external account that ours is bound to, or C{None}.
    """

    email: str
    directory: str = LETS_ENCRYPT
    ca: str = ""
    external: ExternalAccount | None = None


@dataclass(frozen=True)
class DomainSettings:
    """
    How the records of domains are changed, so that they and wildcards can be proved.

    @ivar command: A command that changes them, or empty.
    @ivar server: A name server that takes updates, or empty.
    @ivar key: The file with the key for the updates.
    @ivar wait: Seconds until a change is visible everywhere.
    """

    command: str = ""
    server: str = ""
    key: str = ""
    wait: float = WAIT
