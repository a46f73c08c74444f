"""The two command lines: what is right is taken, and each mistake is one line that says
what is wrong and what to write."""

from __future__ import annotations

import io
import json
import os
import socket
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

from twisted.python import usage

from tests.tls.authority import makeAuthority
from tests.tls.files import FileTestCase
from tristunnel.cli import client_tap, server_tap
from tristunnel.dataplane.flows import IDLE
from tristunnel.tls.certificates import fingerprintOfFile

_PIN = "ab" * 32


class OptionsTestCase(FileTestCase):
    """A test of a command line."""

    tap: Any

    def setUp(self) -> None:
        super().setUp()
        clean = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("TRISTUNNEL_", "LISTEN_", "STATE_"))
        }
        clean["XDG_STATE_HOME"] = str(self.directory)
        patcher = patch.dict(os.environ, clean, clear=True)
        patcher.start()
        self.addCleanup(patcher.stop)

    def parse(self, *arguments: str) -> Any:
        options = self.tap.Options()
        options.parseOptions(list(arguments))
        return options

    def wrong(self, line: str, *words: str) -> str:
        error = self.assertRaises(usage.UsageError, self.parse, *line.split())
        message = str(error)
        self.assertNotIn("\n", message)
        for python in ("Traceback", "__init__", "argument", "base 10", "_parse"):
            self.assertNotIn(python, message)
        for word in words:
            self.assertIn(word, message)
        return message


