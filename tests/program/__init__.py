"""Tests of tunnels in a program."""
