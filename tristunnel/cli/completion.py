"""
C{tristunnel completion}: scripts by which shells complete our command lines, generated
from the parsers.
"""

from __future__ import annotations

import argparse
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from twisted.python import usage

from tristunnel.config.servers import ServerStore

__all__ = ["CommandLine", "addCompletionCommand", "commandLines", "script"]

_SERVERS = "servers"


@dataclass(frozen=True)
class Option:
    """
    An option.

    @ivar name: With its hyphens.
    @ivar text: What it does, on one line.
    @ivar takesValue: Whether a value follows it.
    @ivar values: The possible values, if they are few.
    """

    name: str
    text: str
    takesValue: bool = False
    values: Sequence[str] = ()


@dataclass(frozen=True)
class CommandLine:
    """
    A position in a command line: what can follow some commands.

    @ivar words: The commands before it, without the program.
    @ivar options: Its options.
    @ivar commands: What each further command does, by its name.
    """

    words: tuple[str, ...]
    options: Sequence[Option]
    commands: Mapping[str, str]


def addCompletionCommand(
    commands: Any, lines: Callable[[], Sequence[CommandLine]]
) -> None:
    """
    Add C{completion} to the commands of a parser.

    @param commands: What C{add_subparsers} returned.
    @param lines: Gives all positions in all command lines.
    """
    completion = commands.add_parser(
        "completion",
        help="print shell completion for bash, zsh or fish",
        description="Print a script that makes your shell complete these commands.",
        epilog="""\
In ~/.bashrc:
  eval "$(tristunnel completion bash)"

In ~/.zshrc, after compinit:
  eval "$(tristunnel completion zsh)"

For fish, once:
  tristunnel completion fish > ~/.config/fish/completions/tristunnel.fish""",
    )
    completion.add_argument(
        "shell", choices=_Choices(_SHELLS), metavar="SHELL", help="bash, zsh or fish"
    )

    def run(options: Namespace) -> None:
        if options.shell == _SERVERS:
            # For the scripts: the names behind --server.
            print("\n".join(ServerStore().read().byName))
        else:
            print(script(options.shell, lines()), end="")

    completion.set_defaults(run=run)


class _Choices(tuple[str, ...]):
    """
    The shells. What their scripts ask for is accepted, too, but not shown in help.
    """

    def __contains__(self, word: object) -> bool:
        return word == _SERVERS or super().__contains__(word)


def _oneLine(text: str | None) -> str:
    return " ".join((text or "").split())


def commandLines(
    parser: ArgumentParser, words: tuple[str, ...] = ()
) -> Iterator[CommandLine]:
    """
    Find all positions in the command lines of a parser.

    @param words: The commands that lead to it.
    """
    options = []
    commands: dict[str, str] = {}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            texts = {each.dest: each.help for each in action._choices_actions}
            for name, below in action.choices.items():
                commands[name] = _oneLine(texts.get(name))
                yield from commandLines(below, (*words, name))
        elif action.choices and not action.option_strings:
            commands.update((str(each), "") for each in action.choices)
        elif action.help != argparse.SUPPRESS:
            values = [str(each) for each in action.choices or ()]
            options += [
                Option(name, _oneLine(action.help), action.nargs != 0, values)
                for name in action.option_strings
                if name.startswith("--")
            ]
    yield CommandLine(words, options, commands)


def optionsOf(made: usage.Options) -> list[Option]:
    """The options of a C{usage.Options}."""
    return [
        Option(f"--{name.rstrip('=')}", _oneLine(made.docs.get(name.rstrip("="))), at)
        for name, at in sorted((each, each.endswith("=")) for each in set(made.longOpt))
        if name.rstrip("=") in made.docs
    ]


def script(shell: str, lines: Sequence[CommandLine]) -> str:
    """
    Write the completion for a shell.

    @param shell: C{bash}, C{zsh} or C{fish}.
    @param lines: All positions in the command lines.
    """
    return _SHELLS[shell](sorted(lines, key=lambda line: line.words))


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def _next(lines: Sequence[CommandLine]) -> str:
    """The commands that can follow, as alternatives of a C{case}."""
    ways = [
        _quoted(" ".join((*line.words, name)))
        for line in lines
        for name in line.commands
    ]
    return "|".join(ways)


