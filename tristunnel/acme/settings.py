"""What is said of certificates by themselves; read without the library for them."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["LETS_ENCRYPT", "WAIT", "AuthoritySettings", "DomainSettings"]

LETS_ENCRYPT = "https://acme-v02.api.letsencrypt.org/directory"
"""The authority that is asked unless somebody says otherwise."""

WAIT = 30.0
"""Seconds that a changed record takes to be seen everywhere, unless said otherwise."""


@dataclass(frozen=True)
class AuthoritySettings:
    """
    Whom to ask for certificates.

    @ivar email: Whom the authority may write to.
    @ivar directory: The URL of what it offers.
    @ivar ca: A PEM file with who vouches for its own TLS; empty for those that the
        platform trusts.
    """

    email: str
    directory: str = LETS_ENCRYPT
    ca: str = ""


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
