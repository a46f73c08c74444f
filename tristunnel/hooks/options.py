"""The options about hooks that both commands have."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from tristunnel.auth.files import readAtOnce, reasonOf
from tristunnel.config.help import Group
from tristunnel.config.numbers import seconds
from tristunnel.config.settings import redacted
from tristunnel.errors import badOption
from tristunnel.hooks.ask import DecidingHook, parseAsk
from tristunnel.hooks.delivery import Hooks
from tristunnel.hooks.target import Target, checkSecret, parseTarget
from tristunnel.util.command_line import hideArguments
from tristunnel.util.files import warnIfOpen

__all__ = [
    "ASK",
    "HOOKS",
    "AskOptionsMixin",
    "HookOptionsMixin",
    "decisionsOf",
    "hooksOf",
    "targetsOf",
]

ASK_TIMEOUT = 3.0
"""Seconds that a question waits for its answer."""

HOOKS = Group(
    "Telling others what happens", "on-event=[KIND=]TARGET event-secret-file=FILE"
)
"""How help shows them."""


ASK = Group(
    "Letting another program decide",
    "ask=[QUESTION,...=]URL ask-timeout=SECONDS ask-default=deny|allow",
)
"""The same of questions."""


class HookOptionsMixin:
    """For C{usage.Options}: who is told what happens."""

    optParameters: ClassVar[Any] = [
        (
            "event-secret-file",
            None,
            "",
            "File with the secret that signs what --on-event sends.",
        ),
    ]

    def opt_on_event(self: Any, target: str) -> None:
        """
        Send events to this URL, or run exec:COMMAND for them. To choose kinds of
        events, put them first: client-*,limit-reached=https://HOST/PATH.
        slack+https: and ntfy+https: work too. Can be repeated.
        """
        self["on-event"] = [*self.get("on-event", []), target]


def hooksOf(reactor: Any, options: Mapping[str, Any], program: str) -> Hooks | None:
    """
    Make the hooks.

    @param program: C{server} or C{client}.
    @return: C{None} if nobody is to be told.
    @raise TunnelError: C{bad-option}.
    """
    targets = targetsOf(options)
    if not targets:
        return None
    _hide("on-event", options["on-event"])
    return Hooks(reactor, targets, _secret(options["event-secret-file"]), program)


class AskOptionsMixin(HookOptionsMixin):
    """For C{usage.Options}: who is asked what may happen, too."""

    optParameters: ClassVar[Any] = [
        (
            "ask",
            None,
            "",
            "Ask this URL who may log in, open tunnels and visit. To ask only some of"
            " that, put login,open,visitor and = in front.",
        ),
        seconds("ask-timeout", ASK_TIMEOUT, "Seconds to wait for its answer.", 0.1),
        ("ask-default", None, "deny", "What to do without an answer: deny or allow."),
    ]


def decisionsOf(reactor: Any, options: Mapping[str, Any]) -> DecidingHook | None:
    """
    Make the hook that decides.

    @return: C{None} if nobody is to be asked.
    @raise TunnelError: C{bad-option}.
    """
    if options["ask-default"] not in ("deny", "allow"):
        raise badOption("--ask-default takes deny or allow")
    if not options["ask"]:
        return None
    _hide("ask", [options["ask"]])
    return DecidingHook(
        reactor,
        parseAsk(options["ask"]),
        _secret(options["event-secret-file"]),
        options["ask-timeout"],
        options["ask-default"] == "allow",
    )


def targetsOf(options: Mapping[str, Any]) -> list[Target]:
    """
    Check the options.

    @raise TunnelError: C{bad-option}.
    """
    targets = [parseTarget(each) for each in options.get("on-event", ())]
    if options["event-secret-file"] and not (targets or options.get("ask")):
        raise badOption("--event-secret-file goes with --on-event or --ask")
    _secret(options["event-secret-file"])
    return targets


def _hide(name: str, values: Iterable[str]) -> None:
    """Addresses of hooks are secrets: everybody sees a command line."""
    hideArguments(each for each in values if redacted(name, each) != each)


def _secret(path: str) -> bytes:
    if not path:
        return b""
    try:
        status, text = readAtOnce(path)
    except (OSError, ValueError) as problem:
        raise badOption(
            f"--event-secret-file {path} cannot be read: {reasonOf(problem)}"
        ) from None
    warnIfOpen(path, status.st_mode)
    return checkSecret(text)