class ServerOptionsTests(OptionsTestCase):
    """C{twistd tunnel}."""

    tap = server_tap

    def test_defaults(self) -> None:
        """Without options the server listens on port 9000, for anybody."""
        options = self.parse()
        (port,) = options.serverPorts
        self.assertEqual(port.description, "tcp:9000")
        self.assertFalse(port.secure)
        self.assertEqual(options.stateDirectory, self.directory / "tristunnel")

    def test_endpoints(self) -> None:
        """Any server endpoint is taken, and several of them."""
        certificate, key = makeAuthority().issue(["localhost"])
        pems = self.write("pems/localhost.pem", certificate, key).parent
        wanted = [
            "9001",
            ":9001",
            "*:9001",
            "0.0.0.0:9001",
            "127.0.0.1:9001",
            "[::1]:9001",
            "tcp:9001",
            "tcp:port=9001:interface=127.0.0.1:backlog=7",
            "tcp6:9001",
            r"tcp:9001:interface=\:\:1",
            f"unix:{self.directory / 's'}:mode=660",
            "haproxy:tcp:9001",
            f"tls:{pems}:port=9443",
            f"ssl:9443:privateKey={pems}/localhost.pem",
        ]
        options = self.parse(*(word for each in wanted for word in ("--port", each)))
        self.assertEqual(
            [port.description for port in options.serverPorts[1:6]],
            [
                "tcp:9001",
                "tcp:9001",
                "tcp:9001:interface=0.0.0.0",
                "tcp:9001:interface=127.0.0.1",
                r"tcp:9001:interface=\:\:1",
            ],
        )
        self.assertEqual(
            [port.secure for port in options.serverPorts], [False] * 12 + [True] * 2
        )

    def test_wrongEndpoints(self) -> None:
        """A mistyped endpoint is refused."""
        for line, *words in (
            ("--port tcp:foo", "'foo' is not a number", "tcp:9000"),
            ("--port bogus", "unknown type 'bogus'"),
            ("--port tcp:9000:frob=1", "it has no frob="),
            ("--port tcp", "the port is missing"),
            ("--port tcp:1:2:3:4:5", "is not a valid endpoint"),
            ("--port tcp:99999", "'99999' is not a port number"),
            ("--port ssl:x", "'x' is not a port number"),
            ("--port ssl:99999", "not a port number"),
            ("--port ssl:9000:frob=1", "frob= is not known"),
            ("--port tls:/nonexistent:port=1", "/nonexistent", "No such file"),
            ("--port haproxy:tcp:x", "'x' is not a number"),
            ("--port haproxy:bogus", "unknown type 'bogus'"),
            ("--port systemd:domain=INET:index=0", "systemd has passed no such"),
            ("--port systemd:domain=INET:name=x", "systemd has passed no such"),
        ):
            self.wrong(line, *words)

    def test_wrongCertificates(self) -> None:
        """A certificate that cannot be read, or does not go with its key, is
        refused."""
        authority = makeAuthority()
        certificate, key = authority.issue(["localhost"])
        _, otherKey = authority.issue(["localhost"])
        good = self.write("good.pem", certificate)
        wrongKey = self.write("wrong.pem", otherKey)
        noise = self.write("noise.pem", b"not a certificate")
        self.write("key.pem", key)
        self.wrong("--certificate /nonexistent.pem", "/nonexistent.pem does not exist")
        self.wrong(f"--certificate {noise}", "noise.pem")
        self.wrong(f"--certificate {good}", "key")
        self.wrong(f"--certificate {good} --private-key {wrongKey}", "key")
        self.wrong(f"--private-key {wrongKey}", "--private-key goes with --certificate")
        self.wrong(f"--visitor-key {wrongKey}", "--visitor-certificate")
        self.wrong(f"--visitor-certificate {noise}", "noise.pem")
        self.wrong("--client-ca /x", "--client-ca needs TLS", "--certificate")
        both = f"--certificate {good} --private-key {self.directory}/key.pem"
        ca = self.write("ca.pem", certificate)
        for rpc in ("tcp:0", "unix:rpc.sock", "haproxy:tcp:0"):
            self.wrong(
                f"{both} --client-ca {ca} --rpc {rpc}",
                "--rpc",
                "admit everybody",
                "--auth",
            )
        secure = self.parse(*f"{both} --client-ca {ca} --rpc ssl:0".split())
        shown = secure.rpcPort.creator.creator
        self.assertEqual(shown._clientCAPath, str(ca))
        self.wrong(f"{both} --client-ca /nonexistent", "/nonexistent")
        self.wrong(f"--port ssl:9000:privateKey={noise}", "noise.pem")
        self.assertTrue(self.parse(*both.split()).serverPorts[0].secure)

    def test_selfSigned(self) -> None:
        """For C{ssl:} without a certificate one is made, once, in the state directory,
        where only its owner can read it."""
        state = self.directory / "state"
        for _ in range(2):
            options = self.parse("--port", "ssl:9000", "--state-dir", str(state))
            (port,) = options.serverPorts
            path = state / "server.pem"
            self.assertEqual(port.certificatePath, str(path))
            self.assertEqual(port.fingerprint, fingerprintOfFile(path))
            self.assertEqual(path.stat().st_mode & 0o777, 0o600)

    def test_selfSignedUnwritable(self) -> None:
        """A state directory that cannot be one is a line."""
        blocked = self.write("file")
        self.wrong(f"--port ssl:9000 --state-dir {blocked}/x", "is a file", "cannot")

    def test_noHome(self) -> None:
        """A user without a home directory has to name a state directory."""
        with (
            patch.dict(os.environ, {"XDG_STATE_HOME": ""}),
            patch.object(Path, "home", side_effect=RuntimeError),
        ):
            self.wrong("--port tcp:9000", "--state-dir")

    def test_ports(self) -> None:
        """The ports that visitors may get."""
        ports = self.parse("--ports", "30000-31000,8080").portRange
        self.assertTrue(30000 in ports and 31000 in ports and 8080 in ports)
        self.assertFalse(31001 in ports)
        for wrong in ("x", "10-5", "0", "1-70000", "5-", "-5", "1,,2", ""):
            if wrong:
                self.wrong(f"--ports {wrong}", "not a port range", "30000-31000")

    def test_interface(self) -> None:
        """The address of visitors' ports is one of this machine."""
        self.assertEqual(
            self.parse("--interface", "127.0.0.1")["interface"], "127.0.0.1"
        )
        for wrong in ("bogus", "192.0.2.1", "1.2.3.4.5", "2001:db8::1"):
            self.wrong(f"--interface {wrong}", "not an address of this machine")

    def test_seconds(self) -> None:
        """Times are numbers of seconds, or say what they are."""
        for option in ("--grace", "--lease", "--handshake-timeout", "--udp-idle"):
            for wrong in ("-1", "nan", "inf", "1e9"):
                self.wrong(f"{option} {wrong}", option, "seconds")
            self.wrong(f"{option} soon", option, "a time such as 90 or 2m")
            self.assertEqual(self.parse(option, "2m")[option[2:]], 120)
        self.wrong("--handshake-timeout 0", "more than 0")
        self.wrong("--udp-idle 0", "from 0.1 up")
        self.assertEqual(self.parse()["udp-idle"], IDLE)
        self.assertEqual(self.parse("--udp-idle", "5")["udp-idle"], 5.0)

    def test_auth(self) -> None:
        """A checker is named as other Twisted programs have it."""
        clients = self.write("clients", b"laptop:secret\n")
        options = self.parse("--auth", f"clients:{clients}")
        self.assertEqual(len(options["credCheckers"]), 1)
        self.parse("--auth", "memory:a:b")
        self.wrong("--auth bogus", "bogus")
        self.wrong("--auth clients:/nonexistent", "/nonexistent")

    def test_more(self) -> None:
        """What is no option is refused."""
        self.assertRaises(usage.UsageError, self.parse, "more")
        self.assertRaises(usage.UsageError, self.parse, "--frobnicate")

    def test_hostnames(self) -> None:
        """A certificate is made for the name that was given, or for the machine's."""
        self.assertEqual(
            self.parse("--hostname", "t.example").hostnames[0], "t.example"
        )
        self.assertEqual(self.parse().hostnames[0], socket.gethostname())


