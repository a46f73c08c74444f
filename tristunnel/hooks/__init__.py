"""Telling other programs what happens: C{--on-event}."""
