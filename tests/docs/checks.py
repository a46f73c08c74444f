"""
What pages need beside our own programs, and what is looked at when their
commands have run.
"""

from __future__ import annotations

import os
import pwd
import re
import shutil
import struct
import tempfile
from pathlib import Path
from typing import Any

from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from tests.docs.running import PageTestCase
from tests.docs.standins import REQUEST, Site
from tests.support.protocols import Hearing

__all__ = [
    "ListPing",
    "clientEnds",
    "joinServer",
    "learnInvitation",
    "pingList",
    "startDatabase",
    "startJoinedSSH",
    "startNginx",
    "startSSH",
    "startTor",
    "startWeb",
    "stay",
    "visitorEnds",
]


async def startWeb(case: PageTestCase) -> None:
    """Run a web page for a forward that is in a file."""
    case.serve(8080, Site)


async def joinServer(case: PageTestCase) -> None:
    port = f"ssl:{case.port(9000)}:interface=127.0.0.1"
    server = case.start(
        f"exec tristunnel server --hostname localhost --port {port}"
        " --interface 127.0.0.1"
    )
    await case.done((await server.says(r"^(tristunnel join \S+)$"))[1])


async def startJoinedSSH(case: PageTestCase) -> None:
    """The same, beside an SSH server."""
    await joinServer(case)
    await startSSH(case)


async def learnInvitation(case: PageTestCase) -> None:
    """Note what a server has printed, in place of what pages show."""
    found = await case.last.says(r"^tristunnel join \S+#(\S+)$")
    case.learnt["gpy1-18gc-gtbf-m6mt-7e3r-qy3g-emd2-3bdh-vyyv-38qx-8a35-b5n6"] = found[
        1
    ]


async def clientEnds(case: PageTestCase) -> None:
    """The client whose token was revoked ends, and says why."""
    await _ends(case, " tunnel-client |tristunnel http ")


async def visitorEnds(case: PageTestCase) -> None:
    """So does whoever had access by it."""
    await _ends(case, " tunnel-access ")


async def _ends(case: PageTestCase, kind: str) -> None:
    (running,) = [each for each in case.running if re.search(kind, each.command)]
    await running.program.whenEnded()
    said = "\n".join(running.program.lines)
    case.assertEqual(running.program.status, 1, said)
    case.assertIn("[token-revoked]", said)
    case.running.remove(running)


async def stay(case: PageTestCase) -> None:
    """Visit by the last port that was opened, and stay."""
    found = await case.last.says(r"Visitors of 127\.0\.0\.1:(\d+) reach")
    endpoint = TCP4ClientEndpoint(case.reactor, "127.0.0.1", int(found[1]))
    asking = await connectProtocol(endpoint, Hearing(REQUEST))
    await asking.has(1)

    async def leave() -> None:
        asking.abort()
        await asking.gone()

    case.addCleanup(leave)


async def startSSH(case: PageTestCase) -> None:
    """Run OpenSSH's server, and have C{ssh} log in there as whoever runs the test."""
    at = case.directory
    for name in ("host", "user"):
        await case.done(f"ssh-keygen -q -t ed25519 -N '' -f {at}/{name}")
    shutil.copy(at / "user.pub", at / "authorized")
    server = shutil.which("sshd", path=case.environment["PATH"])
    (at / "sshd_config").write_text(
        f"Port {case.port(22)}\nListenAddress 127.0.0.1\nHostKey {at}/host\n"
        f"AuthorizedKeysFile {at}/authorized\nStrictModes no\nUsePAM no\n"
        "PidFile none\nLogLevel VERBOSE\nPermitRootLogin yes\n"
    )
    if os.getuid() == 0:
        # Its own directory for privilege separation; packages make it at boot.
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    program = case.start(f"exec {server} -D -e -f {at}/sshd_config")
    await program.says("Server listening")
    ssh = shutil.which("ssh")
    case.program(
        "ssh",
        f"exec {ssh} -F none -i {at}/user -o IdentitiesOnly=yes -o BatchMode=yes"
        f" -o StrictHostKeyChecking=accept-new -o UserKnownHostsFile={at}/known"
        ' "$@"',
    )
    me = pwd.getpwuid(os.getuid()).pw_name
    case.learnt["me@"] = f"{me}@"


async def startNginx(case: PageTestCase) -> None:
    """Run nginx with the site that the page shows."""
    at = case.directory
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = "".join(f"{kind}_temp_path {at}/{kind};" for kind in kinds)
    site = (at / "app.conf").read_text().replace("listen ", "listen 127.0.0.1:")
    (at / "nginx.conf").write_text(
        f"daemon off; pid {at}/nginx.pid; error_log stderr notice;"
        f" worker_processes 1; events {{}}\nhttp {{ access_log off; {temporary}\n"
        f"{site}}}\n"
    )
    program = case.start(f"exec nginx -c {at}/nginx.conf -p {at} -e stderr")
    # Its workers outlive it if it is killed.
    case.addCleanup(program.stop)
    await program.says("start worker process ")


