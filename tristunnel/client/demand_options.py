"""The options for starting services on demand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from tristunnel.config.help import Group
from tristunnel.config.numbers import seconds
from tristunnel.errors import TunnelError, badOption
from tristunnel.forwards.demand import IDLE, WAIT, DemandPlan, planOf
from tristunnel.forwards.forward import Forward

__all__ = ["DEMAND", "DemandOptionsMixin", "demandOf"]

DEMAND = Group(
    "Starting services for their visitors",
    "start=COMMAND stop=COMMAND wake=MAC idle=SECONDS start-wait=SECONDS",
)
"""How C{--help} shows these options."""


def _given(option: str, what: str) -> Callable[[str], str]:
    """Make the reader of an option that says nothing only if it is left out."""

    def read(text: str) -> str:
        if not text.strip():
            raise ValueError(f"--{option} is empty; write {what}, or leave it out")
        return text

    return read


class DemandOptionsMixin:
    """For C{usage.Options}: how services are started."""

    optParameters: ClassVar[Any] = [
        (
            "start",
            None,
            "",
            "Run this when a visitor comes and nothing listens.",
            _given("start", "a command"),
        ),
        (
            "stop",
            None,
            "",
            "Run this to stop it; without it, what --start runs is stopped.",
            _given("stop", "a command"),
        ),
        (
            "wake",
            None,
            "",
            "Wake the service's machine with a magic packet: MAC[@ADDRESS[:PORT]].",
            _given("wake", "MAC[@ADDRESS[:PORT]]"),
        ),
        seconds(
            "idle",
            IDLE,
            "Seconds without visitors until it is stopped (0 = never).",
            1,
            orZero=True,
        ),
        seconds(
            "start-wait", WAIT, "Seconds that visitors wait for it to start.", 1, 3600
        ),
    ]


def demandOf(options: Mapping[str, Any], forward: Forward) -> DemandPlan | None:
    """
    Find out how a service is started.

    @param options: The options for all of the client's services.
    @param forward: The service, whose own options come first.
    @raise TunnelError: C{bad-option}.
    """
    own = forward.options
    said = own if own.start or own.wake else None
    if said:
        start, stop, wake = said.start, said.stop, said.wake
    else:
        start, wake = options["start"], options["wake"]
        stop = own.stop or options["stop"]
    try:
        plan = planOf(start, stop, wake, options["idle"], options["start-wait"])
    except TunnelError as error:
        where = f"--forward {forward.spec!r}: " if said else "--"
        raise badOption(f"{where}{error.message}") from None
    if plan is None:
        return None
    if forward.isUDP or forward.inner is not None:
        if said is None:
            return None
        why = "UDP tells no visits" if forward.isUDP else "it is always there"
        raise badOption(f"--forward {forward.spec!r}: {why}; leave out start and wake")
    if forward.health is not None:
        raise badOption(
            f"--forward {forward.spec!r}: a service that is started for its visitors is"
            " not asked whether it is well; leave out health, or write health=none"
        )
    return plan
