"""
Who is compared: tristunnel in its modes, others, and the limits.

Each contestant is a function that says how a server and a client are started in
a room, so that visitors of a port reach a service on the loopback interface.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from benchmarks.contestant import (
    HAPROXY,
    HERE,
    Contestant,
    Plan,
    Route,
    certificateOf,
    needs,
    programOf,
)
from benchmarks.processes import Room, freePort

__all__ = ["CONTESTANTS"]


_ROOT = Path(__file__).parent.parent
_BORE = 7835


# The limits


def _nothing(room: Room, service: int, route: Route) -> Plan:
    """No tunnel: the visitor is at the service."""
    return Plan((), 0, (), service, host=route.client)


def _haproxy(room: Room, service: int, route: Route) -> Plan:
    """Two HAProxy processes in a row, with splicing: what two hops can do."""
    public, between = freePort(), freePort()
    for name, waits, to in (
        ("server", f"{HERE}:{public}", f"{route.client}:{between}"),
        ("client", f"{route.client}:{between}", f"{HERE}:{service}"),
    ):
        room.write(
            f"{name}.cfg",
            "global\n maxconn 6000\n nbthread 1\n"
            "defaults\n mode tcp\n timeout connect 5s\n timeout client 1h\n"
            " timeout server 1h\n option splice-auto\n"
            f"listen all\n bind {waits}\n server next {to}\n",
        )
    haproxy = programOf("BENCH_HAPROXY", "haproxy")

    def whenReady(room: Room) -> int:
        # The first one listens whether the second one is there or not, and
        # tries again after a second.
        room.waitForPort(between, host=route.client)
        return public

    return Plan(
        [haproxy, "-db", "-f", "server.cfg"],
        0,
        [haproxy, "-db", "-f", "client.cfg"],
        whenReady,
    )


# Tristunnel


def _tristunnel(
    port: str, connect: str, clientOptions: tuple[str, ...] = ()
) -> Callable[[Room, int, Route], Plan]:
    """
    Make the plan of one mode.

    @param port: The server's C{--port}, with places for number and address.
    @param connect: The client's C{--connect}, with a place for both.
    """

    def plan(room: Room, service: int, route: Route) -> Plan:
        control, public = freePort(), freePort()
        here = ["env", f"PYTHONPATH={_ROOT}"]
        twistd = [*here, _TWISTD, "-n", "--pidfile="]
        way = connect.format(f"{route.server}:{control}")
        return Plan(
            [
                *(*twistd, "tunnel", "--port", port.format(control, route.server)),
                *("--interface", HERE),
                *("--state-dir", str(room.directory / "server-state")),
            ],
            control,
            [
                *(*twistd, "tunnel-client", "--connect", way),
                *("--forward", f"{public}={HERE}:{service}"),
                *("--state-dir", str(room.directory / "client-state")),
                *clientOptions,
            ],
            public,
            lambda count: [
                *(*here, sys.executable, "-m", "benchmarks.crowd"),
                *(way, str(service), str(count), *clientOptions),
            ],
            together=True,
        )

    return plan


# Others


def _w3p(
    settings: Callable[[Room], tuple[dict[str, str], dict[str, str]]],
) -> Callable[[Room, int, Route], Plan]:
    """
    Make the plan of the W3P tunnel's own programs, run by our tests' drivers.

    @param settings: Makes those of server and client that concern TLS.
    """

    def plan(room: Room, service: int, route: Route) -> Plan:
        node, checkout = os.environ["TRISTUNNEL_NODE"], os.environ["TRISTUNNEL_W3P"]
        drivers = _ROOT / "tests" / "interop"
        control = freePort()
        ofServer, ofClient = settings(room)
        toServer = {
            "host": route.server,
            "port": control,
            "service": service,
            "credentials": {"id": "b"},
            **ofClient,
        }
        return Plan(
            [
                *(node, str(drivers / "w3p_server.mjs"), checkout),
                json.dumps({"port": control, **ofServer}),
            ],
            control,
            [node, str(drivers / "w3p_client.mjs"), checkout, json.dumps(toServer)],
            _w3pPort,
            lambda count: [
                *(node, str(_ROOT / "benchmarks" / "w3p_crowd.mjs"), checkout),
                *(json.dumps(toServer), str(count)),
            ],
            together=True,
        )

    return plan


def _w3pPort(room: Room) -> int:
    """W3P's server chooses the port; its client says which."""
    line = room.waitForText("client", '"authentication-acknowledged"')
    port: int = json.loads(line)["port"]
    return port


