"""
The countries of addresses, from a file of the operator's in MaxMind's format, which
DB-IP and others use, too.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import maxminddb
from twisted.logger import Logger

from tristunnel.errors import badOption

__all__ = ["CountryDatabase"]

LOOKS = 60.0
"""Seconds between two looks whether there is another file."""


class CountryDatabase:
    """
    Finds the countries of addresses, and takes a newer file in the place of its own.

    @param path: The file.
    @param seconds: The clock.
    @raise TunnelError: C{bad-option}, if it is not such a file, or has no countries.
    """

    _log = Logger(namespace="tristunnel.server")

    def __init__(self, path: str, seconds: Callable[[], float]) -> None:
        self._path = os.path.abspath(path)
        self._seconds = seconds
        self._lookedAt = seconds()
        try:
            self._signature = self._signed()
            self._reader = self._opened()
            metadata = self._reader.metadata()
        except (OSError, ValueError, maxminddb.InvalidDatabaseError) as error:
            why = getattr(error, "strerror", None) or error
            raise badOption(
                f"--country-database {path} cannot be used: {why}; it takes a file such"
                " as GeoLite2-Country.mmdb"
            ) from None
        if not any(each in metadata.database_type for each in ("Country", "City")):
            raise badOption(
                f"--country-database {path} has no countries: it is a"
                f" {metadata.database_type}"
            )

    def _signed(self) -> tuple[int, int]:
        status = os.stat(self._path)
        return status.st_ino, status.st_mtime_ns

    def _opened(self) -> maxminddb.Reader:
        # In memory, so that a file that is written over while it is read does no harm.
        return maxminddb.open_database(self._path, maxminddb.MODE_MEMORY)

    def countryOf(self, host: str) -> str:
        """
        Find the country of an address.

        @return: Two letters; empty if it is not known, as for private addresses.
        """
        if self._seconds() - self._lookedAt >= LOOKS:
            self._follow()
        try:
            found: Any = self._reader.get(host)
        except (ValueError, maxminddb.InvalidDatabaseError):
            return ""
        if not isinstance(found, dict):
            return ""
        country = found.get("country") or found.get("registered_country")
        code = country.get("iso_code") if isinstance(country, dict) else ""
        return code if isinstance(code, str) else ""

    def _follow(self) -> None:
        self._lookedAt = self._seconds()
        try:
            signature = self._signed()
            if signature == self._signature:
                return
            self._signature = signature
            self._reader = self._opened()
        except (OSError, ValueError, maxminddb.InvalidDatabaseError) as error:
            self._log.error(
                "{path} cannot be read any more, and its last content stays in use:"
                " {error}",
                path=self._path,
                error=error,
            )
