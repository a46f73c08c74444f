"""
Who is compared: tristunnel in its modes, others, and the limits.

Each contestant is a function that starts a server and a client in a room, so
that visitors of a port reach a service on the loopback interface.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.processes import Failed, Room, freePort, which

__all__ = ["CONTESTANTS", "Contestant", "Started"]

Route = Callable[[int], int]
"""Gives the port to connect to instead of the server's: the way may be long."""

_ROOT = Path(__file__).parent.parent
_HERE = "127.0.0.1"


def direct(port: int) -> int:
    """
    The short way.
    """
    return port


@dataclass
class Started:
    """
    A tunnel that runs.

    @ivar port: Where visitors connect.
    @ivar servers: Process ids at the public side.
    @ivar clients: Process ids beside the service.
    @ivar restart: Starts the server again after it was stopped.
    """

    port: int
    servers: list[int] = field(default_factory=list)
    clients: list[int] = field(default_factory=list)
    restart: Callable[[], int] | None = None


@dataclass(frozen=True)
class Contestant:
    """
    One that takes part.

    @ivar name: In the table.
    @ivar start: Called with a room, the service's port, and a route.
    @ivar missing: Why it cannot take part, or empty.
    @ivar encrypts: Whether bytes travel encrypted.
    @ivar multiplexes: Whether visitors share a connection.
    """

    name: str
    start: Callable[[Room, int, Route], Started]
    missing: Callable[[], str] = lambda: ""
    encrypts: bool = False
    multiplexes: bool = False


def _needs(variable: str, *names: str) -> Callable[[], str]:
    """
    Make the check for a program.
    """
    return lambda: (
        "" if which(variable, *names) else f"no {names[0]} on PATH; set {variable}"
    )


def _program(variable: str, *names: str) -> str:
    """
    Find a program that is known to be there.
    """
    found = which(variable, *names)
    if found is None:
        raise Failed(f"no {names[0]}")
    return found


# The limits


def _nothing(room: Room, service: int, route: Route) -> Started:
    """
    No tunnel: the visitor is at the service.
    """
    return Started(service)


def _haproxy(room: Room, service: int, route: Route) -> Started:
    """
    Two HAProxy processes in a row, with splicing: what two hops can do.
    """
    public, between = freePort(), freePort()
    for name, port, to in (
        ("server", public, route(between)),
        ("client", between, service),
    ):
        room.write(
            f"{name}.cfg",
            "global\n maxconn 4000\n nbthread 1\n"
            "defaults\n mode tcp\n timeout connect 5s\n timeout client 1h\n"
            " timeout server 1h\n option splice-auto\n"
            f"listen all\n bind {_HERE}:{port}\n server next {_HERE}:{to}\n",
        )
    haproxy = _program("BENCH_HAPROXY", "haproxy")
    client = room.start("client", [haproxy, "-db", "-f", "client.cfg"])
    server = room.start("server", [haproxy, "-db", "-f", "server.cfg"])
    room.waitForPort(public)
    return Started(public, [server], [client])


# Tristunnel


def _tristunnel(
    port: str, connect: str, clientOptions: tuple[str, ...] = ()
) -> Callable[[Room, int, Route], Started]:
    """
    Make the starter of one mode.

    @param port: The server's C{--port}, with a place for the number.
    @param connect: The client's C{--connect}.
    """

    def start(room: Room, service: int, route: Route) -> Started:
        control, public = freePort(), freePort()
        twistd = [str(Path(sys.executable).parent / "twistd"), "-n", "--pidfile="]
        env = ["env", f"PYTHONPATH={_ROOT}"]

        def server() -> int:
            return room.start(
                "server",
                [
                    *env,
                    *twistd,
                    "tunnel",
                    "--port",
                    port.format(control),
                    "--interface",
                    _HERE,
                    "--state-dir",
                    str(room.directory / "server-state"),
                ],
            )

        serverPid = server()
        room.waitForPort(control)
        clientPid = room.start(
            "client",
            [
                *env,
                *twistd,
                "tunnel-client",
                "--connect",
                connect.format(route(control)),
                "--forward",
                f"{public}={_HERE}:{service}",
                "--state-dir",
                str(room.directory / "client-state"),
                *clientOptions,
            ],
        )
        room.waitForPort(public)
        return Started(public, [serverPid], [clientPid], server)

    return start


# Others


