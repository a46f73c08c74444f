"""The options about the way to a server that every client has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from twisted.python import usage

from tristunnel.config.help import OptionGroup
from tristunnel.config.numbers import seconds
from tristunnel.connect.address import Trust
from tristunnel.connect.route import ConnectOptions, connectOptionsBy, parseHeader
from tristunnel.errors import TunnelError, badOption
from tristunnel.tls.certificates import parseFingerprint

__all__ = ["IDENTITY", "WAY", "ConnectOptionsMixin", "connectOptionsOf", "trustOf"]

IDENTITY = OptionGroup(
    "Who you are, and which server is the right one",
    "token-file=FILE credentials=KEY=VALUE credentials-file=FILE pin=FINGERPRINT"
    " ca=PATH insecure certificate=FILE private-key=FILE",
)
WAY = OptionGroup(
    "The way to the server", "proxy=URL header=NAME=VALUE ping-interval=SECONDS"
)
"""How C{--help} shows these options."""


class ConnectOptionsMixin:
    """For C{usage.Options}: how to reach and verify a server."""

    optFlags: ClassVar[Any] = [
        ("insecure", None, "Accept any certificate (anybody can pose as the server).")
    ]
    optParameters: ClassVar[Any] = [
        ("ca", None, "", "PEM file or directory: trust only these authorities."),
        ("certificate", None, "", "PEM file: the certificate to show to the server."),
        ("private-key", None, "", "PEM file with the key of --certificate."),
        (
            "proxy",
            None,
            "",
            "HTTP or SOCKS proxy, http:// or socks5h://HOST:PORT; or none.",
        ),
        seconds("ping-interval", 30.0, "Seconds between WebSocket pings (0 = none)."),
        (
            "token-file",
            None,
            "",
            "File with the token to log in with; - prompts for it.",
        ),
        (
            "credentials-file",
            None,
            None,
            "JSON file with the credentials to log in with.",
        ),
    ]

    def opt_pin(self: Any, fingerprint: str) -> None:
        """
        Accept only the server certificate with this SHA-256 fingerprint. Can
        be repeated.
        """
        try:
            digest = parseFingerprint(fingerprint)
        except TunnelError as error:
            raise usage.UsageError(f"--pin: {error.message}") from None
        self["pin"] = [*self.get("pin", []), digest]

    def opt_header(self: Any, header: str) -> None:
        """
        Add NAME=VALUE to the HTTP request that opens a WebSocket, for example
        Authorization=Bearer TOKEN. Can be repeated.
        """
        try:
            pair = parseHeader(header)
        except TunnelError as error:
            raise usage.UsageError(error.message) from None
        self["header"] = [*self.get("header", []), pair]


def trustOf(options: Mapping[str, Any]) -> Trust:
    """
    Read how the server is verified.

    @raise TunnelError: C{bad-option}.
    """
    pins = options.get("pin", ())
    if options["insecure"] and (pins or options["ca"]):
        raise badOption("--insecure checks nothing: leave out --pin and --ca")
    if options["private-key"] and not options["certificate"]:
        raise badOption("--private-key goes with --certificate")
    return Trust(
        tuple(pins),
        options["ca"],
        bool(options["insecure"]),
        options["certificate"],
        options["private-key"],
    )


def connectOptionsOf(
    reactor: Any, options: Mapping[str, Any], headers: Mapping[str, str]
) -> ConnectOptions:
    """
    Read what lies on the way.

    @param headers: The headers of a WebSocket's request.
    @raise TunnelError: C{bad-option}.
    """
    return connectOptionsBy(
        reactor, options["proxy"], headers, options["ping-interval"]
    )
