"""
The countries of addresses, from a file of the operator's in MaxMind's format, which
DB-IP and others use, too.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import maxminddb

from tristunnel.errors import badOption
from tristunnel.util.watch import Reloading

__all__ = ["CountryDatabase"]

LOOKS = 60.0
"""The seconds between two checks whether there is another file, which can be large."""


class CountryDatabase:
    """
    Finds the countries of addresses, and takes a newer file in the place of its own.

    @param path: The file.
    @param seconds: The clock.
    @raise TunnelError: C{bad-option}, if it is not such a file, or has no countries.
    """

    def __init__(self, path: str, seconds: Callable[[], float]) -> None:
        self._path = os.path.abspath(path)
        self._reader = Reloading([self._path], self._opened, seconds, LOOKS)

    def _opened(self) -> maxminddb.Reader:
        try:
            # In memory, so that a file that is written over while it is read does
            # no harm.
            reader = maxminddb.open_database(self._path, maxminddb.MODE_MEMORY)
            kind = reader.metadata().database_type
        except (OSError, ValueError, maxminddb.InvalidDatabaseError) as error:
            why = getattr(error, "strerror", None) or error
            raise badOption(
                f"--country-database {self._path} cannot be used: {why}; it takes a"
                " file such as GeoLite2-Country.mmdb"
            ) from None
        if not any(each in kind for each in ("Country", "City")):
            raise badOption(
                f"--country-database {self._path} has no countries: it is a {kind}"
            )
        return reader

    def countryOf(self, host: str) -> str:
        """
        Find the country of an address.

        @return: Two letters; empty if it is not known, as for private addresses.
        """
        try:
            found: Any = self._reader.get().get(host)
        except (ValueError, maxminddb.InvalidDatabaseError):
            return ""
        if not isinstance(found, dict):
            return ""
        country = found.get("country") or found.get("registered_country")
        code = country.get("iso_code") if isinstance(country, dict) else ""
        return code if isinstance(code, str) else ""
