"""The options about automatic certificates, and what is made from them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol
from urllib.parse import urlsplit

from tristunnel.acme.settings import (
    LETS_ENCRYPT,
    WAIT,
    AuthoritySettings,
    DomainSettings,
    ExternalAccount,
)
from tristunnel.auth.files import readSecret
from tristunnel.config.help import OptionGroup
from tristunnel.config.numbers import seconds
from tristunnel.errors import badOption
from tristunnel.tls.pem import loadAuthorities

__all__ = ["ACME", "ACMEOptions", "ACMEOptionsMixin", "automaticCertificates"]

ACME = OptionGroup(
    "Automatic certificates",
    "acme=EMAIL acme-directory=URL acme-ca=FILE acme-eab=FILE acme-dns-hook=COMMAND"
    " acme-dns-server=HOST[:PORT] acme-dns-key=FILE acme-dns-wait=SECONDS",
)
"""How help shows them."""


class ACMEOptions(Protocol):
    """
    Options that were checked.

    @ivar authority: The authority to ask; C{None} for none.
    @ivar changesDomains: How domains are proved.
    """

    authority: AuthoritySettings | None
    changesDomains: DomainSettings


class ACMEOptionsMixin:
    """
    For C{usage.Options}: which authority issues certificates.

    @ivar authority: The authority to ask; C{None} for none.
    @ivar changesDomains: How domains are proved.
    """

    authority: AuthoritySettings | None
    changesDomains: DomainSettings

    optParameters: ClassVar[Any] = [
        (
            "acme",
            None,
            "",
            "Get certificates for tunnels' names by ACME, for this e-mail address. It"
            " means that you agree to the authority's terms.",
        ),
        ("acme-directory", None, LETS_ENCRYPT, "URL of the authority's directory."),
        ("acme-ca", None, "", "PEM file to verify the authority's own server with."),
        (
            "acme-eab",
            None,
            "",
            "File with the identifier and the key of your account with the authority,"
            " for external account binding.",
        ),
        (
            "acme-dns-hook",
            None,
            "",
            "Prove domains by DNS: run this command with add or remove, a name and a"
            " value.",
        ),
        (
            "acme-dns-server",
            None,
            "",
            "Prove domains by DNS: update this name server (RFC 2136).",
        ),
        (
            "acme-dns-key",
            None,
            "",
            "File with the key for that, as tsig-keygen writes it.",
        ),
        seconds(
            "acme-dns-wait", WAIT, "Seconds until a DNS change is seen everywhere."
        ),
    ]

    def checkACME(self: Any) -> None:
        """
        Read the options.

        @raise TunnelError: C{bad-option}.
        """
        given = [name for name in _DEPENDENT if self[name]]
        self.authority = None
        self.changesDomains = DomainSettings(
            self["acme-dns-hook"],
            self["acme-dns-server"],
            self["acme-dns-key"],
            self["acme-dns-wait"],
        )
        if not self["acme"]:
            if given or self["acme-directory"] != LETS_ENCRYPT:
                raise badOption(f"--{(*given, 'acme-directory')[0]} goes with --acme")
            return
        if "@" not in self["acme"] or not self["acme"].isprintable():
            raise badOption(
                f"--acme {self['acme']!r} is not an e-mail address; write --acme"
                " you@example.com"
            )
        url = urlsplit(self["acme-directory"])
        if url.scheme != "https" or not url.hostname:
            raise badOption("--acme-directory takes https://HOST/PATH")
        if self["acme-ca"]:
            loadAuthorities(self["acme-ca"])
        if self["acme-dns-hook"] and self["acme-dns-server"]:
            raise badOption("--acme-dns-hook and --acme-dns-server do the same")
        if bool(self["acme-dns-server"]) != bool(self["acme-dns-key"]):
            raise badOption("--acme-dns-server goes with --acme-dns-key")
        self.authority = AuthoritySettings(
            self["acme"],
            self["acme-directory"],
            self["acme-ca"],
            _external(self["acme-eab"]) if self["acme-eab"] else None,
        )
        _records(self.changesDomains)


_DEPENDENT = (
    *("acme-ca", "acme-eab", "acme-dns-hook", "acme-dns-server", "acme-dns-key"),
)


def _external(path: str) -> ExternalAccount:
    """
    Read the key of a customer's account at an authority.

    @raise TunnelError: C{bad-option}.
    """
    data = readSecret(f"--acme-eab {path}", path)
    words = data.decode("utf-8", "replace").split()
    if len(words) != 2 or not words[0].isascii() or not _KEY.fullmatch(words[1]):
        raise badOption(
            f"--acme-eab {path} takes two lines: the key's identifier, and the key in"
            " base64url, as the authority shows them"
        )
    return ExternalAccount(words[0], words[1].rstrip("="))


_KEY = re.compile(r"[A-Za-z0-9_-]{16,1000}=*")


def _records(settings: DomainSettings) -> Any:
    if not (settings.command or settings.server):
        return None
    # The library is loaded only if it is used.
    from tristunnel.acme.dns import CommandRecords, UpdatedRecords

    if settings.command:
        return CommandRecords(settings.command)
    return UpdatedRecords(settings.server, settings.key)


def automaticCertificates(
    reactor: Any,
    options: ACMEOptions,
    stateDirectory: Path,
    ways: Sequence[str],
    domains: Sequence[str],
    hasOwn: Callable[[str], bool],
) -> Any:
    """
    Make the service that gets certificates.

    @param options: Options that were checked.
    @param stateDirectory: Where they are kept.
    @param ways: How the authority can reach this server, as for L{Orders
        <tristunnel.acme.order.Orders>}.
    @param domains: Those that C{--acme-dns-hook} and the like are for.
    @param hasOwn: Whether the operator has a certificate for a name.
    @return: An L{AutomaticCertificates
        <tristunnel.acme.renewal.AutomaticCertificates>}, and the L{Answers
        <tristunnel.acme.challenges.Answers>} that go with it; C{None} twice if no
        authority is to be asked.
    """
    if options.authority is None:
        return None, None
    # It takes a tenth of a second and many megabytes: only for those who use it.
    from tristunnel.acme.account import Account
    from tristunnel.acme.challenges import Answers
    from tristunnel.acme.order import Orders
    from tristunnel.acme.renewal import AutomaticCertificates
    from tristunnel.acme.store import Store

    account = Account(options.authority, stateDirectory)
    answers = Answers(stateDirectory / "challenges")
    answers.clean()
    changes = options.changesDomains
    orders = Orders(
        reactor, account, answers, _records(changes), changes.wait, ways, domains
    )
    store = Store(stateDirectory)
    return AutomaticCertificates(reactor, orders, store, account, hasOwn), answers
