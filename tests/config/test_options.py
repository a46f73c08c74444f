"""Options from a file, L{tristunnel.config.options}, of both programs."""

from __future__ import annotations

import contextlib
import io
import os
import tomllib
from pathlib import Path
from typing import Any
from unittest.mock import patch

from twisted.python import usage
from twisted.trial.unittest import SynchronousTestCase

from tests.cli.test_taps_options import OptionsTestCase
from tristunnel.cli import client_tap, server_tap
from tristunnel.config.keys import COMMANDS, FLAG, NUMBER, TEXT, WHOLE, keysOf
from tristunnel.config.numbers import seconds
from tristunnel.config.settings import HIDDEN, redacted

PIN = "ab" * 32


class RedactedTests(SynchronousTestCase):
    """What is shown of values."""

    def test_hooks(self) -> None:
        """Of a hook's address only the host, of a program only its name."""
        for secret in ("login,visitor=https://h/hunter2", "https://u:hunter2@h/", "?2"):
            self.assertNotIn("2", redacted("ask", secret))
        for harmless in ("https://h:8/", "login=http://[::1]:8", "exec:true"):
            self.assertEqual(redacted("on-event", harmless), harmless)
        sentinel = "redis+sentinel://:1@host/book?sentinel=ann:2&name=a"
        shown = "redis+sentinel://(hidden)@host/book?sentinel=(hidden)&name=a"
        self.assertEqual(redacted("cluster", sentinel), shown)


class FileOptionsTestCase(OptionsTestCase):
    """A test with files."""

    def file(self, text: str, mode: int = 0o600) -> Path:
        path = self.write("t.toml", text.encode())
        path.chmod(mode)
        return path

    def read(self, text: str, *arguments: str) -> Any:
        return self.parse("--config", str(self.file(text)), *arguments)

    def refused(  # type: ignore[override] # it has parameters of its own
        self, text: str, *arguments: str
    ) -> str:
        path = self.file(text)
        error = self.assertRaises(
            usage.UsageError, self.parse, "--config", str(path), *arguments
        )
        message = str(error)
        self.assertNotIn("\n", message)
        self.assertTrue(message.startswith(f"{path}:"), message)
        return message.removeprefix(f"{path}:")

    def printed(self, *arguments: str) -> str:
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            ended = self.assertRaises(
                SystemExit, self.parse, *arguments, "--print-config"
            )
        self.assertEqual(ended.code, 0)
        return out.getvalue()

    def _allOptions(self, classes: Any) -> None:
        options = classes()
        keys = classes.configKeys()
        names = {name.removesuffix("=") for name in options.longOpt}
        self.assertEqual(set(keys), names - COMMANDS)
        self.assertLessEqual(COMMANDS - {"help-auth", "help-auth-type"}, names)
        for name, key in keys.items():
            self.assertEqual(key.kind == FLAG, name in options.longOpt, name)
            if key.many:
                continue
            default, numbers = options[name], {int: WHOLE, float: NUMBER}
            if key.kind != FLAG and default is not None:
                self.assertEqual(key.kind, numbers.get(type(default), TEXT), name)


