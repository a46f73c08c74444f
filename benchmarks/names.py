"""
C{python -m benchmarks.names}: requests through names, beside a port and others.

Wrk loads nginx over 32 connections that are kept alive, by each way in turn: a port, a
name whose requests are parsed, one with C{,raw}, the TLS name of a service that speaks
TLS itself and its port, two HAProxy processes in a row that parse HTTP, and frp's
C{http} proxy. C{BENCH_PEERS} names a directory with frps and frpc.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.contestant import HAPROXY
from benchmarks.loads import NGINX
from benchmarks.meter import TOOLS, Meter, Profiler
from benchmarks.outputs import parseWrk
from benchmarks.processes import Failed, Room, freePort, which

_HERE = "127.0.0.1"
_DOMAIN = "bench.example"
_PARSING = f"{HAPROXY}, mode http"
_ROOT = Path(__file__).parent.parent
_TWISTD = (
    *("env", f"PYTHONPATH={_ROOT}", sys.executable),
    *("-c", "from twisted.scripts.twistd import run; run()"),
)
# Any name is here, whoever resolves names: wrk asks for it in TLS and in Host.
_RESOLVE = f"""
wrk.resolve = function(host, service) wrk.addrs = wrk.lookup("{_HERE}", service) end
"""


@dataclass(eq=False)
class _Way:
    """
    A way to the service.

    @ivar name: In the table.
    @ivar url: What is asked for.
    @ivar servers: Process ids at the public side.
    @ivar clients: Those beside the service.
    @ivar rates: Requests per second, of each round.
    @ivar costs: Seconds of processor time for 10,000 requests, likewise.
    """

    name: str
    url: str
    servers: list[int] = field(default_factory=list)
    clients: list[int] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    costs: list[float] = field(default_factory=list)
    errors: int = 0

    @property
    def rate(self) -> float:
        return statistics.median(self.rates)

    @property
    def cost(self) -> float:
        return statistics.median(self.costs)


def _services(room: Room) -> tuple[int, int]:
    """
    Start what is asked, without TLS and with it.

    @return: Its ports.
    """
    plain, secure = freePort(), freePort()
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-nodes", "-days", "2", "-newkey", "ec"),
            *("-pkeyopt", "ec_paramgen_curve:prime256v1", "-subj", f"/CN={_DOMAIN}"),
            *("-keyout", "service.key", "-out", "service.pem"),
        ],
        check=True,
        capture_output=True,
        cwd=room.directory,
    )
    text = NGINX % (plain, "x" * 100)
    listening = f"listen {_HERE}:{plain} backlog=4096;"
    room.write(
        "nginx.conf",
        text.replace(
            listening,
            f"{listening} listen {_HERE}:{secure} ssl backlog=4096;"
            f" ssl_certificate {room.directory}/service.pem;"
            f" ssl_certificate_key {room.directory}/service.key;",
        ),
    )
    nginx = which("BENCH_NGINX", "nginx") or "nginx"
    room.start("nginx", [nginx, "-p", f"{room.directory}/", "-c", "nginx.conf"])
    room.waitForPort(plain)
    return plain, secure


def _ours(room: Room, service: int, secure: int) -> list[_Way]:
    """Tristunnel: one server and one client for all of its ways."""
    port, http, https, public, publicTLS = (freePort() for _ in range(5))
    command = (*_TWISTD, "-n", "--pidfile=")
    state = ("--state-dir", str(room.directory))
    server = room.start(
        "server",
        [
            *(*command, "tunnel", "--port", f"tcp:{port}:interface={_HERE}", *state),
            *("--http", f"tcp:{http}:interface={_HERE}", "--interface", _HERE),
            *("--https", f"tcp:{https}:interface={_HERE}", "--domain", _DOMAIN),
            "--no-https-redirect",
        ],
    )
    room.waitForPort(port)
    forwards = [
        f"{public}={_HERE}:{service}",
        f"{publicTLS}={_HERE}:{secure}",
        f"http/parsed={_HERE}:{service}",
        f"http/raw={_HERE}:{service},raw",
        f"tls/tls={_HERE}:{secure}",
    ]
    client = room.start(
        "client",
        [
            *(*command, "tunnel-client", "--connect", f"tcp:{_HERE}:{port}", *state),
            *(word for each in forwards for word in ("--forward", each)),
        ],
    )
    room.waitForPort(public)
    room.waitForPort(publicTLS)
    room.waitForText("client", f"tls.{_DOMAIN}")
    return [
        _Way(name, url, [server], [client])
        for name, url in (
            ("port", f"http://port.{_DOMAIN}:{public}/"),
            ("name, raw", f"http://raw.{_DOMAIN}:{http}/"),
            ("name, parsed", f"http://parsed.{_DOMAIN}:{http}/"),
            ("port of a TLS service", f"https://tls.{_DOMAIN}:{publicTLS}/"),
            ("TLS name", f"https://tls.{_DOMAIN}:{https}/"),
        )
    ]


def _haproxy(room: Room, service: int) -> list[_Way]:
    """Two HAProxy processes that parse what they pass on, and say who it is from."""
    haproxy = which("BENCH_HAPROXY", "haproxy")
    if haproxy is None:
        return []
    public, between = freePort(), freePort()
    pids = []
    for name, port, to in (
        ("haproxy-client", between, service),
        ("haproxy-server", public, between),
    ):
        forwarded = " option forwardfor\n" if port == public else ""
        room.write(
            f"{name}.cfg",
            "global\n maxconn 6000\n nbthread 1\n"
            "defaults\n mode http\n timeout connect 5s\n timeout client 1h\n"
            f" timeout server 1h\n{forwarded}"
            f"listen all\n bind {_HERE}:{port}\n server next {_HERE}:{to}\n",
        )
        pids.append(room.start(name, [haproxy, "-db", "-f", f"{name}.cfg"]))
        room.waitForPort(port)
    client, server = pids
    return [_Way(_PARSING, f"http://www.{_DOMAIN}:{public}/", [server], [client])]


def _frp(room: Room, service: int) -> list[_Way]:
    """Frp's proxy of HTTP hosts, without TLS between its programs."""
    frps, frpc = which("BENCH_FRPS", "frps"), which("BENCH_FRPC", "frpc")
    if frps is None or frpc is None:
        return []
    control, http = freePort(), freePort()
    room.write(
        "frps.toml",
        f'bindAddr = "{_HERE}"\nbindPort = {control}\nvhostHTTPPort = {http}\n'
        f'subDomainHost = "{_DOMAIN}"\n',
    )
    room.write(
        "frpc.toml",
        f'serverAddr = "{_HERE}"\nserverPort = {control}\n'
        'transport.tls.enable = false\n[[proxies]]\nname = "www"\ntype = "http"\n'
        f'localIP = "{_HERE}"\nlocalPort = {service}\nsubdomain = "www"\n',
    )
    server = room.start("frps", [frps, "-c", "frps.toml"])
    room.waitForPort(control)
    client = room.start("frpc", [frpc, "-c", "frpc.toml"])
    room.waitForText("frpc", "start proxy success")
    return [_Way("frp, http", f"http://www.{_DOMAIN}:{http}/", [server], [client])]


