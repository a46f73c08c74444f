"""The server's options about names for visitors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from tristunnel.acme.options import ACMEOptionsMixin
from tristunnel.config.help import OptionGroup
from tristunnel.errors import TunnelError, badOption
from tristunnel.http.forwarded import Forwarded
from tristunnel.model.names import hostWanted
from tristunnel.names.log import FORMATS
from tristunnel.names.pages import Pages, loadPages
from tristunnel.server.ports import ServerPort, TLSFiles, joined, parsePort
from tristunnel.service.host_rules import RESERVED
from tristunnel.tls.certificates import fingerprintOfFile, selfSigned
from tristunnel.tls.named import NamedCertificates
from tristunnel.util.endpoints import listenInFull
from tristunnel.util.words import checkChoice

__all__ = ["NAMES", "NAME_PORTS", "NameOptionsMixin"]

NAMES = OptionGroup(
    "Names for visitors",
    "http=ENDPOINT https=ENDPOINT minecraft=ENDPOINT postgres=ENDPOINT domain=DOMAIN"
    " reserved-name=NAME no-https-redirect error-pages=DIRECTORY access-log=FILE"
    " access-log-format=FORMAT certificates=DIRECTORY unix-directory=DIRECTORY"
    " unix-mode=MODE oidc-issuer=URL",
)
"""How help shows them."""


NAME_PORTS = ("http", "https", "minecraft", "postgres")
"""The options that say where visitors of names connect."""

_SECURE = frozenset(("https", "postgres"))


class NameOptionsMixin(ACMEOptionsMixin):
    """
    Options about names, for a class of
    L{ServerOptions<tristunnel.server.options.ServerOptions>}.
    """

    domains: list[str]
    reservedNames: frozenset[str]
    pages: Pages
    hostnames: Any
    stateDirectory: Path
    forwarded: Forwarded
    namedCertificates: NamedCertificates | None
    serverPorts: list[ServerPort]
    namePorts: list[ServerPort]

    optFlags: ClassVar[Any] = [
        (
            "no-https-redirect",
            None,
            "Serve names without TLS, too, instead of redirecting to https://.",
        )
    ]
    optParameters: ClassVar[Any] = [
        (
            "error-pages",
            None,
            "",
            "Directory with error pages for names, such as 404.html and 503.html.",
        ),
        ("access-log", None, "", "Log each request for a name to this file."),
        (
            "access-log-format",
            None,
            "combined",
            "Format of --access-log: combined or json.",
        ),
        (
            "certificates",
            None,
            "",
            "Directory of certificates for names: NAME.pem, or NAME/fullchain.pem and"
            " NAME/privkey.pem.",
        ),
    ]

    def __init__(self) -> None:
        super().__init__()
        for option in (*NAME_PORTS, "domain", "reserved-name", "oidc-issuer"):
            self[option] = []

    def __getitem__(self, name: str, /) -> Any:
        return super().__getitem__(name)  # type: ignore[misc] # usage.Options has it

    def __setitem__(self, name: str, value: Any, /) -> None:
        super().__setitem__(name, value)  # type: ignore[misc] # likewise

    def opt_http(self, description: str) -> None:
        """
        Where visitors of HTTP names connect, such as tcp:80. It may be the same as
        --https or --port. Can be repeated.
        """
        self["http"].append(description)

    def opt_https(self, description: str) -> None:
        """
        The same over TLS, and for TLS names, such as tcp:443. Can be repeated.
        """
        self["https"].append(description)

    def opt_minecraft(self, description: str) -> None:
        """
        Where players connect to Minecraft servers by name, such as tcp:25565.
        """
        self["minecraft"].append(description)

    def opt_postgres(self, description: str) -> None:
        """
        Where visitors connect to PostgreSQL servers by name, such as tcp:5432.
        """
        self["postgres"].append(description)

    def opt_domain(self, domain: str) -> None:
        """
        A domain below which tunnels get names, such as t.example.com. Can be
        repeated.
        """
        self["domain"].append(domain)

    def opt_reserved_name(self, name: str) -> None:
        """
        A name that no tunnel may have, such as www. Can be repeated.
        [default: names such as wpad and autodiscover]
        """
        self["reserved-name"].append(name)

    def opt_oidc_issuer(self, url: str) -> None:
        """
        An OpenID provider on a private network, or without TLS, that tunnels may
        send visitors to: its issuer, as tunnels name it. Can be repeated.
        """
        self["oidc-issuer"].append(url)

    def checkNames(self) -> None:
        """
        @raise TunnelError: C{bad-option}.
        """
        checkChoice("access-log-format", self["access-log-format"], FORMATS)
        self.pages = loadPages(self["error-pages"])
        self.domains = [
            _host("domain", each).removeprefix("*.") for each in self["domain"]
        ]
        self.reservedNames = RESERVED.union(
            _host("reserved-name", each) for each in self["reserved-name"]
        )
        self.checkACME()
        if self["certificates"]:
            self.namedCertificates = NamedCertificates(self["certificates"])
            self.namedCertificates.check("--certificates")
        if any(self[option] for option in NAME_PORTS):
            return
        for option in ("domain", "access-log", "error-pages", "acme", "certificates"):
            if self[option]:
                raise badOption(
                    f"--{option} is about names: give --http tcp:80, --https tcp:443 or"
                    " both"
                )

    def makeNamePorts(self, reactor: Any) -> None:
        """
        Make the ports for visitors, and have those be one that are the same.

        @param reactor: Will listen.
        @raise TunnelError: C{bad-option}.
        """
        made = [
            self._namePort(reactor, option, listenInFull(each))
            for option in NAME_PORTS
            for each in self[option]
        ]
        ports = joined(self.serverPorts, made)
        self.serverPorts = [port for port in ports if port.option == "--port"]
        self.namePorts = [port for port in ports if port.option != "--port"]

    def _namePort(self, reactor: Any, option: str, description: str) -> ServerPort:
        """Make a port for visitors, of whom nobody asks a certificate."""
        files, own = TLSFiles(), ""
        if option in _SECURE:
            shown = self["visitor-certificate"], self["visitor-key"]
            if not shown[0]:
                shown = self["certificate"], self["private-key"]
            if not shown[0]:
                wildcards = [f"*.{domain}" for domain in self.domains]
                names = [*self.hostnames, *wildcards]
                own = str(selfSigned(self.stateDirectory, names))
                shown = own, ""
            files = TLSFiles(*shown)
        asked = replace(files, clientCA=self["client-ca"], clientCRL=self["client-crl"])
        made, strict = (
            parsePort(
                reactor,
                description,
                each,
                self.stateDirectory,
                self.hostnames,
                f"--{option}",
                self.forwarded.speaksFor,
            )
            for each in (files, asked)
        )
        # Who comes for the server itself is asked for a certificate here, too.
        made = replace(made, ownCreator=strict.creator)
        if own and made.shown == own:
            # Clients, who may come here, too, can pin it.
            return replace(
                made, fingerprint=fingerprintOfFile(own), certificatePath=own
            )
        return made


def _host(option: str, text: str) -> str:
    try:
        return hostWanted(text, True)
    except TunnelError as error:
        raise badOption(f"--{option} {error.message}") from None
