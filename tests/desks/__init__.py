"""Tests of the client where POSIX is not."""
