"""
C{tristunnel client}, the short commands C{tristunnel http}, C{tcp} and C{udp}, which
are clients with one kind of service, and C{tristunnel check}.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from tristunnel.cli import client_tap
from tristunnel.cli.client_tap import NEEDS_NAME, makeService
from tristunnel.config.help import OptionGroup
from tristunnel.config.options import IN_FOREGROUND
from tristunnel.config.servers import defaultConfigFile
from tristunnel.errors import badOption, printable
from tristunnel.forwards.forward import Forward
from tristunnel.inspect.options import INSPECT
from tristunnel.util.words import isName

__all__ = [
    "CheckOptions",
    "HTTPOptions",
    "Options",
    "TCPOptions",
    "UDPOptions",
    "makeService",
]


class Options(client_tap.Options):
    """The options of C{tristunnel client}."""

    usesDefault = True
    meant: ClassVar[Any] = {**client_tap.Options.meant, **IN_FOREGROUND}
    synopsis = "[--server NAME] SERVICE ... [options]"
    longdesc = (
        "Share services of this machine, or of machines that it can reach, through a"
        " server. Without a service on the command line, the services to share are"
        " read from"
        f" {defaultConfigFile()}."
    )
    examples: ClassVar[Any] = (
        "3000",
        "8081=localhost:3000 ssh=localhost:22 udp/5353=localhost:53",
        "--server work --config tunnels.toml",
    )

    def configFile(self, told: Mapping[str, list[str]]) -> str:
        """
        The usual configuration file, unless the command line says everything without
        it.
        """
        path = defaultConfigFile()
        if told.keys() & client_tap.ONE_SERVER or not path.exists():
            return ""
        return str(path)


class CheckOptions(Options):
    """The options of C{tristunnel check}."""

    words = "connect"
    synopsis = "[SERVER] [--forward SERVICE ...] [options]"
    longdesc = (
        "Test the connection to a server step by step: names, the connection, TLS, the"
        " login, and the services. The server is the one that was joined, unless"
        " another is given. 'tristunnel server --check' tests a server's own machine."
    )
    examples: ClassVar[Any] = ("", "tunnel.example.com", "--forward 3000")

    def __init__(self) -> None:
        super().__init__()
        self["check"] = 1

    def check(self) -> None:
        if self["to"] and not (self["tunnel"] or self["connect"]):
            # As for the commands whose connections are tested.
            self["connect"], self["to"] = self["to"], None
        super().check()


class _Offer(Options):
    """
    The options of a short command.

    @cvar scheme: The scheme of the address that visitors open; empty to go by what the
        server says.
    @cvar isUDP: Whether it is about UDP.
    @cvar listener: The public side of a service whose own words ask for neither a port
        nor a name.
    """

    scheme: ClassVar[str] = ""
    isUDP: ClassVar[bool] = False
    listener: ClassVar[str] = ""
    toServer = "--to"
    meant: ClassVar[Any] = {
        **Options.meant,
        **dict.fromkeys(
            ("subdomain", "domain", "hostname", "custom-domain", "url"),
            "a tunnel gets its name by --name",
        ),
        **dict.fromkeys(
            ("remote-port", "public-port"),
            "the public port is written in front, for example 8080=3000",
        ),
        **dict.fromkeys(("local-port", "l"), "write the port alone: 3000"),
        **dict.fromkeys(
            ("config", "c"), "services from a file are for tristunnel client --config"
        ),
    }
    synopsis = "PORT|HOST:PORT ... [--name NAME] [--to SERVER | --server NAME]"
    optParameters: ClassVar[Any] = [
        ("name", None, "", "A name for the tunnel."),
        ("to", None, None, "The server: HOST, HOST:PORT, https://HOST."),
    ]
    groups: ClassVar[Any] = (
        OptionGroup(
            "Where to share it, and how", "to=SERVER server=NAME name=NAME private"
        ),
        *(
            group
            for group in client_tap.Options.groups[1:]
            if "tunnel=URI" not in group.options
        ),
    )

    def __init__(self) -> None:
        super().__init__()
        gone = {"managed", "tunnel", "listen", "service", "dial-allow", "config"}
        if self.isUDP:
            gone |= set(INSPECT.names)
        self.longOpt = [each for each in self.longOpt if each.rstrip("=") not in gone]
        # Positional arguments are the services, and --to is the server.
        self.docs = {
            name: text
            for name, text in self.docs.items()
            if name not in gone | {"connect", "forward"}
        }

    def configFile(self, told: Mapping[str, list[str]]) -> str:
        return ""

    def placed(self, message: str) -> str:
        # There is no --forward here.
        text = message.removeprefix("--forward ").replace("--connect ", "--to ")
        text = text.replace("two --forward", "two services")
        text = text.replace(NEEDS_NAME, "give --name NAME")
        return super().placed(text)

    def check(self) -> None:
        if not self["forward"]:
            raise badOption(
                "what do you want to share? give its port, for example 3000"
            )
        name = self["name"]
        if not name.strip() and "name" in self.told:
            raise badOption("--name is empty; write a name after it, or leave it out")
        if name and (name.isdecimal() or not isName(name)):
            raise badOption(
                f"--name {printable(name, 60)!r}: a name has at most 64 letters,"
                " digits, '-', '_' and '.', and is not a number"
            )
        if name and len(self["forward"]) > 1:
            raise badOption("--name is for one service, and there are several")
        if self["to"]:
            self["connect"], self["to"] = self["to"], None
        super().check()

    def _forward(self, reactor: Any, wanted: Any) -> Forward:
        if self.isUDP and (wanted.startswith("tcp") or wanted.endswith("/tcp")):
            raise badOption(f"{wanted!r} is a TCP service: write tristunnel tcp")
        if self.isUDP and not wanted.startswith("udp"):
            wanted = f"udp/{wanted}"
        forward = super()._forward(reactor, wanted)
        if forward.isUDP != self.isUDP:
            raise badOption(f"{wanted!r} is a UDP service: write tristunnel udp")
        scheme = forward.scheme or self.scheme
        name = self["name"] or forward.name
        asked = replace(forward, scheme=scheme).asked(forward.port, name)
        # A service with TLS of its own can be reached at a port, but not by an HTTP
        # name.
        isTLS = forward.scheme == "https"
        free = not (forward.port or forward.listener or forward.private or isTLS)
        return replace(asked, listener=self.listener) if free else asked


class HTTPOptions(_Offer):
    """The options of C{tristunnel http}."""

    scheme = "http"
    listener = "web"

    longdesc = (
        "Give a web server of this machine a public address, and print it. Uses"
        " the server that you joined, or the one in --to."
    )
    examples: ClassVar[Any] = (
        "3000",
        "./site",
        "3000 --name blog",
        "192.168.1.7:80 --to tunnel.example.com",
    )

    def _forward(self, reactor: Any, wanted: Any) -> Forward:
        if isinstance(wanted, str) and wanted and not wanted.isdecimal():
            isPath = wanted.startswith((".", "/", "~"))
            where = os.path.expanduser(wanted)
            if os.path.isfile(where):
                directory = os.path.dirname(wanted) or "."
                start = "" if directory.startswith((".", "/", "~")) else "./"
                raise badOption(
                    f"{printable(wanted, 60)!r} is a file; share its directory:"
                    f" {start}{printable(directory, 60)}"
                )
            if not isPath and os.path.isdir(where):
                told = printable(wanted, 60)
                raise badOption(f"{told!r} is a directory; write ./{told} to share it")
            if isPath:
                # Only a directory begins like this.
                quoted = re.sub(r"([\\:,])", r"\\\1", wanted)
                wanted = f"files:{quoted}"
        return super()._forward(reactor, wanted)


class TCPOptions(_Offer):
    """The options of C{tristunnel tcp}."""

    longdesc = (
        "Give a TCP service of this machine a public address, and print it. Uses"
        " the server that you joined, or the one in --to."
    )
    examples = ("22", "2222=localhost:22", "5432 --name db --to tunnel.example.com")


class UDPOptions(_Offer):
    """The options of C{tristunnel udp}."""

    isUDP = True
    longdesc = (
        "Give a UDP service of this machine a public address, and print it. Uses"
        " the server that you joined, or the one in --to."
    )
    examples = ("53", "5353=localhost:53", "51820 --to tunnel.example.com")
