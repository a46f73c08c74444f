"""C{tristunnel server}: the server, secure by default."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, ClassVar

from twisted.application.service import Service
from twisted.logger import Logger

from tristunnel.auth.files import onlyWriter, replaceFile
from tristunnel.auth.realm import Authenticator, portalFor
from tristunnel.cli import server_tap
from tristunnel.config.options import IN_FOREGROUND
from tristunnel.config.settings import DEFAULT, Setting
from tristunnel.util.output import outputOf
from tristunnel.wire.invitation import Invitation

__all__ = ["Options", "makeService"]

_log = Logger(namespace="tristunnel.server")


class Options(server_tap.Options):
    """The options of C{tristunnel server}."""

    longdesc = (
        "A reverse tunnel server: clients connect to its port 9000 over TLS, and"
        " it opens public ports for their services. It makes its own certificate, asks"
        " every client for a token, and prints an invitation when it first starts;"
        " 'tristunnel invite' prints more."
    )
    examples: ClassVar[Any] = (
        "",
        "--hostname tunnel.example.com",
        "--port 443 --ports 30000-31000,8080",
        "--demo",
    )
    secure = True
    meant: ClassVar[Any] = {
        **server_tap.Options.meant,
        **IN_FOREGROUND,
        **dict.fromkeys(
            ("token", "authtoken", "auth-token", "secret", "password"),
            "tokens come from tristunnel invite, or tristunnel token create",
        ),
        **dict.fromkeys(
            ("tls", "ssl"), "there is TLS unless you write --port tcp:9000"
        ),
    }

    def __init__(self) -> None:
        super().__init__()
        self.invites = self._invite
        self.docs["port"] = (
            "Where clients connect: 9000, ssl:9000, tls:DIR:port=443, unix:PATH or"
            " another Twisted server endpoint; tcp:9000 for no TLS. Can be repeated."
            " [default: $PORT, or 9000]"
        )

    @property
    def asksForTokens(self) -> bool:
        """Whether tokens are needed because nothing else says who may connect."""
        return not (self.get("credCheckers") or self["client-ca"] or self["demo"])

    @property
    def tokenFile(self) -> Path:
        """The file of the tokens that are needed then."""
        return self.stateDirectory / "tokens"

    def derived(self) -> dict[str, Setting]:
        found = super().derived()
        if self.asksForTokens:
            found["auth"] = Setting([f"tokens:{self.tokenFile}"], DEFAULT)
        return found

    def _invite(self, invitation: Invitation) -> None:
        _log.info("Nobody has a token yet; run this once on your own machine:")
        out = outputOf(sys.__stdout__)
        if out is not None:
            # Alone on its line, for pasting.
            out.write(f"tristunnel join {invitation}\n")


def makeService(options: Options) -> Service:
    """Make the server, and the file of its tokens if there is none yet."""
    if options.asksForTokens:
        path = os.path.realpath(options.tokenFile)
        with onlyWriter(path, make=True):
            if not os.path.exists(path):
                replaceFile(path, b"")
        options.opt_auth(f"tokens:{path}")
        options.authenticator = Authenticator(portalFor(options["credCheckers"]))
    return server_tap.makeService(options)
