"""
C{python -m tristunnel.rpc URL METHOD [PARAMETER ...]}: call a tunnel server.
"""

from __future__ import annotations

import sys

from twisted.internet.task import react

from tristunnel.cli.call import main
from tristunnel.util.command_line import hideArguments, valuesOf


def run() -> None:
    """Run the command with the arguments of this process, and exit."""
    hideArguments(valuesOf(sys.argv[1:], "--token", "--user"))
    react(main, sys.argv[1:])


if __name__ == "__main__":
    run()