class ServerFileTests(FileOptionsTestCase):
    """C{twistd tunnel --config}."""

    tap = server_tap

    def test_allOptions(self) -> None:
        """Each option has a key."""
        self._allOptions(server_tap.Options)

    def test_kinds(self) -> None:
        """Flags, numbers, strings and arrays are taken as what they are."""
        options = self.read(
            'port = ["tcp:1", "tcp:2"]\nno-dashboard = true\nlease = 7\n'
            'udp-idle = 2.5\nmax-clients = 3\nhostname = "h"\ndemo = false\n'
            'deny = ["10.0.0.0/8"]\n'
        )
        self.assertEqual([p.description for p in options.serverPorts][1], "tcp:2")
        self.assertEqual(options["no-dashboard"], 1)
        self.assertEqual(options["demo"], 0)
        self.assertEqual(options["lease"], 7.0)
        self.assertEqual(options["udp-idle"], 2.5)
        self.assertEqual(options["max-clients"], 3)
        self.assertEqual(options["hostname"], "h")
        self.assertEqual(len(options.policy.deny), 1)

    def test_everyKey(self) -> None:
        """A wrong type is refused for each key, on its line, and what is missing is not
        taken for it."""
        for name in server_tap.Options.configKeys():
            message = self.refused(f"\n{name} = {{}}\n")
            self.assertTrue(message.startswith(f"2: {name} takes "), message)

    def test_suggestions(self) -> None:
        """Who mistypes is told what was meant."""
        for text, words in (
            ("prot = ['x']", "1: unknown key 'prot'; did you mean 'port'?"),
            ("max_clients = 1", "did you mean 'max-clients'?"),
            ("config = 'x'", "--config only works on the command line"),
            ("help = true", "--help only works on the command line"),
            ("zzzzzzzz = 1", "there is accept-rate, "),
            ("port = 'tcp:1'", 'port takes a list of strings; write port = ["tcp:1"]'),
            ("port = [1]", "port takes a list of strings"),
            ("port = ['tcp:1',\n3]", "2: port takes"),
            ("lease = '9'", "lease takes a number; write lease = 9"),
            ("lease = true", "lease takes a number"),
            ("lease = inf", "lease takes a number"),
            ("max-clients = 1.0", "max-clients takes a whole number"),
            ("demo = 1", "demo takes true or false"),
            ("demo = 'no'", "write demo = false"),
            ("rate = 10", 'rate takes a string; write rate = "10"'),
            ("[[node]]\nnme = 'x'", "2: unknown key 'nme'; did you mean 'name'?"),
            ("[node]\nname = 'x'", "write [[node]]"),
            ("[[node]]\nname = 'x'", "1: a node has name"),
        ):
            self.assertIn(words, self.refused(text))

    def test_values(self) -> None:
        """A value that no command line would be given either is refused with its
        line."""
        for text, *words in (
            ("\nlease = -1", "2: --lease takes seconds"),
            ("\n\nlog-format = 'xml'", "3: unknown --log-format"),
            ("port = ['tcp:x']", "1: --port 'tcp:x' is not a valid endpoint"),
            ("\ncertificate = '/nonexistent.pem'", "/nonexistent.pem does not exist"),
            ("deny = [\n'x']", "--deny: 'x' is not an address"),
            ("lease = 1" + "0" * 400, "1: --lease takes seconds"),
            ("auth = [\n'bogus']", "2: "),
        ):
            message = self.refused(text)
            for word in words:
                self.assertIn(word, message)

    def test_precedence(self) -> None:
        """The command line counts more than the environment, that more than the file,
        and that more than what is the default."""
        text = "port = ['tcp:1']\nlease = 5\n"
        self.assertEqual(self.read("")["lease"], 120.0)
        self.assertEqual(self.read(text)["lease"], 5.0)
        self.assertEqual(self.read(text, "--lease", "6")["lease"], 6.0)

        def ports(*arguments: str) -> list[str]:
            options = self.read(text, *arguments)
            return [port.description for port in options.serverPorts]

        self.assertEqual(ports(), ["tcp:1"])
        with patch.dict(os.environ, {"PORT": "2"}):
            self.assertEqual(ports(), ["tcp:2"])
            self.assertEqual(ports("--port", "tcp:3", "--port", "4")[0], "tcp:3")
        self.assertEqual(ports("--port", "tcp:3"), ["tcp:3"])

    def test_node(self) -> None:
        """A node is a table, with commas where it likes."""
        options = self.read(
            '[[node]]\nname = "n"\nconnect = "tls:h:1"\n'
            f"forward = 'db=unix:/a\\,b'\npin = ['{PIN}', '{PIN}']\n"
        )
        (node,) = options.nodes
        self.assertEqual(node.name, "n")
        self.assertEqual(node.forward.target, "unix:/a\\,b")

    def test_print(self) -> None:
        """What is in force is TOML, with the origin of each value beside it, and
        without secrets; read again, it says the same."""
        path = self.file("lease = 5\nstate-dir = 'a\"b'\n")
        arguments = ("--max-clients", "9", "--auth", "memory:me:hunter2")
        with patch.dict(os.environ, {"PORT": "77"}):
            text = self.printed("--config", str(path), *arguments)
        lines = text.splitlines()
        self.assertIn(f"lease = 5  # {path}:1", lines)
        self.assertIn(f'state-dir = "a\\"b"  # {path}:2', lines)
        self.assertIn("max-clients = 9  # option", lines)
        self.assertIn("grace = 7.0  # default", lines)
        self.assertIn('port = ["tcp:77"]  # environment PORT', lines)
        self.assertIn("# rpc is not set  # default", lines)
        self.assertNotIn("hunter2", text)
        self.assertIn(
            f'auth = ["memory:{HIDDEN}"]  # option, a secret is hidden', lines
        )
        said = tomllib.loads(text)
        keys = server_tap.Options.configKeys()
        self.assertEqual(len(lines), len(keys))
        del said["auth"]
        again = self.read("\n".join(line for line in lines if "auth" not in line))
        self.assertEqual(
            {name: s.value for name, s in again.settings.items() if name in said}, said
        )

    def test_printWrong(self) -> None:
        """What is wrong is not shown as if it were in force."""
        self.assertIn("--lease takes", self.refused("lease = -1", "--print-config"))

    def test_help(self) -> None:
        """Who asks for help gets it, whatever the file."""
        with contextlib.redirect_stdout(io.StringIO()):
            self.assertRaises(
                SystemExit, self.parse, "--config", "/nonexistent", "--version"
            )

    def test_again(self) -> None:
        """A file is read again from where it was, with the same command line, also when
        the program has gone to another directory."""
        path = self.file("lease = 5\ngrace = 3\n")
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(self.directory)
        options = self.parse("--config", "t.toml", "--grace", "4")
        os.chdir("/")
        path.write_text("lease = 6\ngrace = 8\n")
        again = options.again()
        self.assertEqual((again["lease"], again["grace"]), (6.0, 4.0))
        self.assertEqual(again.settings["lease"].origin, "t.toml:1")


