"""
Fetch a megabyte through an installed server and client.

Starts a service, C{twistd tunnel} and C{twistd tunnel-client}, waits until the
client prints the public address of its tunnel, fetches a body through it,
compares, and checks that both processes end on SIGTERM. Ports are picked by
the system; all files are in a temporary directory.

Usage: smoke.py, with the Python of the environment that holds C{twistd}.
"""

from __future__ import annotations

import hashlib
import http.client
import http.server
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SECONDS = 60.0
"""How long everything may take."""

BODY = os.urandom(1 << 20)

# The log's prefix is there when twistd captures what the client prints.
_ADDRESS = re.compile(
    r"^(?:\S+ \[[^]]*\] )?tcp://(\[[^]]+\]|[^\s:/]+):(\d+)/?\s*$", re.MULTILINE
)


class Failure(Exception):
    """Something did not happen, or not in time."""


class BodyRequest(http.server.BaseHTTPRequestHandler):
    """Answers every GET with L{BODY}."""

    def do_GET(self) -> None:
        """Send the body."""
        self.send_response(200)
        self.send_header("Content-Length", str(len(BODY)))
        self.end_headers()
        self.wfile.write(BODY)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


class Twistd:
    """
    One C{twistd} process, with its log.

    @ivar name: The command, for messages.
    """

    def __init__(self, name: str, directory: Path, *arguments: str) -> None:
        self.name = name
        self._log = directory / f"{name}.log"
        cwd = directory / name
        cwd.mkdir()
        command = [str(Path(sys.executable).with_name("twistd")), "-n", "--pidfile="]
        command += [name, *arguments, "--state-dir", str(directory / f"{name}-state")]
        print("$", " ".join(command), flush=True)
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=cwd,
            )

    def output(self) -> str:
        """
        @return: All that the process has written so far.
        """
        return self._log.read_text(errors="replace")

    def checkAlive(self) -> None:
        """
        @raise Failure: The process has ended.
        """
        status = self.process.poll()
        if status is not None:
            raise Failure(f"{self.name} ended by itself, status {status}")


class Deadline:
    """The end of everybody's patience."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def left(self, what: str) -> float:
        """
        @param what: What is waited for, for the message.

        @return: The seconds that are left, more than 0.

        @raise Failure: None is left.
        """
        left = self._end - time.monotonic()
        if left <= 0:
            raise Failure(f"{what}: not within {SECONDS:.0f} s")
        return left

    def poll(self, what: str, *processes: Twistd) -> Iterator[None]:
        """
        Yield until the caller has what it wants.

        @param what: What is waited for, for the message.
        @param processes: Those who must live meanwhile.

        @raise Failure: No time is left, or one of C{processes} has ended.
        """
        while True:
            self.left(what)
            yield
            for process in processes:
                process.checkAlive()
            time.sleep(0.1)


def freePort() -> int:
    """
    @return: A TCP port of 127.0.0.1 that was free a moment ago.
    """
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port: int = s.getsockname()[1]
        return port


@contextmanager
def service() -> Iterator[int]:
    """
    Run the service meanwhile.

    @return: Its port on 127.0.0.1.
    """
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), BodyRequest)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()


def untilAccepting(port: int, server: Twistd, deadline: Deadline) -> None:
    """
    Wait for the server's port.

    @param port: The port on 127.0.0.1.
    @param server: The process that is to open it.
    @param deadline: The overall limit.
    """
    for _ in deadline.poll(f"the server listens on port {port}", server):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=2).close()
        except OSError:
            continue
        return


def untilAddress(client: Twistd, server: Twistd, deadline: Deadline) -> tuple[str, int]:
    """
    Wait for the line with the tunnel's address.

    @param client: The process that prints it.
    @param server: The process that must live meanwhile.
    @param deadline: The overall limit.

    @return: Host and port.
    """
    what = "the client prints a line tcp://HOST:PORT"
    for _ in deadline.poll(what, client, server):
        found = _ADDRESS.search(client.output())
        if found:
            return found[1].strip("[]"), int(found[2])
    raise AssertionError("not reached")


def fetch(host: str, port: int, deadline: Deadline) -> None:
    """
    Get the body as a visitor does.

    @param host: The host of the tunnel's address.
    @param port: Its port.
    @param deadline: The overall limit.

    @raise Failure: It did not come, or is not the same.
    """
    what = f"a body through tcp://{host}:{port}"
    connection = http.client.HTTPConnection(host, port, timeout=deadline.left(what))
    try:
        connection.request("GET", "/")
        response = connection.getresponse()
        body = response.read()
    except (OSError, http.client.HTTPException) as e:
        raise Failure(f"{what}: {e!r}") from e
    finally:
        connection.close()
    got, sent = (hashlib.sha256(data).hexdigest() for data in (body, BODY))
    if response.status != 200 or got != sent:
        raise Failure(
            f"{what}: status {response.status}, {len(body)} of {len(BODY)} bytes, "
            f"sha256 {got}, sent was {sent}"
        )
    print(f"{what}: {len(body)} bytes, sha256 {got}")


def untilEnded(processes: list[Twistd], deadline: Deadline) -> None:
    """
    Ask the processes to end, and see them do it.

    @param processes: All of them are asked before any is waited for.
    @param deadline: The overall limit.

    @raise Failure: One stays, or ends otherwise than by the signal or with 0,
        or its log holds a traceback.
    """
    for process in processes:
        process.checkAlive()
        process.process.send_signal(signal.SIGTERM)
    for process in processes:
        what = f"{process.name} ends after SIGTERM"
        try:
            status = process.process.wait(deadline.left(what))
        except subprocess.TimeoutExpired:
            raise Failure(f"{what}: not within {SECONDS:.0f} s") from None
        # twistd repeats the signal to itself when it is done.
        if status not in (0, -signal.SIGTERM):
            raise Failure(f"{what}: status {status}")
        if "Traceback (most recent call last)" in process.output():
            raise Failure(f"{process.name} logged a traceback")
        print(f"{what}: status {status}")


def run(directory: Path, processes: list[Twistd]) -> None:
    """
    Do it all once.

    @param directory: An empty directory.
    @param processes: Where every process is noted as soon as it runs.

    @raise Failure: Something went wrong.
    """
    deadline = Deadline(SECONDS)
    with service() as servicePort:
        port = freePort()
        where = ("--interface", "127.0.0.1", "--hostname", "127.0.0.1")
        server = Twistd("tunnel", directory, "--port", f"tcp:{port}", *where)
        processes.append(server)
        untilAccepting(port, server, deadline)
        client = Twistd(
            "tunnel-client",
            directory,
            "--connect",
            f"tcp:127.0.0.1:{port}",
            "--forward",
            f"0=127.0.0.1:{servicePort}",
        )
        processes.append(client)
        fetch(*untilAddress(client, server, deadline), deadline)
        untilEnded([client, server], deadline)


def main() -> int:
    """
    Do it in a temporary directory, and show the logs when it fails.

    @return: The exit status.
    """
    processes: list[Twistd] = []
    with tempfile.TemporaryDirectory(prefix="tristunnel-smoke.") as name:
        try:
            run(Path(name), processes)
        except Failure as e:
            for process in processes:
                print(f"--- log of {process.name}")
                print(process.output())
            print(f"smoke failed: {e}")
            return 1
        finally:
            for process in processes:
                if process.process.poll() is None:
                    process.process.kill()
                    process.process.wait()
    print("smoke passed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
