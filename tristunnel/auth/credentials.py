"""The credentials that a client sends when it connects, for C{twisted.cred}."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping
from types import MappingProxyType

from twisted.cred.credentials import ICredentials, IUsernamePassword
from twisted.internet.interfaces import IAddress
from zope.interface import Attribute, Interface, implementer

__all__ = ["MAX_NAME", "ITunnelCredentials", "TunnelCredentials", "nameProblem"]

MAX_NAME = 256
"""The longest name, in characters."""

_PROTOCOL_KEY = "tristunnel"
_SHOWN = 64


class ITunnelCredentials(ICredentials, Interface):
    """
    The whole JSON object of a client's handshake, for checkers that look at
    more than a name and a password.
    """

    fields: Mapping[str, object] = Attribute(
        """
        Everything the client sent, except the protocol's own C{tristunnel}
        key. Nothing in it is verified, and any value may have any JSON type.
        """
    )

    peer: IAddress | None = Attribute(
        """Where the client connects from, or C{None} where that is not known."""
    )

    certificate: str = Attribute(
        """
        The name in the certificate that the client has shown, of an authority
        in C{--client-ca}; empty if it has shown none. This one is verified.
        """
    )

    key: bytes = Attribute(
        """
        The public key that the client has proved to have, as SSH has it on the
        wire; empty for none. This one is verified, too.
        """
    )

    proves: Callable[[bytes], bool] | None = Attribute(
        """
        Tells of the SHA-256 of a secret whether the client has proved to have that,
        without a word of it; C{None} if it has proved nothing.
        """
    )


def _asBytes(value: object) -> bytes:
    """
    Encode a JSON value that can sensibly be an id or a secret.

    @return: UTF-8; empty for anything but text, bytes and whole numbers, so
        that C{null} can never become the name C{"None"}.
    """
    if isinstance(value, bytes):
        return value
    if isinstance(value, bool) or not isinstance(value, str | int):
        return b""
    try:
        return str(value).encode("utf-8")
    except ValueError:
        # JSON can spell lone surrogates, which are no text.
        return b""


@implementer(ITunnelCredentials, IUsernamePassword)
class TunnelCredentials:
    """
    The credentials of one handshake or HTTP request.

    They are a username and a password too, so that any checker for those
    (C{--auth file:...}) works without knowing about tunnels.

    @ivar fields: See L{ITunnelCredentials}.
    @ivar peer: See L{ITunnelCredentials}.
    @ivar certificate: See L{ITunnelCredentials}.
    @ivar key: See L{ITunnelCredentials}.
    @ivar proves: See L{ITunnelCredentials}.
    @ivar username: The C{id} field in UTF-8, empty when there is none.
    @ivar password: The first of the fields C{secret}, C{password} and C{token} that is
        not empty, in UTF-8; empty when all are.
    """

    def __init__(
        self,
        fields: Mapping[str, object],
        peer: IAddress | None = None,
        certificate: str = "",
        key: bytes = b"",
        proves: Callable[[bytes], bool] | None = None,
    ) -> None:
        if not isinstance(fields, Mapping):
            raise TypeError(f"credentials must be a JSON object, not {type(fields)}")
        own = {key: value for key, value in fields.items() if key != _PROTOCOL_KEY}
        # Read-only, so that a checker cannot change what the next one sees.
        self.fields: Mapping[str, object] = MappingProxyType(own)
        self.peer = peer
        self.certificate = certificate
        self.key = key
        self.proves = proves
        self.username = _asBytes(own.get("id"))
        self.password = (
            _asBytes(own.get("secret"))
            or _asBytes(own.get("password"))
            or _asBytes(own.get("token"))
        )

    def checkPassword(self, password: bytes) -> bool:
        """
        Compare with the right password, in time that does not depend on where
        the two differ.

        @param password: The right password. Text is taken as well, because
            C{memory:} of C{twisted.cred} keeps text.
        @return: C{False} also when no password was sent, so that an empty
            field in somebody's password file opens nothing.
        """
        right = _asBytes(password)
        return hmac.compare_digest(self.password, right) and bool(self.password)

    def __repr__(self) -> str:
        name = self.username.decode("utf-8", "backslashreplace")
        if len(name) > _SHOWN:
            name = name[:_SHOWN] + "..."
        return f"<{type(self).__name__} id={name!r}>"


def nameProblem(name: str) -> str | None:
    """
    Say what is wrong with a name, which ends up in logs and on pages.

    @return: The reason without the name itself, or C{None} for a good name.
    """
    if not name:
        return "the id is empty"
    if len(name) > MAX_NAME:
        return f"the id is longer than {MAX_NAME} characters"
    if not name.isprintable():
        return "the id has characters that cannot be printed"
    return None