def _w3p(room: Room, service: int, route: Route) -> Started:
    """
    The W3P tunnel's own programs, through the drivers of our tests.
    """
    node, checkout = os.environ["TRISTUNNEL_NODE"], os.environ["TRISTUNNEL_W3P"]
    drivers = _ROOT / "tests" / "interop"
    server = room.start(
        "server", [node, str(drivers / "w3p_server.mjs"), checkout, "{}"]
    )
    line = room.waitForText("server", '"main-server-start"')
    settings = {"host": _HERE, "port": route(json.loads(line)["port"])}
    client = room.start(
        "client",
        [
            node,
            str(drivers / "w3p_client.mjs"),
            checkout,
            json.dumps({**settings, "service": service, "credentials": {"id": "b"}}),
        ],
    )
    line = room.waitForText("client", '"authentication-acknowledged"')
    return Started(json.loads(line)["port"], [server], [client])


def _missingW3P() -> str:
    """
    Say what W3P needs.
    """
    if os.environ.get("TRISTUNNEL_W3P") and os.environ.get("TRISTUNNEL_NODE"):
        return ""
    return "set TRISTUNNEL_W3P to a checkout and TRISTUNNEL_NODE to a node >= 23"


def _vtunnel(room: Room, service: int, route: Route) -> Started:
    """
    Programs around the vtunnel library.
    """
    control, public = freePort(), freePort()
    server = room.start(
        "server", [os.environ["BENCH_VTUNNEL_SERVER"], "-listen", f"{_HERE}:{control}"]
    )
    room.waitForPort(control)
    client = room.start(
        "client",
        [
            os.environ["BENCH_VTUNNEL_CLIENT"],
            "-server",
            f"ws://{_HERE}:{route(control)}/",
            "-forward",
            f"{public}={_HERE}:{service}",
        ],
    )
    room.waitForPort(public)
    return Started(public, [server], [client])


def _missingVtunnel() -> str:
    """
    Say what vtunnel needs.
    """
    if {"BENCH_VTUNNEL_SERVER", "BENCH_VTUNNEL_CLIENT"} <= set(os.environ):
        return ""
    return "set BENCH_VTUNNEL_SERVER and BENCH_VTUNNEL_CLIENT to its programs"


def _ssh(room: Room, service: int, route: Route) -> Started:
    """
    OpenSSH's remote forwarding, with keys made for the occasion.
    """
    control, public = freePort(), freePort()
    for name in ("host", "user"):
        key = room.directory / f"{name}_key"
        if not key.exists():
            subprocess.run(
                ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)],
                check=True,
            )
    os.makedirs("/run/sshd", mode=0o755, exist_ok=True)
    room.write("authorized", (room.directory / "user_key.pub").read_text())
    room.write(
        "sshd_config",
        f"ListenAddress {_HERE}\nPort {control}\nUsePAM no\nStrictModes no\n"
        f"HostKey {room.directory}/host_key\nPidFile none\n"
        f"AuthorizedKeysFile {room.directory}/authorized\nMaxStartups 100\n"
        "PasswordAuthentication no\nPermitRootLogin yes\n",
    )
    sshd = _program("BENCH_SSHD", "sshd")
    server = room.start(
        "server", [sshd, "-D", "-e", "-f", str(room.directory / "sshd_config")]
    )
    room.waitForPort(control)
    client = room.start(
        "client",
        [
            *("ssh", "-N", "-F", "none", "-p", str(route(control))),
            *("-i", str(room.directory / "user_key")),
            *("-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"),
            *("-o", "BatchMode=yes", "-o", "ExitOnForwardFailure=yes"),
            *("-R", f"{_HERE}:{public}:{_HERE}:{service}", _HERE),
        ],
    )
    room.waitForPort(public)
    return Started(public, [server], [client])


def _bore(room: Room, service: int, route: Route) -> Started:
    """
    Bore; its control port cannot be chosen.
    """
    bore, public = _program("BENCH_BORE", "bore"), freePort()
    server = room.start(
        "server",
        [bore, "server", "--bind-addr", _HERE, "--min-port", "1024"],
    )
    room.waitForPort(7835)
    if route(7835) != 7835:
        raise Failed("its control port cannot be chosen")
    client = room.start(
        "client",
        [bore, "local", str(service), "--to", _HERE, "--port", str(public)],
    )
    room.waitForPort(public)
    return Started(public, [server], [client])


def _rathole(room: Room, service: int, route: Route) -> Started:
    """
    Rathole over TCP.
    """
    rathole, control, public = _program("BENCH_RATHOLE", "rathole"), *_two()
    room.write(
        "server.toml",
        f'[server]\nbind_addr = "{_HERE}:{control}"\ndefault_token = "b"\n'
        f'[server.services.s]\nbind_addr = "{_HERE}:{public}"\n',
    )
    room.write(
        "client.toml",
        f'[client]\nremote_addr = "{_HERE}:{route(control)}"\ndefault_token = "b"\n'
        f'[client.services.s]\nlocal_addr = "{_HERE}:{service}"\n',
    )
    server = room.start("server", [rathole, "--server", "server.toml"])
    room.waitForPort(control)
    client = room.start("client", [rathole, "--client", "client.toml"])
    room.waitForPort(public)
    return Started(public, [server], [client])


