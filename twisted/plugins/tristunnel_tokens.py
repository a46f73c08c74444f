"""
What tristunnel adds to C{--auth} of C{twistd}: C{tokens:}.

It is a file of its own, because Twisted's cache of plugins may not notice that
a file has gained a plugin.
"""

from __future__ import annotations

from tristunnel.auth.tokens import TokenCheckerFactory

tokens = TokenCheckerFactory()