async def startDatabase(case: PageTestCase) -> None:
    """Run PostgreSQL, as nobody in particular, since it refuses to be root."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    initdb = shutil.which("initdb") or str(found[-1])
    postgres = Path(initdb).resolve().parent / "postgres"
    data = Path(tempfile.mkdtemp(prefix="tt"))
    case.addCleanup(shutil.rmtree, data, ignore_errors=True)
    user = ""
    if os.getuid() == 0:
        nobody = pwd.getpwnam("nobody")
        os.chown(data, nobody.pw_uid, nobody.pw_gid)
        user = (
            f"setpriv --reuid={nobody.pw_uid} --regid={nobody.pw_gid} --clear-groups "
        )
    await case.done(
        f"cd {data} && {user}{initdb} -D {data}/db -U app --auth=trust -N"
        " --no-instructions --locale=C"
    )
    port = case.port(5432)
    program = case.start(
        f"cd {data} && exec {user}{postgres} -D {data}/db -p {port} -h 127.0.0.1 -F"
        " -c unix_socket_directories="
    )
    await program.says("ready to accept connections")
    await case.done(
        f"psql -h 127.0.0.1 -p {port} -U app postgres -c 'create database shop'"
    )


def _varint(number: int) -> bytes:
    written = b""
    while number >= 0x80:
        written += bytes([number & 0x7F | 0x80])
        number >>= 7
    return written + bytes([number])


def _packet(kind: int, payload: bytes) -> bytes:
    """Write a packet; all of them are short here."""
    return _varint(1 + len(payload)) + bytes([kind]) + payload


class ListPing(Protocol):
    """
    As much of a Minecraft server as the server list asks for: the handshake, the
    status, and the ping.
    """

    _STATUS = b'{"version":{"name":"1.21","protocol":767},"description":"A house"}'

    def __init__(self) -> None:
        self._data = b""

    def dataReceived(self, data: bytes) -> None:
        assert self.transport is not None
        self._data += data
        while self._data and len(self._data) > self._data[0]:
            packet, self._data = (
                self._data[1 : 1 + self._data[0]],
                self._data[1 + self._data[0] :],
            )
            if packet == b"\x00":
                text = _varint(len(self._STATUS)) + self._STATUS
                self.transport.write(_packet(0, text))
            elif packet[0] == 1:
                self.transport.write(_packet(1, packet[1:]))


async def pingList(case: PageTestCase) -> None:
    """Ask as the server list does, wherever the page says that the game is."""
    found = await case.last.says(r"Visitors of \S*?:(\d+) reach")
    port = int(found[1])
    host = b"tunnel.example"
    hello = _varint(767) + _varint(len(host)) + host + struct.pack(">H", 25565) + b"\1"
    ping = struct.pack(">q", 20260102)
    question = _packet(0, hello) + _packet(0, b"") + _packet(1, ping)
    endpoint = TCP4ClientEndpoint(case.reactor, "127.0.0.1", port)
    asking = await connectProtocol(endpoint, Hearing(question))
    await asking.until(lambda it: it.data.endswith(_packet(1, ping)))
    case.assertIn(b"A house", asking.data)
    asking.abort()
    await asking.gone()


class _Socks(Protocol):
    """
    Tor's SOCKS port, as far as it is asked here: whatever onion service is named
    is a port of this machine.
    """

    def __init__(self) -> None:
        self._data = b""
        self._stage = self._greeted
        self._other: Any = None

    def dataReceived(self, data: bytes) -> None:
        self._data += data
        while self._stage():
            pass

    def _greeted(self) -> bool:
        if len(self._data) < 2 or len(self._data) < 2 + self._data[1]:
            return False
        self._data = self._data[2 + self._data[1] :]
        self._say(b"\x05\x00")
        self._stage = self._asked
        return True

    def _asked(self) -> bool:
        if len(self._data) < 5 or len(self._data) < 7 + self._data[4]:
            return False
        end = 5 + self._data[4]
        (port,) = struct.unpack(">H", self._data[end : end + 2])
        self._data = self._data[end + 2 :]
        self._stage = self._passOn
        factory: Any = self.factory
        there = TCP4ClientEndpoint(factory.reactor, "127.0.0.1", port)
        connecting = connectProtocol(there, _Beyond(self))
        connecting.addCallbacks(self._connected, lambda failure: self._end())
        return True

    def _connected(self, other: Any) -> None:
        self._other = other
        self._say(b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00")
        self._passOn()

    def _passOn(self) -> bool:
        if self._other is not None and self._data:
            self._other.transport.write(self._data)
            self._data = b""
        return False

    def _say(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.write(data)

    def _end(self) -> None:
        assert self.transport is not None
        self.transport.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._other is not None:
            self._other.transport.abortConnection()


class _Beyond(Protocol):
    """The connection behind L{_Socks}."""

    def __init__(self, front: _Socks) -> None:
        self._front = front

    def dataReceived(self, data: bytes) -> None:
        self._front._say(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._front._end()


async def startTor(case: PageTestCase) -> None:
    """Stand in for Tor, and for an onion service."""
    case.serve(80, Site)
    standIn: Any = case.serve(9050, _Socks)
    standIn.reactor = case.reactor
