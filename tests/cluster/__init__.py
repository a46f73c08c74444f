"""Tests for L{tristunnel.cluster}."""
