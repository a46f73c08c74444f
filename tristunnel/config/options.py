"""Options that may also come from a file: C{--config}."""

from __future__ import annotations

import getopt
import os
import re
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, ClassVar

from twisted.python import usage

from tristunnel.config.file import ConfigFile, readConfig
from tristunnel.config.help import OptionGroup, helpText
from tristunnel.config.keys import COMMANDS, FLAG, Key, keysOf, valuesIn
from tristunnel.config.numbers import checkNumbers
from tristunnel.config.settings import (
    DEFAULT,
    OPTION,
    Setting,
    redacted,
    settingsOf,
    shownSettings,
)
from tristunnel.errors import TunnelError, badOption, printable
from tristunnel.util.command_line import endWithUsage
from tristunnel.util.files import warnIfOpen
from tristunnel.util.words import HYPHENS, nearest
from tristunnel.version import VERSION

__all__ = ["IN_FOREGROUND", "CheckedOptions", "ConfiguredOptions"]

_OPTION = re.compile(r"--([a-z][a-z-]*)")
_PLACE = re.compile(r"(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\]):[0-9]+")

_keysOf = cache(keysOf)

IN_FOREGROUND: Mapping[str, str] = {
    **dict.fromkeys(
        ("daemon", "daemonize", "detach", "background", "d", "b"),
        "it runs in the foreground; tristunnel install starts it in the background",
    ),
    **dict.fromkeys(
        ("log", "log-file", "log-level", "logfile", "verbose", "v", "debug", "quiet"),
        "the log goes to the standard error output; redirect it with 2>FILE",
    ),
}
"""Explanations for options about what the commands of C{tristunnel} leave to other
programs."""

_TOKENS = ("token", "authtoken", "auth-token", "auth", "secret", "key", "password")
"""The names of options for secrets in other programs."""


_UNKNOWN = re.compile(r"option (--?.+) not (?:a unique prefix|recognized)")
_NO_VALUE = re.compile(r"option (--?.+) requires argument")
_A_VALUE = re.compile(r"option (--?.+) must not have an argument")


