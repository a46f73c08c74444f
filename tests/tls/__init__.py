"""Tests for L{tristunnel.tls}."""
