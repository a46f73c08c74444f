"""Tests for L{tristunnel.auth}."""
