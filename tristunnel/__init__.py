"""
A self-hosted reverse tunnel.

A machine behind NAT connects out to a public server, and visitors reach its
services through that server.
"""

from __future__ import annotations

__all__ = ["__version__"]

__version__ = "0.1.0"
