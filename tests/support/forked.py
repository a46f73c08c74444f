"""
Stands for a program of Python's that somebody else starts, a shell for example: it has
a L{ForkServer<tests.support.forkserver.ForkServer>} run that, passes signals on, and
ends as it ends. If it is killed, so is the program. ::

    python -I -S forked.py SOCKET -m tristunnel ...
"""

import json
import os
import signal
import socket
import sys

_PASSED = {
    *(signal.SIGTERM, signal.SIGINT, signal.SIGHUP),
    *(signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH),
}

if __name__ == "__main__":
    place, *arguments = sys.argv[1:]
    if not arguments or (
        arguments[0].startswith("-") and arguments[0] not in ("-c", "-m")
    ):
        os.execv(sys.executable, [sys.executable, *arguments])
    server = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    server.connect(place)
    request = {
        "arguments": arguments,
        "environment": dict(os.environ),
        "directory": os.getcwd(),
        "descriptors": [0, 1, 2],
    }
    # A signal must not come before what it is for.
    signal.pthread_sigmask(signal.SIG_BLOCK, _PASSED)
    socket.send_fds(server, [json.dumps(request).encode()], [0, 1, 2])
    for each in _PASSED:
        signal.signal(each, lambda number, frame: server.send(bytes([number])))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _PASSED)
    status = int(server.recv(64))
    if status < 0:
        signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    sys.exit(status)
