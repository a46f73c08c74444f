"""
Reading and writing TLS records, many in a row.

For each record, pyOpenSSL's C{recv} and C{send} allocate a buffer, copy, and check
whether a callback has raised; together this costs as much as the encryption. Therefore
this module calls OpenSSL's functions in the same way that pyOpenSSL does, and leaves it
to pyOpenSSL to interpret their failures.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from OpenSSL import SSL
from OpenSSL._util import ffi, lib

from tristunnel.dataplane.pieces import RECORD

__all__ = ["MOST_RECORDS", "WANT", "Records"]

MOST_RECORDS = 256
"""The most TLS records that are read from one socket in one turn, so that a peer that
sends one byte in each does not hold up all others. Of large ones, fewer fill a turn."""

WANT = (SSL.WantReadError, SSL.WantWriteError)
"""What OpenSSL meets when it has to wait for the kernel."""

_DRY = SSL.WantReadError()


class Records:
    """
    Reads and writes records. Records are decrypted into one buffer, each behind the
    previous one. The buffer is empty between calls, so a single object serves all
    connections of a reactor.

    @param most: Bytes that can be read at once.
    @param functions: OpenSSL's functions.
    """

    def __init__(self, most: int, functions: Any = lib) -> None:
        self._space = ffi.new("char[]", most + RECORD)
        self._functions = functions

    def read(self, tls: SSL.Connection, most: int) -> tuple[bytes, SSL.Error | None]:
        """
        Read what OpenSSL has.

        @param most: Bytes after which to stop, at most as many as there is room for.
        @return: The bytes, and why no more could be read; C{None} for the reason if
            there may be more.
        """
        ssl, space, size = tls._ssl, self._space, 0
        read = self._functions.SSL_read
        problem: SSL.Error | None = None
        for _ in range(MOST_RECORDS):
            count = read(ssl, space + size, RECORD)
            if count <= 0:
                problem = self._problem(tls, count)
                break
            size += count
            if size >= most:
                break
        return ffi.buffer(space, size)[:], problem

    def send(
        self,
        tls: SSL.Connection,
        piece: bytes | memoryview,
        size: int,
        sent: Callable[[int], None],
    ) -> None:
        """
        Encrypt and send the beginning of a piece.

        @param size: How many bytes of it to send.
        @param sent: Called with how many were sent, even if an exception follows.
        @raise SSL.Error: If not all of them could be sent: C{WantWriteError} if the
            kernel takes no more. The next call must begin with the same bytes.
        """
        ssl, done, count = tls._ssl, 0, 0
        write = self._functions.SSL_write
        with ffi.from_buffer(piece) as start:
            while done < size:
                count = write(ssl, start + done, min(RECORD, size - done))
                if count <= 0:
                    break
                done += count
        sent(done)
        if count <= 0:
            tls._raise_ssl_error(ssl, count)

    def _problem(self, tls: SSL.Connection, result: int) -> SSL.Error:
        """Interpret the result of a function."""
        functions = self._functions
        if functions.SSL_get_error(tls._ssl, result) == functions.SSL_ERROR_WANT_READ:
            return _DRY
        try:
            tls._raise_ssl_error(tls._ssl, result)
        except SSL.Error as problem:
            return problem
        raise AssertionError("OpenSSL has not succeeded, and says it has")
