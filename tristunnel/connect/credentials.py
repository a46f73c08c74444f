"""
Where a client's token and credentials come from, so that nobody else can see
them.
"""

from __future__ import annotations

import getpass
import json
import os
import sys
from collections.abc import Callable, Mapping
from typing import TextIO

from tristunnel.auth.files import readSecret
from tristunnel.errors import badOption

TOKEN_PREFIX = "tst_"
"""The beginning of our tokens."""

__all__ = ["CREDENTIALS_VARIABLE", "TOKEN_VARIABLE", "givenCredentials", "givenToken"]

LONGEST_TOKEN = 8192
"""The most characters of a token; those of other projects are longer than ours."""

CREDENTIALS_VARIABLE = "TRISTUNNEL_CREDENTIALS"
"""The environment variable that may hold credentials, a JSON object."""

TOKEN_VARIABLE = "TRISTUNNEL_TOKEN"
"""The environment variable that may hold a token."""


def givenCredentials(
    path: str | None, environment: Mapping[str, str] | None = None
) -> dict[str, object]:
    """
    Read credentials from a file, or from the environment.

    @param path: C{--credentials-file}, or nothing.
    @param environment: The environment variables; the process's, if they are
        left out.
    @return: The JSON object; empty if there is none.
    @raise TunnelError: C{bad-option}.
    """
    if path:
        option = f"--credentials-file {path}"
        try:
            text = _contents(path, option).decode("utf-8")
        except UnicodeDecodeError:
            raise badOption(f"{option} cannot be read: it is not UTF-8") from None
        return _object(text, option)
    variables = os.environ if environment is None else environment
    text = variables.get(CREDENTIALS_VARIABLE, "")
    return _object(text, f"the variable {CREDENTIALS_VARIABLE}") if text else {}


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
    @raise TunnelError: C{bad-option}, if the named source has no token.
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
    line = _contents(path, f"--token-file {path}").strip().partition(b"\n")[0].strip()
    return _checked(line.decode("utf-8", "replace"), f"--token-file {path}")


def _contents(path: str, option: str) -> bytes:
    name = option.partition(" ")[0]
    if path.startswith(TOKEN_PREFIX) and not os.path.exists(path):
        raise badOption(
            f"{name} takes a file, not the token itself; that goes into the variable"
            f" {TOKEN_VARIABLE}"
        )
    if path.lstrip().startswith("{"):
        raise badOption(
            f"{name} takes a file, not what is in it; that goes into the variable"
            f" {CREDENTIALS_VARIABLE}"
        )
    return readSecret(option, os.path.expanduser(path))


def _object(text: str, where: str) -> dict[str, object]:
    """Read a JSON object, without repeating its secrets in a message."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise badOption(f'{where} is not a JSON object such as {{"id": "laptop"}}')
    return value


def _checked(token: str, where: str) -> str:
    """Refuse text that cannot be a token, without repeating it."""
    if not token:
        raise badOption(f"{where} holds no token")
    if len(token) > LONGEST_TOKEN:
        raise badOption(f"{where} holds no token: it is too long for one")
    if not token.isascii() or not token.isprintable() or " " in token:
        raise badOption(f"{where}: a token is one word of printable ASCII characters")
    return token
