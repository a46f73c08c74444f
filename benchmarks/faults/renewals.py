"""
A server's certificate replaced while clients are connected: by half a file, by
one whose key is another's, by an expired one, and by a good one.
"""

from __future__ import annotations

import hashlib
import ssl
import time
from collections.abc import Generator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography.hazmat.primitives.hashes import SHA256

from benchmarks.faults.programs import Programs, Server
from benchmarks.faults.proof import Options, Row
from benchmarks.faults.traffic import Counters, Service, Visitors
from benchmarks.processes import Room
from tests.tls.authority import Authority, certificateOf, makeAuthority

__all__ = ["prove"]

_LOOK = 1.2
"""Seconds after which the files are looked at again."""


def _shown(port: int) -> str:
    """The certificate that a new connection is shown."""
    pem = ssl.get_server_certificate(("127.0.0.1", port), timeout=10)
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest()


def _print(pem: bytes) -> str:
    """What L{_shown} says of a certificate."""
    return certificateOf(pem).fingerprint(SHA256()).hex()


def prove(options: Options) -> Iterator[Row]:
    """Replace it."""
    rounds = int(options.number("rounds", 10, 1))
    authority = makeAuthority()
    trusted = authority.write(options.directory / "ca.pem")
    for kind in ("--certificate", "tls: and a directory"):
        tally = Counters()
        service = Service(tally, 2e6)
        live = options.directory / kind.strip("-").partition(":")[0]
        live.mkdir()
        certificate, key = live / "cert.pem", live / "key.pem"
        good, goodKey = authority.issue(["localhost"])
        certificate.write_bytes(good)
        key.write_bytes(goodKey)
        with Room(options.directory / f"programs-{live.name}") as room:
            if kind.startswith("tls"):
                port = f"tls:{live}:port=0:interface=127.0.0.1"
                server = Server(Programs(room), "server", [port])
            else:
                server = Server(
                    Programs(room),
                    "server",
                    ["tcp:0:interface=127.0.0.1"],
                    f"--certificate={certificate}",
                    f"--private-key={key}",
                )
            _, address = Programs(room).client(
                "client",
                f"--connect=tls:localhost:{server.ports[0]}",
                f"--ca={trusted}",
                f"--forward=0=127.0.0.1:{service.port}",
            )
            visitors = Visitors(
                [int(address.rpartition(":")[2])], tally, 4, 500_000, 2e6
            )
            for _ in range(rounds):
                good = yield from _round(
                    kind, room, server.ports[0], authority, certificate, key, good
                )
            visitors.stop()
            whole, failed, refused, _ = tally.reset()
            lost = room.said("client").count("Not connected")
            yield Row(
                f"{kind}: bytes all the while",
                f"{whole} whole, {failed} broken, {refused} refused,"
                f" {len(tally.truncated)} cut short; the client came back {lost} times",
                bool(whole) and not (failed or refused or tally.truncated or lost),
            )
        service.close()


def _round(
    kind: str,
    room: Room,
    port: int,
    authority: Authority,
    certificate: Path,
    key: Path,
    good: bytes,
) -> Generator[Row, None, bytes]:
    """
    Put bad files there, and a good one in the end.

    @return: The good one.
    """
    wasKey = key.read_bytes()
    past = datetime.now(UTC) - timedelta(days=1)
    expired, expiredKey = authority.issue(["localhost"], past)
    other, otherKey = authority.issue(["localhost"])
    bad = (
        ("half of a certificate", other[: len(other) // 2], wasKey),
        ("half of a key", good, wasKey[: len(wasKey) // 2]),
        ("an empty file", b"", wasKey),
        ("a certificate that the key does not fit", other, wasKey),
        ("an expired one", expired, expiredKey),
    )
    for what, first, second in bad:
        before = len(room.said("server"))
        certificate.write_bytes(first)
        key.write_bytes(second)
        time.sleep(_LOOK)
        shown = {_shown(port) for _ in range(3)}
        time.sleep(_LOOK)
        shown |= {_shown(port) for _ in range(3)}
        lines = room.said("server")[before:].splitlines()
        said = [
            line.partition("] ")[2]
            for line in lines
            if "#error]" in line or "#warn]" in line
        ]
        yield Row(
            f"{kind}: {what}",
            f"the old one is shown: {shown == {_print(good)}}; the log says:"
            f" {' / '.join(each[-100:] for each in said)}",
            shown == {_print(good)} and 0 < len(said) == len(set(said)) < 3,
        )
    certificate.write_bytes(other)
    key.write_bytes(otherKey)
    time.sleep(_LOOK)
    yield Row(
        f"{kind}: a good one",
        f"it is shown: {_shown(port) == _print(other)}",
        _shown(port) == _print(other),
    )
    return other
