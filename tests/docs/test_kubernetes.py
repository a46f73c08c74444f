"""The manifests for Kubernetes: the programs take what they are given there."""

from __future__ import annotations

import re
from pathlib import Path

from tests.tls.authority import makeAuthority
from tests.tls.files import FileTestCase
from tristunnel.cli.main import parser
from tristunnel.cli.server import Options
from tristunnel.util.process import FAREWELL

_FILE = Path(__file__).resolve().parents[2] / "contrib" / "kubernetes.yaml"


class ManifestTests(FileTestCase):
    """C{contrib/kubernetes.yaml}."""

    if not _FILE.is_file():
        skip = "the manifests are not installed"

    def setUp(self) -> None:
        super().setUp()
        self.text = _FILE.read_text()

    def test_server(self) -> None:
        """The server's options are right, with the files that pods have."""
        pem, key = makeAuthority().issue(["tunnel.example"])
        self.write("tokens", b"")
        paths = {
            "/etc/tristunnel-tls/tls.key": self.write("tls.key", key),
            "/etc/tristunnel-tls/tls.crt": self.write("tls.crt", pem),
            "/etc/tristunnel/member": self.write("member", b"of 16 characters"),
            "/var/lib/tristunnel": self.directory,
            "$(POD_IP)": "192.0.2.1",
            "$(REDIS_PASSWORD)": "secret",
        }
        words = re.findall(r"^ +- (--\S+)$", self.text, re.MULTILINE)
        for old, new in paths.items():
            words = [word.replace(old, str(new)) for word in words]
        options = Options()
        options.parseOptions([*words, "--state-dir", str(self.directory)])
        assert options.cluster is not None
        self.assertEqual(options.cluster.advertise, "tcp:192.0.2.1:9001")
        ports = re.findall(r"name: visitors-\d, port: (\d+)", self.text)
        low, high = int(ports[0]), int(ports[-1])
        self.assertEqual(ports, [str(each) for each in range(low, high + 1)])
        self.assertIn(f"--ports={low}-{high}", words)

    def test_drain(self) -> None:
        """Before a pod is stopped it is drained, and it has the time for that."""
        (command,) = re.findall(
            r"command: \[tristunnel, (cluster[^\]]*)\]", self.text, re.DOTALL
        )
        words = [word.strip().strip('"') for word in command.split(",")]
        drain = parser().parse_args(words)
        self.assertEqual((drain.member, drain.wait), ("self", 600.0))
        (period,) = re.findall(r"terminationGracePeriodSeconds: (\d+)", self.text)
        (grace,) = re.findall(r"--grace=(\d+)", self.text)
        self.assertLess(drain.wait + int(grace) + FAREWELL, int(period))
