"""
Command lines: of programs that C{twistd} does not run, and secrets, which everybody
on a machine can read there.
"""

from __future__ import annotations

import ctypes
import re
import shlex
import shutil
import sys
from argparse import ZERO_OR_MORE, Action, ArgumentParser, HelpFormatter, Namespace
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from twisted.logger import Logger

from tristunnel.errors import badOption, printable
from tristunnel.util.words import HYPHENS, nearest

__all__ = [
    "SECRET_HEADERS",
    "Parser",
    "endWithUsage",
    "exposedSecrets",
    "hideArguments",
    "hideExposed",
    "programWords",
    "valuesOf",
]


def endWithUsage(program: str, message: str) -> NoReturn:
    """
    End the process, with status 2, for a command line that cannot be understood.

    @param program: What it begins with.
    @param message: What is wrong; it becomes one line on the standard error output.
    """
    print(f"{program}: {printable(message, LONGEST)}", file=sys.stderr, flush=True)
    sys.exit(2)


class _Help(HelpFormatter):
    """Like the help of programs that run on."""

    def add_usage(
        self, usage: Any, actions: Any, groups: Any, prefix: str | None = None
    ) -> None:
        super().add_usage(
            usage, actions, groups, "Usage: " if prefix is None else prefix
        )

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        # Lines that are for pasting stay what they are.
        return text if "\n" in text else super()._fill_text(text, width, indent)


def _usageOf(actions: Sequence[Action]) -> str:
    """Only what must be given, for a list of all options follows."""
    words = []
    for each in actions:
        taken = str(each.metavar or each.dest)
        if each.option_strings:
            words += [f"{each.option_strings[-1]} {taken}"] if each.required else []
        else:
            isOptional = not each.required and taken != "..."
            if each.nargs == ZERO_OR_MORE:
                isOptional, taken = True, f"{taken} ..."
            words.append(f"[{taken}]" if isOptional else taken)
    # What takes the rest of the line comes behind all options.
    return " ".join(["%(prog)s", "[options]", *words])


