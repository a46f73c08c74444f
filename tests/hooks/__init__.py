"""Tests of C{--on-event}."""
