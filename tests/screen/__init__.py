"""Tests for L{tristunnel.screen}."""