def _w3pTLS(room: Room) -> tuple[dict[str, str], dict[str, str]]:
    """The settings for TLS between server and client."""
    certificate, key = certificateOf(room)
    return {"cert": certificate, "key": key}, {"ca": certificate}


def _missingW3P() -> str:
    """Say what W3P needs."""
    if os.environ.get("TRISTUNNEL_W3P") and os.environ.get("TRISTUNNEL_NODE"):
        return ""
    return "set TRISTUNNEL_W3P to a checkout and TRISTUNNEL_NODE to a node >= 23"


def _vtunnel(room: Room, service: int, route: Route) -> Plan:
    """Programs around the vtunnel library."""
    control, public = freePort(), freePort()

    def client(port: int) -> list[str]:
        return [
            *(os.environ["BENCH_VTUNNEL_CLIENT"], "-server"),
            *(f"ws://{route.server}:{control}/", "-forward"),
            f"{port}={HERE}:{service}",
        ]

    return Plan(
        [os.environ["BENCH_VTUNNEL_SERVER"], "-listen", f"{route.server}:{control}"],
        control,
        client(public),
        public,
        lambda count: client(freePort()),
    )


def _vtunnelSSH(room: Room, service: int, route: Route) -> Plan:
    """vtunnel's own program, from version 0.1.0 on."""
    vtunnel, control, public = programOf("BENCH_VTUNNEL", "vtunnel"), *_two()
    forward = f"{public}={HERE}:{service}"
    url = f"ws://{route.server}:{control}/"
    return Plan(
        [vtunnel, "server", "-port", str(control)],
        control,
        [vtunnel, "client", "-server", url, "-forward", forward],
        public,
    )


def _missingVtunnel() -> str:
    """Say what vtunnel needs."""
    if {"BENCH_VTUNNEL_SERVER", "BENCH_VTUNNEL_CLIENT"} <= set(os.environ):
        return ""
    return "set BENCH_VTUNNEL_SERVER and BENCH_VTUNNEL_CLIENT to its programs"


def _ssh(room: Room, service: int, route: Route) -> Plan:
    """OpenSSH's remote forwarding, with keys made for the occasion."""
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
        f"ListenAddress {route.server}\nPort {control}\nUsePAM no\nStrictModes no\n"
        f"HostKey {room.directory}/host_key\nPidFile none\n"
        f"AuthorizedKeysFile {room.directory}/authorized\nMaxStartups 1000\n"
        "PasswordAuthentication no\nPermitRootLogin yes\n",
    )

    def client(port: int) -> list[str]:
        return [
            *("ssh", "-N", "-F", "none", "-p", str(control)),
            *("-i", str(room.directory / "user_key")),
            *("-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"),
            *("-o", "BatchMode=yes", "-o", "ExitOnForwardFailure=yes"),
            *("-R", f"{HERE}:{port}:{HERE}:{service}", route.server),
        ]

    return Plan(
        [
            *(programOf("BENCH_SSHD", "sshd"), "-D", "-e"),
            *("-f", str(room.directory / "sshd_config")),
        ],
        control,
        client(public),
        public,
        lambda count: client(0),
    )


def _bore(room: Room, service: int, route: Route) -> Plan:
    """Bore; its control port cannot be chosen."""
    bore, public = programOf("BENCH_BORE", "bore"), freePort()
    local = [bore, "local", str(service), "--to", route.server, "--local-host", HERE]
    return Plan(
        [
            *(bore, "server", "--min-port", "1024"),
            *("--bind-addr", route.server, "--bind-tunnels", HERE),
        ],
        _BORE,
        [*local, "--port", str(public)],
        public,
        lambda count: local,
    )


