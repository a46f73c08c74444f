"""
What tristunnel adds to C{--auth} of C{twistd}: C{keys:}.

It is a file of its own, because Twisted's cache of plugins may not notice that
a file has gained a plugin.
"""

from __future__ import annotations

from tristunnel.auth.public_keys import KeysCheckerFactory

keys = KeysCheckerFactory()
