"""Opt-in tests against the programs whose protocols tristunnel speaks."""