def _rathole(
    transport: Callable[[Room], tuple[str, str]],
) -> Callable[[Room, int, Route], Plan]:
    """
    Make a plan for rathole.

    @param transport: Writes the parts of both configurations that concern
        encryption.
    """

    def plan(room: Room, service: int, route: Route) -> Plan:
        control, public = _two()
        ofServer, ofClient = transport(room)
        room.write(
            "server.toml",
            f'[server]\nbind_addr = "{route.server}:{control}"\ndefault_token = "b"\n'
            f'{ofServer}[server.services.s]\nbind_addr = "{HERE}:{public}"\n',
        )
        room.write(
            "client.toml",
            f'[client]\nremote_addr = "{route.server}:{control}"\n'
            f'default_token = "b"\n{ofClient}'
            f'[client.services.s]\nlocal_addr = "{HERE}:{service}"\n',
        )
        rathole = programOf("BENCH_RATHOLE", "rathole")
        return Plan(
            [rathole, "--server", "server.toml"],
            control,
            [rathole, "--client", "client.toml"],
            public,
        )

    return plan


def _ratholeTLS(room: Room) -> tuple[str, str]:
    """The transport tables for TLS."""
    certificate, key = certificateOf(room)
    identity = str(room.directory / "identity.pfx")
    subprocess.run(
        [
            *("openssl", "pkcs12", "-export", "-passout", "pass:b"),
            *("-in", certificate, "-inkey", key, "-out", identity),
        ],
        check=True,
        capture_output=True,
    )
    return (
        '[server.transport]\ntype = "tls"\n[server.transport.tls]\n'
        f'pkcs12 = "{identity}"\npkcs12_password = "b"\n',
        '[client.transport]\ntype = "tls"\n[client.transport.tls]\n'
        f'trusted_root = "{certificate}"\nhostname = "localhost"\n',
    )


def _frp(tls: bool) -> Callable[[Room, int, Route], Plan]:
    """
    Make a plan for frp, multiplexed.

    @param tls: Whether it encrypts, as it does by default.
    """
    return lambda room, service, route: _frpPlan(tls, room, service, route)


def _frpPlan(tls: bool, room: Room, service: int, route: Route) -> Plan:
    """One of them."""
    control, public = _two()
    frpc = programOf("BENCH_FRPC", "frpc")

    def client(name: str, port: int) -> list[str]:
        room.write(
            f"{name}.toml",
            f'serverAddr = "{route.server}"\nserverPort = {control}\n'
            f"transport.tls.enable = {str(tls).lower()}\n"
            f'[[proxies]]\nname = "{name}"\ntype = "tcp"\nlocalIP = "{HERE}"\n'
            f"localPort = {service}\nremotePort = {port}\n",
        )
        return [frpc, "-c", f"{name}.toml"]

    def another(count: int) -> list[str]:
        port = freePort()
        return client(f"client{port}", port)

    room.write(
        "frps.toml",
        f'bindAddr = "{route.server}"\nproxyBindAddr = "{HERE}"\n'
        f"bindPort = {control}\n",
    )
    return Plan(
        [programOf("BENCH_FRPS", "frps"), "-c", "frps.toml"],
        control,
        client("client", public),
        public,
        another,
    )


def _chisel(room: Room, service: int, route: Route) -> Plan:
    """Chisel: SSH within a WebSocket."""
    chisel, control, public = programOf("BENCH_CHISEL", "chisel"), *_two()

    def client(port: int) -> list[str]:
        return [
            *(chisel, "client", f"http://{route.server}:{control}"),
            f"R:{HERE}:{port}:{HERE}:{service}",
        ]

    return Plan(
        [chisel, "server", "--host", route.server, "--port", str(control), "--reverse"],
        control,
        client(public),
        public,
        lambda count: client(freePort()),
    )


def _wstunnel(scheme: str) -> Callable[[Room, int, Route], Plan]:
    """
    Make a plan for wstunnel.

    @param scheme: C{ws} or C{wss}, with the certificate that it brings.
    """

    def plan(room: Room, service: int, route: Route) -> Plan:
        wstunnel, control, public = programOf("BENCH_WSTUNNEL", "wstunnel"), *_two()
        url = f"{scheme}://{route.server}:{control}"

        def client(port: int) -> list[str]:
            forward = f"tcp://{HERE}:{port}:{HERE}:{service}"
            return [wstunnel, "client", "-R", forward, url]

        return Plan(
            [wstunnel, "server", url],
            control,
            client(public),
            public,
            lambda count: client(freePort()),
        )

    return plan


