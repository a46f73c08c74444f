"""What is wrong with an engine, in words that say what to do about it."""

from __future__ import annotations

import re

from twisted.internet.error import (
    ConnectError,
    ConnectionDone,
    ConnectionLost,
    DNSLookupError,
)
from twisted.python.failure import Failure

__all__ = ["IS_REPLICA", "doubts", "explained", "notReached"]

IS_REPLICA = "READONLY"
"""How an engine begins to say that it only copies another one."""

_OLDEST = 7

_LOGIN = (
    "it refuses the user name or the password: correct them in --cluster, as"
    " redis://USER:PASSWORD@HOST"
)
_OLD = "it is too old for a book: use Redis 7 or later, or Valkey"

_TROUBLES = (
    ("WRONGPASS", _LOGIN),
    ("NOAUTH", _LOGIN),
    ("invalid password", _LOGIN),
    (
        "without any password configured",
        "it has no password: leave it out of --cluster",
    ),
    (
        "NOPERM",
        "its user lacks permissions that a book needs: give it in the engine"
        " 'ACL SETUSER NAME ~tt:* +@all -@admin +info'",
    ),
    (
        "DENIED",
        "it is in protected mode, and accepts connections only from its own"
        " machine: give"
        " it a password (requirepass), and that to --cluster",
    ),
    (
        IS_REPLICA,
        "it is a read-only replica: name its primary in --cluster, or its Sentinels"
        " (redis+sentinel://)",
    ),
    (
        "OOM",
        "its memory is full: raise its maxmemory; a client with a tunnel takes about"
        " 1.5 kB",
    ),
    (
        "MISCONF",
        "it cannot save to its disk, and so accepts no writes: make room there,"
        " or set its"
        " stop-writes-on-bgsave-error to no, since a book needs no saving",
    ),
    (
        "NOREPLICAS",
        "it has too few replicas for its min-replicas-to-write, and accepts no"
        " writes until"
        " they are there",
    ),
    ("MASTERDOWN", "it is a replica that has lost its primary: name the primary"),
    ("LOADING", "it is starting, and still loading its saved data"),
    ("BUSY", "it is busy with somebody's script: SCRIPT KILL stops it"),
    (
        "MOVED",
        "it is part of a Redis Cluster, but does not have this book: give"
        " --cluster an engine of its own, or the address after MOVED",
    ),
    (
        "not allowed in cluster mode",
        "it is part of a Redis Cluster, which only has database 0: leave the"
        " number out",
    ),
    (
        "DB index is out of range",
        "it has no database with that number: raise its 'databases', or use another",
    ),
    ("max number of clients", "it has too many connections: raise its maxclients"),
    ("unknown command", _OLD),
    ("Unknown Redis command", _OLD),
    # Before version 5: scripts that ask for the time.
    ("not allowed after non deterministic commands", _OLD),
    (
        "wrong number of arguments for 'auth'",
        "it is older than Redis 6, and knows no users: use Redis 7 or later, or Valkey",
    ),
)


def explained(said: str) -> str:
    """
    Explain a refusal.

    @param said: What the engine has said.
    """
    for word, why in _TROUBLES:
        if word in said:
            return f"{why} ({_short(said)})"
    return f"it says {_short(said)}"


def _short(said: str) -> str:
    return " ".join(said.split())[:120]


def notReached(failure: Failure) -> str:
    """Explain why there is no connection."""
    error = failure.value
    message = getattr(error, "message", None)
    if isinstance(error, DNSLookupError):
        return "its name was not found: check it in --cluster"
    if isinstance(error, ConnectError):
        return f"no connection to it ({failure.getErrorMessage()}): is it running?"
    if isinstance(error, ConnectionDone | ConnectionLost):
        return (
            "it closes connections without an answer: check whether it uses"
            " TLS (rediss://) or not"
        )
    return str(message or failure.getErrorMessage() or type(error).__name__)


def doubts(info: str) -> list[str]:
    """
    Find what an operator should know of an engine that works.

    @param info: What it says of itself.
    @return: A line for each.
    """
    said = dict(re.findall(r"(?m)^(\w+):([^\r\n]*)", info))
    found = []
    version = said.get("redis_version", "")
    if version.partition(".")[0].isdecimal() and int(version.split(".")[0]) < _OLDEST:
        found.append(
            f"it is Redis {version[:20]}, which is not supported: use 7 or later"
        )
    policy = said.get("maxmemory_policy", "noeviction")
    if policy != "noeviction" and said.get("maxmemory", "0") != "0":
        found.append(
            f"its maxmemory-policy is {policy[:30]}, by which it forgets tunnels when"
            " its memory is full: set it to noeviction"
        )
    return found