class Parser(ArgumentParser):
    """
    C{ArgumentParser} without abbreviations, for itself and for its commands:
    C{--token SECRET} must not become C{--token-file SECRET}, whose complaint
    shows the secret. What is not understood is not repeated either, and a mistake
    is one line.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings, allow_abbrev=False, formatter_class=_Help)
        self._positionals.title, self._optionals.title = "Arguments", "Options"
        self._actions[0].help = "show this help, then exit"
        # Whose command was meant, for those within each other.
        self.set_defaults(parser=self)

    def format_help(self) -> str:
        if self.usage is None:
            self.usage = _usageOf(self._actions)
        return super().format_help()

    def error(self, message: str) -> NoReturn:
        if found := _CHOICE.fullmatch(message):
            place, told, choices = found.groups()
            known = re.findall(r"'?([^', ]+)'?(?:, |$)", choices)
            what = "command" if place in ("COMMAND", "ACTION") else place.lower()
            what = "word" if "|" in what else what
            message = f"unknown {what} {told}{nearest(told.strip(chr(39)), known)}"
        elif found := _REQUIRED.fullmatch(message):
            first = found[1].partition(",")[0]
            message = f"{first} is missing; see {self.prog} --help"
            commands = [each.choices for each in self._actions if each.choices]
            if found[1] in ("COMMAND", "ACTION") and commands:
                message = f"which command? choose from {', '.join(commands[0])}"
        elif found := _VALUE.fullmatch(message):
            message = f"{found[1]} needs a value"
        elif found := _NO_VALUE.match(message):
            message = f"{found[1]} takes no value"
        elif found := _OTHER.match(message):
            # Which word is meant is plain; which option is not.
            named = f"{found[1]}: " if found[1].startswith("-") else ""
            message = named + message[found.end() :]
        endWithUsage(self.prog, message)

    def parse_args(  # type: ignore[override] # the other overloads are not used
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> Any:
        return self._whole(*self.parse_known_args(args, namespace))

    def parse_intermixed_args(  # type: ignore[override] # the other overloads are not used
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> Any:
        # It would make a usage line of its own.
        self.usage = self.usage or _usageOf(self._actions)
        return self._whole(*self.parse_known_intermixed_args(args, namespace))

    def _whole(self, options: Namespace, left: Sequence[str]) -> Namespace:
        if not left:
            return options
        ours: Parser = options.parser
        known = [word for each in ours._actions for word in each.option_strings]
        # Which options there are not, without what was given to them.
        unknown = [w.partition("=")[0] for w in left if w.startswith(HYPHENS)]
        close = (
            nearest(
                unknown[0].lstrip("".join(HYPHENS)),
                (w[2:] for w in known if w[:2] == "--"),
                "--",
            )
            if unknown
            else ""
        )
        if unknown:
            ours.error(f"unknown option {' and '.join(unknown)}{close}")
        word = printable(left[0], 60)
        named = "--name" in known and not getattr(options, "name", None)
        hint = f"; did you mean --name {word}?" if named else ""
        ours.error(f"{word!r} is one word too many{hint}")


LONGEST = 500
"""Characters of a line about a command line."""

_CHOICE = re.compile(
    r"argument (.*): invalid choice: (.*?) \((?:choose from )(.*)\)", re.DOTALL
)
_VALUE = re.compile(r"argument (\S+): expected (?:one|at least one) argument")
_NO_VALUE = re.compile(r"argument (\S+): ignored explicit argument")
_OTHER = re.compile(r"argument (\S+): ")
_REQUIRED = re.compile(r"the following arguments are required: (.*)")

_log = Logger(namespace="tristunnel.client")

# The fields of /proc/PID/stat (proc_pid_stat(5)), counted from the one after
# the command's name.
_ARG_START, _ARG_END = 48 - 3, 49 - 3

SECRET_HEADERS = {"authorization", "cookie", "proxy-authorization"}


def programWords(option: str, text: str) -> tuple[str, ...]:
    """
    Read a command as a shell would, without variables and pipes.

    @param option: Which option has it, as messages name it.
    @raise TunnelError: C{bad-option}, if it does not begin with a program.
    """
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise badOption(f"{option}: {error}") from None
    if not words or shutil.which(words[0]) is None:
        named = printable(words[0], 60) if words else ""
        raise badOption(
            f"{option}: {named!r} is not a program here; write PROGRAM ARGUMENTS, and"
            " for a shell's line: sh -c 'LINE'"
        )
    return tuple(words)


def hideArguments(secrets: Iterable[str]) -> bool:
    """
    Overwrite words in this process's command line, as far as the system shows
    it to others. What saw it before has seen it: a secret belongs elsewhere.

    @param secrets: What is to be overwritten.
    @return: Whether that is known to have worked; only Linux can tell.
    """
    hidden = False
    with suppress(OSError, ValueError, IndexError):
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        start, end = int(fields[_ARG_START]), int(fields[_ARG_END])
        shown = Path("/proc/self/cmdline").read_bytes()
        # An address that the kernel does not give is 0.
        if not start or ctypes.string_at(start, end - start) != shown:
            return False
        for secret in sorted(set(secrets), key=len, reverse=True):
            word = secret.encode("utf-8", "surrogateescape")
            at = shown.find(word) if word else -1
            while at >= 0:
                ctypes.memset(start + at, ord("x"), len(word))
                at = shown.find(word, at + len(word))
                hidden = True
    return hidden


def valuesOf(arguments: Sequence[str], *options: str) -> list[str]:
    """
    Find the values of options in a command line: C{--token VALUE} and
    C{--token=VALUE}.
    """
    return [
        following if word in options else word.partition("=")[2]
        for word, following in zip(arguments, [*arguments[1:], ""], strict=False)
        if word.partition("=")[0] in options
    ]


def hideExposed(exposed: Mapping[str, tuple[str, list[str]]]) -> None:
    """
    Hide secrets, and say that they should not have been there.

    @param exposed: What L{exposedSecrets} found.
    """
    for option, (cure, secrets) in exposed.items():
        hideArguments(secrets)
        _log.warn(
            "{option} has a secret on the command line, which everybody on this machine"
            " could read; {cure}",
            option=option,
            cure=cure,
        )


def exposedSecrets(options: Mapping[str, Any]) -> dict[str, tuple[str, list[str]]]:
    """
    Find the secrets among a client's options, as they came from the command
    line.

    @return: For each option, what to do instead, and the secrets.
    """
    variable = "set the variable TRISTUNNEL_{} instead"
    file = "use --credentials-file or --token-file instead"

    def after(option: str, mark: str) -> str:
        return (options.get(option) or "").partition(mark)[2]

    place, _, query = after("connect", "://").partition("?")
    login = place.partition("/")[0].rpartition("@")[0]
    credentials = (options.get("credentials") or {}).items()
    headers = options.get("header", ())
    found: dict[str, tuple[str, list[str]]] = {
        "tunnel": (variable.format("TUNNEL"), [after("tunnel", "#")]),
        "access": (variable.format("ACCESS"), [after("access", "#")]),
        "connect": (file, [login, query if "token=" in query else ""]),
        "credentials": (file, [text for key, text in credentials if key != "id"]),
        "proxy": (variable.format("PROXY"), [after("proxy", "://").rpartition("@")[0]]),
        "header": (
            file,
            [text for name, text in headers if name.lower() in SECRET_HEADERS],
        ),
    }
    return {
        f"--{option}": (cure, given)
        for option, (cure, secrets) in found.items()
        if (given := [secret for secret in secrets if secret])
    }
