"""
Command lines of the programs that C{twistd} does not run.
"""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Sequence
from typing import Any, NoReturn

__all__ = ["Parser"]


class Parser(ArgumentParser):
    """
    C{ArgumentParser} without abbreviations, for itself and for its commands:
    C{--token SECRET} must not become C{--token-file SECRET}, whose complaint
    shows the secret. What is not understood is not repeated either.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings, allow_abbrev=False)

    def parse_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> Any:
        """
        Read a command line.

        @raise SystemExit: With 2, if it is wrong.
        """
        options, left = self.parse_known_args(args, namespace)
        if left:
            self._left(left)
        return options

    def parse_intermixed_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> Any:
        """
        Read a command line with options behind and between the rest.

        @raise SystemExit: With 2, if it is wrong.
        """
        options, left = self.parse_known_intermixed_args(args, namespace)
        if left:
            self._left(left)
        return options

    def _left(self, left: Sequence[str]) -> NoReturn:
        """
        Say which options there are not, without what was given to them.
        """
        unknown = [w.partition("=")[0] for w in left if w.startswith("-")]
        self.error(
            f"there is no option {' and no '.join(unknown)}"
            if unknown
            else "there are more words than it takes"
        )
