"""
A name server for tests: every name leads to the loopback interface, and TXT records
come by RFC 2136 or out of a file.
"""

from __future__ import annotations

import base64
import secrets
import socket
import struct
from contextlib import suppress
from pathlib import Path
from threading import Thread

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset
import dns.tsig
import dns.update

__all__ = ["NameServer"]

_LIMIT = 65535


class NameServer:
    """
    Serves one zone, over UDP and TCP, from a thread.

    @ivar port: Where it is.
    @ivar updates: How many updates were taken.
    """

    def __init__(self, zone: str, directory: Path) -> None:
        self.zone = dns.name.from_text(zone)
        self.updates = 0
        self.commandFile = directory / "records"
        self.keyFile = directory / "tsig.key"
        secret = base64.b64encode(secrets.token_bytes(32)).decode()
        self.keyFile.write_text(
            f'key "acme" {{\n\talgorithm hmac-sha256;\n\tsecret "{secret}";\n}};\n'
        )
        self.keyFile.chmod(0o600)
        self._key = dns.tsig.Key("acme", secret, "hmac-sha256")
        self._texts: dict[dns.name.Name, list[str]] = {}
        self._tcp = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._tcp.getsockname()[1]
        self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._udp.bind(("127.0.0.1", self.port))
        self._threads = [
            Thread(target=each, daemon=True) for each in (self._datagrams, self._calls)
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        for each in (self._tcp, self._udp):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        for thread in self._threads:
            thread.join()

    def _datagrams(self) -> None:
        with suppress(OSError):
            while True:
                data, peer = self._udp.recvfrom(_LIMIT)
                if data:
                    self._udp.sendto(self._answer(data), peer)

    def _calls(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._tcp.accept()
                with connection, connection.makefile("rb") as stream:
                    (size,) = struct.unpack("!H", stream.read(2))
                    answer = self._answer(stream.read(size))
                    connection.sendall(struct.pack("!H", len(answer)) + answer)

    def _answer(self, data: bytes) -> bytes:
        asked = dns.message.from_wire(data, keyring={self._key.name: self._key})
        answer = dns.message.make_response(asked)
        answer.flags |= dns.flags.AA
        if isinstance(asked, dns.update.UpdateMessage):
            if asked.had_tsig:
                self._change(asked)
            else:
                answer.set_rcode(dns.rcode.REFUSED)
        else:
            question = asked.question[0]
            found = self._records(question.name, question.rdtype)
            if found:
                answer.answer.append(
                    dns.rrset.from_text(
                        question.name, 1, "IN", question.rdtype.name, *found
                    )
                )
        return answer.to_wire()

    def _records(self, name: dns.name.Name, kind: dns.rdatatype.RdataType) -> list[str]:
        if kind == dns.rdatatype.A:
            return ["127.0.0.1"]
        if kind == dns.rdatatype.SOA and name == self.zone:
            return ["ns.example. nobody.example. 1 3600 600 86400 1"]
        if kind == dns.rdatatype.TXT:
            texts = list(self._texts.get(name, ()))
            with suppress(FileNotFoundError):
                for line in self.commandFile.read_text().splitlines():
                    owner, value = line.split()
                    if dns.name.from_text(owner) == name:
                        texts.append(value)
            return [f'"{each}"' for each in texts]
        return []

    def _change(self, update: dns.update.UpdateMessage) -> None:
        self.updates += 1
        for each in update.update:
            # Pebble asks in the case of the authorization.
            name = dns.name.from_text(each.name.to_text().lower())
            texts = self._texts.setdefault(name, [])
            for record in each:
                value = record.to_text().strip('"')
                if each.deleting is not None:
                    if value in texts:
                        texts.remove(value)
                elif each.rdclass == dns.rdataclass.IN:
                    texts.append(value)
