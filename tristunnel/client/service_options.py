"""The options about services: how they are checked, and started on demand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from tristunnel.config.help import OptionGroup
from tristunnel.config.numbers import count, seconds
from tristunnel.errors import TunnelError, badOption
from tristunnel.forwards.demand import IDLE, WAIT, DemandPlan, planOf
from tristunnel.forwards.forward import Forward
from tristunnel.forwards.health import HealthPlan, HealthRules
from tristunnel.forwards.health import planOf as healthPlanOf

__all__ = [
    "DEMAND",
    "HEALTH",
    "DemandOptionsMixin",
    "HealthOptionsMixin",
    "demandOf",
    "healthOf",
]

HEALTH = OptionGroup(
    "Whether services are well",
    "health=CHECK health-interval=SECONDS health-fall=NUMBER health-rise=NUMBER",
)
"""How C{--help} shows these options."""

_RULES = HealthRules()


class HealthOptionsMixin:
    """For C{usage.Options}: how services are checked."""

    optParameters: ClassVar[Any] = [
        (
            "health",
            None,
            "",
            "Let visitors in only while services are well: tcp, or http:/PATH.",
        ),
        seconds(
            "health-interval",
            _RULES.interval,
            "Seconds between two checks.",
            0.1,
            86400,
        ),
        count(
            "health-fall", _RULES.fall, "Failed checks until a service is not well.", 1
        ),
        count("health-rise", _RULES.rise, "Passed checks until it is well again.", 1),
    ]


def healthOf(options: Mapping[str, Any], own: str) -> HealthPlan | None:
    """
    Find out how a service is checked.

    @param options: The options for all of the client's services.
    @param own: What its forward says.
    @raise TunnelError: C{bad-option}.
    """
    rules = HealthRules(
        options["health-interval"], options["health-fall"], options["health-rise"]
    )
    return healthPlanOf(own or options["health"], rules)


DEMAND = OptionGroup(
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
