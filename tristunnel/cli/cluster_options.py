"""Options of a server that is one of several machines."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar

from twisted.internet.endpoints import clientFromString

from tristunnel.auth.files import readSecret
from tristunnel.cluster.address import parseEngine
from tristunnel.cluster.redis_book import Times
from tristunnel.cluster.service import ClusterSettings
from tristunnel.config.help import OptionGroup
from tristunnel.config.numbers import readOption, seconds
from tristunnel.errors import badOption
from tristunnel.util.endpoints import serverEndpoint
from tristunnel.util.hosts import parsePlace
from tristunnel.util.words import checkChoice

__all__ = ["CLUSTER", "CLUSTER_OPTIONS", "ClusterOptionsMixin"]

CLUSTER = OptionGroup(
    "Several machines",
    "cluster=URL cluster-listen=ENDPOINT cluster-advertise=ENDPOINT"
    " advertise=HOST:PORT cluster-token-file=FILE cluster-ports=PORTS"
    " member-ttl=SECONDS hold=SECONDS",
)
"""How help shows them."""

CLUSTER_OPTIONS = (
    "cluster",
    "cluster-listen",
    "cluster-advertise",
    "advertise",
    "cluster-token-file",
    "cluster-ports",
    "member-ttl",
    "hold",
)

_SHORTEST_SECRET = 16

_PORT = re.compile(r"(?<=:)(?:port=)?(\d{1,5})(?=:|\Z)")


class ClusterOptionsMixin:
    """
    Options about the other machines, for a class of
    L{ServerOptions<tristunnel.server.options.ServerOptions>}.

    @ivar cluster: What they say; C{None} for a server outside any cluster.
    """

    cluster: ClusterSettings | None

    optParameters: ClassVar[Any] = [
        ("cluster", None, "", "URL of the Redis or Valkey that several servers share."),
        ("cluster-listen", None, "", "Where the other servers connect to this one."),
        ("cluster-advertise", None, "", "How they reach it: a client endpoint."),
        ("advertise", None, "", "How clients reach this particular server: HOST:PORT."),
        ("cluster-token-file", None, "", "File with a secret that all servers share."),
        (
            "cluster-ports",
            None,
            "all",
            "Whose visitors may connect here: all tunnels', or this server's own.",
        ),
        seconds(
            "member-ttl",
            6.0,
            "Seconds of silence after which a server counts as dead.",
            2.0,
        ),
        seconds(
            "hold", 8.0, "Seconds that visitors wait for a tunnel that is moving.", 0.0
        ),
    ]

    def __getitem__(self, name: str, /) -> Any:
        return super().__getitem__(name)  # type: ignore[misc] # usage.Options has it

    def checkCluster(
        self, reactor: Any, told: Mapping[str, object], index: int = 0
    ) -> None:
        """
        @param told: What was given, by option.
        @param index: Which of several processes this is: each has a port of its own
            for the other members, after that of the first one.
        @raise TunnelError: C{bad-option}, also for options that do not work on several
            machines.
        """
        checkChoice("cluster-ports", self["cluster-ports"], ("all", "own"))
        if not self["cluster"]:
            for option in CLUSTER_OPTIONS[1:]:
                if option in told:
                    raise badOption(f"--{option} goes with --cluster")
            return
        for option, instead in (
            ("demo", ""),
            ("acme", ", and give each machine the same --certificates DIRECTORY"),
        ):
            if self[option]:
                raise badOption(
                    f"--{option} works on one machine: leave it or --cluster out"
                    f"{instead}"
                )
        listen, advertise = self["cluster-listen"], self["cluster-advertise"]
        if not listen:
            raise badOption(
                "--cluster needs --cluster-listen, such as tcp:10.0.0.1:9001"
            )
        listen, found = _listening(listen)
        advertise = advertise or found
        if not advertise:
            raise badOption(
                f"--cluster-listen {listen} does not say at which address the other"
                " servers reach it: add --cluster-advertise tcp:ADDRESS:PORT"
            )
        if self["processes"] != 1:
            listen, advertise = (_shifted(each, index) for each in (listen, advertise))
        if self["advertise"]:
            readOption("advertise", parsePlace, self["advertise"])
        try:
            endpoint = serverEndpoint(reactor, listen)
        except Exception as error:
            raise badOption(f"--cluster-listen {listen}: {error}") from None
        try:
            clientFromString(reactor, advertise)
        except Exception as error:
            raise badOption(f"--cluster-advertise {advertise}: {error}") from None
        ttl = self["member-ttl"]
        self.cluster = ClusterSettings(
            readOption("cluster", parseEngine, self["cluster"]),
            endpoint,
            listen,
            advertise,
            _secretIn(self["cluster-token-file"]),
            Times(beat=ttl / 4, memberTTL=ttl, lease=self["lease"]),
            self["hold"],
            self["cluster-ports"] == "all",
        )


def _shifted(text: str, by: int) -> str:
    """
    @raise TunnelError: C{bad-option}, for an endpoint that has no number for a port.
    """
    found = _PORT.search(text)
    if found is None:
        raise badOption(
            f"--cluster-listen {text} is one place, and each of --processes needs one"
            " of its own: write tcp:ADDRESS:PORT, which is that of the first of them"
        )
    number = str(int(found[1]) + by)
    return text[: found.start(1)] + number + text[found.end(1) :]


def _listening(text: str) -> tuple[str, str]:
    """
    Read where to listen.

    @return: The string of a Twisted endpoint, and of the endpoint that connects to it;
        empty if the one cannot be derived from the other.
    """
    kind, _, rest = text.partition(":")
    host, _, port = rest.rpartition(":")
    if kind == "tcp" and host and port.isdecimal() and "=" not in host:
        return f"tcp:{port}:interface={host}", f"tcp:{host}:{port}"
    return text, ""


def _secretIn(path: str) -> bytes:
    if not path:
        raise badOption(
            "--cluster needs --cluster-token-file, a file with any secret of at least"
            f" {_SHORTEST_SECRET} characters, the same on all servers"
        )
    secret = readSecret(f"--cluster-token-file {path}", path).strip()
    if not _SHORTEST_SECRET <= len(secret) <= 4096:
        raise badOption(
            f"--cluster-token-file {path} has to hold a secret of {_SHORTEST_SECRET} to"
            " 4096 characters"
        )
    return secret