def _frp(room: Room, service: int, route: Route) -> Started:
    """
    Frp over TCP, multiplexed, as it is by default.
    """
    control, public = _two()
    room.write("frps.toml", f'bindAddr = "{_HERE}"\nbindPort = {control}\n')
    room.write(
        "frpc.toml",
        f'serverAddr = "{_HERE}"\nserverPort = {route(control)}\n'
        f'[[proxies]]\nname = "s"\ntype = "tcp"\nlocalIP = "{_HERE}"\n'
        f"localPort = {service}\nremotePort = {public}\n",
    )
    server = room.start("server", [_program("BENCH_FRPS", "frps"), "-c", "frps.toml"])
    room.waitForPort(control)
    client = room.start("client", [_program("BENCH_FRPC", "frpc"), "-c", "frpc.toml"])
    room.waitForPort(public)
    return Started(public, [server], [client])


def _chisel(room: Room, service: int, route: Route) -> Started:
    """
    Chisel: SSH within a WebSocket.
    """
    chisel, control, public = _program("BENCH_CHISEL", "chisel"), *_two()
    server = room.start(
        "server",
        [chisel, "server", "--host", _HERE, "--port", str(control), "--reverse"],
    )
    room.waitForPort(control)
    client = room.start(
        "client",
        [
            *(chisel, "client", f"http://{_HERE}:{route(control)}"),
            f"R:{_HERE}:{public}:{_HERE}:{service}",
        ],
    )
    room.waitForPort(public)
    return Started(public, [server], [client])


def _wstunnel(room: Room, service: int, route: Route) -> Started:
    """
    Wstunnel over a plain WebSocket.
    """
    wstunnel, control, public = _program("BENCH_WSTUNNEL", "wstunnel"), *_two()
    server = room.start("server", [wstunnel, "server", f"ws://{_HERE}:{control}"])
    room.waitForPort(control)
    client = room.start(
        "client",
        [
            *(wstunnel, "client", "-R", f"tcp://{_HERE}:{public}:{_HERE}:{service}"),
            f"ws://{_HERE}:{route(control)}",
        ],
    )
    room.waitForPort(public)
    return Started(public, [server], [client])


def _two() -> tuple[int, int]:
    """
    Two free ports.
    """
    return freePort(), freePort()


_TCP = ("tcp:{}:interface=127.0.0.1", "tcp:127.0.0.1:{}")
_TLS = ("ssl:{}:interface=127.0.0.1", "tls:127.0.0.1:{}")

CONTESTANTS = [
    Contestant("direct path", _nothing),
    Contestant("haproxy x2", _haproxy, _needs("BENCH_HAPROXY", "haproxy")),
    Contestant("tristunnel tcp", _tristunnel(*_TCP)),
    Contestant("tristunnel direct", _tristunnel(*_TCP, ("--carrier", "direct"))),
    Contestant(
        "tristunnel session",
        _tristunnel(*_TCP, ("--carrier", "session")),
        multiplexes=True,
    ),
    Contestant(
        "tristunnel tls",
        _tristunnel(*_TLS, ("--insecure",)),
        encrypts=True,
        multiplexes=True,
    ),
    Contestant(
        "tristunnel wss",
        _tristunnel(_TLS[0], "wss://127.0.0.1:{}/tunnel", ("--insecure",)),
        encrypts=True,
        multiplexes=True,
    ),
    Contestant("w3p", _w3p, _missingW3P, multiplexes=True),
    Contestant("vtunnel", _vtunnel, _missingVtunnel, multiplexes=True),
    Contestant(
        "ssh -R", _ssh, _needs("BENCH_SSHD", "sshd"), encrypts=True, multiplexes=True
    ),
    Contestant("bore", _bore, _needs("BENCH_BORE", "bore")),
    Contestant("rathole", _rathole, _needs("BENCH_RATHOLE", "rathole")),
    Contestant("frp", _frp, _needs("BENCH_FRPS", "frps"), multiplexes=True),
    Contestant(
        "chisel",
        _chisel,
        _needs("BENCH_CHISEL", "chisel"),
        encrypts=True,
        multiplexes=True,
    ),
    Contestant("wstunnel", _wstunnel, _needs("BENCH_WSTUNNEL", "wstunnel")),
]
"""Everybody, in the table's order."""
