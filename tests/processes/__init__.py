"""Tests for L{tristunnel.processes}."""
