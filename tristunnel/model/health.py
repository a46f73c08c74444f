"""Whether a tunnel's service is well, as its client has found out."""

from __future__ import annotations

from dataclasses import dataclass

from tristunnel.errors import printable

__all__ = ["Health"]


@dataclass
class Health:
    """
    What a client has reported of its service; until then, the service does not count as
    well.

    @ivar isWell: Whether visitors are let in.
    @ivar reason: Why not.
    @ivar proven: When the service last passed a check, by the tunnel's clock;
        C{None} if it never has.
    """

    isWell: bool = False
    reason: str = "its service has not passed a check yet"
    proven: float | None = None

    def told(self, isWell: bool, reason: str, now: float) -> None:
        """
        Take the client's report.

        @param reason: Why the service is not well.
        @param now: By the tunnel's clock.
        """
        self.isWell = isWell
        self.reason = "" if isWell else printable(reason, 200)
        if isWell:
            self.proven = now

    def describe(self, now: float) -> dict[str, object]:
        """
        The same as plain data.

        @return: C{well}, C{reason}, and C{proven}, the seconds since the last check
            that was passed, or C{None}.
        """
        ago = None if self.proven is None else round(now - self.proven, 1)
        return {"well": self.isWell, "reason": self.reason, "proven": ago}
