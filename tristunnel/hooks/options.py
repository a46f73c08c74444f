"""The options about hooks that both commands have."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from tristunnel.auth.files import readSecret
from tristunnel.config.help import OptionGroup
from tristunnel.config.numbers import seconds
from tristunnel.config.settings import redacted
from tristunnel.errors import badOption
from tristunnel.hooks.ask import DecidingHook, parseAsk
from tristunnel.hooks.delivery import Hooks
from tristunnel.hooks.target import Target, checkSecret, parseTarget
from tristunnel.util.command_line import hideArguments

__all__ = [
    "ASK",
    "HOOKS",
    "AskOptionsMixin",
    "HookOptionsMixin",
    "decisionsOf",
    "hookSettings",
    "hooksOf",
]

ASK_TIMEOUT = 3.0
"""Seconds that a question waits for its answer."""

HOOKS = OptionGroup(
    "Telling others what happens", "on-event=[KIND=]TARGET event-secret-file=FILE"
)
"""How C{--help} shows these options."""


ASK = OptionGroup(
    "Letting another program decide",
    "ask=[QUESTION,...=]URL ask-timeout=SECONDS ask-default=deny|allow",
)
"""The same for questions."""


@dataclass(frozen=True)
class HookSettings:
    """
    What the options say.

    @ivar targets: Who is told.
    @ivar secret: What signs that, or empty.
    """

    targets: Sequence[Target]
    secret: bytes = field(repr=False)


class HookOptionsMixin:
    """
    For C{usage.Options}: who is told what happens.

    @ivar hooks: What L{checkHooks} has made of that.
    """

    hooks: HookSettings

    def checkHooks(self: Any) -> None:
        """
        Read the options, and the secret's file, once.

        @raise TunnelError: C{bad-option}.
        """
        self.hooks = hookSettings(self)

    optParameters: ClassVar[Any] = [
        (
            "event-secret-file",
            None,
            "",
            "File with the secret that signs what --on-event sends.",
        )
    ]

    def opt_on_event(self: Any, target: str) -> None:
        """
        Send events to this URL, or run exec:COMMAND for them. To choose kinds of
        events, put them first: client-*,limit-reached=https://HOST/PATH.
        slack+https: and ntfy+https: work too. Can be repeated.
        """
        self["on-event"] = [*self.get("on-event", []), target]


def hookSettings(options: Mapping[str, Any]) -> HookSettings:
    """
    Check the options.

    @raise TunnelError: C{bad-option}.
    """
    targets = [parseTarget(each) for each in options.get("on-event", ())]
    path = options["event-secret-file"]
    if path and not (targets or options.get("ask")):
        raise badOption("--event-secret-file goes with --on-event or --ask")
    return HookSettings(targets, _secret(path))


def hooksOf(reactor: Any, options: Any, program: str) -> Hooks | None:
    """
    Make the hooks.

    @param options: Options that were checked.
    @param program: C{server} or C{client}.
    @return: C{None} if nobody is to be told.
    """
    settings: HookSettings = options.hooks
    if not settings.targets:
        return None
    _hide("on-event", options["on-event"])
    return Hooks(reactor, settings.targets, settings.secret, program)


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


def decisionsOf(reactor: Any, options: Any) -> DecidingHook | None:
    """
    Make the hook that decides.

    @param options: Options whose L{HookOptionsMixin.checkHooks} was called.
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
        options.hooks.secret,
        options["ask-timeout"],
        options["ask-default"] == "allow",
    )


def _hide(name: str, values: Iterable[str]) -> None:
    """Addresses of hooks are secrets: everybody sees a command line."""
    hideArguments(each for each in values if redacted(name, each) != each)


def _secret(path: str) -> bytes:
    if not path:
        return b""
    return checkSecret(readSecret(f"--event-secret-file {path}", path))
