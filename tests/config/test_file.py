"""Reading a configuration file, L{tristunnel.config.file}."""

from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.tls.files import FileTestCase
from tristunnel.config.file import MAX_FILE_SIZE, parseConfig, readConfig
from tristunnel.errors import TunnelError


class ReadTests(FileTestCase):
    """Files that are right, and others."""

    def wrong(self, data: bytes) -> str:
        path = self.write("t.toml", data)
        error = self.assertRaises(TunnelError, readConfig, str(path))
        self.assertEqual(error.code.name, "bad-option")
        self.assertNotIn("\n", error.message)
        return str(error.message.removeprefix(str(path)))

    def test_read(self) -> None:
        """What it says, and where."""
        path = self.write("t.toml", b"a = 1\n[b]\nc = 2\n")
        path.chmod(0o600)
        file = readConfig(str(path))
        self.assertEqual(file.table, {"a": 1, "b": {"c": 2}})
        self.assertEqual(file.placeOf(("b", "c")), f"{path}:3")
        self.assertEqual(file.placeOf(("b", "c", 9)), f"{path}:3")
        self.assertTrue(file.private)
        path.chmod(0o640)
        self.assertFalse(readConfig(str(path)).private)
        marked = self.write("marked.toml", b"\xef\xbb\xbfa = 1\n")
        self.assertEqual(readConfig(str(marked)).table, {"a": 1})

    def test_syntax(self) -> None:
        """Mistakes have lines."""
        self.assertTrue(self.wrong(b"a = 1\nb\n").startswith(":2: it is not TOML"))
        self.assertTrue(self.wrong(b"a = 1\nb = [\n\n").startswith(":3: it is not"))
        self.assertTrue(self.wrong(b"a = 1\na = 2").startswith(":2: it is not TOML"))
        self.assertEqual(self.wrong(b"a = 1\n\nb = '\xff'"), ":3: it is not UTF-8")
        self.assertIn("not TOML", self.wrong(b"a = " + b"9" * 10_000))
        deep = b"a = " + b"[" * 50_000 + b"]" * 50_000
        self.assertIn("nested too deeply", self.wrong(deep))

    def test_unreadable(self) -> None:
        """A file that is not there, or none at all, or too large."""
        for path, why in (
            (self.directory / "none", "No such file"),
            (self.directory, "directory"),
            ("/dev/zero", "not a regular file"),
        ):
            error = self.assertRaises(TunnelError, readConfig, str(path))
            self.assertIn(f"--config {path} cannot be read", error.message)
            self.assertIn(why, error.message)
        path = self.write("large", b"#" * (MAX_FILE_SIZE + 1))
        error = self.assertRaises(TunnelError, readConfig, str(path))
        self.assertIn("larger than 1024 KiB", error.message)

    @settings(max_examples=300)
    @given(
        st.one_of(
            st.binary(max_size=200),
            st.text("ab.=[]{}\"'#\n\\1-:, \r\t", max_size=60).map(str.encode),
        )
    )
    @example(b"\r")
    @example(b"a = 1979-05-27 ")
    @example(b"a = [[[[[[[[")
    def test_anything(self, data: bytes) -> None:
        """Any content is read or refused in one line that names one."""
        try:
            file = parseConfig("t.toml", "/t.toml", data)
        except TunnelError as error:
            self.assertRegex(error.message, r"\At\.toml:[0-9]+: it .*\Z")
            self.assertLess(len(error.message), 300)
        else:
            for path, line in file.lines.items():
                self.assertTrue(1 <= line <= data.count(b"\n") + 1, path)
