"""
The real peers as child processes of a test.

A test waits for what a program says, never for time to pass. Programs are
named by the environment, because none of the peers is part of this project:

  - C{TRISTUNNEL_W3P}: the directory of a checkout of W3P's tunnel;
  - C{TRISTUNNEL_NODE}: a C{node} of version 23 or later.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from twisted.internet.interfaces import IReactorProcess

from tests.support.processes import Program, ProgramEnded, freePort, startTristunnel

__all__ = [
    "Program",
    "ProgramEnded",
    "freePort",
    "missingW3P",
    "startTristunnel",
    "startW3P",
]

_HERE = Path(__file__).parent


def missingW3P() -> str | None:
    """
    Say why the tests against W3P's tunnel cannot run here.

    @return: the reason to skip, or L{None} if both programs are named.
    """
    if os.environ.get("TRISTUNNEL_W3P") and os.environ.get("TRISTUNNEL_NODE"):
        return None
    return (
        "set TRISTUNNEL_W3P to a checkout of W3P's tunnel and TRISTUNNEL_NODE "
        "to a node >= 23 to run the tests against the real programs"
    )


def startW3P(
    reactor: IReactorProcess, end: str, settings: dict[str, object]
) -> Program:
    """
    Start W3P's own server or client under our driver.

    @param end: C{server} or C{client}.
    @param settings: what the driver C{w3p_server.mjs} or C{w3p_client.mjs} takes.
    """
    node = os.environ["TRISTUNNEL_NODE"]
    driver = str(_HERE / f"w3p_{end}.mjs")
    program = Program(f"W3P's {end}")
    reactor.spawnProcess(
        program,
        node,
        [node, driver, os.environ["TRISTUNNEL_W3P"], json.dumps(settings)],
        env=dict(os.environ),
    )
    return program
