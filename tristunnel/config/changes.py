"""
What is different between two readings of the same options.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tristunnel.config.options import ConfiguredOptions

__all__ = ["Changes", "differing"]


@dataclass
class Changes:
    """
    What has come of a changed file.

    @ivar applied: What has changed, in words.
    @ivar restart: Options whose new values a restart would put in force.
    """

    applied: list[str] = field(default_factory=list)
    restart: list[str] = field(default_factory=list)

    def describe(self) -> dict[str, object]:
        """
        What C{reload} answers.
        """
        return {"changed": self.applied, "needsRestart": self.restart}

    def __str__(self) -> str:
        """
        The same for a log.
        """
        told = "; ".join(self.applied) or "nothing has changed"
        if self.restart:
            told += f"; needs a restart: {', '.join(self.restart)}"
        return told


def differing(old: ConfiguredOptions, new: ConfiguredOptions) -> set[str]:
    """
    Find the options that have another value.
    """
    before, after = old.inForce(), new.inForce()
    return {
        name for name, setting in after.items() if before[name].value != setting.value
    }
