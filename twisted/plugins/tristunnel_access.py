"""
What tristunnel adds to C{twistd}: C{tunnel-access}.

It is a file of its own, because Twisted's cache of plugins may not notice that
a file has gained a plugin.
"""

from __future__ import annotations

from twisted.application.service import ServiceMaker

tunnelAccess = ServiceMaker(
    "tristunnel access",
    "tristunnel.cli.access_tap",
    "Opens a local port to a named service for a limited time.",
    "tunnel-access",
)
