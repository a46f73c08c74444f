"""What is said of certificates by themselves; read without the library for them."""

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
"""The authority that is asked unless somebody says otherwise."""

WAIT = 30.0
"""Seconds that a changed record takes to be seen everywhere, unless said otherwise."""


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
    Whom to ask for certificates.

    @ivar email: Whom the authority may write to.
    @ivar directory: The URL of what it offers.
    @ivar ca: A PEM file with who vouches for its own TLS; empty for those that the
        platform trusts.
    @ivar external: What our account is bound to, or C{None}.
    """

    email: str
    directory: str = LETS_ENCRYPT
    ca: str = ""
    external: ExternalAccount | None = None


@dataclass(frozen=True)
class DomainSettings:
    """
    How domains are changed, so that they and wildcards can be proved.

    @ivar command: Does so, or empty.
    @ivar server: A name server that does, or empty.
    @ivar key: The file with the key for that.
    @ivar wait: Seconds until a change is seen everywhere.
    """

    command: str = ""
    server: str = ""
    key: str = ""
    wait: float = WAIT