class ClientOptionsTests(OptionsTestCase):
    """C{twistd tunnel-client}."""

    tap = client_tap

    def test_defaults(self) -> None:
        """Nothing is offered that nobody has named."""
        options = self.parse("--connect", "tcp:server.example:9000")
        self.assertEqual(options.forwards, [])
        self.assertEqual(options.server.host, "server.example")
        err = io.StringIO()
        self.patch(sys, "stderr", err)
        ended = self.assertRaises(SystemExit, client_tap.makeService, options)
        self.assertEqual(ended.code, 2)
        self.assertIn("nothing is offered: give --forward", err.getvalue())

    def test_words(self) -> None:
        """Words that are no option's are forwards, wherever they are."""
        options = self.parse("3000", "--connect", "h", "a=4000", "--grace", "1")
        self.assertEqual(
            [each.spec for each in options.forwards],
            ["0=localhost:3000", "a=localhost:4000"],
        )
        self.assertEqual(options["grace"], 1)

    def test_connect(self) -> None:
        """Servers over TCP, TLS and UNIX sockets, with IPv6 addresses too."""
        for text, host in (
            ("tcp:server.example:9000", "server.example"),
            (r"tcp:\:\:1:9000", "::1"),
            ("tcp:[::1]:9000", "::1"),
            ("tcp:::1:9000", "::1"),
            ("tcp://server.example:9000", "server.example"),
            ("TLS://Server.Example:9000/", "server.example"),
            ("tls:BÜCHER.test:9000", "xn--bcher-kva.test"),
            (" ws://a_b--c.test. ", "a_b--c.test."),
            ("tcp:host=server.example:port=9000", "server.example"),
            ("tls:server.example:9000", "server.example"),
            ("tls:host=server.example:port=9000", "server.example"),
            ("unix:/run/tunnel.sock", ""),
        ):
            self.assertEqual(self.parse("--connect", text).server.host, host, text)

    def test_wrongConnect(self) -> None:
        """A mistyped server is refused."""
        for line, *words in (
            ("", "which server?", "--connect HOST"),
            ("--connect ssl:h:1", "does not verify", "tls:HOST:PORT"),
            ("--connect tcp:h:99999", "'99999' is not a port"),
            ("--connect tcp:h:0", "'0' is not a port"),
            ("--connect tcp:h:x", "'x' is not a port"),
            ("--connect tcp:h", "the port is missing"),
            ("--connect tcp::9000", "the host is missing"),
            ("--connect tcp", "the host is missing"),
            ("--connect tpc:h:9000", "unknown type 'tpc'; did you mean tcp?"),
            ("--connect htps://h", "unknown type 'htps'; did you mean https?"),
            ("--connect ssl:h:1", "ssl: does not verify", "tls:"),
            ("--connect 9000", "the host is missing: HOST:9000"),
            ("--connect :9000", "the host is missing"),
            ("--connect h:", "the port is missing"),
            ("--connect h:http", "'http' is not a port"),
            ("--connect h/tunnel", "is not a host"),
            ("--connect unix:", "the path is missing"),
            ("--connect tcp:h:1:frob=2", "it has no frob="),
            ("--connect tls:h", "the port is missing"),
            ("--connect tls:h:1:2", "too many parts"),
            ("--connect tls:h:70000", "not a port"),
            ("--connect tls:h:1:frob=2", "it has no frob="),
            ("--connect tls:h:1:timeout=x", "'x' is not a number"),
            ("--connect tcp://h", "the port is missing"),
            ("--connect tcp://h:1/path", "'1/path' is not a port"),
            ("--connect tcp:/h:1", "write tcp:HOST:PORT"),
            (r"--connect tcp:\\h:1", "is not a host"),
            ("--connect https://", "the host is missing"),
            ("--connect wss//h", "is not a host", "https://HOST"),
            ("--connect ws:/h", "the host is missing"),
            ("--connect ws://h:0/", "'0' is not a port"),
            ("--connect ws://h:x/", "'x' is not a port"),
            ("--connect ws://a/b#c", "follows '#'"),
            ("--connect tcp:h:1 --proxy http://a..b:1", "is not a host"),
        ):
            self.wrong(line, *words)

    def test_trust(self) -> None:
        """Who is trusted: one certificate, some authorities, or anybody."""
        ca = makeAuthority().write(self.directory / "ca.pem")
        tls = "--connect tls:h:1"
        self.parse(*f"{tls} --pin {_PIN}".split())
        self.parse(*f"{tls} --pin SHA256:{_PIN} --pin {_PIN}".split())
        self.parse(*f"{tls} --ca {ca}".split())
        self.parse(*f"{tls} --insecure".split())
        self.wrong(f"{tls} --pin zz", "--pin", "64 hexadecimal digits")
        self.wrong(f"{tls} --ca /nonexistent", "/nonexistent")
        noise = self.write("noise.pem", b"?")
        self.wrong(f"{tls} --ca {noise}", "noise.pem")
        self.wrong(f"{tls} --insecure --ca {ca}", "--insecure")
        self.wrong(f"{tls} --insecure --pin {_PIN}", "--insecure")
        for option in (f"--pin {_PIN}", f"--ca {ca}", "--insecure"):
            self.wrong(f"--connect tcp:h:1 {option}", "need TLS", "tls:HOST:PORT")

    def test_forwards(self) -> None:
        """Services, by port, by name, or on any port."""
        specs = [
            "8080=localhost:3000",
            "0=[::1]:3000",
            "=localhost:3001",
            "db=unix:/run/db.sock",
            "8443=tls:backend.example:443",
            "9090=tcp:10.0.0.1:90:timeout=3",
            " 8081 = tcp://[::1]:80",
            "8082=My_DB--1.xn--ls8ha:80",
            "8083=tls:[::1]:80",
        ]
        words = [word for spec in specs for word in ("--forward", spec)]
        options = self.parse("--connect", "tcp:h:1", *words)
        self.assertEqual(
            [(each.port, each.name, each.target) for each in options.forwards],
            [
                (8080, "", "localhost:3000"),
                (0, "", "[::1]:3000"),
                (0, "", "localhost:3001"),
                (0, "db", "unix:/run/db.sock"),
                (8443, "", "tls:backend.example:443"),
                (9090, "", "tcp:10.0.0.1:90:timeout=3"),
                (8081, "", "tcp://[::1]:80"),
                (8082, "", "My_DB--1.xn--ls8ha:80"),
                (8083, "", "tls:[::1]:80"),
            ],
        )

    def test_udpForward(self) -> None:
        """A UDP service is offered, also for a tunnel that is given by its URI."""
        for line in (
            "--connect tcp:h:9000 --forward udp/5353=localhost:53",
            "--tunnel w3p://h:9000/id#secret --to udp:localhost:53",
        ):
            (forward,) = self.parse(*line.split()).forwards
            self.assertTrue(forward.isUDP)
            self.assertEqual(forward.target, "udp:localhost:53")

    def test_shortForwards(self) -> None:
        """The forms that everybody means are what they are in full."""
        for spec, full in (
            ("3000", "0=localhost:3000"),
            (":3000", "0=localhost:3000"),
            ("localhost:3000", "0=localhost:3000"),
            ("[::1]:3000", "0=[::1]:3000"),
            ("8081=3000", "8081=localhost:3000"),
            ("blog=3000", "blog=localhost:3000"),
            ("8081:3000", "8081=localhost:3000"),
            ("8081:localhost:3000", "8081=localhost:3000"),
            ("8081:127.0.0.1:3000", "8081=127.0.0.1:3000"),
            ("8081:[::1]:3000", "8081=[::1]:3000"),
            (":8081=localhost:3000", "8081=localhost:3000"),
            ("http://localhost:3000", "0=http://localhost:3000"),
            ("http://localhost:3000/", "0=http://localhost:3000"),
            ("http://localhost", "0=http://localhost:80"),
            ("8081=http://localhost:3000", "8081=http://localhost:3000"),
            ("blog=https://[::1]", "blog=https://[::1]:443"),
            ("unix:/run/app.sock", "0=unix:/run/app.sock"),
            ("udp/53", "udp/0=localhost:53"),
            ("53/udp", "udp/0=localhost:53"),
            ("udp:53", "udp/0=localhost:53"),
            ("udp:localhost:53", "udp/0=localhost:53"),
            ("udp/5353=53", "udp/5353=localhost:53"),
            ("5353:53/udp", "udp/5353=localhost:53"),
        ):
            options = self.parse("--connect", "h", "--forward", spec)
            self.assertEqual([each.spec for each in options.forwards], [full], spec)
            # What is written in full is written so again.
            (again,) = self.parse("--connect", "h", "--forward", full).forwards
            self.assertTrue(again.isLike(options.forwards[0]), spec)

    def test_web(self) -> None:
        """The address of what is said to be HTTP is one for browsers."""
        for spec, address, shown in (
            ("http://h:1", "tcp://s:40123", "http://s:40123"),
            ("http://h:1", "tcp://s:80", "http://s"),
            ("http://h:1", "tls://s:40123", "https://s:40123"),
            ("http://h:1", "tls://[::1]:443", "https://[::1]"),
            ("https://h:1", "tcp://s:40123", "https://s:40123"),
            ("http://h:1", "", ""),
            ("http://h:1", "http://s/x", "http://s/x"),
            ("h:1", "tcp://s:80", "tcp://s:80"),
        ):
            (forward,) = self.parse("--connect", "h", "--forward", spec).forwards
            self.assertEqual(forward.addressFor(address), shown)

    def test_shortServers(self) -> None:
        """A bare host is one with TLS; who wants none says so."""
        for text, where in (
            ("h", "tls:h:9000"),
            ("h:1", "tls:h:1"),
            ("[::1]:9000", "tls:[::1]:9000"),
            ("[::1]", "tls:[::1]:9000"),
            ("::1", "tls:[::1]:9000"),
            ("127.0.0.1:9000", "tls:127.0.0.1:9000"),
            ("https://h", "wss://h/tunnel"),
            ("https://h:8443/", "wss://h:8443/tunnel"),
            ("https://h/other", "wss://h/other"),
            ("HTTPS://h?a=b", "wss://h/tunnel"),
            ("http://h", "ws://h/tunnel"),
            ("http:h:8080", "ws://h:8080/tunnel"),
            ("wss://h", "wss://h/"),
            ("tcp:h:1", "tcp:h:1"),
        ):
            server = self.parse("--connect", text).server
            self.assertEqual(server.where, where, text)
            secure = where.startswith(("tls:", "wss:"))
            self.assertEqual(server.verification is not None, secure, text)

    def test_wrongForwards(self) -> None:
        """A mistyped service is refused."""
        for spec, *words in (
            ("x", "names no service", "PORT=HOST:PORT"),
            ("localhost", "names no service"),
            ("localhost:", "names no service"),
            ("70000=h:1", "70000 is not a port"),
            ("70000", "'70000' is not a port"),
            ("1=", "names no service"),
            ("ftp://h:1", "unknown type 'ftp'"),
            ("udp/http://h:1", "http does not go over UDP"),
            ("http://h:1/path", "leads to a whole server; write http://h:1"),
            ("1=h", "'h' is not a valid target", "HOST:PORT"),
            ("1=h:0", "not a valid target"),
            ("1=ssl:h:1", "does not verify", "tls:"),
            ("1=tcp:h", "the port is missing"),
            ("1=tcp:h:99999", "not a port"),
            ("1=tls:h:x", "'x' is not a port"),
            ("1=unix:", "the path is missing"),
            ("1=bogus:h:80", "unknown type 'bogus'"),
            ("1=h:80/", "'80/' is not a port"),
            ("1=tls:h:1:trustRoots=/none", "/none"),
            ("127.0.0.1:80=h:1", "an address before its port", "write 80=h:1"),
            ("[::]:80=h:1", "an address before its port", "write 80=h:1"),
            ("udp/::1:53=h:1", "an address before its port", "write 53=h:1"),
            ("0.0.0.0:80:h:1", "an address before its port", "write 80=h:1"),
            ("a/b=h:1", "in front of a slash"),
            ("x" * 65 + "=h:1", "a name has"),
            ("8=h:1-2", "several tunnels cannot all be '8'"),
            ("db=h:1-2", "several tunnels cannot all be 'db'"),
            ("6000-6001=h:1", "the target has to have as many"),
            ("6000-6002=h:1-2", "3 ports, and 1-2 are 2"),
            ("20-10", "is no range of ports"),
            ("1-1001=h:1-1001", "more than 1000 ports"),
        ):
            message = self.wrong(f"--connect tcp:h:1 --forward {spec}", *words)
            self.assertIn("--forward", message)
        twice = "--connect tcp:h:1 --forward 1=h:1 --forward 1=h:"
        self.wrong(f"{twice}1", "given twice")
        self.wrong(f"{twice}2", "port 1")
        self.wrong("--connect tcp:h:1 --forward a=h:1 --forward a=h:2", "ask for a")
        self.parse(
            *["--connect", "tcp:h:1", "--forward", "0=h:1", "--forward", "0=h:2"]
        )

    def test_ranges(self) -> None:
        """A range of ports is a forward for each."""
        for spec, first, last in (
            ("6000-6010=h:7000-7010,proxy=v1", "6000=h:7000,proxy=v1", 6010),
            ("6000-6001:h:7000-7001", "6000=h:7000", 6001),
            ("udp/6000-6001=h:53-54", "udp/6000=h:53", 6001),
            ("6000-6001=h:53-54/udp", "6000=h:53/udp", 6001),
            ("7-9=tls:h:1-3", "7=tls:h:1", 9),
            ("h:7000-7001", "0=h:7000", 0),
            ("0=7000-7001", "0=localhost:7000", 0),
        ):
            forwards = self.parse("--connect", "h", "--forward", spec).forwards
            self.assertEqual(forwards[0].spec, first)
            self.assertEqual(forwards[-1].port, last)
            if last:
                self.assertEqual(len(forwards), last - forwards[0].port + 1)
        for spec in ("a-1-2=h:3", "0=unix:/run/1-2", "1=10-20:80"):
            (forward,) = self.parse("--connect", "h", "--forward", spec).forwards
            self.assertEqual(forward.spec, spec)

    def test_credentials(self) -> None:
        """Credentials come from the environment or a file, and from the command line on
        top."""
        connect = ("--connect", "tcp:h:1")
        path = self.write("me.json", b'{"id": "file", "n": 1}')
        fromFile = self.parse(*connect, "--credentials-file", str(path))
        self.assertEqual(fromFile["credentials"], {"id": "file", "n": 1})
        with patch.dict(os.environ, {"TRISTUNNEL_CREDENTIALS": '{"id": "env"}'}):
            fromEnvironment = self.parse(*connect)
            both = self.parse(
                *connect, "--credentials", "id=me", "--credentials", "a=="
            )
        self.assertEqual(fromEnvironment["credentials"], {"id": "env"})
        self.assertEqual(both["credentials"], {"id": "me", "a": "="})

    def test_wrongCredentials(self) -> None:
        """Credentials that are none are refused, without showing them."""
        connect = "--connect tcp:h:1"
        self.wrong(f"{connect} --credentials hunter2", "KEY=VALUE")
        self.wrong(f"{connect} --credentials =x", "KEY=VALUE")
        self.wrong(
            f"{connect} --credentials-file /nonexistent", "/nonexistent", "No such file"
        )
        self.wrong(f"{connect} --credentials-file {self.directory}", "cannot be read")
        for content in (b"hunter2", b'["hunter2"]', b'"hunter2"', b"[" * 50_000, b""):
            path = self.write("me.json", content)
            message = self.wrong(f"{connect} --credentials-file {path}", "JSON object")
            self.assertNotIn("hunter2", message)
        path = self.write("me.json", b'\xff"hunter2"')
        self.wrong(f"{connect} --credentials-file {path}", "UTF-8")
        for text in ("hunter2", json.dumps(["hunter2"]), "null"):
            with patch.dict(os.environ, {"TRISTUNNEL_CREDENTIALS": text}):
                message = self.wrong(connect, "TRISTUNNEL_CREDENTIALS", "JSON object")
            self.assertNotIn("hunter2", message)

    def test_seconds(self) -> None:
        """The grace is a number of seconds."""
        for wrong in ("-1", "nan"):
            self.wrong(f"--connect tcp:h:1 --grace {wrong}", "--grace takes seconds")