def _load(room: Room, way: _Way, seconds: int, meter: Meter) -> None:
    """Measure a way once."""
    with meter.during(way.name, way) as spent:
        done = subprocess.run(
            [
                *("wrk", "-t1", "-c32", f"-d{seconds}s", "--latency"),
                *("-s", str(room.directory / "resolve.lua"), way.url),
            ],
            capture_output=True,
            text=True,
            timeout=seconds + 60,
        )
    found = parseWrk(done.stdout or done.stderr)
    if "Non-2xx" in done.stdout:
        raise Failed(f"{way.name}: {done.stdout}")
    way.rates.append(found.rate)
    way.costs.append(spent.both / found.total * 10_000)
    way.errors += found.errors


def main(words: Sequence[str] | None = None) -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.names")
    parser.add_argument("--peers", type=Path, help="look there first for programs")
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="parts of ways' names")
    parser.add_argument("--profile", type=Path, help="put profiles there")
    parser.add_argument("--profile-with", choices=TOOLS, default=TOOLS[0])
    chosen = parser.parse_args(words)
    if chosen.peers:
        os.environ["BENCH_PEERS"] = str(chosen.peers.resolve())
    profiler = None
    if chosen.profile:
        profiler = Profiler(chosen.profile, chosen.profile_with)
    load = ", ".join(f"{each:.1f}" for each in os.getloadavg())
    print(f"{os.cpu_count()} processors, load before: {load}")
    with tempfile.TemporaryDirectory() as place, Room(Path(place)) as room:
        room.write("resolve.lua", _RESOLVE)
        service, secure = _services(room)
        ways = [_Way("no tunnel", f"http://www.{_DOMAIN}:{service}/")]
        ways += _ours(room, service, secure)
        ways += _haproxy(room, service) + _frp(room, service)
        if chosen.only:
            parts = chosen.only.split(",")
            ways = [way for way in ways if any(each in way.name for each in parts)]
        for _ in range(chosen.rounds):
            for way in ways:
                _load(room, way, chosen.seconds, Meter(profiler, "names"))
    print(_table(ways))


def _table(ways: Sequence[_Way]) -> str:
    best = next((way.rate for way in ways if way.name == _PARSING), None)
    lines = [f"{'way':36} requests/s  CPU s/10k  of HAProxy  errors"]
    for way in ways:
        part = f"{way.rate / best:.2f}" if best else ""
        lines.append(
            f"{way.name:36} {way.rate:10,.0f} {way.cost:10.3f} {part:>11}"
            f" {way.errors:7}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
