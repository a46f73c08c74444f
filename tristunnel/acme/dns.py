"""
DNS-01: publishing a record in a domain, by a command or by the updates of RFC 2136.
Both block.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
from typing import Protocol

import dns.exception
import dns.message
import dns.name
import dns.query
import dns.rcode
import dns.rdatatype
import dns.tsig
import dns.update

from tristunnel.acme.problems import AuthorityProblem
from tristunnel.auth.files import readSecret
from tristunnel.errors import badOption, printable
from tristunnel.util.command_line import programWords
from tristunnel.util.hosts import parsePlace

__all__ = ["CommandRecords", "Records", "UpdatedRecords"]

TTL = 60
"""Seconds for which resolvers may cache a record."""

COMMAND_TIMEOUT = 300.0
"""Seconds that a command has: some wait until a record is visible everywhere."""

_UPDATE_TIMEOUT = 10.0
_KEY = re.compile(
    r"""key\s+"?(?P<name>[^\s"{]{1,255})"?\s*\{(?P<body>[^}]{1,4096})\}""", re.DOTALL
)
_FIELD = re.compile(r"""(algorithm|secret)\s+"?([^\s";]+)"?\s*;""")


class Records(Protocol):
    """Something that can change a domain's records."""

    def add(self, name: str, value: str) -> None:
        """
        Add a TXT record beside others of that name.

        @param name: For example C{_acme-challenge.example.com}.
        @raise AuthorityProblem: If it cannot be added.
        """

    def remove(self, name: str, value: str) -> None:
        """
        Remove it.

        @raise AuthorityProblem: If it cannot be removed.
        """


class CommandRecords:
    """
    Has a command change the domain: C{COMMAND add NAME VALUE}, and C{COMMAND remove
    NAME VALUE} later. It also gets the variables of certbot's hooks (C{CERTBOT_DOMAIN},
    C{CERTBOT_VALIDATION}). When it has ended, the record must be visible to everyone.

    @param command: The command, split as a shell would split it, but run without one.
    @raise TunnelError: C{bad-option}, if there is no such program.
    """

    def __init__(self, command: str) -> None:
        self._words = programWords("--acme-dns-hook", command)

    def add(self, name: str, value: str) -> None:
        self._run("add", name, value)

    def remove(self, name: str, value: str) -> None:
        self._run("remove", name, value)

    def _run(self, action: str, name: str, value: str) -> None:
        domain = name.removeprefix("_acme-challenge.")
        told = {"CERTBOT_DOMAIN": domain, "CERTBOT_VALIDATION": value}
        words = [*self._words, action, name, value]
        try:
            done = subprocess.run(
                words,
                env={**os.environ, **told},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                timeout=COMMAND_TIMEOUT,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise AuthorityProblem(
                f"--acme-dns-hook did not end in {COMMAND_TIMEOUT:g} s ({action}"
                f" {name})"
            ) from None
        except OSError as problem:
            raise AuthorityProblem(
                f"--acme-dns-hook cannot be run: {problem.strerror}"
            ) from None
        if done.returncode:
            said = printable(done.stderr[-300:].decode(errors="replace").strip())
            raise AuthorityProblem(
                f"--acme-dns-hook ended with status {done.returncode} ({action}"
                f" {name}): {said or 'it said nothing'}"
            )


class UpdatedRecords:
    """
    Changes the domain on its primary server by updates (RFC 2136), signed by a key
    (RFC 8945).

    @param server: C{HOST} or C{HOST:PORT} of the primary server.
    @param keyFile: A file as C{tsig-keygen} writes it.
    @raise TunnelError: C{bad-option}.
    """

    def __init__(self, server: str, keyFile: str) -> None:
        try:
            bare = server.count(":") == 0 or server.endswith("]")
            self._host, self._port = parsePlace(f"{server}:53" if bare else server)
        except ValueError as problem:
            raise badOption(f"--acme-dns-server: {problem}") from None
        self._server = server
        self._key = _readKey(keyFile)

    def add(self, name: str, value: str) -> None:
        self._update(name, lambda update, owner: update.add(owner, TTL, "TXT", value))

    def remove(self, name: str, value: str) -> None:
        self._update(name, lambda update, owner: update.delete(owner, "TXT", value))

    def _update(self, name: str, change: _Change) -> None:
        owner = dns.name.from_text(name)
        try:
            address = self._address()
            update = dns.update.UpdateMessage(self._zoneOf(owner, address))
            update.use_tsig(self._key)
            change(update, owner)
            answer = dns.query.tcp(update, address, _UPDATE_TIMEOUT, self._port)
        except (dns.exception.DNSException, OSError) as problem:
            text = printable(str(problem), 200) or type(problem).__name__
            raise AuthorityProblem(
                f"--acme-dns-server {self._server}: {text}"
            ) from None
        if answer.rcode() != dns.rcode.NOERROR:
            raise AuthorityProblem(
                f"--acme-dns-server {self._server} refuses to change {name}"
                f" ({dns.rcode.to_text(answer.rcode())}): let the key in --acme-dns-key"
                " update TXT records there"
            )

    def _address(self) -> str:
        found = socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
        return str(found[0][4][0])

    def _zoneOf(self, owner: dns.name.Name, address: str) -> dns.name.Name:
        """Ask for the zone of a name, from the name upwards."""
        zone = owner.parent()
        while len(zone) > 1:
            question = dns.message.make_query(zone, dns.rdatatype.SOA)
            answer, _ = dns.query.udp_with_fallback(
                question, address, _UPDATE_TIMEOUT, self._port
            )
            for each in answer.answer:
                if each.rdtype == dns.rdatatype.SOA and each.name == zone:
                    return zone
            zone = zone.parent()
        raise AuthorityProblem(
            f"--acme-dns-server {self._server} has no zone for"
            f" {owner.to_text(True)}: name the primary server of the domain"
        )


class _Change(Protocol):
    def __call__(self, update: dns.update.UpdateMessage, owner: dns.name.Name) -> None:
        pass


def _readKey(path: str) -> dns.tsig.Key:
    data = readSecret(f"--acme-dns-key {path}", path)
    found = _KEY.search(data.decode("utf-8", "replace"))
    said = dict(_FIELD.findall(found["body"])) if found else {}
    try:
        name = found["name"] if found else ""
        return dns.tsig.Key(name, said["secret"], said["algorithm"])
    except (KeyError, ValueError, dns.exception.DNSException):
        raise badOption(
            f"--acme-dns-key {path} is not a key: write what 'tsig-keygen NAME' prints"
        ) from None
