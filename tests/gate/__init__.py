"""Tests of L{tristunnel.gate}."""
