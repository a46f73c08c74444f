"""Tests of C{tristunnel completion}: the shells themselves complete."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.support.processes import pythonWords
from tristunnel.cli.completion import CommandLine, script
from tristunnel.cli.main import parser, places
from tristunnel.config.servers import KnownServer, ServerStore

_BASH = """\
source {script}
complete -p tristunnel
ask() {{
    COMP_WORDS=("$@")
    COMP_CWORD=$(($# - 1))
    _tristunnel
    echo "${{COMPREPLY[*]}}"
}}
"""

# zsh completes in its line editor alone: what that would be told is printed instead.
_ZSH = """\
compdef() {{ echo compdef $* }}
source {script}
_files() {{ }}
compset() {{ }}
compadd() {{ print -r -- ${{(P)@[-1]}} }}
_describe() {{ print -r -- ${{${{(P)@[-1]}}%%:*}} }}
ask() {{ words=("$@"); CURRENT=$#; _tristunnel; print }}
"""

_FISH = """\
source {script}
function ask
    complete -C "$(string join ' ' -- $argv)" | string replace -r '\\t.*' '' \\
        | string join ' '
    echo
end
"""

_PRELUDES = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}


class CompletionTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()
        (self.directory / "bin").mkdir(parents=True)
        self.lines = places(parser())

    def ask(self, shell: str, questions: Sequence[Sequence[str]]) -> list[set[str]]:
        """Have a shell complete command lines; what it offers for each."""
        program = shutil.which(shell)
        if program is None:
            raise SkipTest(f"there is no {shell}")
        path = self.directory / f"completion.{shell}"
        path.write_text(script(shell, self.lines))
        # What the scripts call for names.
        ours = self.directory / "bin" / "tristunnel"
        python = shlex.join(pythonWords())
        ours.write_text(f'#!/bin/sh\nexec {python} -m tristunnel "$@"\n')
        ours.chmod(0o755)
        text = _PRELUDES[shell].format(script=path)
        text += "".join(
            f"echo @; ask {shlex.join(['tristunnel', *words])}\n" for words in questions
        )
        root = str(Path(__file__).parents[2])
        done = subprocess.run(
            [program, *(["-f"] if shell == "zsh" else []), "-c", text],
            capture_output=True,
            text=True,
            check=False,
            env={
                **os.environ,
                "PATH": f"{self.directory / 'bin'}:{os.environ['PATH']}",
                "PYTHONPATH": root,
                "HOME": str(self.directory),
                "XDG_CONFIG_HOME": str(self.directory),
            },
        )
        self.assertEqual(done.stderr, "")
        before, *answers = done.stdout.split("@\n")
        self.assertIn("tristunnel" if shell != "fish" else "", before)
        self.assertEqual(len(answers), len(questions))
        return [set(answer.split()) for answer in answers]

    def complete(self, shell: str) -> None:
        """Everywhere, every command and every option is offered."""
        questions, wanted = [], []
        for line in self.lines:
            options = {option.name for option in line.options}
            questions += [[*line.words, ""], [*line.words, "--"]]
            wanted += [set(line.commands), options]
        for words, found, all_ in zip(
            questions, self.ask(shell, questions), wanted, strict=True
        ):
            if all_:
                self.assertLessEqual(all_, found, words)

    def test_bash(self) -> None:
        """bash."""
        self.complete("bash")

    def test_zsh(self) -> None:
        """zsh."""
        self.complete("zsh")

    def test_fish(self) -> None:
        """fish."""
        self.complete("fish")

    def test_servers(self) -> None:
        """The names of known servers are offered behind C{--server}."""
        path = self.directory / "tristunnel" / "servers.toml"
        for name in ("work", "home"):
            ServerStore(path).keep(KnownServer(name, "tls:t.example.com:9000"))
        for shell in _PRELUDES:
            if shutil.which(shell):
                (found,) = self.ask(shell, [["http", "--server", ""]])
                self.assertEqual(found, {"work", "home"}, shell)

    def test_quoted(self) -> None:
        """What options say may have any sign in it."""
        said = 'it\'s "$HOME" `x` \\ %s: [a]'
        self.lines = [
            CommandLine((), [], {"odd": said, "other": ""}),
            CommandLine(("odd",), [], {"more": ""}),
        ]
        for shell in _PRELUDES:
            if shutil.which(shell):
                found = self.ask(shell, [[""], ["odd", ""]])
                self.assertLessEqual({"odd", "other"}, found[0], shell)
                self.assertLessEqual({"more"}, found[1], shell)
