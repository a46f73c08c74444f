"""The checks of C{twistd tunnel --check}, put together from the command line."""

from __future__ import annotations

import sys
from typing import Any

from tristunnel.check.cluster import ClusterCheck
from tristunnel.check.names import NamesCheck
from tristunnel.check.report import CheckService
from tristunnel.check.server import ServerCheck
from tristunnel.listeners.tcp import TCPListeners
from tristunnel.server.options import ServerOptions
from tristunnel.tls.pem import loadCertificates

__all__ = ["checkService"]


def checkService(reactor: Any, options: ServerOptions) -> CheckService:
    """
    Make what tests everything that a server needs, tells of it, and ends.

    @param options: What the server was told.
    """
    interface = options["interface"]
    shown = (
        ("--certificate", options.certificate),
        ("--visitor-certificate", options.visitorCertificate),
    )
    certificates = [
        (option, creator.certificate) for option, creator in shown if creator
    ]
    certificates += [
        (port.description, loadCertificates(port.certificatePath)[0])
        for port in options.serverPorts
        if port.certificatePath
    ]
    cluster = None
    if options.cluster is not None:
        cluster = ClusterCheck(
            reactor,
            options.cluster,
            options["cluster-token-file"],
            options["advertise"],
        ).look
    look = ServerCheck(
        reactor,
        options.allPorts,
        TCPListeners(reactor, interface, options.portRange),
        certificates,
        options["hostname"],
        options.stateDirectory,
        len(options.get("credCheckers") or ()) + bool(options["client-ca"]),
        options.memory,
        lambda resolve, isOurs: (
            NamesCheck(
                reactor,
                options.domains,
                options.allPorts,
                options.namedCertificates,
                options.authority,
                options.stateDirectory,
                resolve,
                isOurs,
            ).look
        ),
        cluster,
        clientCheck="tristunnel check"
        if options.program.startswith("tristunnel")
        else "twistd tunnel-client --check",
    )
    return CheckService(reactor, look, sys.__stdout__)
