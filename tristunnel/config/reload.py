"""Putting a changed configuration file in force without a restart."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from twisted.internet.defer import Deferred, DeferredLock
from twisted.logger import Logger

from tristunnel.config.options import ConfiguredOptions
from tristunnel.errors import TunnelError

__all__ = ["Changes", "Reload", "differing"]


@dataclass
class Changes:
    """
    The result of reading a changed file.

    @ivar applied: The changes, in words.
    @ivar restart: Options whose new values need a restart.
    """

    applied: list[str] = field(default_factory=list)
    restart: list[str] = field(default_factory=list)

    def describe(self) -> dict[str, object]:
        """The result of C{reload}."""
        return {"changed": self.applied, "needsRestart": self.restart}

    def __str__(self) -> str:
        """The same for a log."""
        told = "; ".join(self.applied) or "nothing has changed"
        if self.restart:
            told += f"; needs a restart: {', '.join(self.restart)}"
        return told


def differing(old: ConfiguredOptions, new: ConfiguredOptions) -> set[str]:
    """Find the options whose values differ."""
    before, after = old.inForce(), new.inForce()
    return {
        name for name, setting in after.items() if before[name].value != setting.value
    }


@dataclass(eq=False, repr=False)
class Reload:
    """
    Reads the options of a running program again.

    @ivar options: Those in force.
    @ivar apply: Puts new options, which have been checked, in force: called with the
        old and the new ones.
    """

    _log = Logger(namespace="tristunnel.config")

    options: ConfiguredOptions
    apply: Callable[[Any, Any], Awaitable[Changes]]
    _lock: DeferredLock = field(init=False, default_factory=DeferredLock)

    def reload(self) -> Deferred[dict[str, object]]:
        """
        Read the file, and put in force what has changed. If anything in it is
        wrong, nothing changes.

        @return: Fires with C{changed} and C{needsRestart}, lists of strings;
            fails with L{TunnelError}.
        """
        return self._lock.run(Deferred.fromCoroutine, self._reload())

    async def _reload(self) -> dict[str, object]:
        old = self.options
        try:
            new = old.again()
        except TunnelError as error:
            self._log.error(
                "The configuration was not reloaded, and nothing has changed: {reason}",
                reason=error.message,
            )
            raise
        changes = await self.apply(old, new)
        self.options = new
        self._log.info("The configuration was reloaded: {changes}", changes=changes)
        return changes.describe()

    def reloadLater(self) -> None:
        """
        The same for a signal; the result is logged. Programs that rotate log files send
        it, too, with and without a configuration.
        """
        if self.options.file is None:
            self._log.info("There is no configuration to reload: no --config was given")
            return
        self.reload().addErrback(self._failed)

    def _failed(self, failure: Any) -> None:
        if not failure.check(TunnelError):
            self._log.failure("The configuration was not reloaded", failure)
