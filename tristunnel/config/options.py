"""Options that may also come from a file: C{--config}."""

from __future__ import annotations

import difflib
import getopt
import os
import re
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, ClassVar

from twisted.python import usage

from tristunnel.config.file import ConfigFile, readConfig
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
from tristunnel.errors import TunnelError, badOption
from tristunnel.util.files import warnIfOpen

__all__ = ["CheckedOptions", "ConfiguredOptions"]

_OPTION = re.compile(r"--([a-z][a-z-]*)")

_keysOf = cache(keysOf)


_UNKNOWN = re.compile(r"option (--.+) not (?:a unique prefix|recognized)")


class CheckedOptions(usage.Options):
    """
    Options whose mistakes are found before anything starts.

    None can be abbreviated: C{--token SECRET} would be C{--token-file SECRET},
    whose complaint shows the secret. And a program in the foreground has no pid
    file unless one is named: C{twistd.pid} would keep a second program of the
    same directory from starting, or the next one after a C{kill -9}. C{--check}
    is in the foreground whatever C{twistd} was told: who asks wants an answer.
    """

    def __init__(self) -> None:
        super().__init__()
        # getopt takes an abbreviation only if it stands for one option.
        self.longOpt = [*self.longOpt, *self.longOpt]

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        try:
            super().parseOptions(options)
        except usage.UsageError as error:
            unknown = _UNKNOWN.fullmatch(str(error))
            if unknown is None:
                raise
            raise usage.UsageError(self._noOption(unknown[1])) from None
        outer = getattr(self, "parent", None) or {}
        if self.get("check") and "nodaemon" in outer:
            outer["nodaemon"] = 1
        foreground = outer.get("nodaemon") or outer.get("debug")
        if foreground and not _namesPidFile(sys.argv):
            outer["pidfile"] = ""

    def _noOption(self, told: str) -> str:
        known = sorted({f"--{name.rstrip('=')}" for name in self.longOpt})
        close = [name for name in known if name.startswith(told)]
        close = close or difflib.get_close_matches(told, known, 1, 0.8)
        instead = f"; did you mean {' or '.join(close[:4])}?" if close else ""
        return f"there is no option {told}{instead}"

    def postOptions(self) -> None:
        try:
            checkNumbers(type(self), self)
            self.check()
        except TunnelError as error:
            raise usage.UsageError(self.placed(error.message)) from None

    def placed(self, message: str) -> str:
        """Say where a mistake is, in front of a message about it."""
        return message

    def check(self) -> None:
        """
        Override this.

        @raise TunnelError: C{bad-option}.
        """


def _namesPidFile(arguments: Sequence[str]) -> bool:
    """C{twistd}'s own options can be abbreviated."""
    words = (word.partition("=")[0] for word in arguments)
    return any(word[:5] == "--pid" and "--pidfile".startswith(word) for word in words)


class ConfiguredOptions(CheckedOptions):
    """
    Options of which each has its key in a file. What the command line says
    counts more than the environment, that more than the file, and that more
    than the defaults.

    @cvar variables: The environment variables that stand for options.
    @cvar fields: What tables of an option may have, by the option.

    @ivar file: The file, or C{None}.
    @ivar settings: Where the value of each option comes from.
    @ivar arguments: The command line.
    @ivar told: What it says, by option.
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
        # What was asked on the terminal, which cannot be asked again.
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

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        self.arguments = list(sys.argv[1:] if options is None else options)
        told = self._told()
        if told is not None and not (COMMANDS - {"config", "print-config"}) & set(told):
            self.told = told
            try:
                self._takeUp(told)
            except TunnelError as error:
                raise usage.UsageError(error.message) from None
        super().parseOptions(self.arguments)

    def again(self) -> Any:
        """
        Read everything anew: the file may have changed.

        @return: Other options of the same class.
        @raise TunnelError: C{bad-option}, if anything is wrong.
        """
        if self.file is None:
            raise badOption("there is no file to read again: --config names none")
        return self.another(_path=self.file.path)

    def another(self, **attributes: object) -> Any:
        """
        Read the same command line once more.

        @param attributes: What other options are to know before.
        @return: Options of the same class.
        @raise TunnelError: C{bad-option}, if anything is wrong.
        """
        fresh = type(self)()
        fresh.parent = getattr(self, "parent", None)
        fresh.typed = self.typed
        vars(fresh).update(attributes)
        try:
            fresh.parseOptions(self.arguments)
        except usage.UsageError as error:
            raise badOption(str(error)) from None
        return fresh

    def _told(self) -> dict[str, list[str]] | None:
        """What the command line says; C{None} leaves it to Twisted to complain."""
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
        if self.file is None and "config" in told:
            self.file = readConfig(told["config"][-1], self._path)
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

    def settingsIn(
        self, file: ConfigFile, told: Mapping[str, list[str]]
    ) -> dict[str, Setting]:
        """
        What a file says.

        @param told: What the command line says.
        @raise TunnelError: C{bad-option}.
        """
        return settingsOf(file, (), valuesIn(file, (), file.table, self.configKeys()))

    def settingsAround(self, settings: dict[str, Setting]) -> dict[str, Setting]:
        """
        What the environment says.

        @param settings: What the file says; what does not count beside the
            environment may be taken out.
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
                # A float's text is never longer than what float() reads.
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
        """Put the line in front of a message about an option that is from a file."""
        if self.file is not None and message.startswith(f"{self.file.shown}:"):
            return message
        for name in _OPTION.findall(message):
            setting = self.settings.get(name)
            if setting is not None and setting.file is not None:
                return f"{setting.placeOf()}: {message}"
        # Some say a path, and not whose it is.
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
        """Whether these are a part of others, which show everything."""
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
        """Log them."""
        for name in self.openSecrets():
            shown = "" if self.file is None else self.file.shown
            warnIfOpen(shown, 0o077, f"a secret in {name}")

    # Showing

    def derived(self) -> dict[str, Setting]:
        """What holds where nothing was said, as far as that is no constant."""
        return {}

    def inForce(self) -> dict[str, Setting]:
        """What holds for each option."""
        defaults = {
            name: Setting([] if key.many else key.default, DEFAULT)
            for name, key in self.configKeys().items()
        }
        return {**defaults, **self.derived(), **self.settings}

    def shown(self) -> list[str]:
        """What holds, as lines of TOML."""
        return shownSettings(self.inForce())


def _at(place: str, message: str) -> TunnelError:
    return badOption(f"{place}: {message}")


def _text(value: object) -> str:
    """A value as it would be written on a command line."""
    return repr(value) if isinstance(value, float) else str(value)


def _typed(key: Key, values: Sequence[str]) -> Any:
    """What a command line says of an option, as a file would."""
    if key.many:
        return list(values)
    if key.kind == FLAG:
        return True
    try:
        value = key.read(values[-1])
    except ValueError:
        # Twisted will say so.
        return values[-1]
    return value if isinstance(value, int | float) else values[-1]