def _visiting(
    plan: Callable[[Room, int, Route], Plan],
) -> Callable[[Room, int, Route], Plan]:
    """
    Make the plan of another program's client at our server.

    @param plan: That of both ends of the other program.
    """

    def here(room: Room, service: int, route: Route) -> Plan:
        made = plan(room, service, route)
        ports = [f"tcp:{made.control}:interface={route.server}"]
        if made.control == _BORE:
            # Its port is for nobody else, and there must be one for others.
            ports.append(f"tcp:0:interface={HERE}")
        server = ["env", f"PYTHONPATH={_ROOT}", _TWISTD, "-n", "--pidfile=", "tunnel"]
        for port in ports:
            server += ["--port", port]
        state = str(room.directory / "server-state")
        server += ["--interface", HERE, "--state-dir", state]
        return replace(made, server=server, clients=None)

    return here


def _two() -> tuple[int, int]:
    """Two free ports."""
    return freePort(), freePort()


_TWISTD = str(Path(sys.executable).parent / "twistd")
_TCP = ("tcp:{}:interface={}", "tcp:{}")
_TLS = ("ssl:{}:interface={}", "tls:{}")

_rathole_ = needs("BENCH_RATHOLE", "rathole")
_wstunnel_ = needs("BENCH_WSTUNNEL", "wstunnel")

CONTESTANTS = [
    Contestant("direct path", _nothing, kind="limit"),
    Contestant(HAPROXY, _haproxy, needs("BENCH_HAPROXY", "haproxy"), kind="limit"),
    Contestant("tristunnel tcp", _tristunnel(*_TCP), kind="ours"),
    Contestant(
        "tristunnel direct", _tristunnel(*_TCP, ("--carrier", "direct")), kind="ours"
    ),
    Contestant(
        "tristunnel session",
        _tristunnel(*_TCP, ("--carrier", "session")),
        multiplexes=True,
        kind="ours",
    ),
    Contestant(
        "tristunnel tls",
        _tristunnel(*_TLS, ("--insecure",)),
        encrypts=True,
        multiplexes=True,
        kind="ours",
    ),
    Contestant(
        "tristunnel wss",
        _tristunnel(_TLS[0], "wss://{}/tunnel", ("--insecure",)),
        encrypts=True,
        multiplexes=True,
        kind="ours",
    ),
    Contestant("w3p", _w3p(lambda room: ({}, {})), _missingW3P, multiplexes=True),
    Contestant("w3p tls", _w3p(_w3pTLS), _missingW3P, encrypts=True, multiplexes=True),
    Contestant("vtunnel", _vtunnel, _missingVtunnel, multiplexes=True),
    Contestant(
        "ssh -R", _ssh, needs("BENCH_SSHD", "sshd"), encrypts=True, multiplexes=True
    ),
    Contestant("bore", _bore, needs("BENCH_BORE", "bore")),
    Contestant("rathole", _rathole(lambda room: ("", "")), _rathole_),
    Contestant("rathole tls", _rathole(_ratholeTLS), _rathole_, encrypts=True),
    Contestant("frp", _frp(False), needs("BENCH_FRPS", "frps"), multiplexes=True),
    Contestant(
        "frp tls",
        _frp(True),
        needs("BENCH_FRPS", "frps"),
        encrypts=True,
        multiplexes=True,
    ),
    Contestant(
        "chisel",
        _chisel,
        needs("BENCH_CHISEL", "chisel"),
        encrypts=True,
        multiplexes=True,
    ),
    Contestant(
        "vtunnel ssh",
        _vtunnelSSH,
        needs("BENCH_VTUNNEL", "vtunnel"),
        encrypts=True,
        multiplexes=True,
    ),
    Contestant(
        "ssh -R at ours",
        _visiting(_ssh),
        needs("BENCH_SSHD", "sshd"),
        encrypts=True,
        multiplexes=True,
        kind="ours",
    ),
    Contestant(
        "chisel at ours",
        _visiting(_chisel),
        needs("BENCH_CHISEL", "chisel"),
        encrypts=True,
        multiplexes=True,
        kind="ours",
    ),
    Contestant(
        "vtunnel ssh at ours",
        _visiting(_vtunnelSSH),
        needs("BENCH_VTUNNEL", "vtunnel"),
        encrypts=True,
        multiplexes=True,
        kind="ours",
    ),
    Contestant(
        "bore at ours", _visiting(_bore), needs("BENCH_BORE", "bore"), kind="ours"
    ),
    Contestant("wstunnel", _wstunnel("ws"), _wstunnel_),
    Contestant("wstunnel wss", _wstunnel("wss"), _wstunnel_, encrypts=True),
]
"""Everybody, in the table's order."""
