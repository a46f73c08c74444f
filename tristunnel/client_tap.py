"""
C{twistd tunnel-client}: the client's command line.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from twisted.application.service import Service
from twisted.python import usage

from tristunnel.client.connect import (
    ServerAddress,
    Trust,
    parseConnect,
    parseTunnelURI,
)
from tristunnel.client.forward import DEFAULT_FORWARD, Forward, parseForward
from tristunnel.client.lease import ClientLease
from tristunnel.client.log import LoggingClientObserver
from tristunnel.client.service import TunnelClientService
from tristunnel.drain import exitWith, hurryOnSecondSignal
from tristunnel.errors import TunnelError
from tristunnel.paths import defaultStateDirectory
from tristunnel.tls.certificates import parseFingerprint

__all__ = ["Options", "makeService"]

_CREDENTIALS = "TRISTUNNEL_CREDENTIALS"
_TUNNEL = "TRISTUNNEL_TUNNEL"


class Options(usage.Options):
    """
    The options of C{twistd tunnel-client}.
    """

    synopsis = "--connect ENDPOINT [--forward [PORT|NAME]=TARGET ...]"
    longdesc = (
        "A reverse tunnel client. It connects to a server (twistd tunnel) and offers"
        " services that it can reach to that server's visitors. Credentials are best"
        f" given in the environment variable {_CREDENTIALS} or with"
        " --credentials-file: everybody on this machine can read a command line."
    )

    optFlags = [
        ("insecure", None, "Accept any certificate: anybody can pose as the server."),
    ]
    optParameters = [
        ("connect", None, None, "The server: tcp:HOST:PORT, tls:HOST:PORT, unix:PATH."),
        ("tunnel", None, None, "Serve the tunnel of this URI, without credentials."),
        ("to", None, None, "With --tunnel: the service, HOST:PORT or an endpoint."),
        ("ca", None, "", "PEM file or directory: authorities to trust instead."),
        ("credentials-file", None, None, "JSON file that says who we are."),
        ("state-dir", None, None, "Where this client keeps what it must remember."),
        ("grace", None, 10.0, "Seconds for streams to finish at a stop.", float),
    ]

    def __init__(self) -> None:
        super().__init__()
        self["forward"] = []
        self["pin"] = []
        self["credentials"] = {}
        self.server: ServerAddress
        self.forwards: list[Forward] = []
        self.stateDirectory = Path()

    def opt_forward(self, spec: str) -> None:
        """
        A service to offer: PORT=TARGET, 0=TARGET for any port, NAME=TARGET
        for a named tunnel on any port. TARGET is HOST:PORT or a client
        endpoint (tcp:, unix:, tls:). May be given several times.
        [default: 0=localhost:8080]
        """
        self["forward"].append(spec)

    def opt_pin(self, fingerprint: str) -> None:
        """
        SHA-256 fingerprint of the server's certificate: accept this one and
        no other. May be given several times.
        """
        try:
            self["pin"].append(parseFingerprint(fingerprint))
        except TunnelError as error:
            raise usage.UsageError(f"--pin: {error.message}") from None

    def opt_credentials(self, pair: str) -> None:
        """
        KEY=VALUE of the credentials. May be given several times.
        """
        key, equals, value = pair.partition("=")
        if not key or not equals:
            raise usage.UsageError(
                "--credentials takes KEY=VALUE, for example id=laptop"
            )
        self["credentials"][key] = value

    def postOptions(self) -> None:
        """
        Check everything that can be checked before the start.
        """
        try:
            self._check()
        except TunnelError as error:
            raise usage.UsageError(error.message) from None

    def _check(self) -> None:
        """
        @raise TunnelError: C{bad-option}.
        """
        from twisted.internet import reactor

        self["tunnel"] = self["tunnel"] or os.environ.get(_TUNNEL, "")
        if not (self["connect"] or self["tunnel"]):
            raise TunnelError(
                "bad-option",
                "which server? give --connect tcp:HOST:PORT or tls:HOST:PORT",
            )
        if bool(self["tunnel"]) != bool(self["to"]):
            raise TunnelError("bad-option", "--tunnel URI and --to TARGET go together")
        if self["tunnel"] and self["forward"]:
            raise TunnelError(
                "bad-option", "--tunnel serves one tunnel: leave out --forward"
            )
        if not 0 <= self["grace"] < 1e6:
            raise TunnelError("bad-option", "--grace takes seconds, from 0 up")
        if self["insecure"] and (self["pin"] or self["ca"]):
            raise TunnelError(
                "bad-option", "--insecure checks nothing: leave out --pin and --ca"
            )
        trust = Trust(tuple(self["pin"]), self["ca"], bool(self["insecure"]))
        if self["tunnel"]:
            self.server = parseTunnelURI(
                reactor, self["tunnel"], trust, self["connect"] or ""
            )
            self["forward"] = [f"0={self['to']}"]
        else:
            self.server = parseConnect(reactor, self["connect"], trust)
        self.forwards = [
            parseForward(reactor, spec) for spec in self["forward"] or [DEFAULT_FORWARD]
        ]
        seen: set[str] = set()
        for forward in self.forwards:
            if forward.spec in seen:
                raise TunnelError(
                    "bad-option", f"--forward {forward.spec} is there twice"
                )
            seen.add(forward.spec)
        self.stateDirectory = Path(self["state-dir"] or defaultStateDirectory())
        self["credentials"] = {**self._givenCredentials(), **self["credentials"]}

    def _givenCredentials(self) -> dict[str, object]:
        """
        Read credentials from where nobody else can see them.
        """
        path = self["credentials-file"]
        if path:
            try:
                text = Path(path).read_text("utf-8")
            except (OSError, UnicodeDecodeError) as error:
                why = getattr(error, "strerror", None) or "it is not UTF-8"
                raise TunnelError(
                    "bad-option", f"--credentials-file {path} cannot be read: {why}"
                ) from None
            return _object(text, f"--credentials-file {path}")
        text = os.environ.get(_CREDENTIALS, "")
        return _object(text, f"the variable {_CREDENTIALS}") if text else {}


def _object(text: str, where: str) -> dict[str, object]:
    """
    Read a JSON object, without repeating its secrets in a message.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise TunnelError(
            "bad-option", f'{where} holds no JSON object such as {{"id": "laptop"}}'
        )
    return value


def makeService(options: Options) -> Service:
    """
    Make the client.
    """
    from twisted.internet import reactor

    return _make(reactor, options)


def _make(reactor: Any, options: Options) -> Service:
    """
    Put the client together.
    """
    lease = ClientLease()
    if not options["tunnel"]:
        lease = ClientLease.forClient(
            options.stateDirectory,
            options.server.where,
            [forward.spec for forward in options.forwards],
        )
    client = TunnelClientService(
        reactor,
        options.server,
        options.forwards,
        options["credentials"],
        # twistd sends sys.stdout to the log; the addresses are for pasting.
        LoggingClientObserver(sys.__stdout__),
        lease,
        options["grace"],
        lambda reason: _giveUp(reactor),
    )
    reactor.addSystemEventTrigger(
        "before", "shutdown", hurryOnSecondSignal, reactor, client.stopNow
    )
    return client


def _giveUp(reactor: Any) -> None:
    """
    End with an exit status that says so.
    """
    exitWith(1)
    if reactor.running:
        reactor.stop()
