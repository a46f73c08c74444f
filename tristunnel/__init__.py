"""
A self-hosted reverse tunnel.

A machine behind NAT connects out to a public server, and visitors reach its
services through that server.
"""

from __future__ import annotations

from tristunnel.version import VERSION as __version__

__all__ = ["__version__"]
