"""
Why a connection broke, as an error of Twisted's.
"""

from __future__ import annotations

import os

from OpenSSL import SSL
from twisted.internet.error import ConnectionLost
from twisted.python.failure import Failure

__all__ = ["lostBy", "lostByTLS"]


def lostBy(problem: OSError) -> Failure:
    """Say which error of the kernel's it was."""
    return Failure(ConnectionLost(problem.strerror or str(problem)))


def lostByTLS(problem: SSL.Error) -> Failure:
    """
    Say why TLS broke. An end without TLS's close_notify counts as a lost connection,
    since anybody could have cut it.
    """
    if isinstance(problem, SSL.SysCallError):
        number = problem.args[0] if problem.args else -1
        if isinstance(number, int) and number > 0:
            return lostBy(OSError(number, os.strerror(number)))
        return Failure(ConnectionLost("the connection ended without a TLS close"))
    return Failure(problem)
