"""
Where a client's token comes from.
"""

from __future__ import annotations

import getpass
import os
import sys
from collections.abc import Callable, Mapping
from typing import TextIO

from tristunnel.auth.files import readAtOnce, reasonOf
from tristunnel.errors import TunnelError
from tristunnel.util.files import warnIfOpen

__all__ = ["TOKEN_VARIABLE", "givenToken"]

TOKEN_VARIABLE = "TRISTUNNEL_TOKEN"
"""The environment variable that may hold a token."""


def givenToken(
    path: str,
    environment: Mapping[str, str] | None = None,
    stdin: TextIO | None = None,
    ask: Callable[[str], str] = getpass.getpass,
) -> str:
    """
    Find the token: in a file, at the terminal, or in the environment.

    @param path: C{--token-file}: a file whose first line it is, C{-} to ask
        on the terminal (or read a line of what is piped in), or empty.
    @param environment: The environment variables; the process's, if they are
        left out.
    @param stdin: The standard input, likewise.
    @param ask: Asks on the terminal, without an echo.
    @return: The token; empty if there is none.
    @raise TunnelError: C{bad-option}, if what was named holds no token.
    """
    if not path:
        variables = os.environ if environment is None else environment
        token = variables.get(TOKEN_VARIABLE, "").strip()
        return _checked(token, f"the variable {TOKEN_VARIABLE}") if token else ""
    if path == "-":
        stdin = stdin or sys.stdin
        try:
            text = ask("Token: ") if stdin.isatty() else stdin.readline()
        except (EOFError, KeyboardInterrupt):
            text = ""
        return _checked(text.strip(), "--token-file -")
    try:
        status, data = readAtOnce(os.path.expanduser(path))
    except (OSError, ValueError) as error:
        raise TunnelError(
            "bad-option", f"--token-file {path} cannot be read: {reasonOf(error)}"
        ) from None
    warnIfOpen(path, status.st_mode)
    line = data.strip().partition(b"\n")[0].strip()
    return _checked(line.decode("utf-8", "replace"), f"--token-file {path}")


def _checked(token: str, where: str) -> str:
    """
    Refuse what cannot be a token, without repeating it.
    """
    if not token:
        raise TunnelError("bad-option", f"{where} holds no token")
    if not token.isascii() or not token.isprintable() or " " in token:
        raise TunnelError(
            "bad-option", f"{where}: a token is one word of printable ASCII characters"
        )
    return token
