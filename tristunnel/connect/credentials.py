"""
Credentials that nobody else can see.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping

from tristunnel.auth.files import readAtOnce, reasonOf
from tristunnel.errors import TunnelError
from tristunnel.util.files import warnIfOpen

__all__ = ["CREDENTIALS_VARIABLE", "givenCredentials"]

CREDENTIALS_VARIABLE = "TRISTUNNEL_CREDENTIALS"
"""The environment variable that may hold credentials, a JSON object."""


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
        try:
            status, data = readAtOnce(os.path.expanduser(path))
            text = data.decode("utf-8")
        except (OSError, ValueError) as error:
            isText = not isinstance(error, UnicodeDecodeError)
            why = reasonOf(error) if isText else "it is not UTF-8"
            raise TunnelError(
                "bad-option", f"--credentials-file {path} cannot be read: {why}"
            ) from None
        warnIfOpen(path, status.st_mode)
        return _object(text, f"--credentials-file {path}")
    variables = os.environ if environment is None else environment
    text = variables.get(CREDENTIALS_VARIABLE, "")
    return _object(text, f"the variable {CREDENTIALS_VARIABLE}") if text else {}


def _object(text: str, where: str) -> dict[str, object]:
    """
    Read a JSON object, without repeating its secrets in a message.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise TunnelError(
            "bad-option", f'{where} holds no JSON object such as {{"id": "laptop"}}'
        )
    return value