class ClientFileTests(FileOptionsTestCase):
    """C{twistd tunnel-client --config}."""

    tap = client_tap

    def test_allOptions(self) -> None:
        """Each option has a key."""
        self._allOptions(client_tap.Options)

    def test_forwards(self) -> None:
        """Forwards are strings, or tables with rules of their own; what a table does
        not say, the client says for all."""
        options = self.read(
            'connect = "tcp:h:1"\nmax-visitors = 9\nallow = ["10.0.0.0/8"]\n'
            '[[forward]]\nto = "h:1"\nport = 8080\nmax-visitors = 2\n'
            '[[forward]]\nto = "h:2"\nname = "db"\nprivate = true\nallow = []\n'
            '[[forward]]\nto = "h:3"\nudp = true\nidle-timeout = 60\n'
            '[[forward]]\nto = "h:4"\nname = "both"\nport = 9\n'
            '[[forward]]\nto = "h:5-6"\nports = "1-2"\nproxy = "v2"\n'
        )
        first, second, third, fourth, fifth, sixth = options.forwards
        self.assertEqual((first.spec, first.port), ("8080=h:1", 8080))
        self.assertEqual((first.policy.maxVisitors, len(first.policy.allow)), (2, 1))
        self.assertEqual((second.name, second.private), ("db", True))
        self.assertEqual((second.policy.maxVisitors, second.policy.allow), (9, ()))
        self.assertTrue(third.isUDP)
        self.assertEqual((third.port, third.policy.idle), (0, 60))
        self.assertEqual((fourth.port, fourth.name), (9, "both"))
        self.assertEqual([fifth.spec, sixth.port], ["1=h:5,proxy=v2", 2])
        self.assertFalse(first.private)
        strings = self.read('connect = "tcp:h:1"\nforward = ["1=h:1", "x=h:2"]')
        self.assertEqual([f.spec for f in strings.forwards], ["1=h:1", "x=h:2"])
        self.assertEqual(strings.forwards[0].policy, strings.policy)

    def test_wrongForwards(self) -> None:
        """A forward that cannot be is refused with the line of its table."""
        head = 'connect = "tcp:h:1"\n'
        for text, *words in (
            ("[[forward]]\nport = 1", "2: a forward needs a target: to ="),
            ("[[forward]]\nto = 'h:1'\nport = 70000", "2: ", "70000 is not a port"),
            ("[[forward]]\nto = 'h:1'\nport = -1", "2: -1 is not a valid port"),
            ("[[forward]]\nto = 'h'", "2: ", "is not a valid target"),
            ("[[forward]]\nto = 'h:1-2'\nports = '3'", "2: '3' is no range"),
            ("[[forward]]\nto = 'h:1'\nproxy = 'v3'", "2: ", "write proxy=v1"),
            ("[[forward]]\nto = 'h:1'\nname = '7'", "2: the name '7'"),
            ("[[forward]]\nto = 'h:1'\nname = 'a b'", "2: ", "a name has at most"),
            ("[[forward]]\nto = 'h:1'\nport = '1'", "4: port takes a whole number"),
            ("[[forward]]\nto = 'h:1'\nallow = ['x']", "2: --allow: 'x' is not"),
            ("[[forward]]\nto = 'h:1'\nmax-visitors = -1", "2: --max-visitors"),
            ("forward = ['1=h:1', '1=h:2']", "2: two --forward ask for port 1"),
            (
                "[[forward]]\nto='h:1'\nport=1\nname='a'\n"
                "[[forward]]\nto='h:2'\nport=1\nname='b'",
                "2: two --forward ask for b",
            ),
            (
                "dialect = 'vtunnel'\n[[forward]]\nto='h:1'\nport=1\nrate='1kB'",
                "2: --dialect vtunnel needs",
            ),
        ):
            message = self.refused(head + text)
            for word in words:
                self.assertIn(word, message)

    def test_precedence(self) -> None:
        """A proxy of the environment counts more than the file's, and one of the
        command line more than both."""
        text = 'connect = "tcp:h:1"\nproxy = "http://file:1"\n'
        self.assertEqual(self.read(text)["proxy"], "http://file:1")
        with patch.dict(os.environ, {"TRISTUNNEL_PROXY": "http://env:1"}):
            self.assertEqual(self.read(text)["proxy"], "http://env:1")
            options = self.read(text, "--proxy", "http://line:1")
            self.assertEqual(options["proxy"], "http://line:1")
            self.assertEqual(options.settings["proxy"].origin, "option")

    def test_identity(self) -> None:
        """What the environment says of who we are takes the place of all that the file
        says of that."""
        token = self.write("token", b"from-file\n")
        text = (
            f'connect = "tcp:h:1"\ntoken-file = "{token}"\n'
            'credentials = ["id=file", "secret=s"]\n'
        )
        self.assertEqual(
            self.read(text)["credentials"],
            {"id": "file", "secret": "s", "token": "from-file"},
        )
        with patch.dict(os.environ, {"TRISTUNNEL_TOKEN": "from-environment"}):
            self.assertEqual(
                self.read(text)["credentials"], {"token": "from-environment"}
            )
            self.assertEqual(
                self.read(text, "--credentials", "id=me")["credentials"], {"id": "me"}
            )

    def test_exposed(self) -> None:
        """A secret in the file is not said to be on the command line."""
        text = 'connect = "tcp:h:1"\ncredentials = ["id=a", "secret=s"]\n'
        self.assertEqual(self.read(text).exposed, {})
        options = self.read(text, "--credentials", "secret=x")
        self.assertEqual(options.exposed["--credentials"][1], ["x"])

    def test_openSecrets(self) -> None:
        """Secrets in a file that others can read are noticed."""
        text = 'connect = "tcp:h:1"\ncredentials = ["id=a", "secret=s"]\ngrace = 1\n'
        options = self.parse("--config", str(self.file(text, 0o644)))
        self.assertEqual(options.openSecrets(), ["credentials"])
        self.assertEqual(self.read(text).openSecrets(), [])
        harmless = self.file('connect = "tcp:h:1"\n', 0o644)
        self.assertEqual(self.parse("--config", str(harmless)).openSecrets(), [])

    SEVERAL = (
        'grace = 3\nlog-format = "json"\n'
        '[[client]]\nconnect = "tcp:one:1"\ncredentials = ["token=t1"]\n'
        '[[client.forward]]\nto = "h:1"\nname = "a"\n'
        '[[client]]\nconnect = "tls:two:2"\ngrace = 4\n'
        'forward = ["0=h:2"]\n'
    )

    def test_several(self) -> None:
        """Several clients in one file have servers, secrets and forwards of their own,
        and what is above them is for all."""
        options = self.read(self.SEVERAL)
        one, two = options.each
        self.assertEqual(options["log-format"], "json")
        self.assertEqual(one.server.where, "tcp:one:1")
        self.assertEqual(two.server.where, "tls:two:2")
        self.assertEqual((one["grace"], two["grace"]), (3.0, 4.0))
        self.assertEqual(one["credentials"], {"token": "t1"})
        self.assertEqual(two["credentials"], {})
        self.assertEqual([f.spec for f in one.forwards], ["a=h:1"])
        self.assertEqual([f.spec for f in two.forwards], ["0=h:2"])

    def test_severalSecrets(self) -> None:
        """A secret of the environment or of the command line is one server's, and is
        not told to several."""
        environment = {
            "TRISTUNNEL_TOKEN": "secret",
            "TRISTUNNEL_TUNNEL": "w3p://h:1/id#secret",
        }
        with patch.dict(os.environ, environment):
            one, two = self.read(self.SEVERAL).each
        self.assertEqual(one["credentials"], {"token": "t1"})
        self.assertEqual(two["credentials"], {})
        for option in ("connect", "forward", "token-file", "credentials"):
            path = self.file(self.SEVERAL)
            error = self.assertRaises(
                usage.UsageError,
                self.parse,
                "--config",
                str(path),
                f"--{option}",
                "a=b",
            )
            self.assertIn(
                f"--{option} applies to one client, and there are 2", str(error)
            )

    def test_severalWrong(self) -> None:
        """Mistakes in a client's table have its lines."""
        for text, words in (
            ("[[client]]\nconect = 'x'", "2: unknown key 'conect'; did you mean"),
            ("[[client]]\ngrace = 1", "which server?"),
            ("[[client]]\nlog-format = 'json'", "2: 'log-format' applies to the whole"),
            ("[client]\nconnect = 'x'", "1: client takes tables; write [[client]]"),
            ("client = ['x']", "1: client takes tables"),
            ("[[client]]\nconnect='tcp:h:1'\n[[client.forward]]\nto='h'", "3: "),
            (
                "[[client]]\nconnect='tcp:h:1'\n[[client]]\nconnect='tcp:h'",
                "4: --connect 'tcp:h' is not a valid server",
            ),
        ):
            path = self.file(text)
            error = self.assertRaises(
                usage.UsageError, self.parse, "--config", str(path)
            )
            self.assertIn(words, str(error))

    def test_print(self) -> None:
        """Several clients are shown as tables, secrets as what they are not."""
        text = self.printed("--config", str(self.file(self.SEVERAL)))
        self.assertNotIn("t1", text)
        said = tomllib.loads(text)
        one, two = said["client"]
        self.assertEqual(said["log-format"], "json")
        self.assertNotIn("grace", said)
        self.assertEqual((one["grace"], two["grace"]), (3, 4))
        self.assertEqual(one["credentials"], [f"token={HIDDEN}"])
        self.assertEqual(one["forward"], [{"to": "h:1", "name": "a"}])

    def test_printSecrets(self) -> None:
        """No secret is shown, wherever it is from."""
        uri = "w3p://h:1/id#hunter2"
        text = self.printed(
            *("--connect", "ws://h:1/x", "--header", "Authorization=Bearer hunter2"),
            *("--proxy", "http://me:hunter2@proxy:1", "--credentials", "pw=hunter2"),
        )
        self.assertNotIn("hunter2", text)
        self.assertIn(f'proxy = "http://{HIDDEN}@proxy:1"', text)
        for hook, shown in (
            ("https://h/hunter2", "https://h/"),
            ("https://h?hunter2", "https://h"),
            ("client-*,limit-reached=slack+https://h:8/hunter2", "h:8/"),
            ("client-up=exec:true --password hunter2", "exec:true "),
        ):
            text = self.printed("--connect", "tcp:h:1", "--on-event", hook)
            self.assertNotIn("hunter2", text)
            self.assertIn(f"{shown}{HIDDEN}", text)
        with patch.dict(os.environ, {"TRISTUNNEL_TUNNEL": uri}):
            text = self.printed("--to", "h:1")
        self.assertNotIn("hunter2", text)
        self.assertIn("# environment TRISTUNNEL_TUNNEL, a secret is hidden", text)
        with patch.dict(os.environ, {"TRISTUNNEL_TOKEN": "hunter2"}):
            text = self.printed("--connect", "tcp:h:1")
        self.assertNotIn("hunter2", text)
        self.assertIn("# who we are  # environment TRISTUNNEL_TOKEN", text)

    def test_mistakesWithSecrets(self) -> None:
        """A secret that is written in a wrong way is not repeated."""
        head = 'connect = "tcp:h:1"\n'
        for text in (
            'credentials = "token=hunter2"',
            'credentials = ["hunter2"]',
            'header = "Authorization=Bearer hunter2"',
            'header = ["hunter2"]',
            'proxy = ["http://me:hunter2@h:1"]',
            'proxy = "http://me:hunter2@h:x"',
            'tunnel = "w3p://h:1/id#hunter2"',
            '[[forward]]\nto = "h:1"\ncredentials = "hunter2"',
            'credentials = ["token=hunter2"',
        ):
            message = self.refused(head + text)
            self.assertNotIn("hunter2", message)

    def test_typedToken(self) -> None:
        """A token that is typed is asked for once."""
        path = self.file('connect = "tcp:h:1"\ntoken-file = "-"\n')
        with patch(
            "tristunnel.cli.client_tap.givenToken", return_value="typed"
        ) as asked:
            options = self.parse("--config", str(path))
            again = options.again()
        self.assertEqual(again["credentials"], {"token": "typed"})
        self.assertEqual(asked.call_count, 1)


class KeyTests(OptionsTestCase):
    """Keys of a class of options."""

    def test_keys(self) -> None:
        """Flags, parameters and methods are all found, what is inherited too."""

        class Parent(usage.Options):
            optFlags = (("flag", "f", "A flag."),)

            def opt_many(self, value: str) -> None:
                """Any number."""

            def opt_nothing(self) -> None:
                """Takes nothing."""

        class Child(Parent):
            optParameters = (
                ("text", None, None, "Text."),
                ("whole", None, 1, "A number.", int),
                ("number", None, 1.0, "Another.", float),
                seconds("unset", None, "A number or none."),
            )

        keys = keysOf(Child)
        self.assertEqual(
            {name: (key.kind, key.many) for name, key in keys.items()},
            {
                "flag": (FLAG, False),
                "many": (TEXT, True),
                "text": (TEXT, False),
                "whole": (WHOLE, False),
                "number": (NUMBER, False),
                "unset": (NUMBER, False),
            },
        )