class CheckedOptions(usage.Options):
    """
    Options that are checked before anything starts.

    None can be abbreviated: C{--token SECRET} would mean C{--token-file SECRET}, and
    its error message would show the secret. A program in the foreground has no pid file
    unless one is named: C{twistd.pid} would keep a second program from starting in the
    same directory, and the next one after a C{kill -9}. C{--check} always runs in the
    foreground, whatever C{twistd} was told: its answer is wanted at once.
    """

    words: ClassVar[str] = ""
    """The option that positional arguments stand for; empty if there must be none."""

    synopsis: ClassVar[str] = ""
    longdesc: ClassVar[str] = ""
    examples: ClassVar[Sequence[str]] = ()
    """The examples in C{--help}, without the name of the program."""

    groups: ClassVar[Sequence[OptionGroup]] = ()
    """The groups of options in C{--help}."""

    meant: ClassVar[Mapping[str, str]] = {}
    """Explanations for options that other programs have."""

    optional: ClassVar[Mapping[str, str]] = {}
    """The values of options that are given without one. Such an option takes the next
    word only if that is C{HOST:PORT}, which cannot be another argument; any other value
    is written behind C{=}."""

    # Whether a mistake ends the program; otherwise it is raised, also within twistd.
    _ends = True

    def __init__(self) -> None:
        super().__init__()
        # getopt takes an abbreviation only if it stands for one option.
        self.longOpt = [*self.longOpt, *self.longOpt]

    @property
    def program(self) -> str:
        """The beginning of the command line."""
        outer: Any = getattr(self, "parent", None)
        if outer is None:
            return ""
        return getattr(outer, "program", "") or f"twistd {outer.subCommand}"

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        outer = getattr(self, "parent", None) or {}
        try:
            self.parseWords(self._inOrder(sys.argv[1:] if options is None else options))
        except usage.UsageError as error:
            message = self._plainly(str(error))
            if self._ends and "nodaemon" in outer:
                # Twisted would print all options before the one line that matters.
                endWithUsage(self.program, message)
            raise usage.UsageError(message) from None
        if self.get("check") and "nodaemon" in outer:
            outer["nodaemon"] = 1
        foreground = outer.get("nodaemon") or outer.get("debug")
        if foreground and not _namesPidFile(sys.argv):
            outer["pidfile"] = ""

    def parseWords(self, words: Sequence[str]) -> None:
        """
        Read a command line.

        @param words: Options first; the remaining arguments stand for L{words}.
        """
        super().parseOptions(words)

    def _plainly(self, text: str) -> str:
        """Say what is wrong in plain words instead of those of Python's parser."""
        if unknown := _UNKNOWN.fullmatch(text):
            return self._noOption(unknown[1])
        if found := _NO_VALUE.fullmatch(text):
            return f"{found[1]} needs a value"
        if found := _A_VALUE.fullmatch(text):
            return f"{found[1]} takes no value"
        if text.startswith("Invalid auth type: "):
            told = printable(text.partition(": ")[2], 60)
            return f"unknown --help-auth-type {told!r}; --help-auth lists them"
        return text.removeprefix("Parameter type enforcement failed: ")

    def _inOrder(self, words: Sequence[str]) -> list[str]:
        words = self._completed(words)
        try:
            pairs, others = getopt.gnu_getopt(list(words), self.shortOpt, self.longOpt)
        except getopt.error as error:
            if "--_shell-completion" in words:
                return list(words)
            raise usage.UsageError(str(error)) from None
        if any(word.startswith("tst_") for word in others):
            raise usage.UsageError(
                "a token does not belong on the command line, which everybody can"
                " read: put it"
                " into the variable TRISTUNNEL_TOKEN, or a file for --token-file"
            )
        for word in others:
            if word.startswith(HYPHENS[1:]):
                raise usage.UsageError(self._noOption(word.partition("=")[0]))
        if len(others) > 1 and self.words and not hasattr(self, f"opt_{self.words}"):
            raise usage.UsageError(f"{printable(others[1], 60)!r} is one word too many")
        takes = {name[:-1] for name in self.longOpt if name.endswith("=")}
        ordered: list[str] = []
        for option, value in pairs:
            name = option.lstrip("-")
            if name in self.optional:
                ordered.append(f"{option}={value}")
            else:
                ordered += [option, value] if name in takes else [option]
        for word in others:
            ordered += [f"--{self.words}", word] if self.words else [word]
        return ordered

    def _completed(self, words: Sequence[str]) -> list[str]:
        """Add the values of options that may be given without one."""
        made: list[str] = []
        for index, word in enumerate(words):
            meant = self.optional.get(word.removeprefix("--"))
            following = words[index + 1] if words[index + 1 :] else ""
            alone = word.startswith("--") and not _PLACE.fullmatch(following)
            made.append(f"{word}={meant}" if meant and alone else word)
        return made

    def parseArgs(self, *words: str) -> None:
        if words:
            told = printable(words[0], 60)
            near = [name for name in self.docs if name == words[0].lower()]
            hint = f"; did you mean --{near[0]}?" if near else ""
            if told.isdecimal() and "port" in self.docs:
                hint = f"; did you mean --port {told}?"
            raise usage.UsageError(f"{told!r} is one word too many{hint}")

    def _noOption(self, told: str) -> str:
        known = {name.rstrip("=") for name in self.longOpt}
        name = told.lstrip("".join(HYPHENS))
        if name in _TOKENS and "token-file" in known:
            return (
                f"unknown option {told}; did you mean --token-file, which names a"
                " file? The token itself goes into the variable TRISTUNNEL_TOKEN"
            )
        if name in self.meant and name not in known:
            return f"unknown option {told}; {self.meant[name]}"
        outer: Any = getattr(self, "parent", None)
        theirs = getattr(outer, "synonyms", {})
        isOurs = bool(getattr(outer, "program", "")) or told[1:] not in (
            "-" + name,
            *"nly",
        )
        if name in theirs and not isOurs:
            return (
                f"{told} is an option of twistd itself: write it before"
                f" '{outer.subCommand}'"
            )
        if told.startswith(("--", *HYPHENS[1:])):
            close = nearest(name, known, "--") if len(name) > 1 else ""
        else:
            begun = [each for each in known if each[0] == name]
            close = nearest(name, sorted(begun, key=len)[:1], "--")
        return f"unknown option {told}{close}"

    def opt_version(self) -> None:
        """Show the version of tristunnel, then exit."""
        print(f"tristunnel {VERSION}")
        sys.exit(0)

    def opt_help(self) -> None:
        """Show this help, then exit."""
        print(self, end="")
        sys.exit(0)

    def getUsage(self, width: int | None = None) -> str:
        program = self.program.replace("twistd ", "twistd [options] ", 1)
        return helpText(
            f"{program} {self.synopsis}",
            self.longdesc,
            [
                f"{self.program} {each}".replace("twistd ", "twistd -n ", 1)
                for each in self.examples
            ],
            self.groups,
            {name: text or "" for name, text in self.docs.items()},
            self.defaults,
        )

    __str__ = getUsage

    def postOptions(self) -> None:
        try:
            checkNumbers(type(self), self)
            self.check()
        except TunnelError as error:
            raise usage.UsageError(self.placed(error.message)) from None

    def placed(self, message: str) -> str:
        """Prefix a message with the place of the mistake."""
        return message

    def check(self) -> None:
        """
        Override this.

        @raise TunnelError: C{bad-option}.
        """


