"""Tests of L{tristunnel.config}."""