_BASH = """\
# Completion of tristunnel for bash: eval "$(tristunnel completion bash)"
_tristunnel() {{
    local current=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD-1]}}
    local place= word at commands= options= values= takes=
    # bash takes --option=value apart.
    if [[ $current == = ]]; then
        current=
    elif [[ $before == = ]]; then
        before=${{COMP_WORDS[COMP_CWORD-2]}}
    fi
    for ((at = 1; at < COMP_CWORD; at++)); do
        word="${{place:+$place }}${{COMP_WORDS[at]}}"
        case $word in
            {next}) place=$word ;;
        esac
    done
    case $place in
{places}
    esac
    case " $takes " in
        *" $before "*)
            case $place$before in
{values}
                *--server) values=$(tristunnel completion servers 2>/dev/null) ;;
                *) COMPREPLY=() && return ;;
            esac
            COMPREPLY=($(compgen -W "$values" -- "$current"))
            return ;;
    esac
    [[ $current == -* ]] && commands=$options
    COMPREPLY=($(compgen -W "$commands" -- "$current"))
}}
complete -o default -F _tristunnel tristunnel
"""


def _bash(lines: Sequence[CommandLine]) -> str:
    places, values = [], []
    for line in lines:
        place = " ".join(line.words)
        options = " ".join(each.name for each in line.options)
        takes = " ".join(each.name for each in line.options if each.takesValue)
        places.append(
            f"        {_quoted(place)})\n"
            f"            commands={_quoted(' '.join(line.commands))}\n"
            f"            options={_quoted(options)}\n"
            f"            takes={_quoted(takes)} ;;"
        )
        values += [
            f"                {_quoted(place + each.name)})"
            f" values={_quoted(' '.join(each.values))} ;;"
            for each in line.options
            if each.values
        ]
    return _BASH.format(
        next=_next(lines), places="\n".join(places), values="\n".join(values)
    )


_ZSH = """\
#compdef tristunnel
# Completion of tristunnel for zsh: eval "$(tristunnel completion zsh)"
_tristunnel() {{
    local current=$words[CURRENT] before=$words[CURRENT-1] place= word at
    local -a commands options takes values
    for ((at = 2; at < CURRENT; at++)); do
        word="${{place:+$place }}$words[at]"
        case $word in
            ({next}) place=$word ;;
        esac
    done
    if [[ $current == --*=* ]]; then
        before=${{current%%=*}}
        compset -P '*='
    fi
    case $place in
{places}
    esac
    if (( $takes[(Ie)$before] )); then
        case $place$before in
{values}
            (*--server)
                values=(${{(f)"$(tristunnel completion servers 2>/dev/null)"}}) ;;
            (*) _files && return ;;
        esac
        compadd -a values
    elif [[ $current == -* ]]; then
        _describe -o option options
    elif (( $#commands )); then
        _describe command commands
    else
        _files
    fi
}}
if [[ $funcstack[1] == _tristunnel ]]; then
    _tristunnel "$@"
else
    compdef _tristunnel tristunnel
fi
"""


def _zsh(lines: Sequence[CommandLine]) -> str:
    def described(pairs: Sequence[tuple[str, str]]) -> str:
        return " ".join(
            _quoted(f"{name}:{text}" if text else name) for name, text in pairs
        )

    places, values = [], []
    for line in lines:
        place = " ".join(line.words)
        options = [(each.name, each.text) for each in line.options]
        takes = " ".join(each.name for each in line.options if each.takesValue)
        places.append(
            f"        ({_quoted(place)})\n"
            f"            commands=({described(list(line.commands.items()))})\n"
            f"            options=({described(options)})\n"
            f"            takes=({takes}) ;;"
        )
        values += [
            f"            ({_quoted(place + each.name)})"
            f" values=({' '.join(each.values)}) ;;"
            for each in line.options
            if each.values
        ]
    return _ZSH.format(
        next=_next(lines), places="\n".join(places), values="\n".join(values)
    )


_FISH = """\
# Completion of tristunnel for fish, as ~/.config/fish/completions/tristunnel.fish
function __tristunnel_at
    set -l place ''
    for word in (commandline -opc)[2..]
        set -l further (string trim -- "$place $word")
        switch $further
            case {next}
                set place $further
        end
    end
    test "$place" = "$argv[1]"
end
"""


def _fish(lines: Sequence[CommandLine]) -> str:
    made = [_FISH.format(next=_next(lines).replace("|", " "))]
    for line in lines:
        place = " ".join(line.words)
        here = f"complete -c tristunnel -n \"__tristunnel_at '{place}'\""
        for name, text in line.commands.items():
            made.append(f"{here} -f -a {name} -d {_fishQuoted(text)}\n")
        for each in line.options:
            more = ""
            if each.name == "--server":
                more = " -x -a '(tristunnel completion servers 2>/dev/null)'"
            elif each.values:
                more = f" -x -a '{' '.join(each.values)}'"
            elif each.takesValue:
                more = " -r -F"
            made.append(
                f"{here} -l {each.name[2:]}{more} -d {_fishQuoted(each.text)}\n"
            )
    return "".join(made)


def _fishQuoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


_SHELLS: dict[str, Callable[[Sequence[CommandLine]], str]] = {
    "bash": _bash,
    "zsh": _zsh,
    "fish": _fish,
}
