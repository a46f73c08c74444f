"""
The two programs, with certificates of clients: C{--certificate},
C{--client-ca} and C{--client-crl}.
"""

from __future__ import annotations

from tests.cli.test_taps_processes import ProcessTestCase
from tests.support.loopback import Service
from tests.tls.authority import makeAuthority
from tests.tls.files import replace


class CertificateTests(ProcessTestCase):
    """Over TLS and over WebSockets alike."""

    def setUp(self) -> None:
        super().setUp()
        self.authority = makeAuthority()
        for name, client in (("localhost", False), ("good", True), ("bad", True)):
            pem, key = self.authority.issue([name], client=client)
            (self.directory / f"{name}.pem").write_bytes(pem)
            (self.directory / f"{name}.key").write_bytes(key)
        self.authority.write(self.directory / "ca.pem")
        self.crl = self.directory / "crl.pem"
        self.crl.write_bytes(self.authority.revoke())

    def own(self, name: str) -> tuple[str, ...]:
        """The options that show a certificate, and believe the server's."""
        files = ("--certificate", f"{name}.pem", "--private-key", f"{name}.key")
        return (*files, "--ca", "ca.pem")

    async def test_admitted(self) -> None:
        """
        Who has a certificate is known by its name; who has none, or whose is
        revoked meanwhile, is told.
        """
        server = await self.server(
            *("--certificate", "localhost.pem", "--private-key", "localhost.key"),
            *("--client-ca", "ca.pem", "--client-crl", "crl.pem"),
        )
        service = Service(b"welcome")
        forward = ("--forward", f"0=127.0.0.1:{self.offer(service)}")
        for connect in (
            f"wss://localhost:{self.port}/tunnel",
            f"tls:localhost:{self.port}",
        ):
            client = await self.client(*self.own("good"), *forward, connect=connect)
            await self.hears(service)
            await server.says("good")
            await client.kill()
            without = self.start(
                "tunnel-client", "--connect", connect, "--ca=ca.pem", "1"
            )
            await without.says("requires a certificate .*--certificate FILE")
            await without.kill()
        pem = (self.directory / "bad.pem").read_bytes()
        replace(self.crl, self.authority.revoke(pem))
        status: int | None = 0
        while not status:
            # The file is looked at once a second at the most.
            revoked = self.start(
                *("tunnel-client", "--connect", connect, "--check"),
                *("--check-idle", "0", *forward, *self.own("bad")),
            )
            await revoked.whenEnded()
            status = revoked.status
        self.assertEqual(status, 1, revoked.lines)
        await server.says("certificate was revoked")

    async def test_wrong(self) -> None:
        """
        Files that cannot be used, and options that have no meaning, are told in
        a line.
        """
        for options, line in (
            (("--certificate", "none.pem"), "none.pem"),
            (("--private-key", "good.key"), "goes with --certificate"),
        ):
            client = self.start(
                "tunnel-client", "--connect", "wss://localhost:1/x", *options
            )
            await client.says(line)
            await client.whenEnded()
            self.assertNotIn("Traceback", "\n".join(client.lines))
        plain = self.start(
            "tunnel-client", "--connect", "ws://localhost:1/x", *self.own("good")
        )
        await plain.says("need TLS; write wss://")
        server = self.start("tunnel", "--port", "tcp:0", "--client-crl", "crl.pem")
        await server.says("--client-crl goes with --client-ca")