def _namesPidFile(arguments: Sequence[str]) -> bool:
    """
    Whether a word is the option for the pid file: C{twistd}'s own options can be
    abbreviated.
    """
    words = (word.partition("=")[0] for word in arguments)
    return any(word[:5] == "--pid" and "--pidfile".startswith(word) for word in words)


class ConfiguredOptions(CheckedOptions):
    """
    Options that can also be given in a file, by keys of the same names. The command
    line takes precedence over the environment, the environment over the file, and the
    file over the defaults.

    @cvar variables: The environment variables that stand for options.
    @cvar fields: The keys of tables, for each option that takes tables.

    @ivar file: The file, or C{None}.
    @ivar settings: Where the value of each option comes from.
    @ivar arguments: The command line.
    @ivar told: The values on it, by option.
    """

    optFlags: ClassVar[Any] = [
        (
            "print-config",
            None,
            "Show the values in use and where they come from, then exit.",
        )
    ]
    optParameters: ClassVar[Any] = [
        (
            "config",
            None,
            None,
            "TOML file with any of these options; SIGHUP reloads it.",
        )
    ]
    variables: ClassVar[Mapping[str, str]] = {}
    fields: ClassVar[Mapping[str, Mapping[str, Key]]] = {}

    def __init__(self) -> None:
        super().__init__()
        self.file: ConfigFile | None = None
        self.settings: dict[str, Setting] = {}
        self.arguments: list[str] = []
        self.told: Mapping[str, list[str]] = {}
        # Answers from the terminal, where nobody can be asked again.
        self.typed: dict[str, str] = {}
        self._path = ""

    @classmethod
    def configKeys(cls) -> dict[str, Key]:
        """The keys of the options."""
        keys = dict(_keysOf(cls))
        for name, fields in cls.fields.items():
            keys[name] = Key(name, many=True, default=(), fields=fields)
        return keys

    # Reading

    def parseWords(self, words: Sequence[str]) -> None:
        self.arguments = list(words)
        told = self._told()
        if told is not None and not (COMMANDS - {"config", "print-config"}) & set(told):
            self.told = told
            try:
                self._takeUp(told)
            except TunnelError as error:
                raise usage.UsageError(error.message) from None
        super().parseWords(self.arguments)

    def again(self) -> Any:
        """
        Read everything again: the file may have changed.

        @return: Other options of the same class.
        @raise TunnelError: C{bad-option}, if anything is wrong.
        """
        if self.file is None:
            raise badOption("there is no file to reload: start with --config FILE")
        return self.another(_path=self.file.path)

    def another(self, **attributes: object) -> Any:
        """
        Read the same command line once more.

        @param attributes: Attributes to set on the other options first.
        @return: Options of the same class.
        @raise TunnelError: C{bad-option}, if anything is wrong.
        """
        fresh = type(self)()
        fresh.parent = getattr(self, "parent", None)
        fresh.typed, fresh._ends = self.typed, False
        vars(fresh).update(attributes)
        try:
            fresh.parseOptions(self.arguments)
        except usage.UsageError as error:
            raise badOption(str(error)) from None
        return fresh

    def _told(self) -> dict[str, list[str]] | None:
        """The options on the command line; C{None} leaves the complaint to Twisted."""
        try:
            pairs, _ = getopt.getopt(self.arguments, self.shortOpt, self.longOpt)
        except getopt.error:
            return None
        told: dict[str, list[str]] = {}
        for option, value in pairs:
            name = option.lstrip("-")
            told.setdefault(self.synonyms.get(name, name), []).append(value)
        return told

    def _takeUp(self, told: Mapping[str, list[str]]) -> None:
        name = told["config"][-1] if "config" in told else self.configFile(told)
        if self.file is None and name:
            self.file = readConfig(name, self._path)
        settings = {} if self.file is None else self.settingsIn(self.file, told)
        settings.update(self.settingsAround(settings))
        keys = self.configKeys()
        for name in told:
            settings.pop(name, None)
        for name, setting in settings.items():
            self._set(keys[name], setting)
        for name, values in told.items():
            if name in keys:
                value = _typed(keys[name], values)
                settings[name] = Setting(value, OPTION)
        self.settings = settings

    def configFile(self, told: Mapping[str, list[str]]) -> str:
        """
        Find the file to read if C{--config} names none.

        @param told: The options on the command line.
        @return: Its path, or nothing.
        """
        return ""

    def settingsIn(
        self, file: ConfigFile, told: Mapping[str, list[str]]
    ) -> dict[str, Setting]:
        """
        Read the settings in a file.

        @param told: The options on the command line.
        @raise TunnelError: C{bad-option}.
        """
        return settingsOf(file, (), valuesIn(file, (), file.table, self.configKeys()))

    def settingsAround(self, settings: dict[str, Setting]) -> dict[str, Setting]:
        """
        Read the settings in the environment.

        @param settings: The settings in the file; those that the environment replaces
            may be removed.
        """
        keys = self.configKeys()
        return {
            name: Setting(
                [os.environ[variable]] if keys[name].many else os.environ[variable],
                f"environment {variable}",
            )
            for name, variable in self.variables.items()
            if os.environ.get(variable)
        }

    def _set(self, key: Key, setting: Setting) -> None:
        if not key.many:
            if key.kind == FLAG:
                self[key.name] = int(setting.value)
                return
            try:
                # The text of a float is never too long for float().
                self[key.name] = key.read(_text(setting.value))
            except ValueError as error:
                raise _at(setting.placeOf(), str(error)) from None
            return
        mangled = key.name.replace("-", "_")
        for index, element in enumerate(setting.value):
            kind = "table" if isinstance(element, Mapping) else "opt"
            try:
                getattr(self, f"{kind}_{mangled}")(element)
            except (usage.UsageError, TunnelError) as error:
                message = getattr(error, "message", None) or str(error)
                raise _at(setting.placeOf(index), message) from None

    # Checking

    def postOptions(self) -> None:
        super().postOptions()
        if self["print-config"] and not self.isInner:
            for line in self.shown():
                print(line)
            sys.stdout.flush()
            sys.exit(0)

    def placed(self, message: str) -> str:
        """Prefix a message about an option from a file with its line."""
        if self.file is not None and message.startswith(f"{self.file.shown}:"):
            return message
        for name in _OPTION.findall(message):
            setting = self.settings.get(name)
            if setting is not None and setting.file is not None:
                return f"{setting.placeOf()}: {message}"
        # Some messages have a path, but not the option it belongs to.
        length, place = 4, ""
        for setting in self.settings.values():
            values = setting.value if isinstance(setting.value, list) else ()
            for index, value in enumerate((setting.value, *values)):
                told = isinstance(value, str) and value in message
                if told and setting.file is not None and len(value) > length:
                    inner = (index - 1,) if index else ()
                    length, place = len(value), f"{setting.placeOf(*inner)}: "
        return place + message

    @property
    def isInner(self) -> bool:
        """Whether these are part of other options, which show everything."""
        return False

    def openSecrets(self) -> list[str]:
        """
        Secrets of the file that others on this machine can read.

        @return: The names of their options.
        """
        if self.file is None or self.file.private:
            return []
        return sorted(
            name
            for name, setting in self.settings.items()
            if setting.file and redacted(name, setting.value) != setting.value
        )

    def warnOfSecrets(self) -> None:
        """Log the secrets that others can read."""
        for name in self.openSecrets():
            shown = "" if self.file is None else self.file.shown
            warnIfOpen(shown, 0o077, f"a secret in {name}")

    # Showing

    def derived(self) -> dict[str, Setting]:
        """The defaults that are not constants."""
        return {}

    def inForce(self) -> dict[str, Setting]:
        """Find the setting in force for each option."""
        defaults = {
            name: Setting([] if key.many else key.default, DEFAULT)
            for name, key in self.configKeys().items()
        }
        return {**defaults, **self.derived(), **self.settings}

    def shown(self) -> list[str]:
        """Write the settings in force as lines of TOML."""
        return shownSettings(self.inForce())


def _at(place: str, message: str) -> TunnelError:
    return badOption(f"{place}: {message}")


def _text(value: object) -> str:
    return repr(value) if isinstance(value, float) else str(value)


def _typed(key: Key, values: Sequence[str]) -> Any:
    """Convert a value from the command line to the type it has in a file."""
    if key.many:
        return list(values)
    if key.kind == FLAG:
        return True
    try:
        value = key.read(values[-1])
    except ValueError:
        # Twisted will complain.
        return values[-1]
    return value if isinstance(value, int | float) else values[-1]
