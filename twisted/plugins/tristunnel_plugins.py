"""
What tristunnel adds to C{twistd}.

Every C{twistd} and C{trial} on the machine may import this file, so it stays
cheap: the two commands name their modules, and the checker factory imports its
own parts when it is used.
"""

from __future__ import annotations

from twisted.application.service import ServiceMaker

from tristunnel.auth.clients_file import ClientsFileCheckerFactory

tunnel = ServiceMaker(
    "tristunnel server",
    "tristunnel.cli.server_tap",
    "A reverse tunnel server.",
    "tunnel",
)

tunnelClient = ServiceMaker(
    "tristunnel client",
    "tristunnel.cli.client_tap",
    "A reverse tunnel client.",
    "tunnel-client",
)

clientsFile = ClientsFileCheckerFactory()
